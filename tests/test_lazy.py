from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from gainrag import GainRAG
from gainrag.errors import ConfigError, DataError
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Passage, Retrieved, Scored
from gainrag.selection import select, skipped_share
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.lazy import Laziness, is_enough
from gainrag.selectors.learned import read_learned, write_learned
from gainrag.testing import OverlapLM, OverlapRetriever, OverlapSelector
from gainrag.training.laziness import calibration_questions, compare_with_eager, learn_threshold

OWN = Scored(id="own", text="own", origin="generated")
LIST = [Scored(id="a", text="a"), Scored(id="b", text="b"), OWN]


def record(name: str, *texts: str, own: str = "one two three four") -> Retrieved:
    ctxs = [Scored(id=f"{name}{i}", text=text, score=0.5) for i, text in enumerate(texts)]
    ctxs.append(Scored(id=f"{name}:generated", text=own, origin="generated"))
    return Retrieved(id=name, question="one two three four", answers=["Seine"], ctxs=ctxs)


@pytest.mark.parametrize("decimals", [8, 0])  # 0: many equal scores
def test_the_threshold_is_the_lowest_that_changes_few_enough_choices(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = [np.round(rng.normal([2, 0, 1], 2), decimals) for _ in range(300)]
    found = learn_threshold([LIST] * 300, scores, held_out=True)

    def changed(threshold: float) -> int:
        return sum(max(s[:2]) >= threshold and s[2] > max(s[:2]) for s in scores)

    fitting = [t for t in {float(max(s[:2])) for s in scores} if changed(t) <= 0.01 * 300]
    assert found.threshold == min(fitting)
    assert found.changed == changed(min(fitting)) / 300 <= 0.01
    assert found.skipped == sum(is_enough(LIST, s, min(fitting)) for s in scores) / 300
    assert 0 < found.skipped < 1


def test_a_pseudo_passage_that_always_wins_is_never_skipped(tmp_path: Path) -> None:
    found = learn_threshold([LIST] * 50, [np.array([1.0, 2.0, 3.0])] * 50, held_out=False)
    assert (found.threshold, found.skipped, found.changed) == (None, 0.0, 0.0)
    write_learned(tmp_path, found)
    assert read_learned(tmp_path, Laziness) == found


def test_a_pseudo_passage_that_never_wins_is_skipped_down_to_the_lowest_score_seen() -> None:
    scores: list[FloatArray] = [np.array([x, 0.0, -9.0]) for x in (1.0, 2.0, 3.0)]
    found = learn_threshold([LIST] * 3, scores, held_out=False)
    assert (found.threshold, found.skipped) == (1.0, 1.0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / Laziness.FILE).write_text('{"threshold": "high"}')
    with pytest.raises(DataError, match=Laziness.FILE):
        read_learned(tmp_path, Laziness)
    assert read_learned(tmp_path / "elsewhere", Laziness) is None


def test_lazy_selection_is_eager_but_for_questions_that_skip() -> None:
    given = [record("q", "one two", "three"), record("r", "one two three", "four")]
    lazy = select(given, OverlapSelector(threshold=3), pseudo="lazy")
    eager = select(given, OverlapSelector(), pseudo="eager")
    assert [r.ctxs[0].id for r in eager] == ["q:generated", "r:generated"]
    assert [r.ctxs[0].id for r in lazy] == ["q:generated", "r0"]
    assert lazy[0].ctxs == eager[0].ctxs
    assert [r.extra["pseudo_skipped"] for r in lazy] == [False, True]
    assert skipped_share(lazy) == 0.5
    assert skipped_share(eager) is None


def test_with_too_few_retrieved_for_k_the_pseudo_passage_is_not_skipped() -> None:
    chosen = select([record("q", "one two three")], OverlapSelector(threshold=1), k=2, pseudo="lazy")[0]
    assert [c.id for c in chosen.ctxs] == ["q:generated", "q0"]


def test_choices_of_pseudo() -> None:
    given = [record("q", "one")]
    for words, flag in (("eager", True), ("never", False)):
        assert select(given, OverlapSelector(), pseudo=flag) == select(given, OverlapSelector(), pseudo=words)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'lazy'"):
        select(given, OverlapSelector(), pseudo="lasy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no threshold"):
        select(given, OverlapSelector(), pseudo="lazy")


PASSAGES = [Passage(id="1", text="Rain falls on Paris."), Passage(id="2", text="Seine: the river that flows in Paris.")]


def test_what_is_skipped_is_not_generated() -> None:
    lm = OverlapLM()
    rag = GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(threshold=3), lm, pseudo="lazy")
    assert rag.skipped_share is None
    found = rag.answer("Which river flows in Paris?")
    assert found.pseudo_skipped
    assert found.answer == "Seine"
    assert len(lm.prompts) == 1  # the answer's alone
    assert all(c.origin == "corpus" for c in found.candidates)

    found = rag.answer("Where is Rome?")
    assert not found.pseudo_skipped
    assert len(lm.prompts) == 3
    eager = GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(), OverlapLM()).answer("Where is Rome?")
    assert (found.answer, found.candidates) == (eager.answer, eager.candidates)
    assert rag.skipped_share == 0.5
    with pytest.raises(ConfigError, match="no threshold"):
        GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(), lm, pseudo="lazy")


def test_the_cost_of_laziness_is_measured_on_answers() -> None:
    given = [
        record("changed", "one two three Rome", own="one two three four Seine"),
        record("same", "one two three four Seine"),
        record("written", "one Rome", own="one two Seine"),
    ]
    lm = OverlapLM()
    found = compare_with_eager(given, OverlapSelector(threshold=3), lm)
    assert (found["questions"], found["skipped"], found["changed"]) == (3, 2 / 3, 1 / 3)
    assert found["contains"] == found["f1"] == pytest.approx(-1 / 3)
    assert len(lm.prompts) == 2  # equal choices have equal answers
    bare = [Retrieved(id="bare", question="?", answers=["a"], ctxs=[Scored(id="1", text="x")])]
    with pytest.raises(DataError, match="question bare: no pseudo-passage"):
        compare_with_eager(bare, OverlapSelector(threshold=1), lm)


def test_the_threshold_is_learned_from_the_mix_of_all_questions() -> None:
    records = [record(f"q{i}", "one") for i in range(100)]
    learned, held, left_out = records[:16], records[16:20], records[20:]
    drawn = calibration_questions(records, learned, held, seed=0)
    assert drawn[:4] == held
    assert len(drawn) == 4 + 16  # a fifth was held out: a fifth of those left out
    assert {r.id for r in drawn[4:]} <= {r.id for r in left_out}
    bare = Retrieved(id="bare", question="?", ctxs=[Scored(id="1", text="x")])
    everything = calibration_questions([*records, bare], learned, [], seed=0)
    assert sorted(r.id for r in everything) == sorted(r.id for r in records)


def test_training_learns_the_threshold_where_there_are_pseudo_passages(
    candidates: list[Retrieved], tiny: str, tmp_path: Path
) -> None:
    from gainrag.augmentation import augment
    from gainrag.synthesis import synthesize
    from tests.cross_encoders import train

    gains = synthesize(augment(candidates[:8], OverlapLM()), OverlapLM(), alpha=0.0)
    selector = train(gains, tmp_path / "with", epochs=1)
    assert selector.laziness is not None
    assert selector.laziness.questions == 8
    assert selector.laziness.changed <= 0.01
    exact = CrossEncoderSelector(tmp_path / "with", dtype="float32")
    assert exact.threshold == (math.inf if exact.laziness.threshold is None else exact.laziness.threshold)  # type: ignore[union-attr]
    share = skipped_share(select(as_candidates(gains), exact, pseudo="lazy"))
    assert share is not None
    assert share >= selector.laziness.skipped - 1 / 8  # the last one may fall to rounding

    without = train(synthesize(candidates[:4], OverlapLM(), alpha=0.0), tmp_path / "without", base=tiny, epochs=1)
    assert without.threshold is None
    assert not (tmp_path / "without" / Laziness.FILE).exists()


def as_candidates(gains: list[GainRecord]) -> list[Retrieved]:
    return [Retrieved(id=g.id, question=g.question, answers=g.answers, ctxs=list(g.ctxs)) for g in gains]
