from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.records import GainRecord, Passage, Retrieved, Scored
from gainrag.runs.variants import is_warmed_up
from gainrag.selectors import FeatureSelector, StackedSelector, open_selector
from gainrag.selectors.boosted import write_trees
from gainrag.selectors.calibration import standardised
from gainrag.selectors.exporting import export
from gainrag.selectors.learned import write_learned
from gainrag.selectors.scoring import score_pairs
from gainrag.selectors.stacked import COLUMNS, Stack, columns, cross_encoder_folder, to_read
from gainrag.settings import settings_of
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training import train
from gainrag.training.boosting import features_of, fit_trees, words_in
from gainrag.training.labels import Example, targets
from gainrag.training.settings import Settings
from gainrag.training.stacking import ENOUGH, check_folds, compare, fold_of, out_of_fold, with_answers
from tests.small_run import cities

ALIKE: dict[str, Any] = {"device": "cpu", "bf16": False}


def boost(examples: Any, **more: Any) -> Any:
    """A few small trees."""
    return fit_trees(examples, **{"rounds": 20, "least": 5, **more, "seeds": 1})


def labelled(candidates: list[Retrieved]) -> list[Example]:
    gains = synthesize(candidates, OverlapLM(), alpha=0.0)
    return [Example(record, targets(record, "gain", 0.0)) for record in gains]


@pytest.fixture
def learn(candidates: list[Retrieved]) -> list[Example]:
    return labelled(candidates)


def settings(base: str, **more: Any) -> Settings:
    own = {"base": base, "validation": 0.0, "epochs": 1, "max_length": 32, "alpha": 0.0, **more}
    known = settings_of(train, own)
    return Settings(**{name: known[name] for name in Settings.__struct_fields__})


def test_what_is_read_is_what_retrieval_puts_first_and_the_pseudo_passage() -> None:
    scores = ({"bm25": 1.0, "dense": 0.1}, {"bm25": 3.0, "dense": 0.2}, {"bm25": 2.0, "dense": 0.9})
    passages: list[Passage] = [Scored(id=str(i), text="x", score=0.0, scores=s) for i, s in enumerate(scores)]
    assert to_read(passages, 1) == [2]
    assert to_read(passages, 2) == [1, 2]
    assert to_read(passages, 9) == [0, 1, 2]
    written = Passage(id="g", text="y", origin="generated")
    assert to_read([written, *passages], 1) == [0, 3]
    plain = [Passage(id=str(i), text="x") for i in range(3)]
    assert to_read(plain, 2) == [0, 1]
    assert np.argmax(standardised(plain)) == 0


def test_columns_are_nan_where_nothing_was_read() -> None:
    found = columns(4, [0, 3], np.array([1.0, 3.0]))
    assert found.shape == (4, len(COLUMNS))
    assert np.isnan(found[[1, 2]]).all()
    assert found[0].tolist() == [1.0, -1.0, -2.0]
    assert found[3].tolist() == [3.0, 1.0, 0.0]
    assert columns(2, [1], np.array([5.0]))[1].tolist() == [5.0, 0.0, 0.0]
    assert np.isnan(columns(2, [], np.empty(0))).all()


def test_a_question_is_scored_by_the_cross_encoder_that_did_not_learn_from_it(
    learn: list[Example], tiny: str, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    found = out_of_fold(learn, settings(tiny), tmp_path, **ALIKE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cross_encoder_0", "cross_encoder_1"]
    for fold in range(2):
        model = CrossEncoder(str(cross_encoder_folder(tmp_path, fold)), device="cpu")
        mine = [n for n, e in enumerate(learn) if fold_of(e.record.id, 2) == fold]
        scores = score_pairs(model, [(learn[n].record.question, learn[n].record.ctxs) for n in mine])
        for n, own in zip(mine, scores, strict=True):
            assert found[n][:, 0] == pytest.approx(own, abs=1e-5)
    # What the other fold's labels are changes nothing in a fold's own model, so they cannot have been seen.
    changed = [Example(e.record, e.own[::-1] if fold_of(e.record.id, 2) == 0 else e.own) for e in learn]
    again = out_of_fold(changed, settings(tiny, relevance_epochs=0), tmp_path / "again", **ALIKE)
    before = out_of_fold(learn, settings(tiny, relevance_epochs=0), tmp_path / "before", **ALIKE)
    for n, e in enumerate(learn):
        if fold_of(e.record.id, 2) == 0:
            assert again[n] == pytest.approx(before[n], nan_ok=True)
        else:
            assert again[n] != pytest.approx(before[n], nan_ok=True)


def test_columns_are_kept_only_where_they_help(learn: list[Example]) -> None:
    words = words_in(learn)
    matrices, words_boost = features_of(learn, words), partial(boost, words=words)
    rng = np.random.default_rng(0)
    # The features cannot tell: labels by chance.
    learn = [Example(e.record, list(rng.normal(size=3))) for e in learn]
    telling = [columns(3, [0, 1, 2], np.array(e.own)) for e in learn]
    without, with_them, error = compare(learn, matrices, telling, words_boost)
    assert with_them < without / 2
    assert without - with_them > error > 0
    silent = [columns(3, [], np.empty(0)) for _ in learn]
    without, with_them, _ = compare(learn, matrices, silent, words_boost)
    assert with_them >= without


def test_few_questions_have_no_cross_encoder(
    learn: list[Example], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They have what features alone make of them: trees that start from the shipped ones."""
    assert len(learn) < ENOUGH
    records = [e.record for e in learn if isinstance(e.record, GainRecord)]
    own: dict[str, Any] = {"only_kept": False, "keep_worse": True}
    made = train(records, tmp_path / "stack", kind="stack", base=tiny, **own)
    assert isinstance(made, FeatureSelector)
    assert "no cross-encoder is trained" in capfd.readouterr().err
    plain = train(records, tmp_path / "features", kind="features", **own)
    question, passages = learn[0].record.question, learn[0].record.ctxs
    assert made.score(question, passages).tolist() == plain.score(question, passages).tolist()


def test_a_fold_must_have_questions(learn: list[Example]) -> None:
    with pytest.raises(ConfigError, match="one is empty"):
        check_folds(learn[:1], 2)


def test_folds_are_even_and_depend_on_the_id_alone() -> None:
    found = np.array([fold_of(f"question {n}", 3) for n in range(3000)])
    assert np.bincount(found).min() > 900
    assert found[7] == fold_of("question 7", 3)


def test_has_answer_labels_teach_where_both_kinds_are(candidates: list[Retrieved]) -> None:
    assert len(with_answers(candidates)) == len(candidates)
    for passage in candidates[0].ctxs:
        assert isinstance(passage, Scored)
    lacking = [Retrieved(id="x", question="q", answers=["a"], ctxs=[Scored(id="p", text="t", score=1.0)])]
    assert with_answers(lacking) == []


@pytest.fixture(scope="module")
def stack(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stack; who changes it copies it."""
    folder, learn = tmp_path_factory.mktemp("stack"), labelled(cities())
    extra = out_of_fold(learn, settings(tiny), folder, **ALIKE)
    trees = boost(learn, extra=extra, extra_names=COLUMNS)
    write_trees(trees, folder, {"LLM": "overlap"})
    write_learned(folder, Stack(folds=2, depth=10))
    return folder


def test_a_stack_scores_one_question_as_many(stack: Path, candidates: list[Retrieved]) -> None:
    selector = open_selector(stack, dtype="float32")
    assert isinstance(selector, StackedSelector)
    requests: list[tuple[str, list[Passage]]] = [(r.question, list(r.ctxs)) for r in candidates[:5]]
    together = selector.score_many([*requests, ("nothing?", [])])
    assert together[-1].shape == (0,)
    for request, own in zip(requests, together, strict=False):
        assert selector.score(*request) == pytest.approx(own, abs=1e-4)
    assert selector.threshold is None
    assert selector.settings["model"] == str(stack)


def test_a_stack_without_its_file_is_refused(stack: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stack, tmp_path / "stack")
    (folder / Stack.FILE).write_text('{"folds": "two", "depth": 3}')
    with pytest.raises(DataError, match=r"\.json|folds"):
        StackedSelector(folder)


def test_train_makes_a_stack_where_it_helps_and_features_where_it_does_not(
    candidates: list[Retrieved], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three times forty questions: enough for a cross-encoder to be tried. One of a few thousand weights, trained for
    a second, may or may not help; the folder, the card and what is said agree with what was decided."""
    many = [
        Retrieved(id=f"{r.id}-{n}", question=r.question, answers=r.answers, ctxs=list(r.ctxs))
        for n in range(4)
        for r in candidates
    ]
    gains = synthesize(many, OverlapLM(), alpha=0.0)
    out = tmp_path / "selector"
    made = train(gains, out, kind="stack", base=tiny, epochs=1, max_length=32, only_kept=False, keep_worse=True)
    assert type(open_selector(out)) is type(made)
    card = (out / "README.md").read_text()
    assert "regret by folds, features alone" in card
    assert "held-out regret" in card
    said = capfd.readouterr().err
    helped = isinstance(made, StackedSelector)
    assert ("the cross-encoders help" in said) == helped
    assert (out / "stack.json").exists() == helped
    assert len(list(out.glob("cross_encoder_*"))) == (2 if helped else 0)
    # Written over by another kind, nothing of it is left.
    train(gains, out, kind="features", only_kept=False, keep_worse=True)
    assert not list(out.glob("cross_encoder_*"))


def test_a_stack_starts_from_no_trees(learn: list[Example], tmp_path: Path) -> None:
    records: list[GainRecord] = [e.record for e in learn if isinstance(e.record, GainRecord)]
    with pytest.raises(ConfigError, match="does not read start"):
        train(records, tmp_path / "x", kind="stack", start="embedded:gain-features")


def test_only_cross_encoders_start_from_a_runs_warm_start() -> None:
    assert is_warmed_up({"kind": "cross-encoder"})
    assert not is_warmed_up({"kind": "stack"})
    assert not is_warmed_up({"kind": "features"})


def test_boosted_trees_have_nothing_to_export(stack: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stack, tmp_path / "stack")
    (folder / Stack.FILE).unlink()
    with pytest.raises(DataError, match="is a feature selector"):
        export(folder, backend="openvino")
