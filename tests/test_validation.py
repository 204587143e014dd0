"""What `gainrag validate` says of further systems; the configs that ship are validated in test_configs.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from gainrag import cli
from gainrag.errors import ConfigError, DataError, GainragError, ModelError
from gainrag.runs.config import read_config
from gainrag.runs.stages import STAGES
from gainrag.runs.validation import validate
from tests.small_run import CONFIG, run


def validated(folder: Path, text: str) -> list[str]:
    write_config(folder, text)
    return validate(read_config(folder / "config.toml", STAGES), measured=False)


def write_config(folder: Path, text: str) -> Path:
    """A config of two data sets of nine questions a split, with their files."""
    (folder / "corpus.jsonl").write_text(json.dumps({"id": "1", "text": "The Seine."}) + "\n")
    for split in ("train", "test"):
        questions = [{"id": str(i), "question": f"Which river, in {split}?", "answers": ["Seine"]} for i in range(9)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    data = "".join(
        f'[[dataset]]\nname = "{name}"\ncorpus = "corpus.jsonl"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
        for name in "ab"
    )
    (folder / "config.toml").write_text(data + text)
    return folder / "config.toml"


ALPHAS = "[synthesize]\nalpha = [0.5]\n"


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (ALPHAS + '[[variant]]\nname = "v"\nalpha = 0\n', ConfigError, r"\[\[variant\]\] v: alpha is 0, .* at 0.5"),
        (ALPHAS + '[[variant]]\nname = "v"\nlabels = "likelihood"\n', ConfigError, "likelihood need losses at alpha 0"),
        (ALPHAS + '[[variant]]\nname = "v"\nlabels = "information_gain"\n', ConfigError, "need losses at alpha 0"),
        ("[run]\ntrain_questions = 4\n[[variant]]\nname = 'v'\nquestions = 9\n", ConfigError, "8 are labelled in a, b"),
        ('[[variant]]\nname = "GainRAG"\n', ConfigError, "choose another one"),
        ('[[variant]]\nname = "v"\nbase = "embedded:none"\n', ModelError, "unknown embedded model 'none'"),
        ('[[reranker]]\nname = "r"\nmodel = "embedded:none"\n', ModelError, "unknown embedded model 'none'"),
        ('[[reranker]]\nname = "r"\nmodel = "runs/other/selector"\n', ModelError, "no such folder"),
        ('[[reranker]]\nname = "r"\nmodel = ""\n', ModelError, r"\[\[reranker\]\] r model: : "),
        ('[[reranker]]\nname = "pool.1"\nmodel = "some/model"\n', ConfigError, "a file of the run's answers"),
        ('[select]\npseudo = "lazy"\n', ConfigError, "has pseudo 'lazy'"),
    ],
)
def test_what_would_fail_after_hours_fails_at_once(
    tmp_path: Path, text: str, kind: type[GainragError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        validated(tmp_path, text)


def test_models_of_further_systems_are_looked_up(tmp_path: Path) -> None:
    text = "[synthesize]\nalpha = [0.5, 0]\n[[variant]]\nname = 'v'\nlabels = 'likelihood'\nquestions = 18\n"
    text += '[[variant]]\nname = "w"\nbase = "embedded:all-minilm-l6-v2"\n'
    lines = validated(tmp_path, text + '[[reranker]]\nname = "bge"\nmodel = "BAAI/bge-reranker-base"\n')
    assert lines[-2:] == [
        "[[variant]] w: base embedded:all-minilm-l6-v2 (installed)",
        "[[reranker]] bge: BAAI/bge-reranker-base (from the Hugging Face hub when the run starts)",
    ]


CROSS_ENCODER = '[train]\nkind = "cross-encoder"'

# Every setting that was once called valid: table, key, value, and what else of a config it takes.
VALUES: list[tuple[str, str, Sequence[str], str]] = [
    ("train", "epochs", ("0", "-1", "1e20", "100000000000000000000000"), ""),
    ("train", "learning_rate", ("nan", "inf", "0", "-1e-5"), ""),
    ("train", "temperature", ("nan", "inf", "0", "-1"), ""),
    ("train", "validation", ("nan", "1", "2", "-0.1"), ""),
    ("train", "retrieval_prior", ("true",), 'kind = "cross-encoder"\nvalidation = 0.0'),
    ("train", "retrieval_prior", ("true",), ""),
    ("train", "epochs", ("2",), 'kind = "features"'),
    ("train", "start", ('"embedded:gain-features"',), ""),
    ("train", "start", ('"embedded:none"',), 'kind = "features"'),
    ("train", "max_length", ("0", "-5", "1", "100000000000"), ""),
    ("train", "seed", ("-1", "18446744073709551616"), ""),
    ("train", "weight_decay", ("nan", "-1", "2"), ""),
    ("train", "warmup", ("nan", "-1", "2"), ""),
    ("train", "dropout", ("nan", "-1", "2"), ""),
    ("train", "last_layers", ("-1", "99"), ""),
    ("train", "device", ('"tpu"', '"cuda:700"', '""'), ""),
    ("train", "group_size", ("1", "0", "1000000"), ""),
    ("train", "groups_per_step", ("0",), ""),
    ("train", "base", ('"runs/none/selector"', '"./none"', '"embedded:none"', '""'), ""),
    ("train", "alpha", ("0.25", "nan", "1e308"), ""),
    ("train", "labels", ('"likelihood"',), ""),
    ("warm_start", "epochs", ("0",), ""),
    ("warm_start", "epochs", ("1",), ""),
    ("warm_start", "base", ('"/none"', '"/"', r'"\u0000"', '"a b"', '"' + "x" * 300 + '"'), CROSS_ENCODER),
    ("warm_start", "retrieval_prior", ("true",), CROSS_ENCODER),
    ("warm_start", "kind", ('"features"',), CROSS_ENCODER),
    ("warm_start", "folds", ("3",), CROSS_ENCODER),
    ("warm_start", "labels", ('"gain"',), ""),
    ("retrieve", "k", ("0", "-1", "1000000", "1"), CROSS_ENCODER),
    ("select", "k", ("0", "21"), ""),
    ("select", "pseudo", ('"lazy"', '"never"', '"always"'), ""),
    ("augment", "max_new_tokens", ("0", "-1"), ""),
    ("synthesize", "max_new_tokens", ("0", "-1"), ""),
    ("synthesize", "alpha", ("1e308", "[]", "[0.5, -1]", "nan"), ""),
    ("answer", "max_new_tokens", ("0", "-1"), ""),
    ("evaluate", "resamples", ("0",), ""),
    ("evaluate", "confidence", ("1", "1.0", "nan", "0"), ""),
    ("evaluate", "group_by", ('"level"', '""'), ""),
    ("run", "train_questions", ("-3",), ""),
    ("run", "test_questions", ("-3",), ""),
    ("run", "train_k", ("0", "1"), CROSS_ENCODER),
    ("run", "top", ("[0]", "[1000]", "[21]"), ""),
    ("index", "batch_size", ("0",), ""),
    ("index", "retriever", ('"bm26"',), ""),
    ("index", "model", ('"/none"',), ""),
    ("llm", "model", ('"./none"', '"embedded:none"', '""'), ""),
    ("llm", "device", ('"tpu"', '"cuda:700"', '""'), ""),
    ("sweep", "k", ("[]", "[0]", "[21]"), ""),
    ("tune", "alpha", ("[]", "[-1]", "[0.25]"), "[train]\nvalidation = 0.2"),
    ("tune", "temperature", ("[]", "[0]"), "[train]\nvalidation = 0.2"),
    ("tune", "epochs", ("[1]",), "[train]\nvalidation = 0.0"),
    ("tune", "epochs", ("[1]",), '[train]\nkind = "features"'),
]


@pytest.mark.parametrize(
    ("table", "key", "value", "more"),
    [(table, key, value, more) for table, key, values, more in VALUES for value in values],
)
def test_a_bad_value_is_one_line_that_names_table_and_key(
    tmp_path: Path, table: str, key: str, value: str, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for_another = more if more.startswith("[") else ""
    own = "" if for_another else f"{more}\n"
    path = write_config(tmp_path, f"{for_another}\n[{table}]\n{own}{key} = {value}\n")
    assert cli.main(["validate", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert key in said
    assert f"[{table}]" in said or (table, key) in (("synthesize", "alpha"), ("train", "alpha"), ("tune", "alpha"))


def test_a_setting_of_train_serves_whichever_selector_reads_it(tmp_path: Path) -> None:
    shared = '[run]\nwarm_start = false\n[train]\nkind = "features"\nepochs = 2\n'
    with pytest.raises(ConfigError, match=r"\[train\]: kind 'features' does not read epochs"):
        validated(tmp_path, shared)
    assert validated(tmp_path, shared + '[[variant]]\nname = "read"\nkind = "cross-encoder"\n')
    with pytest.raises(ConfigError, match=r"\[train\]: kind 'features' does not read epochs"):
        validated(tmp_path, shared + '[[variant]]\nname = "read"\nkind = "cross-encoder"\nepochs = 1\n')
    with pytest.raises(ConfigError, match=r"\[\[variant\]\] cheap: kind 'features' does not read learning_rate"):
        validated(tmp_path, '[[variant]]\nname = "cheap"\nkind = "features"\nlearning_rate = 0.1\n')


def test_what_validate_refuses_a_run_refuses_before_it_writes(folder: Path) -> None:
    for text in (
        "[sweep]\nk = [9]\n", '[evaluate]\ngroup_by = "none"\n', "[tune]\nepochs = [1]\n", '[index]\nmodel = "/none"\n'
    ):
        (folder / "config.toml").write_text(CONFIG + text)
        with pytest.raises(GainragError):
            run(folder)
        assert not (folder / "out").exists()


def test_the_same_question_in_train_and_test_is_noticed(tmp_path: Path) -> None:
    path = write_config(tmp_path, "")
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    with pytest.raises(DataError, match="both in train and in test"):
        validate(read_config(path, STAGES), measured=False)


def test_passages_that_were_brought_must_be_enough(tmp_path: Path) -> None:
    path = write_config(tmp_path, "[select]\nk = 3\n")
    path.write_text(path.read_text().replace('corpus = "corpus.jsonl"\n', ""))
    ctxs = [{"id": str(n), "text": f"Text {n}."} for n in range(2)]
    for split in ("train", "test"):
        lines = [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({**line, "ctxs": ctxs}) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=r"\[select\] k: 3 passages are wanted, but question a/\d brought 2"):
        validate(read_config(path, STAGES), measured=False)
    path.write_text(path.read_text().replace("k = 3", "k = 2"))
    assert validate(read_config(path, STAGES), measured=False)[0] == "a: 9 train and 9 test questions"
