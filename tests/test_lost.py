"""Where questions are lost: a record made by hand for each part, and that nothing is counted twice or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gainrag.evaluation import score_questions
from gainrag.evaluation.lost import PARTS
from gainrag.records import Answer, Gained
from gainrag.report import report
from gainrag.report.cases import Case
from gainrag.report.lost import candidates_hold, find, judged, part_of, regret_of
from tests.recorded_run import make_run

HOLDS, LACKS = "It is Paris.", "Rain falls."


def case(
    name: str,
    texts: tuple[str, str],
    read: int | None,
    said: str,
    *,
    dataset: str = "one",
    answers: tuple[str, ...] = ("Paris",),
    choices: list[str] | None = None,
    gold: tuple[bool | None, bool | None] = (None, None),
) -> Case:
    """A question with two candidates of losses 1 and 2, of which the system reads one (None: one that is no candidate);
    the oracle reads the first and answers right."""
    candidates = [
        Gained(id=f"{name}{i}", text=text, loss={"0.0": 1.0 + i, "0.5": 9.0}, gain=-1.0 - i, gold=gold[i])
        for i, text in enumerate(texts)
    ]
    far = Gained(id="far", text=HOLDS, loss={}, gain=0.0)

    def answered(prediction: str, ctx: Gained) -> Answer:
        own: dict[str, Any] = {"id": name, "question": "?", "answers": list(answers), "choices": choices}
        return Answer(**own, prediction=prediction, ctxs=[ctx])

    both = {"own": answered(said, far if read is None else candidates[read])}
    both["oracle"] = answered(answers[0], candidates[0])
    return Case(
        id=name,
        question="?",
        answers=list(answers),
        dataset=dataset,
        candidates=candidates,
        answered=both,
        scores={row["system"]: row for row in score_questions({system: [a] for system, a in both.items()})},
    )


BY_PART = {
    "right": case("a", (HOLDS, LACKS), 0, "Paris"),
    "right_without": case("b", (HOLDS, LACKS), 1, "It is Paris"),
    "retrieval": case("c", (LACKS, LACKS), 0, "Rome"),
    "selection": case("d", (LACKS, HOLDS), 0, "Rome", dataset="two"),
    "reader": case("e", (LACKS, HOLDS), 1, "Rome", dataset="two"),
}
# Right without any passage that says so; and read from a retriever whose passage is no candidate.
MORE = {"right_without": case("f", (LACKS, LACKS), 0, "Paris"), "reader": case("g", (LACKS, LACKS), None, "Rome")}


@pytest.mark.parametrize(("part", "own"), [*BY_PART.items(), *MORE.items()], ids=lambda value: getattr(value, "id", ""))
def test_each_part_is_what_it_says(part: str, own: Case) -> None:
    assert part_of(own, "own", False, candidates_hold(own)) == part


def test_the_parts_are_all_questions_and_all_points() -> None:
    cases = [*BY_PART.values(), *MORE.values()]
    found, absent = find(cases, ["own", "oracle"], "oracle")
    assert found is not None
    assert not absent
    assert (found["n"], list(found["systems"])) == (7, ["all", "one", "two"])
    own = found["systems"]["all"]["own"]
    assert {name: round(7 * own["parts"][name], 9) for name in PARTS} == {
        "right": 1, "right_without": 2, "retrieval": 1, "selection": 1, "reader": 2
    }  # fmt: skip
    assert own["score"] + sum(own["points"].values()) == pytest.approx(1.0)
    # "It is Paris" contains the answer and is not all of it: f1 0.5 where the score is mean(contains, F1).
    assert own["points"]["right_without"] == pytest.approx((1 - (1 + 0.5) / 2) / 7)
    assert sum(own["to_oracle"].values()) == pytest.approx(1.0 - own["score"])
    # b and e read the second candidate; g read none, and its regret is not known.
    assert own["regret"]["n"] == 6
    assert own["regret"]["parts"] == pytest.approx(
        {"right": 0.0, "right_without": 1 / 6, "retrieval": 0.0, "selection": 0.0, "reader": 1 / 6}
    )
    assert own["regret"]["mean"] == pytest.approx(sum(own["regret"]["parts"].values()))
    assert regret_of(MORE["reader"], "own") is None


def test_choices_and_long_answers_are_judged_by_gold_marks_or_not_at_all() -> None:
    """Paris stands in what was read; what matters is what people marked."""
    options = ["Paris", "Rome"]
    marked = [
        case("a", (LACKS, HOLDS), 1, "Rome", dataset="choices", choices=options, gold=(True, False)),
        case("b", (LACKS, HOLDS), 0, "Rome", dataset="choices", choices=options, gold=(True, None)),
        case("c", (LACKS, HOLDS), 0, "Paris", dataset="choices", choices=options, gold=(False, False)),
    ]
    assert [part_of(c, "own", True, candidates_hold(c, True)) for c in marked] == [
        "selection", "reader", "right_without"
    ]  # fmt: skip
    unmarked = case("d", (LACKS, HOLDS), 0, "Paris", dataset="unmarked", choices=options)
    long = case("e", (LACKS, HOLDS), 0, "Yes", dataset="long", answers=(" ".join(map(str, range(20))),))
    cases = [*marked, unmarked, long]
    gold, absent = judged(cases)
    assert gold == {"choices": True}
    assert "are choices" in absent["unmarked"]
    assert "are long" in absent["long"]
    found, _ = find(cases, ["own"])
    assert found is not None
    assert (found["n"], found["gold"]) == (3, ["choices"])
    assert find([long], ["own"])[0] is None


def test_every_bar_of_the_report_is_whole(tmp_path: Path) -> None:
    data = report(make_run(tmp_path / "run"))
    for by_system in data["analyses"]["lost"]["systems"].values():
        for row in by_system.values():
            assert sum(row["parts"].values()) == pytest.approx(1.0)
            assert row["score"] + sum(row["points"].values()) == pytest.approx(1.0)
    text = (tmp_path / "run" / "report.md").read_text()
    assert "## Where it is lost" in text
    assert 'aria-labelledby="lost-title"' in (tmp_path / "run" / "report.html").read_text()
