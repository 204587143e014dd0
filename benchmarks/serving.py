"""The service under load, beside the simplest thing people do instead, on loopback in one run.

    python benchmarks/serving.py [--selector selector/] [--cross-encoder FOLDER] [--requests 400] [--full]

Every server is a process of its own. It is asked by `--clients` connections at a time (1, 8 and 64), each of which
sends its next request when it has its answer. The rows:

    features        `gainrag serve` with the selector that ships
    cross-encoder   `gainrag serve` with --cross-encoder, where it is given
    plain           a FastAPI route around `CrossEncoder.predict` with the same folder, in a pool of threads
    selector        `gainrag serve` with --selector, such as a stack

Then, with --full, 1,000 connections at once against a small queue: every request must be answered or refused with
Retry-After, none lost, and the server's memory must not grow from the first round to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import RESULTS, write_results

from gainrag.demo import load
from gainrag.selectors import PRIOR

CLIENTS = (1, 8, 64)
# A port of its own for each server: one that has just ended may not be free yet.
FIRST_PORT = 18080

PLAIN = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder

model, app = CrossEncoder(sys.argv[1], device="cpu"), FastAPI()

class Body(BaseModel):
    query: str
    documents: list[str]

@app.post("/rerank")
def rerank(body: Body):
    scores = model.predict([(body.query, text) for text in body.documents], show_progress_bar=False)
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return {"results": [{"index": i, "relevance_score": float(scores[i])} for i in order]}

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def bodies(passages: int) -> list[bytes]:
    """Requests of so many passages from the demo's corpus: other questions, other passages."""
    train, test, corpus = load()
    texts = [f"{p.title}\n{p.text}" for p in corpus]
    generator = np.random.default_rng(0)
    return [
        json.dumps(
            {"query": q.question, "documents": [texts[i] for i in generator.choice(len(texts), passages)]}
        ).encode()
        for q in [*train, *test]
    ]


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    """A server, from when its port is open: ours still loads then, and the first request, which is not timed, waits."""
    process = subprocess.Popen(command, env={**os.environ}, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(port, process))
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


async def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        try:
            await asyncio.open_connection("127.0.0.1", port)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit("the server did not start") from None
            await asyncio.sleep(0.2)


class Connection:
    """One connection that is kept, and opened anew where the server closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers and the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._streams
        head = f"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        headers = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        found = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return status, headers, found

    def close(self) -> None:
        """Let it go."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def load_with(port: int, asked: Sequence[bytes], clients: int, requests: int) -> dict[str, Any]:
    """So many requests by so many clients: milliseconds and requests a second."""
    left, seconds, statuses = iter(range(requests)), [], Counter[int]()

    async def client() -> None:
        connection = Connection(port)
        for n in left:
            began = time.perf_counter()
            status, _, _ = await connection.ask(asked[n % len(asked)])
            statuses[status] += 1
            if status == 200:
                seconds.append(time.perf_counter() - began)
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    if not seconds:
        raise SystemExit(f"no request was answered: {dict(statuses)}")
    p50, p95, p99 = np.percentile(1000 * np.array(seconds), [50, 95, 99])
    return {
        "clients": clients,
        "p50 ms": round(float(p50), 1),
        "p95 ms": round(float(p95), 1),
        "p99 ms": round(float(p99), 1),
        "requests/s": round(len(seconds) / took, 2),
        "not answered": requests - statuses[200],
    }


async def flood(port: int, asked: Sequence[bytes], passages: int, at_once: int) -> Counter[str]:
    """So many connections that each send one request of so many passages at the same moment: what became of them."""
    fates = Counter[str]()
    gate = asyncio.Event()

    async def client(n: int) -> None:
        connection = Connection(port)
        await gate.wait()
        try:
            status, headers, body = await connection.ask(asked[n % len(asked)])
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            fates[f"lost: {type(error).__name__}"] += 1
            return
        finally:
            connection.close()
        if status == 200:
            fates["answered" if len(json.loads(body)["results"]) == passages else "answered in part"] += 1
        else:
            fates[f"refused with {status}" + ("" if "retry-after" in headers else " without Retry-After")] += 1

    tasks = [asyncio.create_task(client(n)) for n in range(at_once)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    return fates


def serve(port: int, *more: str) -> list[str]:
    """The command of our own server."""
    return [sys.executable, "-m", "gainrag", "serve", "--port", str(port), *more]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--selector", help="a further selector, such as a stack")
    parser.add_argument("--cross-encoder", help="a cross-encoder, served by us and by the plain route")
    parser.add_argument("--requests", type=int, default=400, help="requests a row for features; a tenth for others")
    parser.add_argument("--passages", type=int, default=100)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--full", action="store_true", help="also 1,000 requests at once against a small queue")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder")
    given = parser.parse_args()
    asked = bodies(given.passages)
    ports = iter(range(FIRST_PORT, FIRST_PORT + 100))
    servers: list[tuple[str, list[str], int, int]] = []

    def add(name: str, command: list[str], port: int, requests: int) -> None:
        servers.append((name, command, port, requests))

    # The queue holds what all clients send at once, so that no row is about refusals.
    room = ["--queue", str(2 * max(given.clients) * given.passages), "--deadline", "3600"]
    add("features", serve(port := next(ports), *room), port, given.requests)
    few = max(1, given.requests // 10)
    if given.cross_encoder:
        own = serve(port := next(ports), "--selector", given.cross_encoder, *room)
        add("cross-encoder", own, port, few)
        add("plain", [sys.executable, "-c", PLAIN, given.cross_encoder, str(port := next(ports))], port, few)
    if given.selector:
        add("selector", serve(port := next(ports), "--selector", given.selector, *room), port, few)
    rows = []
    for name, command, port, requests in servers:
        with running(command, port) as process:
            asyncio.run(load_with(port, asked, 1, max(2, few // 10)))  # what is slow the first time
            for clients in given.clients:
                row = asyncio.run(load_with(port, asked, clients, max(requests, 2 * clients)))
                memory = round(process.memory_info().rss / 2**20)
                rows.append({"server": name, **row, "memory MB": memory})
                print(rows[-1], flush=True)
    floods = []
    if given.full:
        with running(serve(port := next(ports), "--queue", "4096", "--selector", PRIOR), port) as process:
            for _ in range(5):
                fates = asyncio.run(flood(port, asked, given.passages, 1000))
                became = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
                floods.append({"what became of them": became, "memory MB": round(process.memory_info().rss / 2**20)})
                print(floods[-1], flush=True)
    tables = {"Clients that ask again when they are answered": rows}
    if floods:
        tables["1,000 requests at once, five times"] = floods
    models = {"selector": given.selector, "cross-encoder": given.cross_encoder}
    settings = {"passages": given.passages, **{what: Path(path).name for what, path in models.items() if path}}
    write_results("serving", "The service under load", settings, tables, given.output)


if __name__ == "__main__":
    main()
