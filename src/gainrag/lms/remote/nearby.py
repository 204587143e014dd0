"""Engines that listen on this machine, at the ports that they use unless told otherwise."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from gainrag.errors import GainragError
from gainrag.lms.remote.address import Address
from gainrag.lms.remote.calls import Limits
from gainrag.lms.remote.facts import Engine
from gainrag.lms.remote.opening import KEY, about, key_from, look, models_of

PORTS = {11434: "Ollama", 8000: "vLLM", 8080: "llama.cpp", 30000: "SGLang"}
_HOST = "127.0.0.1"
# Seconds: what listens on this machine answers at once.
_CONNECT, _LOOK = 0.5, Limits(concurrency=1, timeout=5.0, retries=0)
# In the names of models that write no text.
_NO_WRITERS = ("embed", "rerank", "bge-", "whisper")


@dataclass(frozen=True)
class Nearby:
    """An engine: where it listens, the models that it lists, and what it is (`other` tells no losses)."""

    base: str
    models: tuple[str, ...]
    engine: Engine

    @property
    def name(self) -> str:
        """The name of its first model that may write text, as `open_lm` takes it."""
        return f"{self.base}#{self.models[0]}"


def nearby(ports: Mapping[int, str] = PORTS) -> tuple[list[Nearby], list[str]]:
    """The engines that are there, and a line for each port where something else listens."""
    found, others = [], []
    for port, usual in ports.items():
        if not _listens(port):
            continue
        base = f"http://{_HOST}:{port}/v1"
        try:
            key = key_from(KEY)
            listed = [str(model["id"]) for model in models_of(Address(base, "?"), key, _LOOK)]
            writers = tuple(name for name in listed if not any(part in name.lower() for part in _NO_WRITERS))
            if not writers:
                others.append(f"port {port} ({usual}): it lists no model that writes")
                continue
            address = Address(base, writers[0])
            engine = about(address, look(address, key), key).engine
        except GainragError as error:
            others.append(f"port {port} ({usual}): {error.what}")
            continue
        found.append(Nearby(base, writers, engine))
    return found, others


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((_HOST, port), timeout=_CONNECT):
            return True
    except OSError:
        return False
