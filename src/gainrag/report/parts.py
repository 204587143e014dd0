"""What a report is put together from: sections with sentences, tables and figures, and the tiles of its headline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Rows of text, the heading first. `folded`: long, to be opened by a click; `ids`: questions its rows are about."""

    caption: str
    rows: list[list[str]]
    folded: bool = False
    ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it: sentences, figures as SVG with what they show, tables."""

    key: str
    title: str
    text: list[str]
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    value: str
    label: str
    note: str


def first(name: str, names: Iterable[str]) -> list[str]:
    """The names with one of them, where it is there, in front: what comes first has the accent colour."""
    return sorted(names, key=lambda other: other != name)
