from __future__ import annotations

import json
from pathlib import Path

import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.runs.config import Reranker, Variant, read_config
from gainrag.runs.stages import STAGES
from tests.test_names import BAD

DATASET = '[[dataset]]\nname = "d"\ncorpus = "c.jsonl"\ntrain = "a.jsonl"\ntest = "b.jsonl"\n'

VARIANT = '[[variant]]\nname = "v"\n'


def config(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DATASET + "[synthesize]\nalhpa = 0.5\n", r"unknown key 'alhpa'; did you mean 'alpha'\?"),
        (DATASET + "[synthezise]\nalpha = 0.5\n", r"did you mean '\[synthesize\]'"),
        (DATASET + '[synthesize]\nalpha = "much"\n', "alpha is 'much', not a number from 0 to 100 or a list"),
        (DATASET + '[synthesize]\nprompt = "poem"\n', "one of completion, chat"),
        (DATASET + "[train]\nepochs = 2.5\n", "epochs is 2.5, not a whole number"),
        (DATASET + "[train]\nonly_kept = 1\n", "only_kept is 1, not true or false"),
        ("[train]\nepochs = 2\n", r"no \[\[dataset\]\]"),
        (DATASET.replace("train", "trian"), "did you mean 'train'"),
        (DATASET.replace('test = "b.jsonl"\n', ""), r"no \[\[dataset\]\] has 'test'"),
        (DATASET.replace("train", "test", 1).replace('test = "b.jsonl"\n', ""), r"no \[\[dataset\]\] has 'train'"),
        (DATASET.replace('name = "d"\n', ""), "has no 'name'"),
        (DATASET.replace('"b.jsonl"', "1"), "test of .* is 1"),
        ('[[dataset]]\nname = "d"\ncorpus = "c.jsonl"\n', "d has neither 'train' nor 'test'"),
        (DATASET + DATASET, "same name"),
        (DATASET + DATASET.replace('"d"', '"D"'), "same name"),  # on some disks one folder
        ("dataset = [1]\n", r"no \[\[dataset\]\]"),
        (DATASET.replace('"c.jsonl"', r'"a\u0000b"'), "corpus has a NUL"),
        (DATASET + "[[variant]]\nquestions = 5\n", r"\[\[variant\]\] has no 'name'"),
        (DATASET + '[sweep]\nk = 3\n', "k is 3, not a list of whole numbers"),
        (DATASET + "[train\n", "no TOML"),
        (DATASET + VARIANT + "alhpa = 0.5\n", r"\[\[variant\]\] v: unknown key 'alhpa'; did you mean 'alpha'\?"),
        (DATASET + VARIANT + "question = 5\n", "did you mean 'questions'"),
        (DATASET + VARIANT + 'labels = "gains"\n', "one of gain, relevance, likelihood, information_gain"),
        (DATASET + VARIANT + "questions = 0\n", "questions is 0"),
        (DATASET + VARIANT + 'train_on = ["b"]\n', "unknown data set with training questions 'b'; available: d"),
        (DATASET + VARIANT + "train_on = []\n", "no data set is left to learn from"),
        (DATASET + VARIANT + 'train_on = "d"\n', "train_on is 'd', not a list of strings"),
        (DATASET + VARIANT + "leave_out = true\n", "no data set is left to learn from"),
        (DATASET + VARIANT + 'leave_out = true\ntrain_on = ["d"]\n', "both train_on and leave_out"),
        (DATASET + "[[variant]]\nalpha = 0.5\n", r"a \[\[variant\]\] has no 'name'"),
        (DATASET + '[variant]\nname = "v"\n', r"write each one as \[\[variant\]\]"),
        (DATASET + '[[varaint]]\nname = "v"\n', r"did you mean '\[\[variant\]\]'"),
        (DATASET + '[[reranker]]\nname = "r"\n', r"\[\[reranker\]\] r: no 'model'"),
        (DATASET + '[[reranker]]\nname = "r"\nmodle = "m"\n', "did you mean 'model'"),
        ("seed = 1\n" + DATASET, r"unknown table '\[seed\]'"),
    ],
)
def test_a_wrong_config_says_what_and_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        read_config(config(tmp_path, text), STAGES)
    assert "config.toml" in str(error.value)


@pytest.mark.parametrize("name", BAD)
def test_a_data_sets_name_stays_in_the_run_folder(tmp_path: Path, name: str) -> None:
    path = config(tmp_path, DATASET.replace('"d"', json.dumps(name)))
    with pytest.raises(ConfigError, match=r"config.toml \[\[dataset\]\]: the name .* cannot be a file's"):
        read_config(path, STAGES)
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_runs_config_is_read_without_the_stages(tmp_path: Path) -> None:
    path = config(tmp_path, DATASET + VARIANT + "epochs = 2\nquestions = 5\n[train]\nkey_of_another_version = 1\n")
    found = read_config(path, None)
    assert found.variants == (Variant("v", {"epochs": 2}, questions=5),)
    assert found.table("train") == {"key_of_another_version": 1}


def test_variants_and_rerankers_are_read(tmp_path: Path) -> None:
    text = DATASET + VARIANT + 'alpha = 0\nlabels = "likelihood"\nquestions = 5\ntrain_on = ["d"]\n'
    text += '[[reranker]]\nname = "r"\nmodel = "BAAI/bge-reranker-base"\n'
    found = read_config(config(tmp_path, text), STAGES)
    assert found.variants == (Variant("v", {"alpha": 0, "labels": "likelihood"}, questions=5, train_on=["d"]),)
    assert found.rerankers == (Reranker("r", "BAAI/bge-reranker-base"),)
    assert "variant" not in found.tables


def test_a_missing_config(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_config(tmp_path / "none.toml", STAGES)


def test_data_paths_start_at_the_config_or_where_told(tmp_path: Path) -> None:
    path = config(tmp_path, DATASET)
    assert read_config(path, STAGES).datasets[0].train == tmp_path / "a.jsonl"
    assert read_config(path, STAGES, "/elsewhere").datasets[0].corpus == Path("/elsewhere/c.jsonl")


def test_every_config_that_ships_reads() -> None:
    for path in Path("configs").glob("**/*.toml"):
        assert read_config(path, STAGES).datasets
