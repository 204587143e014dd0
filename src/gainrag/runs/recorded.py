"""What a run's meta files say, read without anything that trains or computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gainrag.errors import DataError
from gainrag.files.meta import meta_path
from gainrag.files.streams import read_json
from gainrag.gain import CHOICE_TEMPERATURE
from gainrag.records import GainRecord
from gainrag.synthesis import choice_gains_at, gains_at

T = TypeVar("T")


class Meta(msgspec.Struct, frozen=True):
    """What stands beside an artefact, see gainrag.files.meta."""

    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    versions: dict[str, str] = {}
    summary: dict[str, Any] | None = None


class Taught(msgspec.Struct, frozen=True):
    """The settings that a selector was trained with, those that its reader needs."""

    alpha: float | None
    temperature: float
    labels: str = "gain"

    def true_gains(self, record: GainRecord) -> list[float]:
        """What each candidate of a question is worth by what the selector was taught: its gain at the alpha, or its
        gain normalised over the choices. Sampled labels have one gain, and no alpha.

        Raises:
            DataError: the losses that this takes are not stored.
        """
        if record.level == "sampled":
            return gains_at(record, None)
        if self.labels == "choice":
            return choice_gains_at(record, self.alpha, CHOICE_TEMPERATURE)
        return gains_at(record, self.alpha)


class _Trial(msgspec.Struct):
    settings: dict[str, Any]
    best: bool


class _Tuned(msgspec.Struct):
    trials: list[_Trial] = []


def read_meta(path: Path) -> Meta:
    """A meta file.

    Raises:
        DataError: it is missing, or no meta file.
    """
    return as_type(read_json(path), Meta, path)


def as_type(value: object, kind: type[T], where: Path) -> T:
    """Decoded JSON as a record of a kind.

    Raises:
        DataError: it is none.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=str(where), hint="run `gainrag run` again, or restore the file") from None


def taught(selector: Path) -> Taught:
    """The settings that a selector of a run was trained with: those configured, over them what tuning chose.

    Raises:
        DataError: it has no meta file, or that is none of a training.
    """
    settings = {**read_meta(meta_path(selector)).settings, **chosen_settings(selector)}
    return as_type(settings, Taught, meta_path(selector))


def chosen_settings(selector: Path) -> dict[str, Any]:
    """The settings in which what tuning chose for a selector differs from what was configured.

    Raises:
        DataError: it has a meta file that is none of a training.
    """
    meta = meta_path(selector)
    tuned = as_type((read_meta(meta).summary if meta.exists() else None) or {}, _Tuned, meta)
    return next((trial.settings for trial in tuned.trials if trial.best), {})
