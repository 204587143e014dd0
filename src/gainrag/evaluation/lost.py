"""Where a question is lost: in retrieval, in selection, or in reading. Pure functions of what is known of one question.

| part            | the answer is | and                                                                        |
|-----------------|---------------|----------------------------------------------------------------------------|
| `right`         | right         | a passage that was read holds it                                           |
| `right_without` | right         | no passage that was read holds it                                          |
| `retrieval`     | wrong         | no candidate holds it: no selector could have chosen one                   |
| `selection`     | wrong         | a candidate holds it, and others were read                                 |
| `reader`        | wrong         | a passage that was read holds it, and the language model answered wrong    |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Part = Literal["right", "right_without", "retrieval", "selection", "reader"]
PARTS: tuple[Part, ...] = get_args(Part)
Place = Literal["read", "missed", "none"]


def place(candidates: Sequence[bool], read: Sequence[bool]) -> Place:
    """Where the answer was: "read"; "missed", as a candidate holds it and what was read does not; or in "none".

    >>> place([False, True], [True]), place([False, True], [False]), place([False, False], [False])
    ('read', 'missed', 'none')

    Args:
        candidates: of each candidate, whether it holds the answer.
        read: the same of each passage that was read, which may be no candidate.
    """
    return "read" if any(read) else "missed" if any(candidates) else "none"


def part(where: Place, right: bool) -> Part:
    """The part of a question, from where its answer was and whether it was answered right.

    >>> part("read", True), part("none", True), part("none", False), part("missed", False), part("read", False)
    ('right', 'right_without', 'retrieval', 'selection', 'reader')
    """
    if right:
        return "right" if where == "read" else "right_without"
    return {"read": "reader", "missed": "selection", "none": "retrieval"}[where]  # type: ignore[return-value]
