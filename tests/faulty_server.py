"""An engine that fails in every way that engines do, by a plan that does not depend on time.

It speaks enough of the OpenAI API to be opened (models, chat/completions, completions), and `/score`, which answers
{"logprobs": [..]} with one number for each of the body's `tokens`. What it answers depends on the prompt alone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("close", "hang", "429", "500", "truncated", "cut", "tokens", "nan")
NAME = "faulty"


def answer_to(prompt: str) -> str:
    """What it answers to a prompt."""
    return f"answer {hashlib.sha256(prompt.encode()).hexdigest()[:8]}"


def logprobs(tokens: Sequence[int]) -> list[float]:
    """What it scores tokens with."""
    return [-1.0 / (1 + token) for token in tokens]


class FaultyServer(ThreadingHTTPServer):
    """The server, and what was asked of it.

    faults: in the order in which a prompt meets them; `share` of the tries of a prompt fail, at most `most` of them.
    retry_after: what a 429 says.
    silence: seconds that it hangs, before it closes the connection.
    asked, answered: tries by prompt, and those that were answered in full.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults: Sequence[str] = FAULTS, share: float = 0.3, most: int = 3) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.share, self.most = tuple(faults), share, most
        self.retry_after, self.silence = "0.05", 30.0
        self.key: str | None = None
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []  # bodies
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.ending = threading.Event()
        self.guard = threading.Lock()

    @property
    def base(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def fault(self, prompt: str, tries: int) -> str | None:
        """What goes wrong at a try of a prompt, from 1; None where nothing does."""
        if not self.faults or tries > self.most:
            return None
        drawn = int.from_bytes(hashlib.sha256(f"{prompt} {tries}".encode()).digest()[:4], "big")
        return self.faults[drawn % len(self.faults)] if drawn / 2**32 < self.share else None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The list of models."""
        if self.path != "/v1/models":
            self.reply(404, {"error": {"message": "Not Found"}})
        elif self.allowed():
            self.reply(200, {"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "tests"}]})

    def do_POST(self) -> None:
        """An answer, or a fault."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"] if "messages" in body else str(body.get("prompt", body.get("tokens")))
        server = self.server
        with server.guard:
            server.asked[prompt] += 1
            server.seen.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.times.append(time.monotonic())
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            fault = server.fault(prompt, server.asked[prompt])
        try:
            if self.allowed():
                self.respond(body, prompt, fault)
        finally:
            with server.guard:
                server.in_flight -= 1

    def allowed(self) -> bool:
        """Whether the key is right; else the client is told, and the key repeated, as some servers do."""
        given = self.headers.get("Authorization", "")
        if self.server.key is None or given == f"Bearer {self.server.key}":
            return True
        self.reply(401, {"error": {"message": f"Incorrect API key provided: {given.removeprefix('Bearer ')}"}})
        return False

    def respond(self, body: dict[str, Any], prompt: str, fault: str | None) -> None:
        """Answer a prompt, with a fault where there is one."""
        if fault == "close":
            self.close_connection = True
        elif fault == "hang":
            self.server.ending.wait(self.server.silence)
            self.close_connection = True
        elif fault == "429":
            self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": self.server.retry_after})
        elif fault == "500":
            self.reply(500, {"detail": "out of luck"})
        else:
            self.answer(body, prompt, fault)

    def answer(self, body: dict[str, Any], prompt: str, fault: str | None) -> None:
        """The answer itself, whole or not."""
        found: dict[str, Any]
        if self.path == "/score":
            values: list[float] = logprobs(body["tokens"])
            if fault == "tokens":
                values = values[:-1]
            if fault == "nan":
                values[0] = float("nan")
            found = {"logprobs": values}
        else:
            text = answer_to(prompt)
            chat = self.path.endswith("/chat/completions")
            own = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            if fault in ("tokens", "nan"):
                own = {}
            found = {"choices": [{"index": 0, "finish_reason": "stop", **own}]}
            found["usage"] = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 2}
        data = json.dumps(found).encode()
        if fault == "truncated":
            data = data[: len(data) // 2]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)
        if fault is None:
            with self.server.guard:
                self.server.answered[prompt] += 1

    def reply(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """A whole answer of any status."""
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, own in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, own)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(faults: Sequence[str] = FAULTS, share: float = 0.3, most: int = 3) -> Iterator[FaultyServer]:
    """A server, while it runs."""
    server = FaultyServer(faults, share, most)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        server.server_close()
