"""Settings are the keyword-only parameters of a stage: read from its signature, so that a default is written once.

Their types say their ranges: `k: Passages = 20` is a whole number from 1 to 10000. The same check serves the flags of
the command line, the keys of a config, `gainrag validate`, and every call from Python (`@checked`).
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Meta

from gainrag.errors import ConfigError, unknown

P = ParamSpec("P")
T = TypeVar("T")

# --- ranges --------------------------------------------------------------------------------------------------------
# Upper ends are far above all use: what lies beyond is a slip of the finger, and would end in hours or in no memory.

Passages = Annotated[int, Meta(ge=1, le=10_000)]  # passages a question
Batch = Annotated[int, Meta(ge=1, le=100_000)]  # things that are worked on at a time
Tokens = Annotated[int, Meta(ge=1, le=32_768)]  # tokens that a model writes
Length = Annotated[int, Meta(ge=8, le=131_072)]  # tokens that a model reads
Some = Annotated[int, Meta(ge=0, le=100_000_000)]  # questions of a sample; 0 has a meaning of its own
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # what numpy, torch and transformers all take
Samples = Annotated[int, Meta(ge=1, le=1000)]  # answers that are drawn to one prompt
AtMost = Annotated[int, Meta(ge=2, le=10_000)]  # candidates that a question keeps
Warmth = Annotated[float, Meta(gt=0.0, le=2.0)]  # temperature at which a language model draws its tokens
Seeds = Annotated[int, Meta(ge=1, le=100)]  # trainings of one system that differ in the seed alone
Alpha = Annotated[float, Meta(ge=0.0, le=100.0)]  # weight of the contrast
Temperature = Annotated[float, Meta(ge=0.001, le=1000.0)]  # of a teacher
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]  # of a whole, never all of it
GroupSize = Annotated[int, Meta(ge=2, le=1000)]  # passages that a question shows at a visit
GroupsPerStep = Annotated[int, Meta(ge=1, le=1000)]
Epochs = Annotated[int, Meta(ge=1, le=1000)]
Passes = Annotated[int, Meta(ge=0, le=1000)]  # epochs that may be none
Folds = Annotated[int, Meta(ge=2, le=20)]
Layers = Annotated[int, Meta(ge=0, le=1000)]
Rate = Annotated[float, Meta(gt=0.0, le=1.0)]  # learning rate
Confidence = Annotated[float, Meta(gt=0.0, lt=1.0)]  # level of an interval
InFlight = Annotated[int, Meta(ge=1, le=1000)]  # requests to an engine at a time
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]
Tries = Annotated[int, Meta(ge=0, le=100)]  # further ones
Budget = Annotated[int, Meta(ge=1, le=10**12)]  # requests or tokens
Price = Annotated[float, Meta(ge=0.0, le=1e6)]  # of a million tokens
Alternatives = Annotated[int, Meta(ge=0, le=100_000)]  # tokens that an engine names beside the one that it is asked for
Engine = Literal["auto", "vllm", "sglang", "llama.cpp", "echo", "other"]
Device = Annotated[str, Meta(pattern=r"^(auto|cpu|(cuda|xpu|mps)(:\d+)?)$", description="auto, cpu, cuda or cuda:N")]
Name = Annotated[str, Meta(min_length=1, description="a name that is not empty")]  # of a model, a file, a key
Dtype = Literal["auto", "float32", "bfloat16"]


def count(n: int, thing: str) -> str:
    """A number of things in words.

    >>> count(1, "request"), count(1200, "request")
    ('1 request', '1,200 requests')
    """
    return f"{n:,} {thing}" + "s" * (n != 1)


def further_seed(seed: int, n: int) -> int:
    """The n-th seed after one, the first following the last.

    >>> further_seed(4, 2), further_seed(2**32 - 1, 1)
    (6, 0)
    """
    return (seed + n) % 2**32


def checked(stage: Callable[P, T]) -> Callable[P, T]:
    """Check a stage's settings each time it is called.

    Raises (when the stage is called):
        ConfigError: a setting is of another type or out of its range.
    """

    @functools.wraps(stage)
    def call(*args: P.args, **given: P.kwargs) -> T:
        known = parameters(stage)
        check_settings({k: v for k, v in given.items() if k in known}, known, where=_called(stage))
        return stage(*args, **given)

    return call


def _called(stage: Callable[..., Any]) -> str:
    """What people call a stage: its name, or its class's."""
    return stage.__qualname__.removesuffix(".__init__")


# --- signatures ----------------------------------------------------------------------------------------------------


def parameters(stage: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a stage, with their types resolved, ranges and all."""
    found = [p for p in inspect.signature(stage).parameters.values() if p.kind is p.KEYWORD_ONLY]
    # Of these alone: the types of other parameters may be imported for type checkers only.
    holder = types.SimpleNamespace(__annotations__={p.name: p.annotation for p in found})
    hints = typing.get_type_hints(holder, vars(sys.modules[stage.__module__]), include_extras=True)
    return {p.name: p.replace(annotation=hints[p.name]) for p in found}


def settings_of(stage: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All keyword-only parameters of a stage: what is given, else the default."""
    return {name: given.get(name, p.default) for name, p in parameters(stage).items()}


def added_later(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark parameters that a stage got after others had worked with it: see `recorded`."""

    def mark(stage: Callable[P, T]) -> Callable[P, T]:
        vars(stage)[_ADDED] = names
        return stage

    return mark


_ADDED = "__added_later__"


def recorded(stage: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage as they stand beside what it made: all, but of those that were added later (see
    `added_later`) only what differs from the default. So a new setting throws away no labels of the day before."""
    known, later = parameters(stage), vars(stage).get(_ADDED, ())
    own = settings_of(stage, given)
    return {name: value for name, value in own.items() if name not in later or value != known[name].default}


# --- values --------------------------------------------------------------------------------------------------------


def check_settings(table: Mapping[str, Any], known: Mapping[str, inspect.Parameter], *, where: str) -> None:
    """Check keys and values against keyword-only parameters, see `parameters`.

    Raises:
        ConfigError: an unknown key (with the nearest known one), or a value of another type or out of its range.
    """
    for key, value in table.items():
        if key not in known:
            raise ConfigError(unknown("key", key, known), where=where)
        if not fits(value, known[key].annotation):
            wanted = describe_type(known[key].annotation)
            near = get_close_matches(str(value), _choices(known[key].annotation), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"give {wanted}"
            raise ConfigError(f"{key} is {value!r}, not {wanted}", where=where, hint=hint)


def _choices(annotation: Any) -> list[str]:
    """The words among which a setting chooses; none where it is no such choice."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) for word in _choices(part)]


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of an annotated type: bool, int, float, str, Literal, None, Sequence, a union, with its range.

    >>> fits(1, float), fits(True, int), fits([0, 0.5], float | Sequence[float]), fits(float("nan"), Alpha)
    (True, False, True, False)
    """
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        kind, *_ = typing.get_args(annotation)
        if not fits(value, kind):
            return False
        try:
            msgspec.convert(value, annotation)
        except msgspec.ValidationError:
            return False
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in typing.get_args(annotation))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in typing.get_args(annotation))
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, typing.get_args(annotation)[0]) for item in value)
    if annotation is type(None):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def describe_type(annotation: Any) -> str:
    """An annotated type in words.

    >>> describe_type(Passages), describe_type(Sequence[Alpha])
    ('a whole number from 1 to 10000', 'a list of numbers from 0 to 100')
    """
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        kind, meta = typing.get_args(annotation)
        return str(meta.description) if meta.description else describe_type(kind) + _range(meta)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(a) for a in typing.get_args(annotation) if a is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if origin is not None:
        whole = describe_type(typing.get_args(annotation)[0]).removeprefix("a ")
        return "a list of " + whole.replace("number", "numbers", 1).replace("string", "strings", 1)
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[annotation]


def _range(meta: Meta) -> str:
    """The bounds of a number in words, with a space before them."""
    low = f" from {meta.ge:.10g}" if meta.ge is not None else f" above {meta.gt:g}" if meta.gt is not None else ""
    high = f" to {meta.le:.10g}" if meta.le is not None else f" below {meta.lt:g}" if meta.lt is not None else ""
    return low + (f" and{high}" if low and meta.lt is not None else high)
