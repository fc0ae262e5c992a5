import pytest
import torch

from tests.builders.training import Dataset, make_dataset


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Models this small only lose by more, and very much so where tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three labelled shards of 70, 10 and 48 samples; not to be changed."""
    return make_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")
