"""Every analysis on a few questions small enough to work out by hand."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from gainrag.errors import ConfigError
from gainrag.evaluation import evaluate, score_questions
from gainrag.records import Answer, Gained
from gainrag.report.analysis import (
    compare,
    compare_groups,
    extremes,
    k_sweep,
    preference_gap,
    pseudo_choice,
    recall_and_score,
    recall_by_k,
)
from gainrag.report.cases import Case, by_dataset, share

# Each question's candidates: two retrieved and the pseudo-passage; which of them say "Paris".
HOLDS, LACKS = "It is Paris.", "Rain falls."


def case(
    name: str,
    gains: tuple[float, float, float],
    texts: tuple[str, str, str],
    read: dict[str, tuple[int | None, str]],
    *,
    dataset: str = "one",
    answers: tuple[str, ...] = ("Paris",),
    scored: tuple[float, float, float] = (3.0, 2.0, 1.0),
    **extra: str,
) -> Case:
    """A question; `read`: by system, which candidate it read (None: none) and what it said."""
    candidates = [
        Gained(id=f"{name}{i}", text=text, loss={}, gain=gain, origin="generated" if i == 2 else "corpus")
        for i, (gain, text) in enumerate(zip(gains, texts, strict=True))
    ]
    answered = {
        system: Answer(
            id=name,
            question="?",
            answers=list(answers),
            prediction=said,
            ctxs=[] if i is None else [candidates[i]],
        )
        for system, (i, said) in read.items()
    }
    return Case(
        id=name,
        question="?",
        answers=list(answers),
        dataset=dataset,
        candidates=candidates,
        answered=answered,
        scores={row["system"]: row for row in score_questions({s: [a] for s, a in answered.items()})},
        scored={"new": list(scored)},
        extra=dict(extra),
    )


CASES = [
    # "old" reads the first candidate; "new" the pseudo-passage in a and b, a retrieved one in c and d.
    case("a", (-3, -2, -1), (HOLDS, LACKS, LACKS), {"old": (0, "Rome"), "new": (2, "Paris"), "none": (None, "Oslo")}),
    case("b", (-1, -2, -3), (HOLDS, LACKS, LACKS), {"old": (0, "Paris"), "new": (2, "Rome"), "none": (None, "Oslo")}),
    case(
        "c", (-3, -2, -1), (LACKS, HOLDS, LACKS), {"old": (0, "Paris"), "new": (1, "Paris"), "none": (None, "Paris")},
        dataset="two", question_type="what",
    ),
    case(
        "d", (-4, -2, -5), (LACKS,) * 3, {"old": (0, "Rome"), "new": (1, "the city Paris"), "none": (None, "")},
        dataset="two", question_type="who", answers=("Paris", "Paris in France"), scored=(1.0, 2.0, 3.0),
    ),
]  # fmt: skip


def test_shares_have_wilsons_interval() -> None:
    p, n, z = 0.3, 10, 1.959964
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = share(3, 10)
    assert found["value"] == p
    assert found["low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=2e-6)
    assert found["high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=2e-6)


def test_the_preference_gap_has_two_halves() -> None:
    found = preference_gap(CASES, "old")
    # a and b hold an answer, b is right; right are b and c, of which b holds one.
    assert {k: (v["k"], v["n"]) for k, v in found.items()} == {"right_of_holding": (1, 2), "holding_of_right": (1, 2)}
    by = by_dataset(CASES, lambda some: preference_gap(some, "old"))
    assert list(by) == ["all", "one", "two"]
    assert (by["two"]["right_of_holding"]["value"], by["two"]["holding_of_right"]["value"]) == (None, 0.0)


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'old'"):
        preference_gap(CASES, "olt")


def test_recall_and_score_before_and_after() -> None:
    found = recall_and_score(CASES, ["none", "old", "new"])
    assert list(found) == ["old", "new"]  # one that reads nothing has no recall
    assert found["old"] == {"recall": 0.5, "score": 0.5}
    # new: a right (1), b wrong (0), c right (1), d contains 1 and F1 of "city paris" with "paris" 2/3.
    assert found["new"] == {"recall": 0.25, "score": pytest.approx((1 + 0 + 1 + (1 + 2 / 3) / 2) / 4)}


def test_recall_grows_with_k_in_either_order() -> None:
    retrieved = recall_by_k(CASES)
    assert [(row["k"], row["recall"]) for row in retrieved] == [(1, 0.5), (2, 0.75)]
    assert [row["recall"] for row in recall_by_k(CASES, "new")] == [0.5, 0.75, 0.75]
    last_first = [
        case("e", (0, 0, 0), (LACKS, HOLDS, HOLDS), {"old": (0, "")}, scored=(1.0, 2.0, 3.0)),
        case("f", (0, 0, 0), (HOLDS, LACKS, LACKS), {"old": (0, "")}, scored=(1.0, 2.0, 3.0)),
    ]
    assert [row["recall"] for row in recall_by_k(last_first, "new")] == [0.5, 0.5, 1.0]


def test_the_sweep_is_in_the_order_of_k() -> None:
    old, new = ([c.answered[system] for c in CASES[:3]] for system in ("old", "new"))
    found = k_sweep({10: {"it": new}, 2: {"it": old, "once": old}}, resamples=200, confidence=0.9)
    assert [(row["k"], row["n"]) for row in found["it"]] == [(2, 3), (10, 3)]
    assert found["it"][0]["difference"] is None
    assert [row["k"] for row in found["once"]] == [2]
    whole = evaluate({"few": old, "many": new}, resamples=200, confidence=0.9).overall
    for row, name in zip(found["it"], ("few", "many"), strict=True):
        recall = whole.systems[name].recall
        assert recall is not None
        assert (row["score"], row["recall"]) == pytest.approx((whole.systems[name].metrics["mean"].value, recall.value))
    above = whole.difference("many", "few")
    assert found["it"][1]["difference"] == {
        "difference": above.value, "low": above.low, "high": above.high, "p": above.p
    }  # fmt: skip


def test_when_the_pseudo_passage_is_chosen_and_whether_that_was_right() -> None:
    found = pseudo_choice(CASES, "new", without="old")
    counts = {key: (found[key]["k"], found[key]["n"]) for key in ("chosen", "best", "best_of_chosen", "best_of_others")}
    # Chosen in a and b; its gain is the highest in a and c.
    assert counts == {"chosen": (2, 4), "best": (2, 4), "best_of_chosen": (1, 2), "best_of_others": (1, 2)}
    assert found["score"] == {"n": 2, "value": 0.5}
    assert found["score_without"] == {"n": 2, "value": 0.5}
    # The best retrieved passage of a is its second, which nobody read; that of b is its first, which old read.
    assert found["score_best_retrieved"] == {"n": 1, "value": 1.0, "chosen": 0.0}


def test_a_comparison_counts_wins_and_losses() -> None:
    found = compare(CASES, "new", "old", resamples=200)
    assert (found["n"], found["wins"], found["losses"], found["ties"], found["same_passages"]) == (4, 2, 1, 1, 0)
    assert found["difference"] == pytest.approx((1 - 1 + 0 + 5 / 6) / 4)
    assert found["low"] <= found["difference"] <= found["high"]
    back = compare(CASES, "old", "new", resamples=200)
    assert (back["wins"], back["losses"], back["difference"]) == (1, 2, pytest.approx(-found["difference"]))
    assert compare(CASES, "old", "old", resamples=10)["same_passages"] == 4


def test_one_difference_has_one_interval() -> None:
    """The report had another interval than evaluation.json for the same systems and questions."""
    rng = random.Random(0)
    cases = [
        case(f"q{i}", (0, -1, -2), (HOLDS,) * 3, {"old": (1, rng.choice(["Paris", "Rome"])), "new": (0, "Paris")},
             dataset=rng.choice(["one", "two"]))
        for i in rng.sample(range(60), 60)
    ]  # fmt: skip
    settings: dict[str, Any] = {"resamples": 500, "confidence": 0.9, "seed": 7}
    answers = {system: [c.answered[system] for c in cases] for system in ("old", "new")}
    for records in answers.values():
        for record, c in zip(records, cases, strict=True):
            record.extra["dataset"] = c.dataset
    whole = evaluate(answers, group_by="dataset", **settings)
    shown = {"all": compare(cases, "new", "old", **settings)}
    shown |= {row["group"]: row for row in compare_groups(cases, "new", "old", **settings) if row["by"] == "dataset"}
    assert len(shown) == 3
    for name, part in {"all": whole.overall, **whole.groups}.items():
        found = part.difference("new", "old")
        assert (shown[name]["low"], shown[name]["high"]) == (found.low, found.high)


def test_groups_part_the_questions() -> None:
    found = compare_groups(CASES, "new", "old", keys=["question_type", "nothing"], resamples=50)
    groups = {(row["by"], row["group"]): (row["n"], row["wins"], row["losses"]) for row in found}
    assert groups == {
        ("dataset", "one"): (2, 1, 1),
        ("dataset", "two"): (2, 1, 0),
        ("question_type", "not given"): (2, 1, 1),
        ("question_type", "what"): (1, 0, 0),
        ("question_type", "who"): (1, 1, 0),
        ("candidates", "none holds an answer"): (1, 1, 0),
        ("candidates", "some hold an answer"): (3, 1, 1),
    }  # all shortest answers are one word: no grouping


def test_the_largest_wins_and_losses_stand_first() -> None:
    wins, losses = extremes(CASES, "new", "old")
    assert ([c.id for c in wins], [c.id for c in losses]) == (["a", "d"], ["b"])
    assert [c.id for c in extremes(CASES, "new", "old", n=1)[0]] == ["a"]
    # Of equal scores the larger difference in the gain of what was read comes first.
    less = case("z", (-3, -2, -2.5), (LACKS, LACKS, LACKS), {"old": (0, "Rome"), "new": (2, "Paris")})
    assert [c.id for c in extremes([less, CASES[0]], "new", "old")[0]] == ["a", "z"]
    assert [c.id for c in extremes([less, CASES[0]], "old", "new")[1]] == ["a", "z"]
