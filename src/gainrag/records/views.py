"""What people see of records: one line each in Python, one screen as text, and a table with bars in a notebook.

Knows values alone, no records: whoever has some says what matters of them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Characters of a text in one line, of a whole line, and in a notebook's table.
_SHORT, _LINE, _CELL = 60, 110, 160
# Candidates on one screen.
_ROWS = 12
_NUMBER = "font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap;vertical-align:top"
_BAR = "display:inline-block;height:.7em;background:#4c8dd6;border-radius:2px"


@dataclass(frozen=True)
class Row:
    """A candidate: the number that it is ranked by (None where it has none), its title and text, and what is to be said
    of it, such as that the model read it."""

    number: float | None
    title: str
    text: str
    marks: Sequence[str] = ()


def short(text: str, length: int = _SHORT) -> str:
    """The beginning of a text, in one line.

    >>> short("Paris lies\\n on the Seine.", 15)
    'Paris lies on …'
    """
    flat = " ".join(text[: 4 * length].split())
    return flat if len(flat) <= length and len(text) <= 4 * length else flat[: length - 1] + "…"


def line(kind: str, fields: Mapping[str, object]) -> str:
    """A record in one line of Python: texts are cut, and what is None is left out.

    >>> line("Passage", {"id": "1", "title": None, "text": "word " * 40})
    "Passage(id='1', text='word word word word word word word word word word word word…')"
    """
    said = (f"{name}={_value(value)}" for name, value in fields.items() if value is not None)
    return f"{kind}({', '.join(said)})"


def _value(value: object) -> str:
    if isinstance(value, str):
        return repr(short(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        shown = ", ".join(map(_value, value[:3]))
        return f"[{shown}, … {len(value)} in all]" if len(value) > 3 else f"[{shown}]"
    return repr(value)


def screen(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Facts and candidates as text, each in one line."""
    width = max(map(len, facts), default=0)
    lines = [f"{name:<{width}}  {short(value, _LINE - width)}" for name, value in facts.items()]
    for row in rows[:_ROWS]:
        number = " " * 9 if row.number is None else f"{row.number:9.3f}"
        marks = f" [{', '.join(row.marks)}]" if row.marks else ""
        told = short(_told(row), _LINE - len(number) - len(marks) - 2)
        lines.append(f"{number}  {told}{marks}")
    return "\n".join([*lines, *_more(rows)])


def page(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The same as a table for a notebook, each candidate with a bar: the best one's is the longest. Every text is
    escaped: passages may hold anything."""
    numbers = [row.number for row in rows[:_ROWS] if row.number is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    out = ["<div>"]
    out += (f"<div><b>{_safe(name)}</b> {_safe(short(value, 2 * _CELL))}</div>" for name, value in facts.items())
    out.append("<table>")
    for row in rows[:_ROWS]:
        number = "" if row.number is None else f"{row.number:.3f}"
        # The worst one's bar is seen, too.
        share = 0.0 if row.number is None else 1.0 if high == low else 0.05 + 0.95 * (row.number - low) / (high - low)
        bar = f'<span style="{_BAR};width:{100 * share:.0f}px"></span>'
        said = f" <i>{_safe(', '.join(row.marks))}</i>" if row.marks else ""
        text = f"<b>{_safe(short(row.title))}</b> {_safe(short(row.text, _CELL))}"
        out.append(
            f'<tr><td style="{_NUMBER}">{number}</td><td style="text-align:left;min-width:104px;vertical-align:top">'
            f'{bar}</td><td style="text-align:left">{text}{said}</td></tr>'
        )
    return "".join([*out, "</table>", *(f"<div>{_safe(text)}</div>" for text in _more(rows)), "</div>"])


def _told(row: Row) -> str:
    return f"{row.title}: {row.text}" if row.title else row.text


def _more(rows: Sequence[Row]) -> Iterable[str]:
    if len(rows) > _ROWS:
        yield f"and {len(rows) - _ROWS} more"


def _safe(text: str) -> str:
    return html.escape(text)
