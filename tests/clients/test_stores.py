"""Vector stores as gainrag's retrievers: every block of docs/integrations.md on them, with the stores themselves.

OpenSearch is a server, so its client speaks to a stub that answers as OpenSearch does.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.test_integrations import STORES

BLOCKS = dict(re.findall(r"^### (\w+)\n.*?^```python\n(.*?)^```", STORES, flags=re.MULTILINE | re.DOTALL))
ADDRESS = "http://localhost:9200"
TEXTS = {"Paris": "Rain falls on Paris in winter.", "Seine": "The Seine is a river that flows through Paris."}
HITS = [
    {"_id": title, "_score": 7.5 - n, "_source": {"content": text, "metadata": {"title": title}}}
    for n, (title, text) in enumerate(TEXTS.items())
]


def run(name: str, code: str) -> None:
    exec(compile(code, f"docs/integrations.md, {name}", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("name", ["Qdrant", "LanceDB"])
def test_a_store_on_this_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(name, BLOCKS[name])


@pytest.fixture
def opensearch() -> Iterator[tuple[str, list[tuple[str, dict[str, object]]]]]:
    """Where the stub listens, and what was sent to it: paths and bodies."""
    asked: list[tuple[str, dict[str, object]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {"version": {"number": "3.3.0", "distribution": "opensearch"}} if self.path == "/" else {"wiki": {}}
            self._send(found)

        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self._send({"hits": {"total": {"value": len(HITS)}, "hits": HITS}})

        def _send(self, found: object) -> None:
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_opensearch_is_asked_for_words(opensearch: tuple[str, list[tuple[str, dict[str, object]]]]) -> None:
    url, asked = opensearch
    assert ADDRESS in BLOCKS["OpenSearch"]
    run("OpenSearch", BLOCKS["OpenSearch"].replace(ADDRESS, url))
    ((path, body),) = asked
    assert path == "/wiki/_search"
    assert body["size"] == 100
    assert "match" in json.dumps(body["query"])
