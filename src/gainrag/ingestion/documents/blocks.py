"""What a page is made of, whatever it was written in: headings, text, code and tables, in their order."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["heading", "text", "code", "table"]


class Block(NamedTuple):
    """A part of a page that is not torn where it fits a passage.

    level: of a heading, 1 the highest; 0 the page's own title, which stands above all; of other blocks 0.
    """

    kind: Kind
    text: str
    level: int = 0


class Unreadable(Exception):
    """A file that gives no passages; the message is the reason, the same for all files of its kind."""
