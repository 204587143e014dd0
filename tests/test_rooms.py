"""The rooms of the house: no import runs upward, no circle, and the listing stays readable."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import gainrag

SOURCE = Path(gainrag.__file__).parent

# Lowest first. A room may import from its own line's rooms only where they are named before it, and from all before.
ORDER = (
    "errors",
    "settings",
    "gain",
    "records",
    "metrics",
    "statistics",
    "files",
    "protocols",
    "prompts",
    "models",
    "ingestion",
    "retrievers",
    "lms",
    "selectors",
    "indexing",
    "retrieval",
    "asking",
    "augmentation",
    "answering",
    "selection",
    "synthesis",
    "training",
    "evaluation",
    "probing",
    "inference",
    "testing",
    "cluster",
    "runs",
    "report",
    "demo",
    "serving",
    "integrations",
    "cli",
)


def modules() -> dict[str, Path]:
    """Every module of the package but its front door, by its name below `gainrag`."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            found[name] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The package's own modules that a module imports, inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("gainrag.") for a in node.names if a.name.startswith("gainrag.")}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            module = node.module or ""
            if module == "gainrag" or module.startswith("gainrag."):
                inner = module.removeprefix("gainrag").removeprefix(".")
                for alias in node.names:
                    whole = f"{inner}.{alias.name}".removeprefix(".")
                    found.add(whole if whole in known else inner)
    return {module for module in found if module and module != name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_its_place_in_the_order(graph: dict[str, set[str]]) -> None:
    assert {room(module) for module in graph} <= set(ORDER)


def test_no_import_runs_upward(graph: dict[str, set[str]]) -> None:
    upward = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if ORDER.index(room(other)) > ORDER.index(room(module))
    ]
    assert not upward, upward


def test_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_doors_know_configs(graph: dict[str, set[str]]) -> None:
    knowing = {room(module) for module, others in graph.items() if "runs.config" in others}
    assert knowing <= {"runs", "report", "cli", "demo"}


def test_the_listing_stays_readable() -> None:
    listed = [path for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(listed) + 1 <= 37, sorted(path.name for path in listed)
