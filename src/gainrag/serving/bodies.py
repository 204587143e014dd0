"""Reading bodies within bounds: of one request, and of all requests together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from gainrag.serving.refusals import Refused

# A body that is too large is read to its end and forgotten, up to this, so that its sender sees the answer and not a
# broken connection.
_FORGOTTEN = 64 << 20


class Bodies:
    """The bodies of the requests that are being served.

    Args:
        largest: bytes of one body.
        together: bytes of all bodies that are held at a time.
        within: seconds in which a body must have come.
    """

    def __init__(self, *, largest: int, together: int, within: float) -> None:
        self.largest, self.together, self.within = largest, together, within
        self.held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, which counts as held until the request is done.

        Raises:
            Refused: 408, 413, or 429 where all requests together hold too much.
        """
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self.within):
                    await self._collect(request, body)
            except TimeoutError:
                what = f"the body did not come within {self.within:g} s"
                raise Refused(408, what, hint="send it at once") from None
            except ClientDisconnect:
                raise Refused(499, "the client went away") from None
            yield bytes(body)
        finally:
            self.held -= len(body)

    async def _collect(self, request: Request, body: bytearray) -> None:
        declared = request.headers.get("content-length", "")
        length = int(declared) if declared.isdecimal() else 0
        if length > _FORGOTTEN:
            raise self._too_large()
        forgotten = 0
        async for chunk in request.stream():
            if forgotten or len(body) + len(chunk) > self.largest or length > self.largest:
                forgotten += len(chunk)
                if forgotten > _FORGOTTEN:
                    break
            elif self.held + len(chunk) > self.together:
                what = f"requests that are being served hold {self.held >> 20} MiB"
                raise Refused(429, what, hint="come back in 1 s", retry_after=1)
            else:
                body += chunk
                self.held += len(chunk)
        if forgotten:
            raise self._too_large()

    def _too_large(self) -> Refused:
        what = f"the body has more than {self.largest} bytes"
        return Refused(413, what, hint="send fewer documents, or in several requests")
