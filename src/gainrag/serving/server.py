"""Listening: a socket, uvicorn on it, and the patience it lacks."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from gainrag.errors import ResourceError

# Seconds in which a request's first line and headers must have come.
HEADERS = 10.0


class TimedProtocol(H11Protocol):
    """uvicorn's own, but a connection that does not finish a request's headers in time is closed: uvicorn waits for
    them for ever, and a thousand such connections would be all that a server may have."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first headers are awaited."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """No connection: nothing is awaited."""
        self._forget()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Bytes came: with whole headers, a request is there."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._forget()
        elif self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._await_headers()  # the next request of a connection that is kept

    def _await_headers(self) -> None:
        self._late = self.loop.call_later(HEADERS, self._close)

    def _close(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; port 0 is any that is free.

    Raises:
        ResourceError: the address is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # Head and body of a response are two packets, and the second would wait for the first one's receipt: 40 ms.
        # asyncio sees to that only for sockets that name their protocol, which these do not; connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        raise ResourceError(f"cannot listen: {error}", where=f"{host}:{port}", hint="choose another --port") from None


def run(app: FastAPI, listening: socket.socket, *, drain: float, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then no connection is taken any more, and what was begun is finished.

    Args:
        drain: seconds that this may take.
        started: called when requests are served.
    """
    _allow_connections()
    settings: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "lifespan": "on"}
    config = uvicorn.Config(
        app, http=TimedProtocol, ws="none", loop="asyncio", timeout_graceful_shutdown=int(drain), **settings
    )
    server = _Server(config, started)
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()


def _allow_connections() -> None:
    """Raise the number of open connections to what the system allows: many start with 1,024."""
    if sys.platform == "win32":
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if most != resource.RLIM_INFINITY else 65536
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 65536), most))
