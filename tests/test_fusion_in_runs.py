"""How a run fuses: weights fitted before it retrieves, and runs from before there was a choice go on with ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gainrag.files.meta import meta_path
from gainrag.files.streams import read_json, write_json
from gainrag.indexing import META_FILE
from gainrag.runs.config import Options
from gainrag.runs.folder import Run, claim
from gainrag.runs.questions import read_all
from gainrag.runs.stages import questions, retrieve
from gainrag.runs.state import State
from tests.small_run import CONFIG, config_of

LISTS = ("train.jsonl", "test.jsonl", "test.bm25.jsonl", "test.dense.jsonl")


def retrieved(folder: Path, config: str = CONFIG) -> Path:
    """Run the stages up to retrieval; the folder of the lists."""
    (folder / "config.toml").write_text(config)
    read, options = config_of(folder), Options(diagnose=0)
    state = State(Run(folder / "out", read, update=True), options, read_all(read))
    claim(folder / "out", read, update=True)
    questions(state)
    retrieve(state)
    return folder / "out" / "retrieved"


def test_weights_are_fitted_first_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = retrieved(folder)
    weights = read_json(lists / "weights.json")
    assert set(weights) == {"dense", "bm25"}
    assert json.loads((folder / "out" / "index" / "rivers" / META_FILE).read_text())["weights"] == weights
    for name in LISTS:
        weighed = "weights" in read_json(meta_path(lists / name))["inputs"]
        assert weighed is (name in ("train.jsonl", "test.jsonl"))  # a single retriever's list depends on none
    capsys.readouterr()
    retrieved(folder)
    assert "started" not in capsys.readouterr().err


def test_a_run_from_before_there_was_a_choice_goes_on_with_ranks(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = CONFIG + '\n[index]\nfusion = "ranks"\n'
    lists = retrieved(folder, asked)
    assert not (lists / "weights.json").exists()
    meta = folder / "out" / "index" / "rivers" / META_FILE
    old = read_json(meta)
    del old["settings"]["fusion"], old["weights"]
    write_json(meta, old)
    before = {name: (lists / name).read_bytes() for name in LISTS}
    capsys.readouterr()
    retrieved(folder)
    said = capsys.readouterr().err
    assert "this run fuses ranks, as it began" in said
    assert "started" not in said
    (lists / "test.jsonl").unlink()  # made again, it is what it was
    retrieved(folder)
    assert {name: (lists / name).read_bytes() for name in LISTS} == before
    capsys.readouterr()
    retrieved(folder, CONFIG + '\n[index]\nfusion = "scores"\n')
    said = capsys.readouterr().err
    assert "retrieved/train.jsonl: started" in said
    assert "test.bm25.jsonl: started" not in said
    assert "index/rivers: started" not in said
