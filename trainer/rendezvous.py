"""How the ranks of one attempt find each other.

The store that torchrun's agent serves outlives a restart. Addresses of dead processes, which an earlier attempt's
ranks have stored there, would be used by this attempt (pytorch issues 135712 and 167288). Therefore rank 0 serves a
store of its own, and the agent's store only says where. TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 has the same effect, but
torchrun reads it before it starts this process, so every user would have to set it.
"""

import os
import secrets
import time
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

JOINING = timedelta(minutes=5)  # for the ranks to find each other
RENDEZVOUS = "relabel/rank0"  # key in the agent's store


def rendezvous() -> dict[str, Any]:
    """Arguments for `init_process_group`; empty if no agent serves a store.

    Raises:
        torch.distributed.DistError: the ranks did not find each other in time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    rank, world, host = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["MASTER_ADDR"]
    agents = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False)
    store = _serve(agents, host) if rank == 0 else _find(agents, host)
    return {"store": store, "rank": rank, "world_size": world}


def _serve(agents: TCPStore, host: str) -> TCPStore:
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
    token = secrets.token_hex(8)
    store.set(token, "")
    agents.set(RENDEZVOUS, f"{store.port} {token}")
    return store


def _find(agents: TCPStore, host: str) -> TCPStore:
    """The store of this attempt's rank 0; an earlier attempt's store has ended, or lacks the token."""
    deadline = time.monotonic() + JOINING.total_seconds()
    while True:
        port, token = agents.get(RENDEZVOUS).decode().split()
        try:
            store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=2))
            store.wait([token], timedelta(seconds=2))
        except DistError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            store.set_timeout(JOINING)
            return store
