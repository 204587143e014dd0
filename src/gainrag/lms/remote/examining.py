"""What an endpoint can do, in a few lines for a person: `gainrag engines URL`, and `gainrag validate` of a config."""

from __future__ import annotations

import time
from collections.abc import Iterator

from gainrag.errors import GainragError, ModelError
from gainrag.lms.remote.address import Address, parse
from gainrag.lms.remote.calls import Call, Caller, EngineError, Limits
from gainrag.lms.remote.facts import Facts
from gainrag.lms.remote.generation import RemoteLM
from gainrag.lms.remote.opening import about, key_from, look, models_of
from gainrag.lms.remote.scorer import RemoteScorer, Scoring, adapter
from gainrag.protocols import ScoringRequest
from gainrag.settings import count

# A question to measure the speed with: passages of 100 words, of which no two begin alike, and a short answer.
PASSAGES = 5
SENTENCE = "the old bridge over the river was built of stone in the spring that the harbour was closed for repairs, "
ANSWER = " in the spring"


def examine(
    url: str, *, api_key_env: str, limits: Limits, scoring: Scoring | None = None, speed: bool = True
) -> Iterator[str]:
    """Find out what an endpoint can do; a line each.

    Args:
        url: its address; the model's name may be left out where there is only one.
        speed: whether to measure it.

    Raises:
        EngineError: nothing answers there.
        ModelError: the engine has several models, and none is named; or it does not do what it is asked.
        ConfigError: the address is none, or its key is not there.
    """
    key = key_from(api_key_env)
    address = parse(url) if "#" in url else _only(parse(f"{url}#?").base, key)
    report = look(address, key)
    facts = about(address, report, key, scoring)
    yield f"{address}: {describe(facts)}"
    yield "context: " + (f"{facts.context:,} tokens" if facts.context else "it does not say")
    caller = Caller(address, limits, key=key)
    try:
        known = facts.engine != "other"
        lm = RemoteScorer(caller, facts, adapter(facts, scoring)) if known else _echoing(caller, facts)
        if lm is None:
            yield "losses: none, its engine tells no log-probabilities of a given text; use --labels sampled"
        else:
            lm.probe()
            yield f"losses: {LEVELS[lm.level]}"
        if speed:
            yield from _speed(lm or RemoteLM(address, caller))
    finally:
        caller.close()


# What the levels mean, for a person.
LEVELS = {
    "exact": "exact, at every alpha",
    "bounded": "exact at alpha 0; above it bounded, from the most likely tokens",
    "gold": "exact at alpha 0, and at no other: it tells the answer's own tokens alone",
}


def describe(facts: Facts) -> str:
    """An engine in a few words."""
    if facts.engine == "other":
        return "an engine of no kind that is known"
    return facts.engine + (f" {facts.version}" if facts.version else "")


def _only(base: str, key: str | None) -> Address:
    """The address with the only model that is there.

    Raises:
        EngineError: nothing answers.
        ModelError: there is none, or several.
    """
    names = [str(model["id"]) for model in models_of(Address(base, "?"), key)]
    if len(names) != 1:
        there = ", ".join(names[:8]) or "none"
        hint = "put the name of one behind the address: URL#NAME"
        raise ModelError(f"it has {count(len(names), 'model')} ({there})", where=base, hint=hint)
    return Address(base, names[0])


def _echoing(caller: Caller, facts: Facts) -> RemoteScorer | None:
    """The model as one whose completions echo; None where they do not."""
    echo = Facts("echo", context=facts.context)
    lm = RemoteScorer(caller, echo, adapter(echo))
    try:
        lm.probe()
    except GainragError:
        return None
    return lm


def _speed(lm: RemoteLM) -> Iterator[str]:
    """How long one question takes."""
    passages = [f"{n} {SENTENCE * 5}" for n in range(PASSAGES)]  # a hundred words, about
    prompts = [f"Passage: {text}\n\nQuestion: When was the bridge built?\nAnswer:" for text in passages]
    if isinstance(lm, RemoteScorer):
        began = time.perf_counter()
        lm.engine.loss_bounds([ScoringRequest(prompts, prompts[0][-60:], [ANSWER])], [0.0], keep=False)
        seconds = time.perf_counter() - began
        yield f"speed: {PASSAGES} passages of 100 words scored at alpha 0 in {seconds:.2f} s"
    began = time.perf_counter()
    call = Call("completions", {"model": lm.address.name, "prompt": prompts[0], "max_tokens": 8}, keep=False)
    try:
        lm.caller.ask([call], lambda value: value)
    except EngineError as error:
        if error.status is None:
            raise
        yield f"plain completions: none ({error.what}); prompts go in the chat form alone"
    else:
        yield f"an answer of 8 tokens behind one of them in {time.perf_counter() - began:.2f} s"
