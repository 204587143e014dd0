from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gainrag.errors import ConfigError, DataError, StaleError
from gainrag.files.streams import read
from gainrag.gain import gain_from_loss
from gainrag.prompts import for_model
from gainrag.protocols import FloatArray, ScoringRequest
from gainrag.records import GainRecord, Retrieved
from gainrag.synthesis import CHUNK as CHUNKS
from gainrag.synthesis import describe, diagnose, gains_at, summarize, synthesize
from gainrag.testing import OverlapLM

# Of a scorer that is not on a GPU.
CHUNK = CHUNKS["cpu"]


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


class MortalLM(OverlapLM):
    """Dies when more than so many questions would be scored."""

    def __init__(self, lives: int) -> None:
        super().__init__()
        self.lives, self.scored = lives, 0

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        if self.scored + len(requests) > self.lives:
            raise Killed
        self.scored += len(requests)
        return super().losses(requests, alphas)


def test_silver_is_the_passage_that_holds_the_answer(candidates: list[Retrieved]) -> None:
    records = synthesize(candidates, OverlapLM(), alpha=[0.0, 0.5])
    assert [r.silver for r in records] == [2] * len(candidates)
    assert all(r.kept for r in records)
    assert all(set(ctx.loss) == {"0.0", "0.5"} for r in records for ctx in r.ctxs)


def test_gain_is_at_the_first_alpha_and_derived_for_the_others(candidates: list[Retrieved]) -> None:
    record = synthesize(candidates[:1], OverlapLM(), alpha=[0.5, 0.0])[0]
    assert [ctx.gain for ctx in record.ctxs] == pytest.approx(gains_at(record, 0.5), abs=1e-6)
    assert gains_at(record, 0.0) == pytest.approx(list(gain_from_loss([ctx.loss["0.0"] for ctx in record.ctxs])))
    with pytest.raises(DataError, match=r"no loss at alpha 2\.0"):
        gains_at(record, 2.0)


def test_what_the_model_knows_without_a_passage_is_recorded(candidates: list[Retrieved]) -> None:
    lm = OverlapLM()
    for record, source in zip(synthesize(candidates[:3], lm, alpha=[0.5, 0.0]), candidates, strict=False):
        bare = for_model("completion", lm).without(source.question)
        losses = lm.losses([ScoringRequest([bare], bare, [" " + answer for answer in source.answers])], [0.0])
        assert record.loss_without == pytest.approx(float(losses[0].min()), abs=1e-6)
        assert len(record.ctxs) == len(source.ctxs)


def test_permuting_passages_permutes_gains(candidates: list[Retrieved]) -> None:
    there = synthesize(candidates[:3], OverlapLM())
    for record in candidates:
        record.ctxs.reverse()
    back = synthesize(candidates[:3], OverlapLM())
    for a, b in zip(there, back, strict=True):
        assert [c.gain for c in a.ctxs] == [c.gain for c in b.ctxs][::-1]


@pytest.mark.parametrize("lives", [0, 1, CHUNK - 1, CHUNK, CHUNK + 3, 2 * CHUNK])
@pytest.mark.parametrize("name", ["gains.jsonl", "gains.jsonl.gz"])
def test_a_stopped_run_goes_on_and_ends_the_same(
    candidates: list[Retrieved], tmp_path: Path, lives: int, name: str
) -> None:
    whole, broken = tmp_path / "whole" / name, tmp_path / "broken" / name
    synthesize(candidates, OverlapLM(), whole)
    with pytest.raises(Killed):
        synthesize(candidates, MortalLM(lives), broken)
    assert not broken.exists()
    finished = lives // CHUNK * CHUNK
    again = MortalLM(10**9)
    synthesize(candidates, again, broken)
    assert again.scored == len(candidates) - finished
    assert broken.read_bytes() == whole.read_bytes()
    assert [p.name for p in broken.parent.iterdir()] == [name]


def test_a_half_written_line_is_cut_off(candidates: list[Retrieved], tmp_path: Path) -> None:
    out = tmp_path / "gains.jsonl"
    with pytest.raises(Killed):
        synthesize(candidates, MortalLM(CHUNK), out)
    partial = tmp_path / "gains.jsonl.part"
    partial.write_bytes(partial.read_bytes() + partial.read_bytes().splitlines()[0][:50])
    synthesize(candidates, OverlapLM(), out)
    assert [r.id for r in read(out, GainRecord)] == [r.id for r in candidates]


def test_a_run_begun_with_other_settings_is_not_continued(candidates: list[Retrieved], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        synthesize(candidates, MortalLM(CHUNK), tmp_path / "gains.jsonl", alpha=0.5)
    with pytest.raises(StaleError, match="alpha"):
        synthesize(candidates, OverlapLM(), tmp_path / "gains.jsonl", alpha=0.0)


@pytest.mark.parametrize("alpha", [[], -1.0, float("inf"), float("nan")])
def test_alpha_out_of_range(candidates: list[Retrieved], alpha: float | list[float]) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        synthesize(candidates, OverlapLM(), alpha=alpha)


@pytest.mark.parametrize("answers", [[], [""], ["right", " "]])
def test_a_question_without_answers_is_named(candidates: list[Retrieved], answers: list[str]) -> None:
    candidates[3].answers = answers
    with pytest.raises(DataError, match="question q3"):
        synthesize(candidates, OverlapLM())


class Short(OverlapLM):
    """A model of few tokens, which are words; it counts what it scored."""

    context = 400

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ScoringRequest] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        self.requests += requests
        return super().losses(requests, alphas)


def test_a_long_answer_is_named_before_anything_is_scored(candidates: list[Retrieved]) -> None:
    candidates[-1].answers = ["right", "wrong " * 2000]
    lm = Short()
    with pytest.raises(DataError, match=r"question q39: .*2000 are kept.*context of 400"):
        synthesize(candidates, lm)
    assert not lm.requests


@pytest.mark.parametrize(("answer", "max_new_tokens"), [("word " * 80, 16), ("short", 128)])
def test_a_long_passage_makes_room_for_a_long_answer(
    candidates: list[Retrieved], answer: str, max_new_tokens: int
) -> None:
    candidates[0].answers.append(answer)
    candidates[0].ctxs[1].text = "long " * 900
    lm = Short()
    synthesize(candidates[:1], lm, max_new_tokens=max_new_tokens)
    room = 400 - max(80 if "word" in answer else 1, max_new_tokens)
    assert room - 3 <= max(lm.count_tokens(prompt) for prompt in lm.requests[0].with_prompts) <= room


def test_no_questions_are_no_labels() -> None:
    with pytest.raises(DataError, match="no questions"):
        synthesize([], OverlapLM())
    with pytest.raises(DataError, match="no questions"):
        summarize([])


def test_diagnosis_recommends_what_separates_right_from_wrong(candidates: list[Retrieved]) -> None:
    records = synthesize(candidates, OverlapLM(), alpha=[0.0, 0.5])
    found = diagnose(records, OverlapLM(), sample=10)
    assert found["sample"] == found["with_both"] == 10
    assert found["by_alpha"]["0.0"]["auc"] == 1.0
    assert found["recommended_alpha"] == 0.0
    text = describe(summarize(records), found)
    assert "100.0% kept" in text
    assert "recommended alpha: 0.0" in text
