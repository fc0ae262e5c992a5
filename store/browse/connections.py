"""Connections of `relabel-store browse`: those that wait for their client never keep another client out."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 32  # a browser opens six


class Connection(H11Protocol):
    """A connection that is closed for a new one, if there are too many and it is the one that was silent the longest.

    uvicorn waits without end for the first request of a connection, and for the rest of one that has begun.
    """

    heard = 0.0  # when its client last sent something; the loop's time, seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for a new connection."""
        super().connection_made(transport)
        self.heard = self.loop.time()
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        open_now = [other for other in others if not other.transport.is_closing()]
        if len(open_now) >= CONNECTIONS and (waiting := [other for other in open_now if other.waits_for_client()]):
            min(waiting, key=lambda other: other.heard).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Handle what the client sent."""
        self.heard = self.loop.time()
        super().data_received(data)

    def waits_for_client(self) -> bool:
        """Whether no request is being answered, or its client does not read the answer."""
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused
