"""What `gainrag validate` says of further systems; the configs that ship are validated in test_configs.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gainrag.errors import ConfigError, GainragError, ModelError
from gainrag.runs.config import read_config
from gainrag.runs.stages import STAGES
from gainrag.runs.validation import validate


def validated(folder: Path, text: str) -> list[str]:
    question = {"question": "Which river flows through Paris?", "answers": ["Seine"]}
    (folder / "corpus.jsonl").write_text(json.dumps({"id": "1", "text": "The Seine."}) + "\n")
    (folder / "questions.jsonl").write_text("".join(json.dumps({"id": str(i), **question}) + "\n" for i in range(9)))
    data = "".join(
        f'[[dataset]]\nname = "{name}"\ncorpus = "corpus.jsonl"\ntrain = "questions.jsonl"\ntest = "questions.jsonl"\n'
        for name in "ab"
    )
    (folder / "config.toml").write_text(data + text)
    return validate(read_config(folder / "config.toml", STAGES))


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
