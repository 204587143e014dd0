"""The settings of a training as one record, and what of them contradicts what."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar

import msgspec

from gainrag.errors import ConfigError, require
from gainrag.settings import settings_of
from gainrag.training.labels import POINT_WISE, Labels

P = ParamSpec("P")
T = TypeVar("T")

# What is trained: boosted trees over cheap features, a cross-encoder, or trees that read cross-encoders' scores, too.
Kind = Literal["features", "cross-encoder", "stack"]

# Where the figures of a training go beside standard error: a tracker, by the name of its package.
Report = Literal["none", "trackio", "wandb", "mlflow"]

# The settings that a kind does not read. All others it does.
_OF_STACKS = {"folds", "depth", "relevance_epochs"}
_OF_ENCODERS = {
    "base",
    "group_size",
    "groups_per_step",
    "epochs",
    "learning_rate",
    "warmup",
    "weight_decay",
    "dropout",
    "last_layers",
    "max_length",
    "report_to",
    "dtype",
    "device",
}
UNREAD: dict[Kind, set[str]] = {
    "features": {*_OF_ENCODERS, *_OF_STACKS, "retrieval_prior"},
    "cross-encoder": {*_OF_STACKS, "start"},
    "stack": {"start", "retrieval_prior"},
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The keyword-only parameters of `train`; their meanings, defaults and ranges are there."""

    kind: Kind
    base: str
    start: str | None
    labels: Labels
    alpha: float | None
    temperature: float
    only_kept: bool
    group_size: int
    groups_per_step: int
    epochs: int
    learning_rate: float
    warmup: float
    weight_decay: float
    dropout: float | None
    last_layers: int
    max_length: int
    folds: int
    depth: int
    relevance_epochs: int
    validation: float | None
    retrieval_prior: bool
    keep_worse: bool
    report_to: Report
    seed: int
    dtype: str
    device: str

    @property
    def sharpness(self) -> float:
        """The teacher's temperature; labels that have none are taken as they are."""
        return 1.0 if self.labels == "relevance" else self.temperature

    @property
    def point_wise(self) -> bool:
        """Whether each pair is learned by itself."""
        return self.labels in POINT_WISE


def check_read(kind: Kind, given: Mapping[str, Any], *, where: str) -> None:
    """Whether the kind reads every setting that it was given.

    Args:
        given: the settings that somebody chose, be it the default's value; None is as good as left out.
        where: what to name in the error.

    Raises:
        ConfigError: it does not.
    """
    if wrong := [name for name, value in given.items() if name in UNREAD[kind] and value is not None]:
        readers = [other for other, unread in UNREAD.items() if wrong[0] not in unread]
        raise ConfigError(
            f"kind {kind!r} does not read {wrong[0]}",
            where=where,
            hint=f"leave it out; kind {' and '.join(map(repr, readers))} {'read' if readers[1:] else 'reads'} it",
        )


def read_by(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings that several trainings share those that the kind reads."""
    return {name: value for name, value in given.items() if name not in UNREAD[kind]}


def reads_what_it_is_given(train: Callable[P, T]) -> Callable[P, T]:
    """Refuse settings that the kind to be trained does not read, each time `train` is called.

    Raises (when it is called):
        ConfigError: one was given.
    """

    @functools.wraps(train)
    def call(*args: P.args, **given: P.kwargs) -> T:
        kind: Kind = settings_of(train, given)["kind"]
        check_read(kind, given, where="train")
        return train(*args, **given)

    return call


def check_training(settings: Settings, *, tuned: bool = False, where: str = "train") -> None:
    """Whether the settings agree with one another, and with what is installed, as far as that can be known before the
    data is read.

    Args:
        tuned: whether settings are to be chosen.
        where: what to name in the error.

    Raises:
        ConfigError: they do not, or the kind needs an extra that is not installed.
    """
    if settings.kind != "features":
        require("train", "accelerate", "datasets")
    # Left out, it depends on the number of questions, and a comparison of trainings must not. That of trees has folds.
    tuned = tuned and settings.kind != "features"
    if (settings.validation == 0 and settings.retrieval_prior) or (tuned and not settings.validation):
        what = "tuning" if tuned else "retrieval_prior"
        raise ConfigError(f"{what} needs held-out questions", where=where, hint="set validation, such as 0.2")
    if (to := settings.report_to) != "none" and importlib.util.find_spec(to) is None:
        what = f"report_to is {to!r}, and the package {to} is not installed"
        raise ConfigError(what, where=where, hint=f"pip install {to}, or leave it out")
