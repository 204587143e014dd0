"""Run folders whose files are damaged or not of one run: one line each. And what reading one takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli
from tests.recorded_run import make_run

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "small", n=6)


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def in_lines(file: str, **changed: Any) -> Change:
    """Other values in every record of a file."""

    def change(run: Path) -> None:
        lines = [{**json.loads(line), **changed} for line in (run / file).read_text().splitlines()]
        (run / file).write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change


def in_evaluation(change: Callable[[dict[str, Any]], Any]) -> Change:
    def of(run: Path) -> None:
        found = json.loads((run / "evaluation.json").read_text())
        change(found)
        (run / "evaluation.json").write_text(json.dumps(found))

    return of


def as_text(file: str, text: str | bytes) -> Change:
    def change(run: Path) -> None:
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_bytes(text.encode() if isinstance(text, str) else text)

    return change


def twice(file: str) -> Change:
    return lambda run: (run / file).write_text((run / file).read_text() * 2)


def without_metrics(found: dict[str, Any]) -> None:
    for scores in found["overall"]["systems"].values():
        scores["metrics"] = {}


DAMAGES: list[tuple[Change, str]] = [
    (in_evaluation(lambda found: found["overall"].update(systems={})), "evaluation.json: no evaluation"),
    (in_evaluation(without_metrics), "evaluation.json: no evaluation"),
    (in_evaluation(lambda found: found["overall"].update(pairs=[])), "evaluation.json: no evaluation"),
    (in_evaluation(lambda found: found["macro"].update(systems={})), "evaluation.json: no evaluation"),
    (in_evaluation(lambda found: found["groups"]["sea"].update(systems={})), "evaluation.json: no evaluation"),
    (as_text("evaluation.json", "{}"), "no evaluation"),
    (as_text("evaluation.json", "[]"), "evaluation.json: Expected `object`, got `array`"),
    (as_text("answers/gainrag.jsonl", "[]"), "gainrag.jsonl:1"),
    (in_lines("answers/gainrag.jsonl", answers=[]), "has no gold answers"),
    (in_lines("answers/gainrag.jsonl", question="Another?"), "of 'GainRAG' is not that of gains/test.jsonl"),
    (twice("answers/gainrag.jsonl"), "gainrag.jsonl:.* duplicate question id"),
    (twice("gains/test.jsonl"), "test.jsonl:.* duplicate question id"),
    (in_lines("gains/test.jsonl", ctxs=[]), "test.jsonl:1: field silver is 3, and there are 0 passages"),
    (in_lines("scores/gainrag.jsonl", ctxs=[]), "has no selector score"),
    (as_text("selector/README.md", b"\xff\xfe"), r"README.md: cannot be read \(not UTF-8\)"),
    (lambda run: (run / "selector" / "README.md").mkdir(parents=True), r"README.md: cannot be read \(Is a directory\)"),
    *(
        (as_text(f"{name}.meta.json", f'{{"settings": {value}}}'), f"{name}.meta.json: Expected `object`")
        for name in ("gains/test", "selector", "evaluation")
        for value in ("null", "[]", "1")
    ),
    (as_text("gains/test.meta.json", b'{"settings": "\xff"}'), "test.meta.json: no JSON"),
    (as_text("gains/test.meta.json", '{"versions": {"python": null}}'), "test.meta.json: Expected `str`"),
    (as_text("gains/test.meta.json", '{"inputs": []}'), "test.meta.json: Expected `object`"),
    (as_text("evaluation.meta.json", '{"settings": {"run": []}}'), "evaluation.meta.json: Expected `object`"),
    (as_text("selector.meta.json", '{"settings": {}}'), "selector.meta.json: Object missing required field `alpha`"),
    (as_text("selector.meta.json", '{"settings": {"alpha": "x", "temperature": 1}}'), "selector.meta.json: Expected"),
    (as_text("selector.meta.json", '{"summary": {"trials": [1]}}'), "selector.meta.json: Expected `object`"),
    (lambda run: (run / "selector.meta.json").unlink(), "selector.meta.json is not there"),
    (as_text("diagnosis.json", '{"diagnosis": null}'), "diagnosis.json: Expected `object`"),
    (as_text("diagnosis.json", '{"diagnosis": {"sample": 1}}'), "diagnosis.json: Object missing"),
    (lambda run: (run / "answers").rename(run / "other"), "answers/ is not there"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=[says for _, says in DAMAGES])
def test_a_damaged_run_is_one_line(
    copy: Path, damage: Change, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copy)
    assert cli.main(["report", str(copy)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(says, said)
    assert not (copy / "report.json").exists()


def imported(code: str) -> set[str]:
    """The modules that a program has loaded at its end."""
    program = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_report_needs_nothing_that_trains(copy: Path) -> None:
    loaded = imported(f"from gainrag.report import report\nreport({str(copy)!r})")
    assert (copy / "report.html").exists()
    assert not {name for name in loaded if name.startswith("gainrag.training")}
    assert not {"torch", "transformers", "sentence_transformers", "gainrag.runs.stages"} & loaded


def test_the_command_loads_no_torch_and_sharing_nothing_that_trains(copy: Path) -> None:
    assert "torch" not in imported(f"from gainrag.cli import main\nassert main(['report', {str(copy)!r}]) == 0")
    assert not {"torch", "gainrag.training"} & imported("import gainrag.runs.sharing")
