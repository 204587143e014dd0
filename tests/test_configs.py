"""The configs that ship: valid on data in the layout they name, and alike where they say so."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli, training
from gainrag.ingestion import RELEASES
from gainrag.runs.config import Config, read_config
from gainrag.runs.stages import STAGES
from gainrag.settings import settings_of
from tests.test_official import OFFICIAL

ROOT = Path(__file__).parent.parent / "configs"
PAPER, SMALL = sorted((ROOT / "paper").glob("*.toml")), sorted((ROOT / "small").glob("*.toml"))
NAMES = sorted([*RELEASES, "six"])


def settings(config: Config) -> dict[str, dict[str, Any]]:
    """All but how many questions are drawn."""
    return {name: table for name, table in config.tables.items() if name not in ("run", "sweep")}


def test_there_is_one_for_each_data_set_and_one_for_all() -> None:
    assert [path.stem for path in PAPER] == [path.stem for path in SMALL] == NAMES


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_paper_configs_fit_what_ingest_writes(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(tmp_path / "psgs_w100.tsv", "w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([["id", "text", "title"], ["1", "The Seine.", "Seine"]])
    for name in RELEASES:
        _, text, _, _ = OFFICIAL[name]
        splits = ("train", "test") if name == "webquestions" else ("train", "dev")
        for split in splits:
            (tmp_path / RELEASES[name].files[split]).write_text(text)
        command = ["ingest", name, "--source", str(tmp_path), *(f"--split={split}" for split in splits)]
        assert cli.main([*command, "-o", str(tmp_path / name)]) == 0
        for split in splits:
            (tmp_path / RELEASES[name].files[split]).unlink()  # 2Wiki's names are plain
        asked = tmp_path / name / f"{splits[1]}.jsonl"
        asked.write_text(asked.read_text().replace('"question":"', '"question":"In the test: '))
    capsys.readouterr()
    assert cli.main(["validate", str(path), "--no-measure", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().err
    for model in ("facebook/contriever", "meta-llama/Meta-Llama-3-8B-Instruct", "BAAI/bge-reranker-base"):
        assert f"{model} (from the Hugging Face hub when the run starts)" in shown
    assert shown.endswith("valid\n")


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_small_configs_are_valid_with_the_embedded_models(path: Path, tmp_path: Path) -> None:
    question = {"id": "q", "question": "Which river flows through Paris?", "answers": ["Seine"]}
    test = {**question, "question": "Which river flows through Rome?", "answers": ["Tiber"]}
    train = [{**question, "id": str(i)} for i in range(70)]  # of six data sets 420, and a variant wants 400
    corpus = [{"id": "1", "text": "The Seine."}]
    files: dict[str, list[Any]] = {"corpus": corpus, "train": train, "test": [test]}
    for name in RELEASES:
        (tmp_path / name).mkdir()
        for stem, lines in files.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (tmp_path / name / f"{stem}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert cli.main(["validate", str(path), "--no-measure", "--data", str(tmp_path)]) == 0


@pytest.mark.parametrize("paths", [PAPER, SMALL])
def test_configs_of_a_family_differ_in_data_alone(paths: list[Path]) -> None:
    first, *others = [settings(read_config(path, STAGES)) for path in paths]
    for other in others:
        assert other == first


def test_the_small_runs_are_of_one_size() -> None:
    configs = {path.stem: read_config(path, STAGES) for path in SMALL}
    sizes = {"train_questions": 300, "test_questions": 200, "diagnose": 40}
    for name, config in configs.items():
        more = {"warm_start_questions": 1500, "top": [5]} if name == "six" else {}
        assert config.table("run") == {**sizes, **more}
        assert config.table("warm_start")["epochs"] == 2


def test_six_has_rivals_ablations_label_efficiency_and_transfer() -> None:
    config = read_config(ROOT / "small" / "six.toml", STAGES)
    variants = config.variants
    assert [v.settings["labels"] for v in variants if "labels" in v.settings] == ["likelihood", "information_gain"]
    assert [v.questions for v in variants if v.questions] == [50, 100, 200, 400]
    assert [v.train_on for v in variants if v.train_on] == [["hotpotqa", "webquestions"]]  # as the paper
    assert [v.name for v in variants if v.leave_out] == ["GainRAG from the other data sets"]
    # An ablation that has what GainRAG has would show nothing.
    train = settings_of(training.train, config.table("train"))
    for key in ("only_kept", "retrieval_prior"):
        assert all(train[key] != v.settings[key] for v in variants if key in v.settings)
    assert [v.settings["alpha"] for v in variants if "alpha" in v.settings] == [0.0]


def test_the_papers_selector_learns_from_two_data_sets_and_is_tested_on_six() -> None:
    config = read_config(ROOT / "paper" / "six.toml", STAGES)
    assert {d.name for d in config.datasets if d.train} == {"hotpotqa", "webquestions"}
    assert {d.name for d in config.datasets if d.test} == set(RELEASES)
    assert len({d.corpus for d in config.datasets}) == 1
