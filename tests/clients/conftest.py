"""A server, and one that is busy at first, for the clients of others: `make test-clients` runs these tests.

They run in an environment of their own, where the clients are; the server runs in gainrag's, named by GAINRAG_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Outside that environment there is nothing to import.
collect_ignore_glob = [] if os.environ.get("GAINRAG_PYTHON") else ["test_*.py"]

KEY = "a-key"
# They would look for a list of prices, and tell their makers of each use, when they are imported.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where a server with the key listens: the one of GAINRAG_URL, else one that is started here."""
    if running := os.environ.get("GAINRAG_URL"):
        yield running
        return
    command = [os.environ["GAINRAG_PYTHON"], "-m", "gainrag", "serve", "--port", "0"]
    own = {"GAINRAG_SERVE_KEYS": KEY, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **own})
    assert process.stderr
    try:
        for line in process.stderr:
            if line.startswith("serving"):
                yield line.split(" on ")[1].split(",")[0].strip()
                break
            print(line, file=sys.stderr)
        else:
            pytest.fail("the server did not start")
    finally:
        process.terminate()
        process.wait(60)


# As error_body of gainrag.serving.refusals has it.
FULL = json.dumps(
    {
        "detail": "the queue is full",
        "message": "the queue is full",
        "error": {"message": "the queue is full", "type": "invalid_request_error", "code": "full"},
    }
).encode()


class Busy:
    """A server before the server that refuses the first requests as the server does when its queue is full."""

    def __init__(self, behind: str) -> None:
        self.refuse, self.asked = 0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked += 1
                if outer.asked <= outer.refuse:
                    self._send(429, FULL, "1")
                    return
                sent = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")}
                request = urllib.request.Request(behind + self.path, body, sent)
                try:
                    with urllib.request.urlopen(request) as response:
                        self._send(response.status, response.read(), None)
                except urllib.error.HTTPError as error:
                    self._send(error.code, error.read(), error.headers.get("retry-after"))

            def _send(self, status: int, body: bytes, after: str | None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if after:
                    self.send_header("Retry-After", after)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def full(self, times: int) -> None:
        """Refuse so many requests from now on."""
        self.refuse, self.asked = times, 0


@pytest.fixture(scope="session")
def _busy(url: str) -> Iterator[Busy]:
    found = Busy(url)
    yield found
    found.server.shutdown()


@pytest.fixture
def busy(_busy: Busy) -> Busy:
    """The busy server, which refuses nothing until it is told to."""
    _busy.full(0)
    return _busy
