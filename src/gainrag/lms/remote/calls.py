"""Many requests to one engine: the only place that sends any.

| what                          | how                                                                               |
|-------------------------------|-----------------------------------------------------------------------------------|
| in flight                     | at most `concurrency`, from all threads together                                  |
| a deadline                    | `timeout` seconds a try, from the connection to the last byte                     |
| a failure that may pass       | tried again `retries` times: exponential backoff with jitter, or Retry-After      |
| one that will not             | ends the batch: what is in flight comes home first, and is kept                   |
| a budget                      | `max_requests` (tries count, too), `max_total_tokens`; nothing is sent beyond it  |
| an answer                     | is read and checked at once; what fits is kept on disk and never asked for again  |

What an answer must look like is for the caller to say: `read` takes decoded JSON and gives what is kept, or raises
`BadAnswer`, which counts as a failure that may pass. It must do so for every way in which an answer can be wrong: a
wrong number of tokens, NaN, another model's name.

The requests run on an event loop in a thread of its own, so that a stage needs not be asynchronous, and several threads
share one limit. This module knows nothing of prompts and engines.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from gainrag.errors import GainragError, ResourceError, require
from gainrag.lms.remote.address import Address
from gainrag.lms.remote.failures import BadAnswer as BadAnswer
from gainrag.lms.remote.failures import EngineError as EngineError
from gainrag.lms.remote.failures import Failure as Failure
from gainrag.lms.remote.failures import check_status as check_status
from gainrag.lms.remote.failures import decode as decode
from gainrag.lms.remote.failures import hint_of
from gainrag.lms.remote.kept import Kept

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

# Waits between tries, in seconds: doubled from the first to the longest, each drawn between half of it and all of it.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# A server that asks for a longer pause has a quota: then it is for a person to decide.
LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class Limits:
    """What may be spent on an engine.

    concurrency: requests in flight.
    timeout: seconds a try may take.
    retries: further tries of a request that failed in a way that may pass.
    max_requests: requests that may be sent, tries included; None is no limit.
    max_total_tokens: tokens that may be read and written.
    """

    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    max_requests: int | None = None
    max_total_tokens: int | None = None


@dataclass(frozen=True)
class Call:
    """One request.

    path: "chat/completions" below the base, or "/tokenize" on the server itself (see `Address.url`).
    body: what is sent as JSON; with the path and `reader` it is the key of the answer.
    reader: names what `read` makes of the answer, with its version: another reading is another key.
    tokens: about how many the engine will read and write, for the budget.
    keep: whether the answer is kept; a probe or a measurement of speed asks anew.
    about: what errors call it, such as the end of its prompt.
    """

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["GET", "POST"] = "POST"
    reader: str = ""
    tokens: int = 0
    keep: bool = True
    about: str = ""


@dataclass
class Spent:
    """What was used so far, by this process."""

    sent: int = 0  # requests, tries included
    reused: int = 0  # answers that were there already
    tokens_read: int = 0  # as the engine counts them
    tokens_written: int = 0
    reserved: int = 0  # tokens of what is in flight
    busy: float = 0.0  # seconds of requests, added up

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_read + self.tokens_written


class Caller:
    """Sends requests to one endpoint.

    Args:
        address: where to.
        limits: what may be spent.
        key: sent as a bearer token; it stands in no error, and in no `repr`.
        kept: where answers are kept; in memory when left out.
        model: what identifies the model, part of every answer's key beside the address (the engine's own report).
    """

    def __init__(
        self,
        address: Address,
        limits: Limits | None = None,
        *,
        key: str | None = None,
        kept: Kept | None = None,
        model: str = "",
    ) -> None:
        self.address, self.limits, self.model = address, limits or Limits(), model
        self.kept = Kept() if kept is None else kept
        self.spent = Spent()
        self.key = key
        self._http: httpx2.AsyncClient | None = None
        self._slots: asyncio.Semaphore | None = None
        self._not_before = 0.0  # by the loop's clock: a server that asks one request to wait asks all
        self._flying: dict[str, asyncio.Event] = {}  # the keys of kept answers that are being asked for

    # --- from any thread ----------------------------------------------------------------------------------------------

    def ask(self, calls: Iterable[Call], read: Callable[[Any], T], send: Sender | None = None) -> list[T]:
        """The answers of all calls, in their order. See `each`."""
        return list(self.each(calls, read, send))

    def each(self, calls: Iterable[Call], read: Callable[[Any], T], send: Sender | None = None) -> Iterator[T]:
        """The answers of calls, in their order, as they come. Calls are taken from the iterable a little ahead only.

        Args:
            read: what to make of a call's decoded JSON: something that JSON can hold (bytes become base64). It runs on
                the event loop: what takes long belongs behind it. Answers from the file are what was kept, as JSON
                reads back.
            send: how to send a call, `post` when left out.

        Raises:
            EngineError: an answer that is no, or tries that all failed.
            ResourceError: the budget is used up, or the disk is full. What came back is kept.
        """
        batch = _Batch(read, send or self.post)
        window: deque[Future[T]] = deque()
        ahead = 4 * self.limits.concurrency
        try:
            for call in calls:
                window.append(asyncio.run_coroutine_threadsafe(self._answer(call, batch), _loop()))
                if len(window) >= ahead:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        except GainragError:
            batch.stopped = True  # nothing new is sent
            wait(window)  # what is in flight is paid for
            raise
        finally:
            batch.stopped = True
            for future in window:
                future.cancel()
            self.kept.sync()

    def key_of(self, call: Call) -> str:
        """What an answer is kept under: all that it depends on."""
        parts = [self.address.base, self.address.name, self.model, call.method, call.path, call.reader]
        text = msgspec.json.encode([*parts, call.body], order="deterministic")
        return hashlib.sha256(text).hexdigest()

    def close(self) -> None:
        """Close connections and the file of answers."""
        if (http := self._http) is not None:
            self._http = None
            asyncio.run_coroutine_threadsafe(http.aclose(), _loop()).result()
        self.kept.close()

    # --- on the event loop --------------------------------------------------------------------------------------------

    async def _answer(self, call: Call, batch: _Batch[T]) -> T:
        """The answer of one call. One that is asked for twice at the same time is sent once."""
        if not call.keep:
            return await self._send(call, batch)
        key = self.key_of(call)
        while (other := self._flying.get(key)) is not None:
            await other.wait()
        if key in self.kept:
            self.spent.reused += 1
            kept: T = self.kept.get(key)
            return kept
        self._flying[key] = asyncio.Event()
        try:
            found = await self._send(call, batch)
            self.kept.put(key, found)
            return found
        finally:
            self._flying.pop(key).set()

    async def _send(self, call: Call, batch: _Batch[T]) -> T:
        """What is read of a call's answer, after as many tries as it takes and may take."""
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.limits.concurrency)
        tries = 0
        async with self._slots:
            while True:
                await self._pause()
                if batch.stopped:
                    raise asyncio.CancelledError
                self._spend(call)
                tries += 1
                begun = time.monotonic()
                try:
                    async with asyncio.timeout(self.limits.timeout):
                        value = await batch.send(call)
                    self._count(value, call)
                    return batch.read(value)
                except TimeoutError:
                    failure = Failure(f"no answer within {self.limits.timeout:g} s")
                except BadAnswer as error:
                    failure = Failure(f"the engine returned {error}")
                except Failure as error:
                    failure = error
                finally:
                    self.spent.reserved -= call.tokens
                    self.spent.busy += time.monotonic() - begun
                if failure.wait is not None and failure.wait > LONGEST_PAUSE:
                    failure.what += f" (it asks for a pause of {failure.wait:,.0f} s)"
                    raise self._error(call, failure, tries)
                if not failure.passing or tries > self.limits.retries:
                    raise self._error(call, failure, tries)
                pause = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)
                if failure.wait is not None:
                    # A little later than asked, and not all at the same moment.
                    self._not_before = max(self._not_before, _loop().time() + failure.wait)
                    pause = failure.wait + random.uniform(0.0, 0.1)
                await asyncio.sleep(pause)

    async def _pause(self) -> None:
        """Wait until the server wants to be asked again."""
        while (left := self._not_before - _loop().time()) > 0:
            await asyncio.sleep(left + random.uniform(0.0, 0.1))

    def _spend(self, call: Call) -> None:
        """Take one request out of the budget.

        Raises:
            ResourceError: it is used up.
        """
        limits, spent = self.limits, self.spent
        tokens = spent.tokens + spent.reserved + call.tokens
        for name, limit, wanted in (
            ("max_requests", limits.max_requests, spent.sent + 1),
            ("max_total_tokens", limits.max_total_tokens, tokens),
        ):
            if limit is not None and wanted > limit:
                hint = "all that came back is kept: raise it and run the same command again"
                raise ResourceError(f"{name} = {limit} is used up", where=str(self.address), hint=hint)
        spent.sent += 1
        spent.reserved += call.tokens

    def _count(self, value: Any, call: Call) -> None:
        """Add the tokens that the engine says it used; where it says nothing those that were expected."""
        usage = value.get("usage") if isinstance(value, dict) else None
        if isinstance(usage, dict):
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self.spent.tokens_read += read if type(read) is int else 0
            self.spent.tokens_written += written if type(written) is int else 0
        else:
            self.spent.tokens_read += call.tokens

    async def post(self, call: Call) -> Any:
        """Send a call, and decode its answer.

        Raises:
            Failure: it failed.
        """
        import httpx2

        try:
            sent = await self.http().request(
                call.method,
                self.address.url(call.path),
                content=msgspec.json.encode(call.body) if call.method == "POST" else None,
                headers={"Content-Type": "application/json"} if call.method == "POST" else None,
            )
        except httpx2.HTTPError as error:
            raise Failure.of_connection(error) from None
        check_status(sent.status_code, sent.headers, sent.content)
        return decode(sent.content)

    def http(self) -> httpx2.AsyncClient:
        """The one client, of the event loop.

        Raises:
            ConfigError: its library is not installed.
        """
        if self._http is None:
            require("remote", "httpx2", "openai")
            import httpx2

            # No time limit of its own: the whole try has one.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.limits.concurrency)
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            # Without TLS there are no certificates to read, which takes longer than many requests.
            tls = self.address.base.lower().startswith("https")
            self._http = httpx2.AsyncClient(timeout=None, limits=limits, headers=headers, verify=tls)
        return self._http

    def _error(self, call: Call, failure: Failure, tries: int) -> EngineError:
        """The one line of a failure that stays."""
        what = self.hide(failure.what) + (f", {tries} times" if tries > 1 else "")
        where = f"{self.address}, {call.about}" if call.about and not failure.passing else str(self.address)
        hint = hint_of(failure, self.address, has_key=bool(self.key))
        return EngineError(what, where=where, hint=hint, status=failure.status)

    def hide(self, text: str) -> str:
        """A text without the key, should a server have repeated it, and without the beginning of one that was cut."""
        for n in range(len(self.key or ""), 5, -1):
            text = text.replace((self.key or "")[:n], "***")
        return text


Sender = Callable[[Call], Awaitable[Any]]


@dataclass
class _Batch(Generic[T]):
    """What the calls of one `each` have in common."""

    read: Callable[[Any], T]
    send: Sender
    stopped: bool = False


_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}
_STARTING = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """The process's event loop for requests, in a thread that ends with the process. After a fork it is another one."""
    with _STARTING:
        if os.getpid() not in _LOOPS:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="gainrag requests", daemon=True).start()
            _LOOPS[os.getpid()] = loop
        return _LOOPS[os.getpid()]
