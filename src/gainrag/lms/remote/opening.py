"""An endpoint, opened: its key, what it says of its model, and the language model that stands for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gainrag.errors import ConfigError, GainragError, unknown
from gainrag.lms.remote.address import Address
from gainrag.lms.remote.calls import BadAnswer, Call, Caller, EngineError, Limits
from gainrag.lms.remote.facts import Facts, ask_facts
from gainrag.lms.remote.generation import Prices, RemoteLM
from gainrag.lms.remote.kept import Kept
from gainrag.lms.remote.scorer import RemoteScorer, Scoring, adapter

# Read when no other variable is named. Whoever sets it means gainrag: no other program's key is sent anywhere.
KEY = "GAINRAG_API_KEY"
# What an engine's list of models says of a model that is the same each time it is asked, and after a start with another
# context. `meta` is llama.cpp's.
_STABLE = ("id", "root", "parent", "owned_by")
_STABLE_META = ("vocab_type", "n_vocab", "n_ctx_train", "n_embd", "n_params", "size", "ftype")
# Whose models' dates are those of the models; others give the time at which they are asked.
_DATED = ("library", "openai", "system")
# What gainrag sets in a request.
_OWN = {"model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "seed", "stop", "stream"}
# What engines said of their models, by address.
_SEEN: dict[Address, dict[str, Any] | None] = {}
# An engine that is there lists its models at once.
_LOOK = Limits(concurrency=1, timeout=30.0, retries=1)


@dataclass(frozen=True)
class Report:
    """What an engine says of a model.

    identity: what tells the model from others; None where the engine has no list of models.
    context: its tokens, where that is said.
    """

    identity: dict[str, Any] | None = None
    context: int | None = None


def key_from(variable: str) -> str | None:
    """The key in an environment variable; None where the one that is read by default is not set. No error shows what
    was given: it may be the key itself.

    Raises:
        ConfigError: there is no such variable.
    """
    if not (found := os.environ.get(variable, "").strip()) and variable != KEY:
        hint = "set the variable, and give its name, not the key"
        raise ConfigError("api_key_env names no environment variable that is set", where="llm", hint=hint)
    if not (found.isascii() and found.isprintable() and " " not in found):
        raise ConfigError("the key holds characters that no key has", where="api_key_env", hint="set it again")
    return found or None


def extra_of(extra_body: str) -> dict[str, Any]:
    """What is sent with every request, from JSON.

    Raises:
        ConfigError: it is no JSON object, or sets what gainrag sets.
    """
    if not extra_body.strip():
        return {}
    try:
        found: dict[str, Any] = msgspec.json.decode(extra_body, type=dict[str, Any])
    except msgspec.DecodeError:
        hint = 'such as \'{"reasoning_effort": "none"}\''
        raise ConfigError("extra_body is no JSON object", where="llm", hint=hint) from None
    if taken := _OWN & found.keys():
        raise ConfigError(f"extra_body sets {min(taken)!r}, which gainrag sets", where="llm", hint="leave it out")
    return found


def look(address: Address, key: str | None = None) -> Report:
    """What an engine's list of models says of the model of an address.

    Raises:
        EngineError: nothing answers there, or it answers no.
        ConfigError: the engine has no such model.
    """
    try:
        models = models_of(address, key)
    except EngineError as error:
        if error.status in (404, 405, 501):  # an API without a list: its answers will tell
            return Report()
        raise
    own = next((model for model in models if address.name in _names(model)), None)
    if not models:  # as transformers' server, which lists what the hub's cache has and serves what it was started with
        return Report()
    if own is None:
        known = [str(model["id"]) for model in models]
        hint = "llama.cpp's server and others answer to any name, with the model that they have"
        raise ConfigError(unknown("model", address.name, known), where=address.base, hint=hint)
    meta: dict[str, Any] = found if isinstance(found := own.get("meta"), dict) else {}
    identity = {name: own[name] for name in _STABLE if own.get(name) is not None}
    if own.get("owned_by") in _DATED and "created" in own:
        identity["created"] = own["created"]
    identity |= {name: meta[name] for name in _STABLE_META if name in meta}
    context = own.get("max_model_len") or meta.get("n_ctx")
    return Report(identity, context if type(context) is int else None)


def models_of(address: Address, key: str | None = None, limits: Limits = _LOOK) -> list[dict[str, Any]]:
    """What an engine's list of models says of each.

    Raises:
        EngineError: nothing answers there, or it answers no.
    """
    caller = Caller(address, limits, key=key)
    try:
        return caller.ask([Call("models", method="GET", keep=False)], _models)[0]
    finally:
        caller.close()


def _models(value: Any) -> list[dict[str, Any]]:
    """The models of a list.

    Raises:
        BadAnswer: it is none.
    """
    found = value.get("data") if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(model, dict) and "id" in model for model in found):
        raise BadAnswer(f"no list of models ({str(value)[:120]})")
    return found


def _names(model: dict[str, Any]) -> set[str]:
    """What a model may be called: Ollama leaves ":latest" out, Google "models/"."""
    aliases = model.get("aliases")
    names = {str(name) for name in (model["id"], *(aliases if isinstance(aliases, list) else ()))}
    return names | {name.removesuffix(":latest") for name in names} | {name.removeprefix("models/") for name in names}


def open_endpoint(
    address: Address,
    *,
    limits: Limits,
    api_key_env: str = KEY,
    calls: str | Path | None = None,
    prices: Prices | None = None,
    extra_body: str = "",
    scoring: Scoring | None = None,
) -> RemoteLM:
    """The language model of an endpoint; one that scores, where its engine tells log-probabilities.

    Args:
        calls: the file in which answers are kept; in memory when left out.
        scoring: which engine it is, and how it is asked for log-probabilities.

    Raises:
        EngineError: nothing answers there, or it answers no.
        ConfigError: the engine has no such model, the key's variable is not set, or `extra_body` is no JSON.
    """
    key, extra = key_from(api_key_env), extra_of(extra_body)
    report = look(address, key)
    _SEEN[address] = report.identity
    model = msgspec.json.encode(report.identity, order="deterministic").decode()
    caller = Caller(address, limits, key=key, kept=Kept(calls), model=model)
    facts = about(address, report, key, scoring)
    own: dict[str, Any] = {"identity": report.identity, "prices": prices, "extra": extra}
    if facts.engine == "other":
        return RemoteLM(address, caller, context=facts.context, **own)
    return RemoteScorer(caller, facts, adapter(facts, scoring), **own)


def about(address: Address, report: Report, key: str | None, scoring: Scoring | None = None) -> Facts:
    """What an engine says of itself, see `gainrag.lms.remote.facts`."""
    caller = Caller(address, _LOOK, key=key)
    try:
        return ask_facts(caller, report.identity, report.context, scoring.engine if scoring else None)
    finally:
        caller.close()


def identify(address: Address, api_key_env: str = KEY) -> dict[str, Any] | None:
    """What the engine says of the model, asked once a process; None where it does not say so now (it is not running,
    or there is no key): what was made with it earlier is reused without it, and whoever opens it is told why."""
    if address not in _SEEN:
        try:
            _SEEN[address] = look(address, key_from(api_key_env)).identity
        except GainragError:
            _SEEN[address] = None  # until it is opened: not every stage should wait for it
    return _SEEN[address]
