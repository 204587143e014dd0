"""Labels from losses that are known within bounds: in records, summaries and where labels of two levels meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gainrag.errors import DataError
from gainrag.files.streams import read
from gainrag.lms import open_lm
from gainrag.protocols import FloatArray, Level, ScoringRequest
from gainrag.records import GainRecord, Retrieved, check, from_builtins, to_builtins
from gainrag.synthesis import describe, is_certain, summarize, synthesize
from gainrag.testing import OverlapLM
from tests.stub_engine import NAME, running


class Bounded(OverlapLM):
    """Losses that are known up to so many nats above alpha 0; None is no upper bound."""

    level: Level = "bounded"

    def __init__(self, width: float | None) -> None:
        super().__init__()
        self.width = width

    def loss_bounds(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """The losses, and so much above them."""
        wide = np.array([0.0 if alpha == 0 else np.inf if self.width is None else self.width for alpha in alphas])
        return [np.stack([found, found + wide], axis=-1) for found in self.losses(requests, alphas)]


def test_bounds_stand_in_the_records(candidates: list[Retrieved], tmp_path: Path) -> None:
    out = tmp_path / "gains.jsonl"
    made = synthesize(candidates[:3], Bounded(0.25), out, alpha=[0.5, 0.0])
    assert [record.level for record in made] == ["bounded"] * 3
    ctx = made[0].ctxs[0]
    assert ctx.loss_low == ctx.loss
    assert ctx.loss_high is not None
    assert ctx.loss_high["0.5"] == pytest.approx(ctx.loss["0.5"] + 0.25)
    assert ctx.loss_high["0.0"] == ctx.loss["0.0"]
    assert [to_builtins(record) for record in read(out, GainRecord)] == [to_builtins(record) for record in made]


def test_a_silver_passage_is_certain_where_no_other_can_be_better(candidates: list[Retrieved]) -> None:
    narrow, wide = (synthesize(candidates[:4], Bounded(width), alpha=0.5) for width in (0.25, 1000.0))
    assert all(is_certain(record) for record in narrow)
    assert not any(is_certain(record) for record in wide)
    assert summarize(narrow)["certain"] == 1.0
    assert "certain for 100.0%" in describe(summarize(narrow))


def test_without_upper_bounds_nothing_is_certain_and_it_is_said(candidates: list[Retrieved]) -> None:
    made = synthesize(candidates[:2], Bounded(None), alpha=[0.5, 0.0])
    assert made[0].ctxs[0].loss_high == {"0.0": made[0].ctxs[0].loss["0.0"]}
    assert "no upper bounds" in describe(summarize(made))


def test_at_alpha_0_nothing_is_left_open(candidates: list[Retrieved]) -> None:
    made = synthesize(candidates[:2], Bounded(None), alpha=0.0)
    assert {record.level for record in made} == {"gold"}
    assert made[0].ctxs[0].loss_low is None
    assert all(is_certain(record) for record in made)


def test_levels_are_not_mixed(candidates: list[Retrieved]) -> None:
    made = synthesize(candidates[:2], Bounded(1.0)) + synthesize(candidates[2:4], OverlapLM())
    with pytest.raises(DataError, match="several levels"):
        summarize(made)


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss_low", None), ("loss_low", {"0.5": 1e9}), ("loss_high", {"0.5": -1e9}), ("loss_high", {"2.0": 1.0})],
)
def test_bounds_that_are_none_are_refused(candidates: list[Retrieved], field: str, value: object) -> None:
    record = to_builtins(synthesize(candidates[:1], Bounded(1.0))[0])
    record["ctxs"][1][field] = value
    if value is None:
        del record["ctxs"][1][field]
    with pytest.raises(DataError, match=r"ctxs\[1\]\.loss_"):
        check(from_builtins(GainRecord, record), "gains.jsonl:1")


def test_labels_from_an_engine(candidates: list[Retrieved]) -> None:
    with running("vllm") as server:
        lm = open_lm(model=f"{server.base}#{NAME}", floor=1e-3)
        made = synthesize(candidates[:1], lm, alpha=[0.0, 0.5], prompt="completion")
    assert made[0].level == "bounded"
    assert all(ctx.loss_high is not None and set(ctx.loss_high) == {"0.0", "0.5"} for ctx in made[0].ctxs)
