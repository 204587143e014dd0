from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.evaluation import METRICS, Breakdown, Difference, Evaluation, evaluate, score_questions
from gainrag.records import Answer, Scored

RIGHT, PARTLY, WRONG = "Jane Austen", "Jane Brown", "Emily"


def answers(predictions: Sequence[str], groups: Sequence[str] | None = None, prefix: str = "q") -> list[Answer]:
    return [
        Answer(
            id=f"{prefix}{i:03}",
            question="Who?",
            answers=["Jane Austen", "Austen, Jane"],
            prediction=text,
            extra={} if groups is None else {"dataset": groups[i]},
        )
        for i, text in enumerate(predictions)
    ]


def drawn(n: int, share: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [RIGHT if rng.random() < share else rng.choice([PARTLY, WRONG]) for _ in range(n)]


GROUPS = ["nq"] * 30 + ["triviaqa"] * 60 + ["hotpotqa"] * 10
SYSTEMS = {
    "dense": answers(drawn(100, 0.3, 1), GROUPS),
    "bm25": answers(drawn(100, 0.4, 2), GROUPS),
    "gainrag": answers(drawn(100, 0.7, 3), GROUPS),
}


def every_estimate(found: Evaluation) -> list[tuple[float, float, float]]:
    parts: list[Breakdown] = [found.overall, *found.groups.values(), *([found.macro] if found.macro else [])]
    systems = [(e.value, e.low, e.high) for p in parts for s in p.systems.values() for e in s.metrics.values()]
    return systems + [(d.value, d.low, d.high) for p in parts for c in p.pairs for d in c.metrics.values()]


def test_means_are_those_of_the_questions() -> None:
    found = evaluate(SYSTEMS, resamples=50)
    rows = score_questions(SYSTEMS)
    assert len(rows) == 300
    for name in SYSTEMS:
        own = [row for row in rows if row["system"] == name]
        for metric in METRICS:
            assert found.overall.systems[name].metrics[metric].value == pytest.approx(np.mean([r[metric] for r in own]))
        assert all(r["mean"] == (r["contains"] + r["f1"]) / 2 for r in own)
    json.dumps(rows)


def test_intervals_contain_their_means_and_lie_in_range() -> None:
    for value, low, high in every_estimate(evaluate(SYSTEMS, resamples=500, group_by="dataset")):
        assert -1 <= low <= value <= high <= 1


def test_interval_is_near_the_normal_one() -> None:
    predictions = [RIGHT] * 80 + [WRONG] * 120
    estimate = evaluate({"a": answers(predictions)}, resamples=5000).overall.systems["a"].metrics["contains"]
    error = 1.96 * math.sqrt(0.4 * 0.6 / 200)
    assert (estimate.low, estimate.high) == pytest.approx((0.4 - error, 0.4 + error), abs=0.01)


def test_higher_confidence_is_a_wider_interval() -> None:
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        found = evaluate(SYSTEMS, resamples=500, confidence=confidence).overall.systems["dense"].metrics["f1"]
        widths.append(found.high - found.low)
    assert widths == sorted(widths)


def test_equal_systems_do_not_differ() -> None:
    found = evaluate({"a": SYSTEMS["dense"], "b": SYSTEMS["dense"]}, resamples=200, group_by="dataset")
    for part in (found.overall, *found.groups.values(), found.macro):
        assert part is not None
        for metric in METRICS:
            assert part.difference("a", "b", metric) == Difference(0.0, 0.0, 0.0, 1.0)


def test_a_clearly_better_system_is_significantly_better() -> None:
    found = evaluate(SYSTEMS, resamples=2000).overall
    assert found.difference("gainrag", "dense").p < 0.01
    assert found.difference("gainrag", "dense").low > 0


def test_p_value_is_the_exact_one_where_that_can_be_enumerated() -> None:
    """Six questions, all won: only 2 of the 64 sign patterns are as extreme."""
    found = evaluate({"a": answers([RIGHT] * 6), "b": answers([WRONG] * 6)}, resamples=20_000).overall
    assert found.difference("a", "b", "contains").p == pytest.approx(2 / 64, abs=0.004)


def test_p_values_of_equal_systems_are_uniform() -> None:
    p_values = [
        evaluate({"a": answers(drawn(40, 0.5, 2 * i)), "b": answers(drawn(40, 0.5, 2 * i + 1))}, resamples=200, seed=i)
        .overall.difference("a", "b")
        .p
        for i in range(150)
    ]
    assert np.mean(np.array(p_values) < 0.2) == pytest.approx(0.2, abs=0.1)
    assert min(p_values) > 0


def test_a_difference_is_turned_with_its_pair() -> None:
    found = evaluate(SYSTEMS, resamples=100).overall
    one, other = found.difference("gainrag", "bm25", "f1"), found.difference("bm25", "gainrag", "f1")
    assert (one.value, one.low, one.high, one.p) == (-other.value, -other.high, -other.low, other.p)
    gained = found.systems["gainrag"].metrics["f1"].value - found.systems["bm25"].metrics["f1"].value
    assert one.value == pytest.approx(gained)
    assert len(found.pairs) == 3


def test_order_of_questions_does_not_matter() -> None:
    shuffled = {name: random.Random(name).sample(records, len(records)) for name, records in SYSTEMS.items()}
    assert evaluate(shuffled, resamples=100, group_by="dataset") == evaluate(SYSTEMS, resamples=100, group_by="dataset")


def test_a_system_scores_the_same_alone_as_among_others() -> None:
    alone = evaluate({"bm25": SYSTEMS["bm25"]}, resamples=100).overall
    assert alone.systems["bm25"] == evaluate(SYSTEMS, resamples=100).overall.systems["bm25"]
    assert alone.pairs == []


def test_the_same_seed_gives_the_same_and_another_seed_other_intervals() -> None:
    first, again, other = (evaluate(SYSTEMS, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.overall.systems["dense"] != other.overall.systems["dense"]


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples at a time are as good as all at once, for the flips exactly."""
    whole = evaluate(SYSTEMS, resamples=100)
    monkeypatch.setattr("gainrag.statistics._BLOCK", 1000)
    parts = evaluate(SYSTEMS, resamples=100)
    assert parts == whole


def test_macro_average_by_hand() -> None:
    groups = ["x"] * 4 + ["y"] * 1
    a = answers([RIGHT, WRONG, WRONG, WRONG, RIGHT], groups)
    found = evaluate({"a": a, "b": answers([WRONG] * 5, groups)}, resamples=500, group_by="dataset")
    assert {name: group.n for name, group in found.groups.items()} == {"x": 4, "y": 1}
    assert found.overall.systems["a"].metrics["contains"].value == pytest.approx(2 / 5)
    assert found.groups["x"].systems["a"].metrics["contains"].value == pytest.approx(1 / 4)
    assert found.macro is not None
    macro = found.macro.systems["a"].metrics["contains"]
    assert macro.value == pytest.approx((1 / 4 + 1) / 2)
    # y is always drawn from its one question, which is right: the average cannot fall below a half.
    assert macro.low == pytest.approx(0.5)
    assert found.macro.difference("a", "b", "contains").value == pytest.approx(macro.value)
    # Only the one right question of each group differs: sign patterns ++ and -- of four are as extreme.
    assert found.macro.difference("a", "b", "contains").p == pytest.approx(0.5, abs=0.1)


def test_groups_score_as_on_their_own() -> None:
    found = evaluate(SYSTEMS, resamples=100, group_by="dataset")
    own = {name: [r for r in records if r.extra["dataset"] == "nq"] for name, records in SYSTEMS.items()}
    assert found.groups["nq"] == evaluate(own, resamples=100).overall
    assert list(found.groups) == ["hotpotqa", "nq", "triviaqa"]


def test_one_group_has_no_average() -> None:
    assert evaluate({"a": answers([RIGHT], ["nq"])}, resamples=10, group_by="dataset").macro is None


def test_passages_used() -> None:
    holds = Scored(id="1", text="By Jane Austen.")
    pseudo = Scored(id="p", text="A novel.", origin="generated")
    marked_wrongly = Scored(id="2", text="A novel.", hasanswer=True)
    used = [[holds, pseudo], [pseudo, holds], [pseudo], [marked_wrongly]]
    records = [msgspec.structs.replace(r, ctxs=ctxs) for r, ctxs in zip(answers([RIGHT] * 4), used, strict=True)]
    found = evaluate({"a": records, "none": answers([RIGHT] * 4)}, resamples=50).overall.systems
    assert found["a"].generated is not None
    assert found["a"].recall is not None
    assert (found["a"].generated.value, found["a"].recall.value) == (0.5, 0.5)
    assert found["none"].generated is found["none"].recall is None


@pytest.mark.parametrize("group_by", [None, "dataset"])
def test_json_round_trip(group_by: str | None) -> None:
    found = evaluate(SYSTEMS, resamples=50, group_by=group_by)
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    with pytest.raises(DataError, match="no evaluation"):
        Evaluation.from_json({"resamples": 1})


PLAIN = evaluate({"a": answers([RIGHT] * 3), "b": answers([WRONG] * 3)}, resamples=5).to_json()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("overall", "systems"), {}, "every system is missing in 'overall'"),
        (("overall", "systems", "a", "metrics"), {}, "contains of system 'a' is missing"),
        (("overall", "pairs"), [], "the comparison of 'a' and 'b' is missing"),
        (("overall", "pairs", 0, "metrics"), {}, "contains of the comparison of 'a' and 'b' is missing"),
        (("macro",), {"n": 3, "systems": {}, "pairs": []}, "system 'a' is missing in 'macro'"),
        (("groups",), {"x": {**PLAIN["overall"], "pairs": []}}, "is missing in 'x'"),
        (("overall", "n"), 0, ">= 1"),
        (("overall", "n"), "3", "Expected `int`"),
        (("overall", "systems", "a", "metrics", "f1", "value"), 2.0, "<= 1.0"),
        (("overall", "systems", "a", "metrics", "f1", "value"), math.nan, ">= 0.0"),
        (("overall", "systems", "a"), None, "Expected `object`"),
        (("overall", "pairs", 0, "metrics", "f1", "p"), -0.5, ">= 0.0"),
        (("overall",), [], "Expected `object`"),
        (("resamples",), 0, ">= 1"),
        (("confidence",), 1.0, "< 1.0"),
        (("seed",), None, "Expected `int`"),
    ],
)
def test_what_is_no_evaluation_is_one_line(path: tuple[str | int, ...], value: object, message: str) -> None:
    found = copy.deepcopy(PLAIN)
    part: Any = found
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(DataError) as caught:
        Evaluation.from_json(found, "evaluation.json")
    assert str(caught.value).startswith("evaluation.json: no evaluation: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [None, [], "text", {}])
def test_other_json_is_no_evaluation(other: Any) -> None:
    with pytest.raises(DataError, match="no evaluation"):
        Evaluation.from_json(other)


def test_one_id_is_one_question() -> None:
    one = answers([RIGHT] * 2)
    spaced = [msgspec.structs.replace(record, question=" Who? \n") for record in one]
    assert evaluate({"a": one, "b": spaced}, resamples=5).overall.n == 2
    other = [one[0], msgspec.structs.replace(one[1], question="Whose?")]
    with pytest.raises(DataError, match="system 'b', question 'q001': the question is not that of system 'a'"):
        evaluate({"a": one, "b": other}, resamples=5)


def test_a_missing_question_is_named_with_its_system() -> None:
    whole, part = answers([RIGHT] * 3), answers([RIGHT] * 2)
    for systems in ({"a": whole, "b": part}, {"b": part, "a": whole}):
        with pytest.raises(DataError, match=r"system 'b': question 'q002' is missing, which system 'a' has"):
            evaluate(systems)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({}, "no systems"),
        ({"a": []}, "system 'a': the system has no answers"),
        ({"a": answers([RIGHT]) * 2}, "question 'q000': the question is answered twice"),
        ({"a": [Answer(id="q", question="?", prediction="x")]}, "question 'q': the question has no gold answers"),
        ({"a": [Answer(id="q", question="?", answers=["x", " "], prediction="x")]}, "a gold answer is empty"),
        (
            {"a": answers([RIGHT]), "b": [Answer(id="q000", question="Who?", answers=["Bell"], prediction="x")]},
            "system 'b', question 'q000': the gold answers are not those of system 'a'",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(systems: dict[str, list[Answer]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate(systems)
    assert "\n" not in str(caught.value)


def test_groups_must_be_there_and_agree() -> None:
    with pytest.raises(DataError, match="did you mean 'dataset'"):
        evaluate(SYSTEMS, group_by="datset")
    with pytest.raises(DataError, match="to group by 'dataset': is not there"):
        evaluate({"a": answers([RIGHT])}, group_by="dataset")
    with pytest.raises(DataError, match="dataset is 'y' here and 'x' in another system"):
        evaluate({"a": answers([RIGHT], ["x"]), "b": answers([RIGHT], ["y"])}, group_by="dataset")


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="resamples is 0"):
        evaluate(SYSTEMS, resamples=0)
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            evaluate(SYSTEMS, confidence=confidence)
    found = evaluate(SYSTEMS, resamples=10).overall
    with pytest.raises(ConfigError, match="did you mean 'gainrag'"):
        found.difference("gainrga", "dense")
    with pytest.raises(ConfigError, match="unknown metric"):
        found.difference("gainrag", "dense", "em")
    with pytest.raises(ConfigError, match="itself"):
        found.difference("dense", "dense")


def test_several_runs_of_a_system_are_their_mean_and_their_spread() -> None:
    """Scores, groups and tests are those of each question's mean over the runs; intervals stay over questions."""
    runs = [answers(drawn(100, share, seed), GROUPS) for share, seed in ((0.7, 3), (0.6, 4), (0.8, 5))]
    shuffled = [runs[1], random.Random(0).sample(runs[2], 100)]
    found = evaluate({"dense": SYSTEMS["dense"], "gainrag": runs[0]}, {"gainrag": shuffled}, group_by="dataset")
    alone = evaluate({str(n): run for n, run in enumerate(runs)}, resamples=10, group_by="dataset")
    for part, own in (
        (found.overall, alone.overall), (found.macro, alone.macro), (found.groups["nq"], alone.groups["nq"])
    ):  # fmt: skip
        assert part is not None
        assert own is not None
        for metric in METRICS:
            means = [own.systems[str(n)].metrics[metric].value for n in range(3)]
            estimate = part.systems["gainrag"].metrics[metric]
            assert estimate.value == pytest.approx(np.mean(means))
            assert estimate.sd == pytest.approx(np.std(means, ddof=1))
    assert (found.overall.systems["gainrag"].runs, found.overall.systems["dense"].runs) == (3, 1)
    assert found.overall.systems["dense"].metrics["mean"].sd is None
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_same_run_twice_changes_nothing_but_has_a_spread_of_zero() -> None:
    once = evaluate(SYSTEMS, resamples=100)
    twice = evaluate(SYSTEMS, {"gainrag": [SYSTEMS["gainrag"]]}, resamples=100)
    assert twice.overall.pairs == once.overall.pairs
    assert twice.overall.systems["gainrag"].metrics["mean"].sd == 0.0
    assert "sd" not in json.dumps(once.to_json())


def test_further_runs_are_of_a_system_that_is_there_and_of_the_same_questions() -> None:
    with pytest.raises(ConfigError, match=r"system .gain.*did you mean"):
        evaluate(SYSTEMS, {"gain": [SYSTEMS["gainrag"]]}, resamples=10)
    with pytest.raises(DataError, match=r"gainrag, run 2.*missing"):
        evaluate(SYSTEMS, {"gainrag": [SYSTEMS["gainrag"][1:]]}, resamples=10)
