"""A whole run on a handful of questions: real retrieval, real cross-encoders, a language model made of word overlap."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gainrag import training
from gainrag.errors import ConfigError, DataError, StaleError
from gainrag.evaluation import evaluate
from gainrag.files.streams import read
from gainrag.metrics import holds_answer
from gainrag.records import Answer, GainRecord, Retrieved, Scored
from gainrag.report import report
from gainrag.runs import names, systems, variants
from gainrag.runs.config import Config
from gainrag.runs.folder import Run
from gainrag.selection import rank
from gainrag.selectors import CrossEncoderSelector, FeatureSelector, StackedSelector, open_selector
from gainrag.training.labels import is_held_out
from tests.small_run import CONFIG, RIVERS, WITH_REAL_BASE, Model, run


def test_a_run_makes_every_stage_and_then_reuses_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one run of these tests whose selectors start from a real encoder."""
    (folder / "config.toml").write_text(WITH_REAL_BASE)
    found = run(folder)
    first = capsys.readouterr().err
    assert "reused" not in first
    assert set(found.overall.systems) == {
        names.NO_RETRIEVAL, "bm25 top-1", "dense top-1", "hybrid top-1", names.PSEUDO, names.RELEVANCE,
        names.NO_PSEUDO, names.GAINRAG, names.FIRST_WITH, names.ORACLE,
    }  # fmt: skip
    assert found.overall.n == 2
    learned = [json.loads((folder / "out" / f"{name}.meta.json").read_text()) for name in ("warm_start", "gains/train")]
    assert learned[0]["settings"]["questions"] == 3
    assert learned[1]["summary"]["questions"] == 4
    assert found.overall.systems[names.ORACLE].metrics["contains"].value == 1.0
    candidates = read(folder / "out" / "candidates" / "test.jsonl", Retrieved)
    known = read(folder / "out" / "answers" / "first_with_an_answer.jsonl", Answer)
    for record, answer in zip(candidates, known, strict=True):
        holds = [ctx.id for ctx in record.ctxs if holds_answer(ctx, record.answers)]
        assert [ctx.id for ctx in answer.ctxs] == (holds or [record.ctxs[0].id])[:1]
    scored = list(read(folder / "out" / "scores" / "gainrag.jsonl", Retrieved))
    chosen = list(read(folder / "out" / "selected" / "gainrag.jsonl", Retrieved))
    assert [len(r.ctxs) for r in scored] == [5, 5]  # every candidate and the pseudo-passage
    assert [r.ctxs[:1] for r in scored] == [r.ctxs for r in chosen]
    written = {p: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}

    again = run(folder)
    second = capsys.readouterr().err
    assert "started" not in second
    assert again.to_json() == found.to_json()
    assert {p: p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()} == written

    # Another config is not mixed in by accident; when asked for, only what it touches is made again.
    (folder / "config.toml").write_text(WITH_REAL_BASE.replace("epochs = 1", "epochs = 2"))
    with pytest.raises(StaleError, match="another config"):
        run(folder)
    capsys.readouterr()
    run(folder, update=True)
    third = capsys.readouterr().err
    assert "gains/train.jsonl: reused" in third
    assert "selector: started" in third

    # A real run has all that a report is made from.
    shown = report(folder / "out")
    assert shown["roles"]["baseline"] == "hybrid top-1"
    assert set(shown["absent"]) == {"k_sweep", "diagnosis", "groups by question_type"}
    assert shown["analyses"]["selector"]["top1_regret"].keys() == {"retriever", names.RELEVANCE, names.GAINRAG}
    assert shown["settings"]["selector"]["epochs"] == 2
    assert [len(q["passages"]) for q in shown["questions"]] == [5, 5]


@pytest.mark.parametrize("judged", [False, True])
def test_a_warm_start_has_not_seen_what_a_selector_is_calibrated_on(
    folder: Path, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be judged by those questions, where it holds questions out itself."""
    learned: dict[str, set[str]] = {}

    @wraps(training.train)  # its settings are read off its signature
    def train(records: Sequence[GainRecord], out: Path, *given: Any, **settings: Any) -> Any:
        learned[out.name] = {record.id for record in records}
        return training.train(records, out, *given, **settings)

    monkeypatch.setattr(variants, "training", SimpleNamespace(train=train))
    labelled = list(RIVERS)[:4]
    validation = next(v / 100 for v in range(100) if any(is_held_out(city, v / 100) for city in labelled))
    text = CONFIG.replace("warm_start_questions = 3", "").replace("epochs = 1", f"validation = {validation}")
    if judged:
        text += f"\n[warm_start]\nvalidation = {validation}\n"
    (folder / "config.toml").write_text(text)
    run(folder)
    held = {city for city in labelled if is_held_out(city, validation)}
    assert learned["selector"] == set(labelled)
    assert held
    assert learned["warm_start"] == set(labelled) - (set() if judged else held)
    card = (folder / "out" / "warm_start" / "README.md").read_text()
    assert f"| questions | {len(labelled) - len(held)} |" in card


def test_a_sweep_is_added_to_a_finished_run_and_asks_nothing_again(
    folder: Path, lm: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder)
    before = list(lm.prompts)
    stale = folder / "out" / "answers" / "3" / "gainrag.jsonl"
    stale.parent.mkdir()
    stale.write_text("of an earlier sweep")
    capsys.readouterr()
    (folder / "config.toml").write_text(CONFIG + "\n[sweep]\nk = [1, 2, 4]\nquestions = 1\n")
    run(folder, update=True)
    shown = capsys.readouterr().err
    assert "answers/pool.jsonl: reused" in shown
    assert "answers/3/gainrag.jsonl: removed" in shown
    new = lm.prompts[len(before) :]
    assert new
    assert len(new) == len(set(new))
    assert not set(new) & set(before)
    answers = folder / "out" / "answers"
    for system in ("gainrag", "relevance_selector"):
        ranked = {r.id: r.ctxs for r in read(folder / "out" / "scores" / f"{system}.jsonl", Retrieved)}
        for k in (1, 2, 4):
            (answer,) = read(answers / str(k) / f"{system}.jsonl", Answer)
            assert answer.ctxs == ranked[answer.id][:k]
        assert (answers / "1" / f"{system}.jsonl").read_text() in (answers / f"{system}.jsonl").read_text()
    found = report(folder / "out")["analyses"]["k_sweep"]
    assert [(row["k"], row["n"]) for row in found[names.GAINRAG]] == [(1, 1), (2, 1), (4, 1)]


def test_retrievers_give_more_passages_where_asked_and_as_many_as_gainrag(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG.replace("[run]", "[run]\ntop = [1, 3]") + "\n[select]\nk = 2\n")
    found = run(folder)
    assert [s for s in found.overall.systems if "top-" in s] == [
        f"{name} top-{k}" for name in ("bm25", "dense", "hybrid") for k in (1, 2, 3)
    ]
    answers = list(read(folder / "out" / "answers" / "hybrid_top_3.jsonl", Answer))
    assert [a.ctxs for a in answers] == [
        r.ctxs[:3] for r in read(folder / "out" / "retrieved" / "test.jsonl", Retrieved)
    ]
    assert report(folder / "out")["roles"]["baseline"] == "hybrid top-2"


@pytest.mark.parametrize("table", ["[sweep]\nk = [1, 5]", "[sweep]", "[select]\nk = 5"])
def test_more_passages_than_are_retrieved_are_an_error_before_anything_is_labelled(folder: Path, table: str) -> None:
    (folder / "config.toml").write_text(f"{CONFIG}\n{table}\n")
    with pytest.raises(ConfigError, match="passages are wanted of 4 candidates"):
        run(folder)
    assert not (folder / "out").exists()


def test_labels_made_on_a_gpu_are_continued_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(device: str, dtype: str) -> dict[str, Any]:
        monkeypatch.setattr("gainrag.models.devices.choose_device", lambda _: device)
        config = Config((), {"llm": {"model": "some/model", "dtype": dtype}})
        return Run(tmp_path, config, update=False).llm_settings()

    assert settings("cuda", "bfloat16") == settings("cpu", "bfloat16") != settings("cpu", "float32")


def test_another_model_of_the_same_name_labels_and_answers_anew(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(weights: str | None) -> list[str]:
        monkeypatch.setattr("gainrag.models.identity.identity", lambda _: weights)
        run(folder)
        return [line for line in capsys.readouterr().err.splitlines() if line.endswith(": started")]

    started("a")
    assert started("a") == []
    assert started(None) == []  # the model is gone: what it made stays
    again = started("b")
    made = {f"{name}/{split}.jsonl: started" for name in ("candidates", "gains") for split in ("train", "test")}
    assert made < {*again}
    assert "answers/pool.1.jsonl: started" in again
    assert not [line for line in again if line.startswith(("index", "retrieved"))]


def test_a_changed_input_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    train = folder / "train.jsonl"
    train.write_text(train.read_text().replace("Which river", "What river"))
    capsys.readouterr()
    run(folder)
    shown = capsys.readouterr().err
    assert "index/rivers: reused" in shown
    assert "gains/train.jsonl: started" in shown


def test_one_corpus_serves_a_data_set_to_learn_from_and_another_to_test_on(folder: Path) -> None:
    split = """[[dataset]]
name = "rivers"
corpus = "corpus.jsonl"
train = "train.jsonl"

[[dataset]]
name = "others"
corpus = "corpus.jsonl"
test = "test.jsonl"
"""
    whole = CONFIG[CONFIG.index("[[dataset]]") : CONFIG.index("[retrieve]")]
    text = CONFIG.replace(whole, split).replace("[run]", "[run]\ntrain_k = 2\noracle = false")
    (folder / "config.toml").write_text(text)
    found = run(folder)
    assert set(found.groups) == {"others"}
    assert names.ORACLE not in found.overall.systems
    assert not (folder / "out" / "gains" / "test.jsonl").exists()
    shown = report(folder / "out")
    assert shown["absent"]["gains"] == "the run did not measure the test candidates' gains (oracle = false)"
    assert shown["analyses"]["selector"] is None
    assert {p["gain"] for q in shown["questions"] for p in q["passages"]} == {None}
    assert all(p["candidate"] for q in shown["questions"] for p in q["passages"])
    text = (folder / "out" / "report.md").read_text()
    assert "Not known: the run did not measure" in text
    assert "no candidate" not in text
    assert [p.name for p in (folder / "out" / "index").iterdir() if p.is_dir()] == ["rivers"]
    for name, k in (("train", 2), ("test", 4)):
        lines = (folder / "out" / "retrieved" / f"{name}.jsonl").read_text().splitlines()
        assert {len(json.loads(line)["ctxs"]) for line in lines} == {k}


def test_variants_and_rerankers_are_systems_of_the_run(
    folder: Path, lm: Model, cross_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ""
    for n, name in enumerate(("west", "east")):
        for split, size in (("train", 2), ("test", 1)):
            lines = (folder / f"{split}.jsonl").read_text().splitlines(keepends=True)
            (folder / f"{split}.{name}.jsonl").write_text("".join(lines[n * size : (n + 1) * size]))
        data += f'[[dataset]]\nname = "{name}"\ncorpus = "corpus.jsonl"\n'
        data += f'train = "train.{name}.jsonl"\ntest = "test.{name}.jsonl"\n\n'
    whole = CONFIG[CONFIG.index("[[dataset]]") : CONFIG.index("[retrieve]")]
    text = CONFIG.replace(whole, data).replace("[run]", "[run]\nwarm_start = false")
    text += "dropout = 0.0\n[synthesize]\nalpha = [0.5, 0.0]\n"
    text += '[[variant]]\nname = "information gain"\nlabels = "information_gain"\n'
    text += '[[variant]]\nname = "the other"\nleave_out = true\n'
    text += f'[[reranker]]\nname = "ready-made"\nmodel = "{cross_encoder}"\n'
    (folder / "config.toml").write_text(text)
    found = run(folder)
    assert list(found.overall.systems)[-8:] == [
        "ready-made", names.RELEVANCE, names.NO_PSEUDO, names.GAINRAG, "information gain", "the other",
        names.FIRST_WITH, names.ORACLE,
    ]  # fmt: skip
    out = folder / "out"
    candidates = list(read(out / "candidates" / "test.jsonl", Retrieved))
    by_system: dict[str, dict[str, str | Path]] = {
        "ready_made": dict.fromkeys(("west", "east"), cross_encoder),
        "information_gain": dict.fromkeys(("west", "east"), out / "variants" / "information_gain" / "selector"),
        "the_other": {name: out / "variants" / "the_other" / f"without_{name}" for name in ("west", "east")},
    }
    for system, selectors in by_system.items():
        scored = list(read(out / "scores" / f"{system}.jsonl", Retrieved))
        for model in dict.fromkeys(selectors.values()):
            own = [r for r in candidates if selectors[str(r.extra["dataset"])] == model]
            expected = {r.id: r.ctxs for r in rank(own, CrossEncoderSelector(model))}
            assert {r.id: r.ctxs for r in scored if r.id in expected} == expected
        assert [r.id for r in scored] == [r.id for r in candidates]
        chosen = list(read(out / "selected" / f"{system}.jsonl", Retrieved))
        answers = list(read(out / "answers" / f"{system}.jsonl", Answer))
        assert [r.ctxs for r in chosen] == [r.ctxs[:1] for r in scored] == [a.ctxs for a in answers]

    assert {"the other", "ready-made"} <= report(out)["analyses"]["selector"]["top1_regret"].keys()

    # Another variant is added to a finished run: what is there stays.
    (folder / "config.toml").write_text(text + '[[variant]]\nname = "few"\nquestions = 2\n')
    capsys.readouterr()
    before = list(lm.prompts)
    assert "few" in run(folder, update=True).overall.systems
    started = [line for line in capsys.readouterr().err.splitlines() if line.endswith(": started")]
    assert started[0] == "variants/few/selector: started"
    assert set(started[1:]) <= {"scores/few.jsonl: started", "answers/pool.1.jsonl: started"}
    assert not set(lm.prompts[len(before) :]) & set(before)


def test_what_a_finished_run_answered_is_not_asked_again(
    folder: Path, lm: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder)
    before, pool = list(lm.prompts), (folder / "out" / "answers" / "pool.jsonl").read_bytes()
    (folder / "config.toml").write_text(CONFIG.replace("[run]", "[run]\ntop = [3]"))
    capsys.readouterr()
    run(folder, update=True)
    said = capsys.readouterr().err
    assert "answers/pool.jsonl: reused" in said
    assert "answers/pool.1.jsonl: started" in said
    new = lm.prompts[len(before) :]
    assert new
    assert not set(new) & set(before)
    assert (folder / "out" / "answers" / "pool.jsonl").read_bytes() == pool
    answers = folder / "out" / "answers"
    for name in ("hybrid_top_1", "hybrid_top_3"):
        read_back = {a.id: a.prediction for a in read(answers / f"{name}.jsonl", Answer)}
        assert len(read_back) == 2
    # Once more, with less: nothing is asked.
    (folder / "config.toml").write_text(CONFIG)
    asked = len(lm.prompts)
    found = run(folder, update=True)
    assert len(lm.prompts) == asked
    assert "hybrid top-3" not in found.overall.systems
    # Another wording under the same id is another question.
    test = folder / "test.jsonl"
    test.write_text(test.read_text().replace("Which river", "What river"))
    run(folder)
    reworded = list(read(answers / "pool.2.asked.jsonl", Retrieved))
    assert [r.question.split()[0] for r in reworded if not r.ctxs] == ["What", "What"]  # without retrieval, too
    asked = len(lm.prompts)
    # Answers of other settings are no answers.
    (folder / "config.toml").write_text(CONFIG + "\n[answer]\nmax_new_tokens = 3\n")
    run(folder, update=True)
    assert len(lm.prompts) > asked


def test_a_changed_title_is_another_passage(folder: Path, lm: Model) -> None:
    corpus = folder / "corpus.jsonl"
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]

    def titled(title: str) -> list[str]:
        corpus.write_text("".join(json.dumps({**line, "title": title}) + "\n" for line in lines))
        asked = len(lm.prompts)
        run(folder)
        return lm.prompts[asked:]

    assert any("Passage: Rivers\n" in prompt for prompt in titled("Rivers"))
    new = titled("Streams")
    assert any("Passage: Streams\n" in prompt for prompt in new)
    assert not any("Passage: Rivers\n" in prompt for prompt in new)
    held = json.loads((folder / "out" / "answers" / "pool.1.asked.jsonl").read_text().splitlines()[0])
    assert {ctx["title"] for ctx in held["ctxs"]} <= {"Streams"}


def test_what_is_read_is_the_wording_the_titles_and_the_texts_in_order() -> None:
    one, two = Scored(id="1", title="A", text="B"), Scored(id="2", title="C", text="D")
    record = Retrieved(id="q", question="Why?", answers=["x"], ctxs=[one, two])
    key = systems.what_is_read(record)
    same = [replace(record, id="r", answers=["y"]), replace(record, ctxs=[replace(one, id="3", score=2.0), two])]
    other = [
        replace(record, question="Why"), replace(record, ctxs=[two, one]), replace(record, ctxs=[one]),
        replace(record, ctxs=[replace(one, title="A ")]), replace(record, ctxs=[replace(one, text="b"), two]),
        replace(record, ctxs=[replace(one, title="", text="A\nB"), two]),
    ]  # fmt: skip
    assert {systems.what_is_read(r) for r in same} == {key}
    assert len({systems.what_is_read(r) for r in other} | {key}) == 1 + len(other)


def test_answers_of_a_config_that_is_changed_back_are_found_again(folder: Path, lm: Model) -> None:
    run(folder)
    first = records_of(folder / "out" / "answers")
    (folder / "config.toml").write_text(CONFIG + "\n[answer]\nmax_new_tokens = 3\n")
    run(folder, update=True)
    asked = len(lm.prompts)
    (folder / "config.toml").write_text(CONFIG)
    run(folder, update=True)
    assert len(lm.prompts) == asked
    again = records_of(folder / "out" / "answers")
    assert {name: again[name] for name in first} == first


def records_of(answers: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in answers.glob("*.jsonl")}


def test_where_some_passages_are_brought_no_system_is_a_single_retrievers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brought = [
        {"id": city, "question": f"What flows in {city}?", "answers": [river], "ctxs": [
            {"id": str(n), "text": text} for n, text in enumerate((f"{river}, {city}.", "Rain.", "Sun.", "Wind."))
        ]}
        for city, river in RIVERS.items()
    ]  # fmt: skip
    for split, lines in (("train", brought[:4]), ("test", brought[4:])):
        (folder / f"{split}.brought.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = '[[dataset]]\nname = "brought"\ntrain = "train.brought.jsonl"\ntest = "test.brought.jsonl"\n\n[retrieve]'
    (folder / "config.toml").write_text(CONFIG.replace("[retrieve]", text))
    found = run(folder)
    assert [name for name in found.overall.systems if "top-" in name] == ["retrieved top-1"]
    assert capsys.readouterr().err.count("brought brought passages") == 1
    assert not list((folder / "out" / "retrieved").glob("test.*.jsonl"))


def test_questions_are_grouped_by_another_key_or_the_run_stops_at_once(folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG + '\n[evaluate]\ngroup_by = "level"\n')
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for line, level in zip(lines, ("easy", "hard"), strict=True):
        line["level"] = level
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert set(run(folder).groups) == {"easy", "hard"}
    del lines[1]["level"]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.rmtree(folder / "out")
    with pytest.raises(ConfigError, match="1 of 2 test questions have no 'level', such as"):
        run(folder)
    assert not (folder / "out" / "candidates").exists()


def test_a_name_that_is_taken_or_too_many_questions_stop_a_run_before_it_labels(folder: Path) -> None:
    for text, says in (('name = "oracle"', "choose another one"), ('name = "v"\nquestions = 9', "4 are labelled")):
        (folder / "config.toml").write_text(f"{CONFIG}[[variant]]\n{text}\n")
        with pytest.raises(ConfigError, match=says):
            run(folder)
    assert not (folder / "out" / "candidates").exists()


def test_test_questions_among_the_training_questions_are_an_error(folder: Path) -> None:
    (folder / "test.jsonl").write_text((folder / "train.jsonl").read_text())
    with pytest.raises(DataError, match="both in train and in test"):
        run(folder)


def test_a_folder_that_is_no_run_is_left_alone(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="no run folder"):
        run(folder)


def test_a_run_of_stacks(folder: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GainRAG's selector and its rival are of one kind, each from its own labels; no warm start is made for them."""
    monkeypatch.setattr("gainrag.training.stacking.ENOUGH", 2)
    monkeypatch.setattr("gainrag.training.stacking.compare", lambda *_, **__: (1.0, 0.5, 0.1))
    text = CONFIG.replace('kind = "cross-encoder"\n', "")  # stacks are what is trained unless told else
    text += f'[[variant]]\nname = "read"\nkind = "cross-encoder"\nbase = "{tiny}"\n'
    text += '[[variant]]\nname = "cheap"\nkind = "features"\n'
    (folder / "config.toml").write_text(text)
    found = run(folder)
    out = folder / "out"
    for name in ("selector", "relevance"):
        assert isinstance(open_selector(out / name), StackedSelector)
    assert isinstance(open_selector(out / "variants" / "read" / "selector"), CrossEncoderSelector)
    assert isinstance(open_selector(out / "variants" / "cheap" / "selector"), FeatureSelector)
    assert not (out / "warm_start").exists()
    assert {names.GAINRAG, names.NO_PSEUDO, names.RELEVANCE, "read", "cheap"} <= set(found.overall.systems)
    report(out)


def test_every_selector_is_trained_with_several_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tiny selector whose seeds choose otherwise; the tables are of the means over them."""
    text = CONFIG.replace("[run]", "[run]\nseeds = 2\nwarm_start = false").replace(
        "[train]", "[train]\nlearning_rate = 0.1\nseed = 4"
    )
    (folder / "config.toml").write_text(text + '[[variant]]\nname = "plain"\ntemperature = 2.0\nseed = 9\n')
    found = run(folder)
    out = folder / "out"
    seeds = {"selector": 4, "relevance": 4, "variants/plain/selector": 9}
    for name, seed in seeds.items():
        for path, own in ((name, seed), (f"{name}.seed1", seed + 1)):
            assert json.loads((out / f"{path}.meta.json").read_text())["settings"]["seed"] == own
            assert (out / path / "config.json").is_file()
    trained = [names.GAINRAG, names.NO_PSEUDO, names.RELEVANCE, "plain"]
    for system, scores in found.overall.systems.items():
        assert scores.runs == (2 if system in trained else 1)
        assert (scores.metrics["mean"].sd is None) == (system not in trained)
    for system in trained:
        runs = [
            list(read(out / "answers" / f"{names.file_name(names.seeded(system, n))}.jsonl", Answer)) for n in (0, 1)
        ]
        alone = evaluate({"0": runs[0], "1": runs[1]}, resamples=10).overall.systems
        means = [alone[n].metrics["mean"].value for n in ("0", "1")]
        mean = found.overall.systems[system].metrics["mean"]
        assert mean.value == pytest.approx(np.mean(means))
        assert mean.sd == pytest.approx(np.std(means, ddof=1))
    table = (out / "table.txt").read_text()
    assert "±: mean and standard deviation over 2 seeds" in table
    assert {line.split("  ")[0] for line in table.splitlines()[1:] if "±" in line} == set(trained)

    data = report(out)
    ranked = {p.stem: list(read(p, Retrieved)) for p in sorted((out / "scores").glob("gainrag*.jsonl"))}
    assert list(ranked) == ["gainrag", "gainrag.seed1"]
    gains = {r.id: {c.id: c.gain for c in r.ctxs} for r in read(out / "gains" / "test.jsonl", GainRecord)}
    regrets = [
        np.mean([max(gains[r.id].values()) - gains[r.id][r.ctxs[0].id] for r in of]) for of in ranked.values()
    ]
    regret = data["analyses"]["selector"]["top1_regret"][names.GAINRAG]["all"]
    assert regret["mean"] == pytest.approx(np.mean(regrets))
    assert regret["sd"] == pytest.approx(np.std(regrets, ddof=1))
    lost = data["analyses"]["lost"]["systems"]["all"]
    for row in lost.values():
        assert sum(row["parts"].values()) == pytest.approx(1.0)
        assert row["score"] + sum(row["points"].values()) == pytest.approx(1.0)
    assert "±" in (out / "report.md").read_text()

    # One seed less: nothing is trained again, and the other's answers no longer count.
    (folder / "config.toml").write_text((folder / "config.toml").read_text().replace("seeds = 2", "seeds = 1"))
    capsys.readouterr()
    assert {system.runs for system in run(folder, update=True).overall.systems.values()} == {1}
    assert ": started" not in capsys.readouterr().err
    report(out)


def test_a_run_heeds_what_its_labels_say(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The alpha that the diagnosis recommends is trained on; a pseudo-passage that is never the best is left out."""
    own = CONFIG.replace("diagnose = 0", "diagnose = 4") + "[synthesize]\nalpha = [0.5, 0.0]\n"
    (folder / "config.toml").write_text(own)
    monkeypatch.setattr("gainrag.runs.labelling.ENOUGH_TO_SAY", 4)
    monkeypatch.setattr(Model, "generate", lambda self, prompts, n: [said(prompt) for prompt in prompts])
    found = run(folder)
    err = capsys.readouterr().err
    assert "alpha 0, which the diagnosis recommends, is trained on" in err
    assert json.loads((folder / "out" / "selector.meta.json").read_text())["settings"]["alpha"] == 0.0
    assert "the pseudo-passage is the best one of none of 4 labelled questions: none is written for the test" in err
    candidates = list(read(folder / "out" / "candidates" / "test.jsonl", Retrieved))
    assert {ctx.origin for record in candidates for ctx in record.ctxs} == {"corpus"}
    assert names.PSEUDO not in found.overall.systems
    report(folder / "out")

    # So few questions prove nothing, unless one says that they do.
    monkeypatch.setattr("gainrag.runs.labelling.ENOUGH_TO_SAY", 5)
    run(folder)
    assert "4 labelled questions, too few to do without it" in capsys.readouterr().err


def test_a_run_goes_on_where_alphas_cannot_be_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.toml").write_text(CONFIG.replace("diagnose = 0", "diagnose = 4"))
    monkeypatch.setattr(Model, "generate", lambda self, prompts, n: ["nobody knows"] * len(prompts))
    run(folder)
    assert "no alpha is recommended: " in capsys.readouterr().err
    assert not (folder / "out" / "diagnosis.json").exists()
    report(folder / "out")


def said(prompt: str) -> str:
    """Nothing of use without a passage; else the river of the passage."""
    passage = prompt.partition("\n\n")[0]
    return next((river for river in RIVERS.values() if river in passage), "nobody knows")
