"""Without a network, weights that were downloaded before are loaded, and others are an error at once."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

from annotator.teacher import hub
from annotator.teacher.build import build_timm
from store.errors import TeacherError
from tests.builders.teachers import save_weights

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.1)
        yield server


def connections(server: socket.socket) -> int:
    """How often a server was asked."""
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def test_hub_that_never_answers_is_asked_once(silent_hub: socket.socket) -> None:
    with pytest.raises(
        TeacherError, match=r"could not be downloaded \(http://127.* does not answer: .*\); check the n"
    ):
        build_timm(NAME, {}, None, None)
    assert connections(silent_hub) == 1
    assert constants.HF_HUB_OFFLINE is False


def test_weights_downloaded_before_need_no_hub(
    silent_hub: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / f"models--timm--{NAME}"
    for folder in ("refs", "snapshots/" + 40 * "a"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs/main").write_text(40 * "a")
    file = save_weights(repository / "snapshots" / (40 * "a") / "model.safetensors", num_classes=1000)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    network = build_timm(NAME, {}, None, None).network
    assert torch.equal(network.state_dict()["fc.bias"], load_file(file)["fc.bias"])
    assert connections(silent_hub) == 1


def test_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nlong traceback")

    monkeypatch.setattr("annotator.teacher.build.hub_problem", lambda: None)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(TeacherError, match=r"could not be downloaded \(no route to host\); check the network, or pass"):
        build_timm("resnet18.a1_in1k", {}, None, None)
