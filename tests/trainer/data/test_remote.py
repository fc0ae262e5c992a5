"""Training data behind URLs: in moto's S3 server, on a web server, and on one that misbehaves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
import torch
from obstore.store import from_url

from store.errors import JoinError, RelabelError, ShardError, StoreReadError
from store.reader import LabelStore
from store.shards.remote import RemoteShard
from tests.builders.servers import web_server
from tests.builders.training import Dataset, assert_same, make_dataset, small_settings, write_shard
from tests.builders.unruly_server import Unruly, UnrulyServer, unruly_server
from trainer.batch import Batch
from trainer.data.batches import SampleStream, load_batches, make_order
from trainer.data.checks import check_join
from trainer.data.join import join_shards

# On a machine of two cores torch advises against three workers, as a warning.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def load(data: Dataset, base: str, **changes: Any) -> Iterator[Batch]:
    """The batches of a dataset whose shards and labels lie below a URL."""
    settings = small_settings(epochs=1, **changes)
    shards = [RemoteShard(f"{base}/{shard.name}") for shard in data.shards]
    joined = join_shards(shards, LabelStore.open(f"{base}/labels"))
    table = check_join(joined, settings, num_classes=5)
    stream = SampleStream(joined, table, make_order(joined, settings), settings, start_step=0)
    return load_batches(stream, torch.device("cpu"))


def local(data: Dataset) -> Iterator[Batch]:
    settings = small_settings(epochs=1)
    joined = join_shards(data.shards, LabelStore.open(data.labels))
    table = check_join(joined, settings, num_classes=5)
    return load_batches(
        SampleStream(joined, table, make_order(joined, settings), settings, start_step=0), torch.device("cpu")
    )


def files_of(data: Dataset) -> dict[str, bytes]:
    """All objects of shards and labels, by path."""
    folder = data.labels.parent
    files = [*data.shards, *(path for path in data.labels.rglob("*") if path.is_file())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def bucket(s3_store: str, dataset: Dataset) -> str:
    store = from_url(s3_store, client_options={"allow_http": True})
    for path, content in files_of(dataset).items():
        obstore.put(store, path, content)
    return s3_store


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_from_a_bucket_are_those_from_a_disk(dataset: Dataset, bucket: str, workers: int) -> None:
    for ours, theirs in zip(load(dataset, bucket, workers=workers), local(dataset), strict=True):
        assert_same(ours, theirs)


def test_batches_from_a_web_server_are_those_from_a_disk(dataset: Dataset) -> None:
    with web_server(dataset.labels.parent) as url:
        for ours, theirs in zip(load(dataset, url), local(dataset), strict=True):
            assert_same(ours, theirs)


def test_missing_shards_are_named(dataset: Dataset, bucket: str) -> None:
    obstore.delete(from_url(bucket, client_options={"allow_http": True}), "train-1.tar")
    with pytest.raises(JoinError, match=r"s3://.*/train-1\.tar: cannot be read: there is no such object$"):
        load(dataset, bucket)


def test_the_error_for_another_shard_names_the_rows_that_differ(dataset: Dataset, bucket: str, tmp_path: Path) -> None:
    other = write_shard(tmp_path / "train-1.tar", 9, first=1000)
    obstore.put(from_url(bucket, client_options={"allow_http": True}), "train-1.tar", other.read_bytes())
    with pytest.raises(JoinError, match=r"s3://.*/train-1\.tar: differs from its labels .*labels/train-1 in 1 of 10"):
        load(dataset, bucket)


# A server that misbehaves.


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.storage.fetch.PAUSE", 0.0)
    monkeypatch.setattr("store.storage.fetch.SILENCE", timedelta(seconds=0.3))
    monkeypatch.setattr("store.storage.bucket.RETRIES", {"max_retries": 0})


@pytest.fixture
def server() -> Iterator[UnrulyServer]:
    with unruly_server() as serving:
        yield serving


@pytest.fixture
def served(server: UnrulyServer, dataset: Dataset) -> str:
    """Where the server has the dataset, each object well-behaved."""
    for path, content in files_of(dataset).items():
        server.objects[f"/data/{path}"] = Unruly(content)
    return f"http://127.0.0.1:{server.server_port}/data"


def test_opening_asks_for_size_and_two_members_of_a_shard_alone(
    dataset: Dataset, server: UnrulyServer, served: str
) -> None:
    load(dataset, served)
    seen = [server.objects[f"/data/{shard.name}"].seen for shard in dataset.shards]
    assert [[request.split()[0] for request in requests] for requests in seen] == [["HEAD", "GET", "GET"]] * 3
    assert all("bytes=" in request for requests in seen for request in requests[1:])


MISCHIEF: dict[str, Callable[[Unruly], None]] = {
    "busy": lambda unruly: setattr(unruly, "busy", 4),
    "cuts": lambda unruly: setattr(unruly, "next_cut", iter([1, None, 5, 0])),
    "silence": lambda unruly: setattr(unruly, "next_stall", iter([1])),
    "parts without a version": lambda unruly: setattr(unruly, "bare_parts", True),
}


@pytest.mark.parametrize("mischief", MISCHIEF)
def test_mischief_that_passes_is_overcome(dataset: Dataset, server: UnrulyServer, served: str, mischief: str) -> None:
    batches = load(dataset, served)
    for shard in dataset.shards:
        MISCHIEF[mischief](server.objects[f"/data/{shard.name}"])
    for ours, theirs in zip(batches, local(dataset), strict=True):
        assert_same(ours, theirs)


LASTING: dict[str, tuple[Callable[[Unruly], None], str]] = {
    "busy": (lambda unruly: setattr(unruly, "busy", 10_000), "503.*attempt 5 of 5"),
    "cuts": (lambda unruly: setattr(unruly, "next_cut", iter([0] * 10_000)), "attempt 5 of 5"),
    "silence": (lambda unruly: setattr(unruly, "next_stall", iter([0] * 10_000)), "attempt 5 of 5"),
    "no ranges": (lambda unruly: setattr(unruly, "ranges", False), "cannot be read"),
    "other ranges": (lambda unruly: setattr(unruly, "shift", 512), "cannot be read"),
    "refusal": (lambda unruly: setattr(unruly, "refused", 403), "403"),
    "gone": (lambda unruly: setattr(unruly, "refused", 404), "there is no such object"),
    "shorter": (lambda unruly: setattr(unruly, "data", unruly.data[:600]), "no image of that size"),
}


@pytest.mark.parametrize("mischief", LASTING)
def test_mischief_that_lasts_is_one_line_about_the_shard(
    dataset: Dataset, server: UnrulyServer, served: str, mischief: str
) -> None:
    batches = load(dataset, served)
    change, message = LASTING[mischief]
    change(server.objects["/data/train-0.tar"])
    with pytest.raises(ShardError, match=rf"^{served}/train-0\.tar: .*({message})") as info:
        list(batches)
    assert "\n" not in str(info.value)


def test_labels_that_become_unreadable_are_a_one_line_error(
    dataset: Dataset, server: UnrulyServer, served: str
) -> None:
    batches = load(dataset, served)
    for path, unruly in server.objects.items():
        if "/scores/" in path:
            unruly.refused = 500
    with pytest.raises(StoreReadError, match=rf"^{served}/labels/train-\d/scores.*: cannot be read: ") as info:
        list(batches)
    assert "\n" not in str(info.value)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_dies_ends_the_run_with_one_line(tmp_path: Path, workers: int) -> None:
    """Workers wait between their attempts as long as they do in earnest."""
    data = make_dataset(tmp_path, (300,))
    with ExitStack() as serving:
        url = serving.enter_context(web_server(tmp_path))
        batches = load(data, url, workers=workers)
        next(batches)
        serving.close()
        with pytest.raises(RelabelError, match="cannot be read") as info:
            list(batches)
    assert "\n" not in str(info.value)
