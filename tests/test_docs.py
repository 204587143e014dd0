"""Documents that are made from the code must not fall behind it: renew them with `pytest --renew-golden`."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import pytest

import gainrag
from gainrag.cli.main import build_parser

ROOT = Path(__file__).parent.parent


def cli_reference() -> str:
    """Every command's help as Markdown."""
    parser = build_parser()
    sub = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = ["# Command line\n\nMade from the program's own help: `pytest tests/test_docs.py --renew-golden`.\n"]
    for name, command in sub.choices.items():
        text = command.format_help()
        parts.append(f"## gainrag {name}\n\n```\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def test_the_command_line_reference_is_current(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    path = ROOT / "docs" / "cli.md"
    if pytestconfig.getoption("--renew-golden"):
        path.write_text(cli_reference())
    assert path.read_text() == cli_reference()


def anchors(document: Path) -> set[str]:
    """What a link into the document can name: its headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_a_document_leads_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert len(documents) > 10
    for document in documents:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), f"{document.name} points to {target}"
            inside = document.parent == ROOT or path.resolve().is_relative_to(ROOT / "docs")
            assert inside, f"{document.name} points to {target}, which is not on the site: write its path instead"
            assert not anchor or anchor in anchors(path), f"{document.name} points to {target}: no such heading"


def test_results_hold_no_more_than_is_read() -> None:
    for path in (ROOT / "docs" / "results").rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert path.name in {"config.toml", "table.txt", "report.md", "metrics.json"}, path
            assert path.stat().st_size < 100_000, path


def test_the_page_for_contributors_names_every_room_of_the_source() -> None:
    tree = re.search(r"^src/gainrag/\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    assert tree
    named = set(re.findall(r"^  ([\w.]+/?) ", tree[1], re.M))
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "src" / "gainrag").iterdir()
        if path.name not in {"__pycache__", "py.typed"}
    }
    assert named == rooms


def test_the_python_reference_holds_every_public_name() -> None:
    named = re.findall(r"^::: gainrag[\w.]*\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(gainrag.__all__)


def test_the_site_shows_every_page() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    shown = set(re.findall(r"[\w/-]+\.md", str(site["nav"])))
    # The runs' own reports are reached from the page of the runs.
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert shown == {page for page in pages if not page.endswith("/report.md")}
