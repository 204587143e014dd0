"""A server in a process of its own: killed, stopped, and asked by clients that never finish."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from gainrag.errors import ResourceError
from gainrag.serving.server import listen

BODY = {"query": "Which river?", "documents": ["Rain.", "A river."]}


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where it is reached."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.serving_process"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def ask(url: str, query: str) -> httpx2.Response:
    return httpx2.post(f"{url}/rerank", json={**BODY, "query": query}, timeout=60)


def wait(process: subprocess.Popen[str]) -> None:
    """Until a request is being scored."""
    assert process.stdout
    assert process.stdout.readline().strip() == "begun"


def raw(url: str, *parts: bytes) -> bytes:
    """What comes back to bytes that are sent as they are, until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def test_who_never_finishes_is_given_up_and_sigterm_lets_begun_requests_finish() -> None:
    with running() as (process, url), ThreadPoolExecutor(2) as pool:
        assert [r["index"] for r in ask(url, "Which river?").json()["results"]] == [1, 0]
        assert raw(url, b"POST /rerank HTTP/1.1\r\nHost: x\r\nX-Slow:") == b""
        late = raw(url, b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{")
        assert b" 408 " in late.split(b"\r\n")[0]
        assert b" 400 " in raw(url, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").split(b"\r\n")[0]
        assert ask(url, "Which river?").status_code == 200
        begun = pool.submit(ask, url, "2")
        wait(process)
        process.send_signal(signal.SIGTERM)
        assert begun.result(60).status_code == 200
        process.wait(60)
        with pytest.raises(httpx2.ConnectError):
            ask(url, "Which river?")


def test_a_killed_server_is_a_clean_error_and_its_successor_serves() -> None:
    with running() as (process, url), ThreadPoolExecutor(1) as pool:
        assert ask(url, "Which river?").status_code == 200
        begun = pool.submit(ask, url, "30")
        wait(process)
        process.kill()
        with pytest.raises(httpx2.TransportError):
            begun.result(60)
    with running() as (_, url):
        assert ask(url, "Which river?").status_code == 200


def test_the_body_of_a_response_does_not_wait_for_the_receipt_of_its_head() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_that_is_taken_is_one_line() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(ResourceError, match="cannot listen"):
        listen("127.0.0.1", first.getsockname()[1])
