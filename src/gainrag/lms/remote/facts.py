"""Which engine listens at an address, and what it says of itself.

| engine | owned_by in the list of models | and its own endpoint | which says |
|---|---|---|---|
| llama.cpp | llamacpp | GET /props has default_generation_settings | a request's context, slots, the first token |
| SGLang | sglang | GET /model_info (before: /get_model_info) has is_generation | GET /server_info: version |
| vLLM | vllm | GET /version | version |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gainrag.errors import ModelError
from gainrag.files.progress import say
from gainrag.lms.remote.calls import Call, Caller, EngineError

# `echo` is any server whose completions repeat the prompt with its log-probabilities; `other` one that only writes.
Engine = Literal["vllm", "sglang", "llama.cpp", "echo", "other"]
OWNERS: dict[str, Engine] = {"llamacpp": "llama.cpp", "sglang": "sglang", "vllm": "vllm"}
_NAMES = "leave engine out, or name another: vllm, sglang, llama.cpp, echo, other"


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself; None where it does not say.

    context: tokens of prompt and answer together.
    vocabulary: tokens that there are.
    slots: requests that it works on at a time, where each has a cache of its own.
    bos: the model's own first token, as text.
    """

    engine: Engine
    version: str | None = None
    context: int | None = None
    vocabulary: int | None = None
    slots: int | None = None
    bos: str = ""


def ask_facts(
    caller: Caller, card: Mapping[str, Any] | None, context: int | None, engine: Engine | None = None
) -> Facts:
    """What listens at an address.

    Args:
        caller: one that does not try long.
        card: what the engine's list says of the model, see `gainrag.lms.remote.opening.Report`.
        context: the tokens of its context, where that list says so.
        engine: which it is; found out when left out.

    Raises:
        EngineError: nothing answers.
        ModelError: it is another engine than the one that is named.
    """
    card = card or {}
    likely = engine or OWNERS.get(str(card.get("owned_by")), "other")
    found = _confirmed(caller, likely, card, context)
    if found is not None:
        return found
    if engine is None:
        say(f"{caller.address} lists its model as {likely} does, but has none of its endpoints: it only writes")
        return Facts("other", context=context)
    raise ModelError(f"it has no endpoints of {engine}", where=str(caller.address), hint=_NAMES)


def _confirmed(caller: Caller, likely: Engine, card: Mapping[str, Any], context: int | None) -> Facts | None:
    """What an engine says of itself; None where it has not the endpoints of the engine that it is taken for."""
    if likely == "llama.cpp":
        props = _get(caller, "/props")
        if not isinstance(settings := props.get("default_generation_settings"), dict):
            return None
        return Facts(
            likely,
            version=_text(props.get("build_info")),
            context=_number(settings.get("n_ctx")) or context,
            vocabulary=_number(card.get("n_vocab")),
            slots=_number(props.get("total_slots")),
            bos=_text(props.get("bos_token")) or "",
        )
    if likely == "sglang":
        if "is_generation" not in (_get(caller, "/model_info") or _get(caller, "/get_model_info")):
            return None
        return Facts(likely, version=_text(_get(caller, "/server_info").get("version")), context=context)
    if likely == "vllm":
        version = _text(_get(caller, "/version").get("version"))
        return None if version is None else Facts(likely, version=version, context=context)
    return Facts(likely, context=context)


def _get(caller: Caller, path: str) -> dict[str, Any]:
    """A JSON object from the engine's own endpoint; empty where there is no such endpoint, or none for us."""
    try:
        value = caller.ask([Call(path, method="GET", keep=False)], lambda value: value)[0]
    except EngineError as error:
        if error.status is None:
            raise
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
