"""Engines that tell log-probabilities, as vLLM 0.32, SGLang 0.5 and an echo endpoint write them: their schemas, with a
made-up language model of 257 tokens behind them.

The model reads bytes: token i + 1 is byte i, and token 0 begins every prompt. It is likely to go on with what it knows
by heart (KNOWN), and else writes by chance, always the same behind the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from gainrag.gain import FloatArray
from gainrag.protocols import ScoringRequest

NAME = "tiny"
CONTEXT = 4096
SIZE = 257
KNOWN = b"one, two, three, four, five, six, seven, eight"
CHAT = "<user>{}</user>\n"


def ids_of(text: str, *, special: bool) -> list[int]:
    return [0] * special + [byte + 1 for byte in text.encode()]


def text_of(ids: Sequence[int]) -> str:
    return bytes(i - 1 for i in ids if i > 0).decode(errors="replace")


@cache
def distribution(beginning: bytes) -> FloatArray:
    """Log-probabilities of the next token [257], behind a text."""
    seed = int.from_bytes(hashlib.sha256(beginning[-12:]).digest()[:8], "little")
    logits = 2.0 * np.random.default_rng(seed).normal(size=SIZE)
    for length in range(min(len(beginning), len(KNOWN) - 1), 2, -1):
        if (at := KNOWN.find(beginning[-length:])) >= 0 and at + length < len(KNOWN):
            logits[KNOWN[at + length] + 1] += 12.0
            break
    return np.asarray(logits - np.logaddexp.reduce(logits))


def number(value: float) -> float | None:
    """As JSON has it."""
    return None if np.isnan(value) else float(value)


def behind(ids: Sequence[int]) -> FloatArray:
    return distribution(bytes(i - 1 for i in ids if i > 0))


def exact_losses(request: ScoringRequest, alphas: Sequence[float], floor: float = 0.0) -> FloatArray:
    """The true losses [passage, answer, alpha] of the model."""

    def loss(prompt: str, answer: str, alpha: float) -> float:
        own, bare, tokens = ids_of(prompt, special=True), ids_of(request.without_prompt, special=True), []
        for token in ids_of(answer, special=False):
            p, q = behind(own), behind(bare)
            q = np.maximum(q, np.log(floor)) if floor else q
            z = (1 + alpha) * p - alpha * q
            tokens.append(np.logaddexp.reduce(z) - z[token])
            own, bare = [*own, token], [*bare, token]
        return float(np.mean(tokens))

    return np.array([[[loss(p, a, alpha) for alpha in alphas] for a in request.answers] for p in request.with_prompts])


class StubEngine(ThreadingHTTPServer):
    """The server.

    engine: vllm, sglang or echo.
    fault: what it does wrong: "ignores echo", "one too few", "null", "merges" (a token reaches over the prompt's end).
    seen: bodies by path.
    """

    daemon_threads = True

    def __init__(self, engine: str, fault: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine, self.fault = engine, fault
        self.seen: list[tuple[str, Any]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def running(engine: str, fault: str = "") -> Iterator[StubEngine]:
    server = StubEngine(engine, fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: StubEngine
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        engine = self.server.engine
        owner = {"vllm": "vllm", "sglang": "sglang"}.get(engine, "somebody")
        card = {"id": NAME, "object": "model", "created": 1, "owned_by": owner, "root": NAME, "parent": None}
        if engine in ("vllm", "sglang"):
            card["max_model_len"] = CONTEXT
        found: dict[str, Any] = {"/v1/models": {"object": "list", "data": [card]}}
        if engine == "vllm":
            found["/version"] = {"version": "0.32.0"}
        if engine == "sglang":
            found["/model_info"] = {"model_path": NAME, "tokenizer_path": NAME, "is_generation": True}
            found["/server_info"] = {"version": "0.5.23", "model_path": NAME, "internal_states": []}
        if self.path in found:
            self.send(found[self.path])
        else:
            self.send({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        engine = self.server.engine
        if self.path == "/tokenize" and engine != "echo":
            text = CHAT.format(body["messages"][0]["content"]) if "messages" in body else body["prompt"]
            ids = ids_of(text, special=body.get("add_special_tokens", "messages" not in body))
            self.send({"count": len(ids), "max_model_len": CONTEXT, "tokens": ids, "token_strs": None})
        elif self.path == "/detokenize" and engine != "echo":
            self.send({"prompt" if engine == "vllm" else "text": text_of(body["tokens"])})
        elif self.path == "/generate" and engine == "sglang":
            self.send(self.generate(body))
        elif self.path == "/v1/completions":
            self.complete(body)
        else:
            self.send({"detail": "Not Found"}, 404)

    def told(self, ids: Sequence[int], start: int = 1) -> list[FloatArray]:
        """The distributions of the tokens from a place on."""
        found = [behind(ids[:i]) for i in range(start, len(ids))]
        if self.server.fault == "null":
            found = [np.full(SIZE, np.nan) for _ in found]
        return found[:-1] if self.server.fault == "one too few" else found

    def complete(self, body: dict[str, Any]) -> None:
        prompt = body["prompt"]
        ids = ids_of(prompt, special=True) if isinstance(prompt, str) else prompt
        written = [int(behind(ids).argmax())]
        choice: dict[str, Any] = {"index": 0, "text": text_of(written), "logprobs": None, "finish_reason": "length"}
        choice |= {"stop_reason": None, "token_ids": None, "prompt_logprobs": None, "prompt_token_ids": None}
        if (top := body.get("prompt_logprobs")) is not None and self.server.engine == "vllm":
            if top > 20:
                message = f"Requested prompt logprobs of {top}, which is greater than max allowed: 20"
                self.send({"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}, 400)
                return
            told = zip(ids[1:], self.told(ids), strict=False)
            choice["prompt_logprobs"] = [None, *(self.row(i, p, top) for i, p in told)]
        if body.get("echo") and self.server.engine == "echo" and self.server.fault != "ignores echo":
            choice["text"] = text_of(ids) + choice["text"]
            choice["logprobs"] = self.echoed(ids, written)
        elif body.get("logprobs") is not None:
            choice["logprobs"] = {
                "tokens": [text_of(written)],
                "token_logprobs": [float(behind(ids)[written[0]])],
                "top_logprobs": None,
                "text_offset": [0],
            }
        usage = {"prompt_tokens": len(ids), "total_tokens": len(ids) + 1, "completion_tokens": 1}
        own = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": NAME}
        self.send({**own, "choices": [choice], "usage": usage})

    def row(self, token: int, p: FloatArray, top: int) -> dict[str, Any]:
        """vLLM's: the token itself first, then the most likely ones by their rank."""
        own = {str(token): {"logprob": number(p[token]), "rank": int((p >= p[token]).sum()), "decoded_token": "?"}}
        best = np.argsort(-p, kind="stable")[:top]
        return own | {
            str(i): {"logprob": number(p[i]), "rank": rank, "decoded_token": "?"} for rank, i in enumerate(best, 1)
        }

    def echoed(self, ids: Sequence[int], written: Sequence[int]) -> dict[str, Any]:
        """OpenAI's: tokens as texts, the first one's log-probability null; the token that was written comes last."""
        whole = [*ids, *written]
        texts = [text_of([i]) for i in whole]
        logs: list[float | None] = [None, *(number(p[i]) for i, p in zip(whole[1:], self.told(whole), strict=False))]
        if self.server.fault == "merges":  # two bytes are a token, the prompt's last one and the answer's first, too
            odd, end = (len(ids) - 1) % 2, len(ids)
            texts = [*texts[: 1 + odd], *("".join(texts[i : i + 2]) for i in range(1 + odd, end, 2)), *texts[end:]]
            logs = [None, *([-1.0] * (len(texts) - 1))]
        return {"tokens": texts, "token_logprobs": logs, "top_logprobs": None, "text_offset": [0] * len(texts)}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """SGLang's: from logprob_start_len on, [log-probability, id, text], null for the first."""
        ids, start, top = body["input_ids"], body["logprob_start_len"], body["top_logprobs_num"]
        told = self.told(ids, start + 1)
        best = [np.argsort(-p, kind="stable")[:top] for p in told]
        meta: dict[str, Any] = {
            "id": "1",
            "finish_reason": {"type": "length", "length": 1},
            "prompt_tokens": len(ids),
            "completion_tokens": 1,
            "cached_tokens": 0,
            "input_token_logprobs": [
                [None, ids[start], None],
                *([number(p[i]), i, None] for i, p in zip(ids[start + 1 :], told, strict=False)),
            ],
            "output_token_logprobs": [[-1.0, 1, None]],
        }
        if top:
            listed = [[[number(p[i]), int(i), None] for i in b] for p, b in zip(told, best, strict=True)]
            meta["input_top_logprobs"] = [None, *listed]
            meta["output_top_logprobs"] = [None]
        return {"text": "?", "output_ids": [1], "meta_info": meta}
