"""The report's sections as one self-contained page, and as Markdown.

The page needs nothing but itself: style, script, figures and data are in it, and its own policy forbids any request.
Text of users (questions, passages, answers) is escaped by the template, or set as text by the script. The questions are
packed: a thousand of them with their candidates and twenty systems are over 10 MB as plain JSON.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec

from gainrag.report.cases import Plain
from gainrag.report.parts import Section, Table
from gainrag.report.sections import headline, lead
from gainrag.runs.printing import piped


def html(data: Plain, shown: Sequence[Section]) -> str:
    """report.json, and its sections, as a page."""
    import jinja2

    folder = resources.files("gainrag.report") / "template"

    def part(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.filters["numeric"] = _numeric
    return environment.from_string(part("page.html.j2")).render(
        data=data,
        title=f"gainrag report: {data['run']}",
        lead=lead(data),
        tiles=headline(data),
        sections=shown,
        style=part("page.css"),
        script=part("page.js"),
        packed=packed({"roles": data["roles"], "questions": _questions(data)}),
    )


def _questions(data: Plain) -> list[Plain]:
    """The questions with what the page shows of them: of the selectors' scores those of GainRAG alone."""
    gainrag = data["roles"]["gainrag"]
    return [
        {
            **question,
            "passages": [
                {**{key: p[key] for key in p if key != "scores"}, "score": p["scores"].get(gainrag)}
                for p in question["passages"]
            ],
        }
        for question in data["questions"]
    ]


def packed(value: Any) -> str:
    """JSON, deflated, in base64: what the page's script unpacks. Nothing in it is markup.

    >>> msgspec.json.decode(zlib.decompress(base64.b64decode(packed(["</script>"]))))
    ['</script>']
    """
    return base64.b64encode(zlib.compress(msgspec.json.encode(value), 9)).decode()


def markdown(data: Plain, shown: Sequence[Section]) -> str:
    """report.json, and its sections, as Markdown: sentences and tables, without figures and single questions."""
    parts = [f"# gainrag report: {inline(data['run'])}", inline(lead(data))]
    parts.append("\n".join(f"- {inline(f'{t.label}: {t.value} ({t.note})')}" for t in headline(data)))
    for section in shown:
        parts.append(f"## {inline(section.title)}")
        parts += [inline(text) for text in section.text]
        parts += [_table(table) for table in section.tables]
    parts.append("```\n" + "\n".join(data["commands"]) + "\n```")
    if data["config"].strip():
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", data["config"])), default=0))
        parts.append(f"config.toml:\n\n{fence}toml\n{data['config'].strip()}\n{fence}")
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    return f"**{inline(table.caption)}**\n\n{piped([[inline(cell) for cell in row] for row in table.rows])}"


def inline(text: str) -> str:
    """Text as one line of Markdown that shows it as it is: no markup of its own, no HTML, no formula.

    >>> inline("a *b*\\n<i>| 1.0 [0.9, 1.1] [x](y)")
    'a \\\\*b\\\\* &lt;i>| 1.0 [0.9, 1.1] [x]\\\\(y)'
    """
    escaped = re.sub(r"([\\*_`$]|~(?=~)|(?<=\])\()", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _numeric(cell: str) -> bool:
    """Whether a cell of a table is a number, to be set flush right."""
    return bool(re.match(r"^[+\-<]? ?\d[\d.,]*( [\[(±]|[*%]|$)|^-$", cell))
