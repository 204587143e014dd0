"""Documents that are made from the code must not fall behind it: renew them with `pytest --renew-golden`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

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


def test_every_file_a_document_points_to_is_there() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert len(documents) > 3
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} points to {target}"
