"""How values of report.json look in a cell of a table: functions from plain data to strings."""

from __future__ import annotations

from gainrag.report import figures
from gainrag.report.cases import Plain
from gainrag.runs import printing
from gainrag.runs.printing import NOT_AVAILABLE, percent, signed


def settings(values: Plain, prefix: str = "") -> str:
    """Nested settings on one line; what nobody set says so."""
    parts = []
    for key, value in values.items():
        if isinstance(value, dict):
            parts.append(settings(value, f"{prefix}{key}."))
        else:
            parts.append(f"{prefix}{key} = {'not set' if value is None else value}")
    return ", ".join(part for part in parts if part)


def passage(found: Plain) -> str:
    """A passage in a table: what it is, its true gain, and its beginning where texts are shown."""
    name = "pseudo-passage" if found["generated"] else found["title"] or "untitled passage"
    if found["gain"] is not None:
        name += f" (gain {found['gain']:.2f})"
    elif not found["candidate"]:
        name += " (no candidate)"
    return name + (f": {found['text']}" if "text" in found else "")


def share(found: Plain) -> str:
    """A share in percent with its interval."""
    if found["value"] is None:
        return NOT_AVAILABLE
    return f"{percent(found['value'])} [{percent(found['low'])}, {percent(found['high'])}]"


def score(value: float | None) -> str:
    """A score in percent."""
    return NOT_AVAILABLE if value is None else percent(value)


def mean(found: Plain | None) -> str:
    """A mean score in percent with what it is of."""
    if found is None or found["value"] is None:
        return NOT_AVAILABLE
    return f"{percent(found['value'])} (n={found['n']})"


def difference(row: Plain) -> str:
    """A difference in points with its interval, where it has one."""
    if row["low"] is None:
        return signed(row["difference"])
    return f"{signed(row['difference'])} [{signed(row['low'])}, {signed(row['high'])}]"


def interval(row: Plain) -> str:
    """A mean as it is, with its spread over seeds and its interval, where it has them."""
    if row["mean"] is None:
        return NOT_AVAILABLE
    sd = "" if row.get("sd") is None else f" ± {row['sd']:.2f}"
    return f"{row['mean']:.2f}{sd}" + ("" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]")


def percents(row: Plain) -> str:
    """A mean score in percent with its spread over seeds, where it has one, and its interval."""
    sd = "" if row.get("sd") is None else f" ± {percent(row['sd'])}"
    return f"{percent(row['mean'])}{sd} [{percent(row['low'])}, {percent(row['high'])}]"


def scaled(row: Plain, key: str, scale: float) -> figures.Interval:
    """A value and its interval, where it has one, to be drawn: 100 makes shares percent and differences points."""
    low, high = row["low"], row["high"]
    return scale * row[key], None if low is None else scale * low, None if high is None else scale * high


def p_text(p: float) -> str:
    """A p-value to stand behind its letter."""
    text = printing.p_value(p)
    return text if text.startswith("<") else f"= {text}"
