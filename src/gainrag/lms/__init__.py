"""Language models. `open_lm` gives the one that a name stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gainrag.errors import ConfigError
from gainrag.lms.remote.address import Address, is_endpoint, parse
from gainrag.prompts import PromptForm
from gainrag.settings import (
    Alternatives,
    Budget,
    Device,
    Dtype,
    Engine,
    InFlight,
    Name,
    Price,
    Seconds,
    Share,
    Tries,
    checked,
    parameters,
    settings_of,
)

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM
    from gainrag.lms.remote.generation import RemoteLM

DEFAULT = "embedded:smollm2-135m-instruct"
# How an engine is asked for log-probabilities: settings of endpoints on which labels depend.
SCORING = ("engine", "tokenizer", "top_logprobs", "floor")


@checked
def open_lm(
    calls: str | Path | None = None,
    *,
    model: Name = DEFAULT,
    dtype: Dtype = "auto",
    device: Device = "auto",
    base_url: Name | None = None,
    api_key_env: Name = "GAINRAG_API_KEY",
    concurrency: InFlight = 8,
    timeout: Seconds = 120.0,
    retries: Tries = 5,
    max_requests: Budget | None = None,
    max_total_tokens: Budget | None = None,
    price_read: Price | None = None,
    price_written: Price | None = None,
    extra_body: str = "",
    engine: Engine = "auto",
    tokenizer: Name | None = None,
    top_logprobs: Alternatives | None = None,
    floor: Share = 0.0,
) -> LocalLM | RemoteLM:
    """A language model on this machine, or one behind an endpoint.

    Args:
        calls: of an endpoint: the file in which its answers are kept, so that none is asked for again; in memory when
            left out.
        model: embedded:NAME, a Hugging Face id, a local folder or GGUF file, or an endpoint: http://HOST:PORT/v1#NAME.
        dtype: auto is bfloat16 where the machine multiplies it natively, else float32.
        device: auto, cpu, cuda, ...
        base_url: of an endpoint, http://HOST:PORT/v1; model is its NAME then.
        api_key_env: of an endpoint: the environment variable that holds its key.
        concurrency: of an endpoint: requests at a time.
        timeout: of an endpoint: seconds that a request may take.
        retries: of an endpoint: further tries of a request that failed.
        max_requests: of an endpoint: requests that may be sent, further tries among them.
        max_total_tokens: of an endpoint: tokens that may be read and written.
        price_read: of an endpoint: what it costs to read a million tokens, for the estimate.
        price_written: of an endpoint: what it costs to write a million tokens, for the estimate.
        extra_body: of an endpoint: a JSON object that is sent with every request.
        engine: of an endpoint: which it is; auto asks. echo is any whose completions echo a prompt's log-probabilities,
            other one that only writes.
        tokenizer: of an endpoint: a model on this machine with its tokenizer, where the engine's own cannot be asked.
        top_logprobs: of vllm and sglang: how many alternatives to ask for at each token of an answer, 20 and 100 when
            left out. What they leave open bounds the losses above alpha 0.
        floor: of vllm and sglang: the least probability without a passage that counts in a contrast. With one, losses
            have an upper bound, and are another label than the published one, 0.

    Raises:
        ModelError: it cannot be loaded, or the endpoint does not answer, or says no.
        ConfigError: the address is none, its key or its model is not there, or a setting is not for such a model.
    """
    address = address_of(model, base_url)
    if address is None:
        from gainrag.lms.local import LocalLM

        if engine != "auto" or tokenizer is not None or top_logprobs is not None or floor:
            hint = "leave them out, or name an endpoint: http://HOST:PORT/v1#NAME"
            raise ConfigError("engine, tokenizer, top_logprobs and floor are of endpoints", where=model, hint=hint)
        return LocalLM(model, dtype=dtype, device=device)
    _check(address, dtype, device)
    from gainrag.lms.remote.calls import Limits
    from gainrag.lms.remote.generation import Prices
    from gainrag.lms.remote.opening import open_endpoint
    from gainrag.lms.remote.scorer import Scoring

    return open_endpoint(
        address,
        limits=Limits(concurrency, timeout, retries, max_requests, max_total_tokens),
        api_key_env=api_key_env,
        calls=calls,
        prices=Prices(price_read, price_written),
        extra_body=extra_body,
        scoring=Scoring(None if engine == "auto" else engine, tokenizer, top_logprobs, floor),
    )


def address_of(model: str, base_url: str | None = None) -> Address | None:
    """The endpoint that `model` and `base_url` name; None of a model on this machine.

    Raises:
        ConfigError: they name none that can be.
    """
    return parse(model, base_url) if base_url is not None or is_endpoint(model) else None


def _check(address: Address, dtype: str, device: str) -> None:
    if dtype != "auto" or device != "auto":
        hint = "leave them out: they are the engine's own"
        raise ConfigError("dtype and device are of models on this machine", where=str(address), hint=hint)


def check(settings: Mapping[str, Any]) -> None:
    """Whether settings of `open_lm` fit together, before anything is opened.

    Raises:
        ConfigError: an endpoint's address or key can be none, or a setting is not for such a model.
    """
    if (address := endpoint_of(settings)) is not None:
        from gainrag.lms.remote.opening import extra_of, key_from

        full = settings_of(open_lm, settings)
        _check(address, full["dtype"], full["device"])
        key_from(full["api_key_env"])
        extra_of(full["extra_body"])


@checked
def examine(
    url: str,
    *,
    api_key_env: Name = "GAINRAG_API_KEY",
    timeout: Seconds = 120.0,
    engine: Engine = "auto",
    tokenizer: Name | None = None,
    top_logprobs: Alternatives | None = None,
) -> Iterator[str]:
    """What an endpoint can do, a line each: which engine it is, what its losses are, its context and its speed.

    Args:
        url: http://HOST:PORT/v1#NAME; NAME may be left out where there is only one model.
        api_key_env: the environment variable that holds its key.
        timeout: seconds that a request may take.
        engine: which it is; auto asks.
        tokenizer: a model on this machine with its tokenizer, where the engine's own cannot be asked.
        top_logprobs: of vllm and sglang: how many alternatives to ask for.

    Raises:
        EngineError: nothing answers there, or it answers no.
        ModelError: it does not do what it is asked, or has several models and none is named.
        ConfigError: the address is none, or its key is not there.
    """
    from gainrag.lms.remote.calls import Limits
    from gainrag.lms.remote.examining import examine as find_out
    from gainrag.lms.remote.scorer import Scoring

    scoring = Scoring(None if engine == "auto" else engine, tokenizer, top_logprobs)
    return find_out(url, api_key_env=api_key_env, limits=Limits(timeout=timeout, retries=1), scoring=scoring)


def look_over(settings: Mapping[str, Any]) -> list[str]:
    """What the endpoint can do that is opened with these settings of `open_lm`, see `examine`; nothing of a model on
    this machine.

    Raises:
        EngineError, ModelError, ConfigError: as of `examine`.
    """
    if (address := endpoint_of(settings)) is None:
        return []
    full = settings_of(open_lm, settings)
    return list(examine(str(address), **{name: full[name] for name in parameters(examine)}))


def look_up(settings: Mapping[str, Any]) -> str | None:
    """What the engine says of an endpoint's model, in a few words; None of a model on this machine.

    Raises:
        EngineError: nothing answers there, or it answers no.
        ConfigError: the engine has no such model, or its key is not there.
    """
    if (address := endpoint_of(settings)) is None:
        return None
    from gainrag.lms.remote.opening import key_from, look

    report = look(address, key_from(settings_of(open_lm, settings)["api_key_env"]))
    if report.identity is None:
        return "an endpoint without a list of models"
    return "an endpoint that answers" + (f", a context of {report.context:,} tokens" if report.context else "")


def endpoint_of(settings: Mapping[str, Any]) -> Address | None:
    """The endpoint that is opened with these settings of `open_lm`; None of a model on this machine."""
    full = settings_of(open_lm, settings)
    return address_of(full["model"], full.get("base_url"))


def form_of(settings: Mapping[str, Any]) -> PromptForm:
    """The form of the prompts of a model that is opened with these settings, where none is asked for."""
    return "completion" if endpoint_of(settings) is None else "chat"


def facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What results depend on of a model that is opened with these settings of `open_lm`, without opening it: what it
    is called, what identifies its weights (None where that cannot be known now), and the dtype that it really runs in
    or what else an engine is sent. Not the device, nor how many requests are in flight, nor a key.

    Raises:
        ConfigError: an address that can be none.
    """
    full = settings_of(open_lm, settings)
    address = endpoint_of(settings)
    if address is None:
        from gainrag.models.devices import choose_device, choose_dtype
        from gainrag.models.identity import identity

        dtype = choose_dtype(full["dtype"], choose_device(full["device"]))
        return {"model": full["model"], "dtype": dtype, "identity": identity(full["model"])}
    from gainrag.lms.remote.opening import identify

    found = {"model": str(address), "identity": identify(address, full["api_key_env"])}
    told = ("extra_body", *SCORING)
    return found | {name: full[name] for name in told if full[name] != parameters(open_lm)[name].default}


def described(lm: Any) -> str:
    """A line that says what was opened."""
    from gainrag.lms.remote.generation import RemoteLM

    return lm.described() if isinstance(lm, RemoteLM) else f"{lm.name}: {lm.dtype} on {lm.device}"
