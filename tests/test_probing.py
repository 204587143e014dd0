"""What could be won before anything is trained: every system by hand, and the screen that says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from gainrag import cli
from gainrag.cli.probing import screen, steps_of, verdict
from gainrag.errors import ConfigError, DataError
from gainrag.files.streams import read_json, write
from gainrag.probing import BEST, FIRST, HOLDING, NOTHING, RETRIEVED, SHIPPED, Line, Probe, Span, probe
from gainrag.protocols import FloatArray
from gainrag.records import Passage, Retrieved, Scored
from gainrag.statistics import deviation, questions_needed
from gainrag.testing import EchoGenerator, OverlapLM
from tests.small_run import Model


class LastFirst:
    """A Selector that turns the order round."""

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        return np.arange(len(passages), dtype=np.float64)


class Writer(OverlapLM):
    """A model that tells no losses."""

    losses = None  # type: ignore[assignment]
    level = None  # type: ignore[assignment]


class CountingLM(Model):
    """Counts how many questions it was asked to score."""

    scored = 0

    def losses(self, requests, alphas):  # type: ignore[no-untyped-def]
        self.scored += len(requests)
        return super().losses(requests, alphas)


class Far(OverlapLM):
    """A model that is somewhere else."""

    kind = "remote"

    def rate(self) -> str:
        return "far"


@pytest.fixture
def found_last(candidates: list[Retrieved]) -> list[Retrieved]:
    """Of twenty questions the last passage names the founder; of the first four none does."""
    out = []
    for i, record in enumerate(candidates[:20]):
        last = replace(record.ctxs[-1], text="Stones were laid.") if i < 4 else record.ctxs[-1]
        out.append(replace(record, answers=record.answers[:1], ctxs=[*record.ctxs[:-1], last]))
    return out


def test_each_system_reads_what_it_should(found_last: list[Retrieved], capsys: pytest.CaptureFixture[str]) -> None:
    found = probe(found_last, OverlapLM(), selector=LastFirst(), n=50)
    assert (found.questions, found.of, found.candidates, found.level) == (20, 20, 3.0, "exact")
    assert found.recall == {"1": 0.0, "3": 0.8}
    assert (found.known, found.lacking, found.pseudo) == (20, 4, None)
    assert found.lost == {"selection": 16, "retrieval": 4}
    scores = {name: line.score.value for name, line in found.lines.items()}
    assert scores == {NOTHING: 0.0, FIRST: 0.0, SHIPPED: 0.8, HOLDING: 0.8, BEST: 0.8, RETRIEVED: 1.0}
    best = found.lines[BEST].over_first
    assert best
    assert best.value == 0.8
    assert 0.5 < best.low < 0.8 < best.high <= 1.0
    assert found.lines[FIRST].over_first is None
    assert found.expected == pytest.approx(0.16)
    assert found.needed == questions_needed(0.16, float(np.std([1.0] * 16 + [0.0] * 4, ddof=1)))
    said = capsys.readouterr().err
    assert said.startswith("probe: 20 questions, at most 100 answers, the losses of 60 candidates; about 1 seconds at ")


def test_fewer_questions_are_evenly_spaced_and_fewer_candidates_labelled(found_last: list[Retrieved]) -> None:
    found = probe(found_last, OverlapLM(), n=5, at_most=2)
    assert (found.questions, found.of, found.lacking) == (5, 20, 1)


def test_a_model_without_losses_is_asked_for_answers(found_last: list[Retrieved]) -> None:
    lm = Writer()
    found = probe(found_last, lm)
    assert found.level == "sampled"
    assert found.lines[BEST].score.value == 0.8
    assert "one greedy answer from each candidate" in verdict(found)
    with pytest.raises(ConfigError, match="not a ScorerGenerator"):
        probe(found_last, EchoGenerator(), labels="losses")


def test_nothing_is_asked_of_a_model_elsewhere_to_see_how_fast_it_is(
    found_last: list[Retrieved], capsys: pytest.CaptureFixture[str]
) -> None:
    probe(found_last, Far())
    assert capsys.readouterr().err.startswith(
        "probe: 20 questions, at most 100 answers, the losses of 60 candidates\n"
    )


def test_without_labels_there_is_no_perfect_selection(found_last: list[Retrieved]) -> None:
    found = probe(found_last, OverlapLM(), labels="none")
    assert BEST not in found.lines
    assert (found.level, found.expected) == (None, None)
    assert found.lines[RETRIEVED].score.value == 1.0  # over the first that holds an answer
    assert "Not known: nothing was labelled" in screen(found)


def test_of_choices_gold_marks_alone_say_what_holds_the_answer() -> None:
    def record(i: int, gold: bool | None) -> Retrieved:
        ctxs = [Scored(id="a", text="Yes and no."), Scored(id="b", text="Rain falls, yes.", gold=gold)]
        return Retrieved(id=f"{i}", question=f"Is it so {i}?", answers=["yes"], choices=["no", "yes"], ctxs=ctxs)

    blind = probe([record(i, None) for i in range(4)], OverlapLM())
    assert (blind.known, blind.recall, blind.lost, blind.measure) == (0, {}, {}, "accuracy")
    assert "is not known" in screen(blind)
    told = probe([record(i, True) for i in range(4)], OverlapLM())
    assert (told.known, told.recall, told.lacking) == (4, {"1": 0.0, "2": 1.0}, 0)


def test_what_cannot_be_probed_is_refused(candidates: list[Retrieved]) -> None:
    with pytest.raises(DataError, match="1 question, and two are the fewest"):
        probe(candidates[:1], OverlapLM())
    generated = Scored(id="g", text="I made it up.", origin="generated")
    with pytest.raises(DataError, match="no passage was retrieved"):
        probe([replace(record, ctxs=[generated]) for record in candidates[:2]], OverlapLM())


def figures(best: Span, shipped: Span, **more: object) -> Probe:
    """A probe of fifty questions with these points above the retriever's first."""
    zero = Span(0.0, 0.0, 0.0)
    lines = {NOTHING: Line(zero, Span(-0.1, -0.2, -0.05)), FIRST: Line(Span(0.3, 0.2, 0.4))}
    lines |= {SHIPPED: Line(zero, shipped), HOLDING: Line(zero, zero), BEST: Line(zero, best)}
    given: dict[str, object] = {"recall": {"1": 0.5, "20": 0.9}, "known": 50, "lacking": 5, "lost": {"selection": 9}}
    given |= {"expected": 0.2 * best.value, "needed": 410, "seconds": 3.0, **more}
    given |= {"questions": 50, "of": 80, "candidates": 21.0, "level": "exact", "measure": "mean(contains, F1)"}
    return Probe(pseudo=3, lines=lines, **given)  # type: ignore[arg-type]


def test_the_screen_says_whether_and_what_next() -> None:
    worth = figures(Span(0.12, 0.05, 0.2), Span(0.03, 0.01, 0.06))
    assert "It can be: perfect selection brings +12.0 [+5.0, +20.0]" in verdict(worth)
    steps = "\n".join(steps_of(worth))
    assert "Use the shipped selector now" in steps
    assert "Label 400 training questions (about 20 minutes at this speed) and train" in steps
    text = screen(worth)
    assert "which is +2.4 here: about 410 labelled test questions would show it" in " ".join(text.split())
    assert len(text.splitlines()) <= 30
    assert all(len(line) <= 100 for line in text.splitlines())

    doubtful = figures(Span(0.02, -0.01, 0.06), Span(0.0, -0.03, 0.03))
    assert "Not shown: perfect selection brings +2.0 [-1.0, +6.0] points, which" in verdict(doubtful)
    assert steps_of(doubtful)[-1].startswith("Do not train a selector yet: ask about 310 questions (-n 313)")

    unfound = figures(Span(0.02, -0.01, 0.06), Span(0.0, -0.03, 0.03), lacking=30)
    assert steps_of(unfound)[0].startswith("Retrieve better: 30 of 50 questions")


def test_the_command_shows_a_screen_and_continues(
    folder: Path, candidates: list[Retrieved], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("candidates.jsonl", candidates)
    lm = CountingLM()
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="overlap", dtype="float32", device="cpu": lm)
    argv = ["probe", "candidates.jsonl", "--llm", "overlap", "-n", "8", "-o", "out"]
    assert cli.main(argv) == 0
    first = capsys.readouterr()
    assert first.out.startswith("8 of 40 questions, 3 candidates each")
    assert read_json("out/probe.json")["lines"][BEST]["score"]["value"] == 1.0
    asked = lm.scored
    assert cli.main(argv) == 0
    assert lm.scored == asked
    assert "at this speed" not in capsys.readouterr().out  # nothing was measured again

    assert cli.main(["probe", "candidates.jsonl", "--llm", "overlap", "-k", "3"]) == 2
    assert "-k is of retrieval" in capsys.readouterr().err


def test_questions_are_retrieved_from_an_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", "corpus.jsonl", "--retriever", "bm25", "-o", "idx"]) == 0
    argv = ["probe", "train.jsonl", "--index", "idx", "-k", "4", "--llm", "overlap", "-n", "3"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.startswith("3 of 4 questions, 4 candidates each")


def test_so_many_questions_show_a_difference_in_four_of_five_tests() -> None:
    rng, n = np.random.default_rng(0), questions_needed(0.1, 1.0) or 0
    drawn = rng.normal(0.1, 1.0, (2000, n))
    error = drawn.std(axis=1, ddof=1) / n**0.5
    assert np.mean(drawn.mean(axis=1) > 1.96 * error) == pytest.approx(0.8, abs=0.03)
    low, high = drawn[0].mean() - 1.96 * error[0], drawn[0].mean() + 1.96 * error[0]
    assert deviation(low, high, n) == pytest.approx(drawn[0].std(ddof=1), rel=1e-4)
