"""Selectors trained another way in the report: `[[variant]]` of a run's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gainrag.files.streams import read_json
from gainrag.report import report
from gainrag.report.sections import sections
from tests.recorded_run import make_run

VARIANTS: dict[str, dict[str, Any]] = {
    "GainRAG, 20 questions": {"questions": 20},
    "GainRAG, 10 questions": {"questions": 10},
    "relevance, 10 questions": {"questions": 10, "labels": "relevance"},
    "trained on the other data sets": {"leave_out": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_run(tmp_path_factory.mktemp("variants") / "run", variants=VARIANTS)
    with open(folder / "config.toml", "a") as config:
        config.write('\n[[variant]]\nname = "never run"\ntrain_on = ["sea"]\n')
    return report(folder)


def test_each_variant_stands_beside_gainrag_with_what_it_learned_from(data: dict[str, Any]) -> None:
    found = {row["system"]: row for row in data["analyses"]["variants"]}
    assert {name: row["questions"] for name, row in found.items()} == {
        "GainRAG": 30,  # the run's labels
        "GainRAG, 20 questions": 20,
        "GainRAG, 10 questions": 10,
        "relevance, 10 questions": 10,
        "trained on the other data sets": None,
    }
    assert found["GainRAG"]["difference"] is None
    macro = data["evaluation"]["macro"]
    for name, row in found.items():
        assert row["score"]["mean"] == macro["systems"][name]["metrics"]["mean"]["value"]
        assert row["regret"]["mean"] == data["analyses"]["selector"]["top1_regret"][name]["all"]["mean"]
        if name != "GainRAG":
            apart = row["score"]["mean"] - found["GainRAG"]["score"]["mean"]
            assert row["difference"]["difference"] == pytest.approx(apart)
            assert row["groups"].keys() == {"sea", "shore"}
            mean = sum(group["difference"] for group in row["groups"].values()) / 2
            assert row["difference"]["difference"] == pytest.approx(mean)


def test_label_efficiency_has_a_line_for_all_that_differ_in_the_number_of_labels_alone(data: dict[str, Any]) -> None:
    shown = next(section for section in sections(data) if section.key == "variants")
    captions = [caption for _, caption in shown.figures]
    assert captions == [
        "Label efficiency: mean(contains, F1) by the number of labelled questions",
        "Label efficiency: Regret of the first choice by the number of labelled questions",
        "Transfer: trained on the other data sets minus GainRAG in mean(contains, F1)",
    ]
    score = shown.figures[0][0]
    for text in (">10<", ">20<", ">30<", ">GainRAG<", ">labels = relevance<"):
        assert text in score
    assert "leave_out" not in score
    assert shown.tables[0].rows[0][2] == "labels"
    assert [row[2] for row in shown.tables[0].rows[1:]] == ["30", "20", "10", "10", "-"]
    assert "Not here: variant never run, it was not run." in shown.text


def test_lines_stay_few_and_the_table_has_all(data: dict[str, Any]) -> None:
    shown = next(section for section in sections(data) if section.key == "passages")
    svg = next(svg for svg, caption in shown.figures if "first K candidates" in caption)
    assert "relevance selector" in svg
    assert "10 questions" not in svg
    assert {"GainRAG, 10 questions", "GainRAG, 20 questions"} < {row[0] for row in shown.tables[-1].rows}


def test_a_run_without_variants_has_no_such_section(harbours: Path) -> None:
    found = read_json(harbours / "report.json")
    assert found["analyses"]["variants"] == []
    assert "variants" not in {section.key for section in sections(found)}


def test_without_the_runs_labels_gainrags_own_number_is_said_to_be_unknown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n=12, variants=VARIANTS)
    (folder / "gains" / "train.jsonl").unlink()
    shown = next(section for section in sections(report(folder)) if section.key == "variants")
    assert any("gains/train.jsonl is not there" in text for text in shown.text)
    assert shown.tables[0].rows[1][2] == "-"
