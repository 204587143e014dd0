"""The records that flow between stages: their fields, the values these may have, and their form in JSON.

One record is one line. Unknown keys of the input are kept in `extra` and written back.

fields.py   the records
lines.py    their lines of JSON
values.py   what everything that is read must have, beyond its types
views.py    what people see: one line, one screen, bars in a notebook
"""

from gainrag.records import views
from gainrag.records.fields import (
    Answer,
    Gained,
    GainRecord,
    Level,
    Origin,
    Passage,
    Question,
    Record,
    Retrieved,
    Scored,
    row_of,
)
from gainrag.records.lines import ASKED_BY, BY_MODEL, BY_PEOPLE, GOLD, encode, from_builtins, to_builtins
from gainrag.records.values import check, check_answers, check_choices, gold_ranks, right_choice

__all__ = [
    "ASKED_BY",
    "BY_MODEL",
    "BY_PEOPLE",
    "GOLD",
    "Answer",
    "GainRecord",
    "Gained",
    "Level",
    "Origin",
    "Passage",
    "Question",
    "Record",
    "Retrieved",
    "Scored",
    "check",
    "check_answers",
    "check_choices",
    "encode",
    "from_builtins",
    "gold_ranks",
    "right_choice",
    "row_of",
    "to_builtins",
    "views",
]
