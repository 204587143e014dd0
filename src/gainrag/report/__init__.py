"""A finished run -> report.html, report.md and report.json in its folder: `gainrag report`.

finished  the run folder, read and checked
data      all numbers, as plain data: report.json
lost      of these, where questions are lost: in retrieval, selection or reading
variants  of these, the selectors trained another way
sections  headings, sentences, tables and figures from these numbers
parts     what sections are made of
cells     values as text
figures   plots as SVG
page      the sections as a page (template/) and as Markdown
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gainrag.errors import require
from gainrag.files.streams import open_output, write_json
from gainrag.report.cases import Plain
from gainrag.settings import Name, checked

REPORTS = ("report.html", "report.md", "report.json")


@checked
def report(
    run: str | Path,
    *,
    baseline: Name | None = None,
    passages: bool = True,
    group_by: Sequence[Name] = ("question_type",),
) -> Plain:
    """Write report.html, report.md and report.json into a finished run folder, and return what report.json holds.

    Args:
        run: the run folder.
        baseline: the system GainRAG is compared with; the retriever's first passages when it is left out.
        passages: show the beginning of each passage; leave them out where they may not be passed on.
        group_by: keys of the questions to compare groups by.

    Raises:
        DataError: the folder is no finished run, or its files are not of one run.
        ConfigError: no such baseline, or the extra is not installed.
    """
    require("report", "jinja2", "matplotlib")
    from gainrag.report.data import build
    from gainrag.report.finished import read_run
    from gainrag.report.page import html, markdown
    from gainrag.report.sections import sections

    folder = Path(run)
    data = build(read_run(folder), baseline, passages, group_by)
    write_json(folder / "report.json", data)
    shown = sections(data)  # once: most of the time goes into their figures
    for name, text in (("report.html", html(data, shown)), ("report.md", markdown(data, shown))):
        with open_output(folder / name) as stream:
            stream.write(text.encode())
    return data
