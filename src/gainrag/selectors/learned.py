"""What a selector learned beside its weights, as small JSON files in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from gainrag.errors import DataError
from gainrag.files.streams import read_json, write_json


class Learned(msgspec.Struct, frozen=True):
    """One thing that was learned.

    FILE: its file in a selector folder.
    """

    FILE: ClassVar[str]


T = TypeVar("T", bound=Learned)


def write_learned(folder: Path, value: Learned) -> None:
    """Put it into a selector folder."""
    write_json(folder / value.FILE, msgspec.to_builtins(value))


def read_learned(folder: str | Path, kind: type[T]) -> T | None:
    """The one of a selector folder; None where it has none.

    Raises:
        DataError: the file does not fit.
    """
    path = Path(folder) / kind.FILE
    if not path.is_file():
        return None
    try:
        return msgspec.convert(read_json(path), kind)
    except msgspec.ValidationError as error:
        raise DataError(str(error), where=str(path), hint="train the selector again") from None


def facts_table(facts: Mapping[str, Any]) -> str:
    """The facts of a model card as a Markdown table; those that are None are left out."""
    rows = "\n".join(
        f"| {name} | {f'{value:.4g}' if isinstance(value, float) else value} |"
        for name, value in facts.items()
        if value is not None
    )
    return f"| fact | value |\n|---|---|\n{rows}\n"
