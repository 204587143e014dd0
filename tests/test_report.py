"""What `gainrag report` writes, on a run folder made of records."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gainrag.cli.main import main
from gainrag.errors import ConfigError, DataError
from gainrag.files.streams import read_json, write_json
from gainrag.report import REPORTS, report
from gainrag.report.page import inline
from gainrag.report.parts import Section
from gainrag.report.sections import sections
from tests.recorded_run import BITES, SYSTEMS, make_run


@pytest.fixture
def copy(harbours: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(harbours, tmp_path / "copy"))


def lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


def section(data: dict[str, Any], key: str) -> Section:
    return next(found for found in sections(data) if found.key == key)


def test_the_preference_gap_is_what_the_answer_files_say(harbours: Path) -> None:
    """One table again from the files alone, by code of its own: answers here are words without articles or marks."""
    found = read_json(harbours / "report.json")["analyses"]["preference_gap"]
    expected: dict[str, dict[str, tuple[int, int, int]]] = {}
    for system in SYSTEMS[1:]:
        name = system.lower().replace("-", " ").replace(" ", "_")
        for line in lines(harbours / "answers" / f"{name}.jsonl"):
            padded = f" {line['prediction'].lower()} "
            right = any(f" {gold.lower().replace('the ', '')} " in padded for gold in line["answers"])
            texts = " ".join(ctx["text"] for ctx in line["ctxs"]).lower()
            holds = any(re.search(rf"\b{re.escape(gold.lower())}\b", texts) for gold in line["answers"])
            for group in ("all", line["dataset"]):
                a, b, c = expected.setdefault(system, {}).get(group, (0, 0, 0))
                expected[system][group] = (a + holds, b + right, c + (holds and right))
    assert found.keys() == expected.keys()
    for system, groups in expected.items():
        assert found[system].keys() == groups.keys()
        for group, (holding, right_ones, both) in groups.items():
            gap = found[system][group]
            assert (gap["right_of_holding"]["k"], gap["right_of_holding"]["n"]) == (both, holding)
            assert (gap["holding_of_right"]["k"], gap["holding_of_right"]["n"]) == (both, right_ones)
    shown = section(read_json(harbours / "report.json"), "preference-gap").tables[0].rows
    assert len(shown) == 1 + 3 * len(expected)


def test_wins_losses_and_ties_add_up_by_every_way_of_grouping(harbours: Path) -> None:
    found = read_json(harbours / "report.json")["analyses"]["comparison"]
    ways: dict[str, list[dict[str, Any]]] = {}
    for row in found["groups"]:
        ways.setdefault(row["by"], []).append(row)
    assert {"dataset", "question_type", "shortest answer", "candidates"} == set(ways)
    for rows in ways.values():
        for key in ("n", "wins", "losses", "ties", "same_passages"):
            assert sum(row[key] for row in rows) == found["overall"][key]
        mean = sum(row["n"] * row["difference"] for row in rows) / found["overall"]["n"]
        assert mean == pytest.approx(found["overall"]["difference"])
    differences = [entry["difference"] for entry in found["wins"]]
    assert differences == sorted(differences, reverse=True)
    assert len(differences) == min(20, found["overall"]["wins"])


def test_the_comparison_is_the_evaluations_where_both_have_it(harbours: Path) -> None:
    data = read_json(harbours / "report.json")
    roles, overall = data["roles"], data["analyses"]["comparison"]["overall"]
    assert (roles["gainrag"], roles["baseline"]) == ("GainRAG", "hybrid top-1")
    pair = next(
        p for p in data["evaluation"]["overall"]["pairs"] if {p["system"], p["other"]} == {"GainRAG", "hybrid top-1"}
    )
    assert abs(pair["metrics"]["mean"]["value"]) == pytest.approx(abs(overall["difference"]))


def test_the_sweep_starts_at_the_runs_own_k(harbours: Path) -> None:
    found = read_json(harbours / "report.json")["analyses"]["k_sweep"]
    assert {system: [row["k"] for row in rows] for system, rows in found.items()} == {
        "GainRAG": [1, 2, 3],
        "relevance selector": [1, 2, 3],
    }
    for rows in found.values():
        recalls = [row["recall"] for row in rows]
        assert recalls == sorted(recalls)


def test_a_sweep_on_some_of_the_questions_says_how_many(copy: Path) -> None:
    """The run's own K is of the same questions as the others."""
    for k in (2, 3):
        for path in (copy / "answers" / str(k)).iterdir():
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    data = report(copy)
    swept = data["analyses"]["k_sweep"]["GainRAG"]
    assert [(row["k"], row["n"]) for row in swept] == [(1, 20), (2, 20), (3, 20)]
    own = list(lines(copy / "answers" / "gainrag.jsonl"))[:20]
    right = [q["systems"]["GainRAG"]["mean"] for q in data["questions"] if q["id"] in {line["id"] for line in own}]
    assert swept[0]["score"] == pytest.approx(sum(right) / 20)
    shown = section(data, "passages")
    assert "on 20 of the 60 test questions" in shown.text[0]
    assert shown.tables[0].caption == "Answers from K passages, percent of 20 questions"
    assert [figure for figure in shown.figures if "as more passages are read" in figure[1]] == shown.figures[:2]


def test_a_sweep_must_be_of_one_set_of_questions_and_of_the_selectors_first(copy: Path) -> None:
    path = copy / "answers" / "3" / "gainrag.jsonl"
    kept = path.read_text()
    path.write_text("".join(kept.splitlines(keepends=True)[:20]))
    with pytest.raises(DataError, match="not the questions of the run, or of the other K"):
        report(copy)
    turned = [{**line, "ctxs": line["ctxs"][::-1]} for line in map(json.loads, kept.splitlines())]
    path.write_text("".join(json.dumps(line) + "\n" for line in turned))
    with pytest.raises(DataError, match=r"not answered from the first passages of scores/gainrag\.jsonl"):
        report(copy)


def test_a_question_has_its_candidates_scores_and_what_each_system_read(harbours: Path) -> None:
    question = read_json(harbours / "report.json")["questions"][1]
    assert [p["generated"] for p in question["passages"]] == [False] * 5 + [True, False]
    assert question["passages"][6]["title"] == "No candidate"
    assert (question["passages"][6]["gain"], question["passages"][6]["scores"]) == (None, {})
    assert question["systems"]["bm25 top-1"]["read"] == [6]
    assert question["systems"]["no retrieval"]["read"] == []
    gains = [p["gain"] for p in question["passages"][:6]]
    assert question["systems"]["oracle"]["read"] == [gains.index(max(gains))]
    scores = [p["scores"]["GainRAG"] for p in question["passages"][:6]]
    assert question["systems"]["GainRAG"]["read"] == [scores.index(max(scores))]
    assert all(len(p["text"]) <= 301 for p in question["passages"])


def test_page_and_text_show_the_same_tables(harbours: Path) -> None:
    page, text = (harbours / "report.html").read_text(), (harbours / "report.md").read_text()
    for found in sections(read_json(harbours / "report.json")):
        for table in found.tables:
            assert f"**{inline(table.caption)}**" in text
            for row in table.rows[1:3]:
                assert all(inline(cell).replace("|", r"\|") in text for cell in row)
    assert "gainrag report runs/harbours" in page
    assert "gainrag report runs/harbours" in text


def test_text_of_users_is_never_markup(harbours: Path) -> None:
    page, text = (harbours / "report.html").read_text(), (harbours / "report.md").read_text()
    assert BITES not in page
    assert "<img" not in page
    assert page.count("<script") == 2  # the data and the program
    assert page.count("</script>") == 2
    assert "<script" not in text
    data = page.split('id="data">')[1].split("</script>")[0]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", data)
    assert json.loads(zlib.decompress(base64.b64decode(data)))["questions"][0]["question"].endswith(BITES)


def test_a_page_asks_nothing_of_the_network(harbours: Path) -> None:
    page = (harbours / "report.html").read_text()
    # Names of XML's spaces are no addresses; the bait is in the users' text alone.
    addresses = set(re.findall(r"https?://[^\s\"'<\\&]+", page)) - {"http://example.org/x.png"}
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_of_figures_are_unique_and_every_figure_has_a_title(harbours: Path) -> None:
    page = (harbours / "report.html").read_text().split("<script")[0]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 13
    for figure in figures:
        assert re.search(r'role="img" aria-labelledby="([^"]+)".*?<title id="\1">[^<]+</title>', figure)
        assert all(target in ids for target in re.findall(r'(?:href="#|url\(#)([^")]+)', figure))
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href="#|url\(#|id=")[^")]+', "", figure))  # the page colours


def test_the_same_run_makes_the_same_bytes(harbours: Path, copy: Path) -> None:
    (copy.parent / "again").mkdir()
    same = Path(shutil.copytree(harbours, copy.parent / "again" / "harbours"))
    for name in REPORTS:
        (same / name).unlink()
    # In a process of its own: the order of a set differs from one to the next.
    own = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-m", "gainrag", "report", str(same)], check=True, env=own)
    for name in REPORTS:
        assert (same / name).read_bytes() == (harbours / name).read_bytes()


def test_passages_can_be_left_out(copy: Path) -> None:
    assert "Waves. Waves." in (copy / "report.html").read_text()
    assert main(["report", str(copy), "--no-passages"]) == 0
    for name in REPORTS:
        text = (copy / name).read_text()
        assert "Waves." not in text
        assert "It was Old Harbour3" in text
    assert "left out of this report" in (copy / "report.md").read_text()


def test_another_baseline_and_other_groups(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(copy), "--baseline", "oracle", "--group-by", "weather"]) == 0
    data = read_json(copy / "report.json")
    assert data["roles"]["baseline"] == "oracle"
    assert data["analyses"]["comparison"]["overall"]["difference"] < 0
    assert data["commands"][1] == "gainrag report runs/copy --baseline oracle --group-by weather"
    assert any("Not grouped by weather: no question has this key" in t for t in section(data, "helps-and-hurts").text)
    capsys.readouterr()
    assert main(["report", str(copy), "--baseline", "orakel"]) == 1
    assert "did you mean 'oracle'?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="unknown baseline 'GainRAG'"):
        report(copy, baseline="GainRAG")


def test_what_a_run_lacks_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "old", n=12, scores=False, sweep=False)
    data = report(folder)
    assert data["analyses"]["selector"] is None
    assert data["analyses"]["k_sweep"] is None
    assert set(data["absent"]) == {"selector", "k_sweep", "diagnosis", "selector_card"}
    text = (folder / "report.md").read_text()
    assert "the run has no scores/ of all candidates" in text
    assert "answers/K/SYSTEM" in text


def test_the_gains_are_those_that_tuning_chose(copy: Path) -> None:
    """The oracle, the calibration and every regret are of the labels that the selector learned from."""
    records = copy / "gains" / "test.jsonl"
    text = [json.loads(line) for line in records.read_text().splitlines()]
    for record in text:
        for ctx in record["ctxs"]:
            ctx["loss"]["0.5"] = 2 * ctx["loss"]["0.0"]
    records.write_text("".join(json.dumps(record) + "\n" for record in text))
    before = report(copy)["analyses"]["selector"]
    trials = [{"settings": {}, "best": False}, {"settings": {"alpha": 0.5, "temperature": 2.0}, "best": True}]
    write_json(copy / "selector.meta.json", {"summary": {"trials": trials}})
    data = report(copy)
    after = data["analyses"]["selector"]
    assert (after["alpha"], after["temperature"]) == (0.5, 2.0)
    assert "at alpha 0.5" in section(data, "selector").text[0]
    assert after["calibration"] != before["calibration"]
    assert data["questions"][0]["passages"][0]["gain"] == pytest.approx(
        -math.log1p(math.exp(text[0]["ctxs"][0]["loss"]["0.5"])), abs=1e-5
    )


def test_the_commands_have_the_flags_of_the_run(copy: Path) -> None:
    was = {"test_questions": 300, "oracle": False, "top": [3, 5], "seed": 0, "train_k": None}
    write_json(copy / "evaluation.meta.json", {"settings": {"run": was}})
    assert report(copy)["commands"][0] == (
        "gainrag run config.toml --data FOLDER -o runs/copy --test-questions 300 --no-oracle --top 3 --top 5"
    )


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(DataError, match=r"no finished run: config\.toml is not there.*Hint: finish it"):
        report(tmp_path)
    (copy / "evaluation.json").unlink()
    with pytest.raises(DataError, match=r"evaluation\.json is not there"):
        report(copy)


def test_files_of_different_runs_are_refused(copy: Path) -> None:
    answers = copy / "answers" / "gainrag.jsonl"
    kept = answers.read_text()
    answers.write_text("".join(kept.splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"answers of 'GainRAG' and gains/test\.jsonl are not of the same questions"):
        report(copy)
    answers.write_text(kept.replace("It was Harbour", "It was not Harbour"))
    with pytest.raises(DataError, match=r"evaluation\.json is not of the answers of 'GainRAG'"):
        report(copy)
    answers.write_text(kept)
    swept = copy / "answers" / "2" / "gainrag.jsonl"
    shutil.copy(answers, swept)
    with pytest.raises(DataError, match="answered from 1 passages, not 2"):
        report(copy)


def test_stages_made_with_different_versions_are_both_named(copy: Path) -> None:
    write_json(copy / "candidates" / "test.meta.json", {"settings": {"seed": 3}, "versions": {"python": "3.12"}})
    data = report(copy)
    assert data["versions"]["python"] == ["3.11", "3.12"]
    rows = {row[0]: row[1] for table in section(data, "run").tables for row in table.rows}
    assert rows["candidates/test"] == "seed = 3"
    assert rows["python"] == "3.11, 3.12"
