from __future__ import annotations

import re

import pytest

from gainrag.errors import ConfigError
from gainrag.evaluation import Evaluation, evaluate
from gainrag.records import Answer, Gained, GainRecord, Scored
from gainrag.runs.printing import candidates_view, difference_rows, p_value, piped, text_table, too_few
from gainrag.statistics import holm


def said(right: int, n: int, ctx: Scored | None = None) -> list[Answer]:
    return [
        Answer(
            id=str(i),
            question="?",
            answers=["Paris"],
            prediction="Paris" if i < right else "Rome",
            ctxs=[ctx] if ctx else [],
            extra={"dataset": "nq" if i % 2 else "web"},
        )
        for i in range(n)
    ]


SYSTEMS = {
    "no retrieval": said(8, 40),
    "dense | top-1": said(10, 40, Scored(id="1", text="Paris")),
    "pseudo": said(36, 40, Scored(id="2", text="Rome", origin="generated")),
}


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(SYSTEMS, resamples=500)


@pytest.fixture(scope="module")
def grouped() -> Evaluation:
    return evaluate(SYSTEMS, resamples=500, group_by="dataset")


def test_scores_are_percentages_with_one_decimal_and_intervals(found: Evaluation) -> None:
    line = next(line for line in text_table(found).splitlines() if line.startswith("pseudo"))
    assert re.match(r"pseudo +90\.0 \[\d\d\.\d, \d+\.\d\]", line)
    assert line.split()[-2:] == ["0.0", "100.0"]  # an answer in the passages, pseudo-passages
    assert "95% bootstrap intervals" in text_table(found)


def test_systems_without_passages_have_no_recall(found: Evaluation) -> None:
    line = next(line for line in text_table(found).splitlines() if line.startswith("no retrieval"))
    assert line.split()[-2:] == ["-", "-"]


def test_columns_are_aligned(grouped: Evaluation) -> None:
    for part in text_table(grouped).split("\n\n"):
        heading, *rest = part.splitlines()
        if rest:
            starts = [match.start() for match in re.finditer(r"(?<=  )\S|^\S", heading)]
            for row in rest:
                assert all(start < 2 or row[start - 2 : start] == "  " for start in starts)


def test_no_marks_without_a_baseline(found: Evaluation) -> None:
    assert "*" not in text_table(found)


def test_the_significantly_different_are_marked(grouped: Evaluation) -> None:
    text = text_table(grouped, baseline="no retrieval")
    rows = {name: [line for line in text.splitlines() if line.startswith(f"{name}  ")] for name in SYSTEMS}
    assert all(len(lines) >= 2 for lines in rows.values())
    assert all("**" in line for line in rows["pseudo"])
    assert not any("*" in line for line in rows["no retrieval"] + rows["dense | top-1"])
    assert "** p < 0.01" in text
    assert "+70.0 [+" in rows["pseudo"][-1]


def test_an_unknown_baseline_is_refused(found: Evaluation) -> None:
    with pytest.raises(ConfigError, match="did you mean 'pseudo'"):
        text_table(found, baseline="psuedo")


def test_groups_have_a_table_of_their_own(found: Evaluation, grouped: Evaluation) -> None:
    assert "nq (n=20)" in text_table(grouped)
    assert "average of groups" in text_table(grouped)
    assert "by dataset" not in text_table(found)


def test_a_bar_in_a_name_is_no_cell_of_markdown() -> None:
    lines = piped([["system", "F1"], ["dense | top-1", "0.5"]]).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


RECORD = GainRecord(
    id="q",
    question="Who wrote\nEmma?",
    answers=["Jane Austen", "Austen"],
    kept=True,
    prediction="Jane Austen",
    silver=2,
    ctxs=[
        Gained(id="1", title="Highbury", text="A village in Surrey. " * 20, loss={}, gain=-3.0),
        Gained(id="2", title="Emma", text="Jane  Austen\nwrote it.", loss={}, gain=-1.5),
        Gained(id="p", text="Emma was written by Austen.", origin="generated", loss={}, gain=-0.7),
        Gained(id="4", text="unread", hasanswer=True, loss={}, gain=-9.0),
    ],
)


def test_candidates_stand_in_the_order_of_their_gains_with_the_silver_one_marked() -> None:
    lines = candidates_view(RECORD).splitlines()
    rows = lines[lines.index("") + 2 :]
    assert len(rows) == 4
    assert [re.search(r"-\d+\.\d+", row)[0] for row in rows] == [  # type: ignore[index]
        "-0.700",
        "-1.500",
        "-3.000",
        "-9.000",
    ]
    assert [row.startswith("*") for row in rows] == [True, False, False, False]
    assert ["yes" in row for row in rows] == [True, True, False, True]  # marked, or looked for where there is no mark
    assert ["generated" in row for row in rows] == [True, False, False, False]
    assert "Emma: Jane Austen wrote it." in rows[1]
    assert lines[0].endswith("Who wrote Emma?")
    assert "Jane Austen | Austen" in lines[1]
    assert "kept" in lines[2]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    lines = candidates_view(RECORD, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.endswith("…") for line in lines)


def test_a_width_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="width of 20"):
        candidates_view(RECORD, 20)


def test_scores_of_several_seeds_have_their_spread() -> None:
    found = evaluate(SYSTEMS, {"pseudo": [said(34, 40)]}, resamples=100)
    text = text_table(found, baseline="no retrieval")
    line = next(line for line in text.splitlines() if line.startswith("pseudo"))
    assert re.match(r"pseudo +87\.5 ± 3\.5 \[", line)
    assert "±: mean and standard deviation over 2 seeds" in text
    assert "±" not in text_table(evaluate(SYSTEMS, resamples=100))


def test_p_values_are_corrected_for_the_number_of_systems(found: Evaluation) -> None:
    rows = difference_rows(found.overall, "no retrieval")
    p = [found.overall.difference(name, "no retrieval").p for name in ("dense | top-1", "pseudo")]
    assert rows[0] == ["system", "difference", "p", "p (Holm)"]
    assert [row[2:] for row in rows[1:]] == [
        [p_value(own), p_value(corrected)] for own, corrected in zip(p, holm(p), strict=True)
    ]


def test_what_is_not_shown_says_how_many_questions_would_show_it(found: Evaluation) -> None:
    line = text_table(found, baseline="no retrieval").splitlines()[-1]
    assert re.fullmatch(
        r"too few questions to show a difference from no retrieval; one as large as seen here would take "
        r"\(power 80%\): dense \| top-1 about \d+",
        line,
    )
    assert too_few(found, "pseudo") is None  # both differ from it by far more than their intervals
    same = evaluate({"a": said(5, 10), "b": said(5, 10)}, resamples=100)
    assert str(too_few(same)).endswith("b (none was seen)")
