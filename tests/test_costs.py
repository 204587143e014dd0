"""What a run will take: counted where it can be counted, measured where it must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gainrag.lms.local import LocalLM
from gainrag.runs import costs, rates
from gainrag.runs.config import Config, Options
from gainrag.runs.folder import Run
from gainrag.runs.questions import read_all
from gainrag.runs.rates import Rates
from gainrag.testing import EchoGenerator
from tests.small_run import config_of, write_data

# A second for each token, whatever it is for: so seconds are tokens.
RATES = Rates(scored=1, read=1, written=1, prompt=100, bare=10, background=20)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Four training and two test questions, with four passages each."""
    write_data(tmp_path)
    return config_of(tmp_path)


def seconds(config: Config, **options: Any) -> dict[str, float]:
    found = costs.costs(config, Options(**{"diagnose": 0, **options}), read_all(config), RATES)
    return {cost.stage: cost.seconds(RATES) for cost in found}


def test_what_the_stages_of_a_run_ask(config: Config) -> None:
    found = seconds(config)
    assert found["augment"] == (4 + 2) * (20 + 128)
    assert found["synthesize"] == 4 * (5 * 100 + 10 + 100 + 16)  # five candidates and none, and the silver answer
    assert found["synthesize, for the oracle"] == 2 * (5 * 100 + 10 + 100 + 16)
    assert "diagnose" not in found
    assert seconds(config, diagnose=3)["diagnose"] == 3 * 5 * (100 + 16)


def test_fewer_passages_no_pseudo_passage_and_no_oracle_cost_less(config: Config) -> None:
    few = seconds(config, pseudo=False, oracle=False, train_k=2)
    assert set(few) == {"synthesize", "answer"}
    assert few["synthesize"] == 4 * (2 * 100 + 10 + 100 + 16)
    assert few["answer"] < seconds(config)["answer"] < seconds(config, seeds=3)["answer"]


def test_sampled_labels_cost_answers(config: Config) -> None:
    config.tables["synthesize"] = {"labels": "sampled", "n": 3}
    assert seconds(config)["synthesize"] == 4 * 5 * 3 * (100 + 16)


def test_a_line_a_stage_and_several_machines(config: Config) -> None:
    tenths = Rates(scored=0.1, read=0.1, written=1, prompt=100, bare=10, background=20, opened=60)
    found = costs.costs(config, Options(diagnose=0), read_all(config), tenths)
    lines = costs.described(found, tenths, "tiny: float32 on cpu")
    whole = sum(cost.seconds(tenths) for cost in found)
    assert lines[0].startswith("tiny: float32 on cpu: 10 tokens/s scored, 10 read, 1 written")
    assert "augment: 13 min (6 questions; tokens: 120 read, 768 written)" in lines
    assert f"at most {costs.duration(whole + 60)} on this machine" in lines[-1]
    assert f"{costs.duration(whole / 16 + 60)} on 16" in lines[-1]


def test_a_model_is_measured(config: Config, smollm: LocalLM) -> None:
    some = costs.sample(config, read_all(config))
    assert {len(record.ctxs) for record in some} == {4}
    found = rates.measure(smollm, some[:2])
    assert min(found.scored, found.read) > 0
    assert found.written >= 0
    assert 5 < found.bare < found.prompt < 100


def test_a_model_that_only_writes_and_counts_no_tokens_is_measured_too(config: Config) -> None:
    found = rates.measure(EchoGenerator(), costs.sample(config, read_all(config)))
    assert found.scored == 0
    assert 5 < found.bare < found.prompt


def test_what_cannot_be_measured_here_is_not(config: Config, tmp_path: Path) -> None:
    def said(**tables: Any) -> list[str]:
        other = Config(config.datasets, {**config.tables, **tables})
        return costs.estimate(Run(tmp_path, other, update=False), Options(), read_all(config))

    assert said(llm={"model": "http://127.0.0.1:1/v1#m"}) == []
    assert said(cluster={"ray": "auto"}, llm={"dtype": "bfloat16"}) == []
    assert "is measured when org/model is here" in said(llm={"model": "org/model"})[0]
