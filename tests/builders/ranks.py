"""Run a function on several real processes that agree over gloo."""

import os
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

from store.errors import RelabelError
from trainer.distributed import Ranks, joined_ranks

Work = Callable[[Ranks], Any]


def on_ranks(world: int, work: Work, folder: Path, *, method: str = "fork") -> list[Any]:
    """The result of `work`, or the error it raised, on each of `world` processes.

    Work with gradients needs `method="spawn"` and a function that can be pickled: torch computes no gradients in a
    fork of a process that has computed some.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = (world, port, work, folder)
    context = start_processes(_rank, arguments, world, join=False, start_method=method)  # type: ignore[no-untyped-call]
    deadline = time.monotonic() + 60
    while not context.join(timeout=1):
        if time.monotonic() > deadline:  # they wait for one another
            for process in context.processes:
                process.kill()
            pytest.fail("the ranks did not come to an end")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, world: int, port: int, work: Work, folder: Path) -> None:
    forkserver._forkserver.__init__()  # type: ignore[misc]  # the server before the fork is not this process's own
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with joined_ranks("cpu") as ranks:
        try:
            result = work(ranks)
        except RelabelError as error:
            result = error
        torch.save(result, folder / f"rank{rank}.pt")
