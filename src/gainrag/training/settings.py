"""The settings of a training as one record, and what of them contradicts what."""

from __future__ import annotations

from typing import Literal

import msgspec

from gainrag.errors import ConfigError
from gainrag.training.labels import POINT_WISE, Labels

# What is trained: boosted trees over cheap features, a cross-encoder, or trees that read cross-encoders' scores, too.
Kind = Literal["features", "cross-encoder", "stack"]


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


def check_training(settings: Settings, *, tuned: bool = False, where: str = "train") -> None:
    """Whether the settings agree with one another, as far as that can be known before the data is read.

    Args:
        tuned: whether settings are to be chosen by the held-out questions.
        where: what to name in the error.

    Raises:
        ConfigError: they do not.
    """
    if settings.kind == "stack" and settings.start is not None:
        raise ConfigError("a stack starts from no trees", where=where, hint="leave start out, or kind = features")
    # Left out, it depends on the number of questions, and a comparison of trainings must not.
    if (settings.validation == 0 and settings.retrieval_prior) or (tuned and not settings.validation):
        what = "tuning" if tuned else "retrieval_prior"
        raise ConfigError(f"{what} needs held-out questions", where=where, hint="set validation, such as 0.2")
