from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gainrag import FeatureSelector, GainRAG, open_selector
from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.prompts import question_with_choices, split_choices
from gainrag.protocols import BatchSelector, FloatArray, Lazy, Selector, is_listwise
from gainrag.records import Gained, GainRecord, Passage, Retrieved, Scored
from gainrag.runs.tuning import tune
from gainrag.selection import select
from gainrag.selectors import PRIOR, CrossEncoderSelector
from gainrag.selectors.boosted import TREES_FILE, read_trees, write_trees
from gainrag.selectors.features import FEATURES, matrix
from gainrag.selectors.fetching import FEATURES_FILE
from gainrag.selectors.trees import Trees, joined
from gainrag.selectors.words import Words, learn_words, words_of
from gainrag.testing import OverlapLM, OverlapRetriever
from gainrag.training import train
from gainrag.training.boosting import features_of, fit_trees, gradient_of
from gainrag.training.features import go_on
from gainrag.training.labels import Example, targets

NAMES = ["Emma", "Persuasion", "Hamlet", "Macbeth", "Ulysses", "Dubliners", "Faust", "Egmont"]
# What sees the order of the list.
IN_ORDER = ("place",)


def column(name: str, question: str, passages: Sequence[Passage], words: Words | None = None) -> list[float]:
    found: list[float] = matrix(question, passages, words or Words(), [name])[:, 0].tolist()
    return found


def records(n: int, seed: int = 0, *, noise: bool = False) -> list[GainRecord]:
    """Questions whose best passage is the one that names what they ask for, or any one."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        wanted = int(rng.integers(4))
        books = [NAMES[j] for j in rng.permutation(len(NAMES))[:4]]
        best = int(rng.integers(4)) if noise else wanted
        ctxs = [
            Gained(
                id=f"{i}-{j}",
                title=book,
                text=f"{book} was published in {1800 + int(rng.integers(99))} by someone.",
                score=float(rng.normal()),
                scores={"bm25": float(rng.normal()), "dense": float(rng.normal())},
                loss={"0.0": 0.2 if j == best else 2.0},
                gain=-0.8 if j == best else -2.1,
            )
            for j, book in enumerate(books)
        ]
        question = f"When was {books[wanted]} published?"
        made.append(
            GainRecord(
                id=f"q{seed}-{i}", question=question, answers=["x"], kept=True, prediction="x", silver=best, ctxs=ctxs
            )
        )
    return made


def examples(made: Sequence[GainRecord]) -> list[Example]:
    return [Example(r, targets(r, "gain", 0.0)) for r in made]


def small_trees(seed: int = 0, n: int = 60) -> Trees:
    return fit_trees(examples(records(n)), seeds=2, rounds=10, leaves=4, least=5, seed=seed)


def test_a_long_question_and_passages_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    record = records(1, seed=3)[0]
    whole = matrix(record.question, record.ctxs, Words(), list(FEATURES))
    monkeypatch.setattr("gainrag.selectors.candidates.CELLS", 1)
    np.testing.assert_allclose(matrix(record.question, record.ctxs, Words(), list(FEATURES)), whole, rtol=1e-12)


# --- words ---------------------------------------------------------------------------------------------------------


def test_what_is_common_and_how_people_ask_is_learned() -> None:
    made = records(40)
    words = learn_words([r.question for r in made], [p for r in made for p in r.ctxs])
    assert words.weight("was") < words.weight("emma") < words.weight("neverseen")
    assert words.asking[0] == "when"
    assert all(0 <= words.weight(w) <= 1 for w in (*words.counts, "x"))
    assert learn_words([], []).weight("x") <= 1


# --- features ------------------------------------------------------------------------------------------------------


def test_permuting_the_passages_permutes_the_features_but_those_of_the_order() -> None:
    words = learn_words([], [p for r in records(30) for p in r.ctxs])
    names = [name for name in FEATURES if name not in IN_ORDER]
    own = Scored(id="g", text="Emma was published in 1815.", origin="generated")
    for record in records(10, seed=3):
        passages: list[Scored] = [*record.ctxs, own]
        order = np.random.default_rng(1).permutation(len(passages))
        plain = matrix(record.question, passages, words, names)
        np.testing.assert_allclose(matrix(record.question, [passages[i] for i in order], words, names), plain[order])


@pytest.mark.parametrize("kind", ["scores", "one score", "no score", "plain", "alone", "pseudo alone"])
def test_candidates_with_any_scores_have_features_and_what_is_not_known_is_nan(kind: str) -> None:
    passages: list[Passage] = list(records(1)[0].ctxs)
    if kind == "one score":
        passages = [Scored(id=p.id, text=p.text, score=float(i)) for i, p in enumerate(passages)]
    elif kind == "no score":
        passages = [Scored(id=p.id, text=p.text) for p in passages]
    elif kind == "plain":
        passages = [Passage(id=p.id, text=p.text) for p in passages]
    elif kind == "alone":
        passages = passages[:1]
    elif kind == "pseudo alone":
        passages = [Scored(id="g", text="Something.", origin="generated")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dict(zip(FEATURES, matrix("When was Emma published?", passages, Words()).T, strict=True))
        scores = small_trees().predict(np.stack(list(found.values()), axis=1))
    assert np.isfinite(scores).all()
    assert not any(np.isinf(values).any() for values in found.values())
    assert np.isnan(found["score_mean"]).all() == (kind in ("no score", "plain", "alone", "pseudo alone"))
    assert np.isnan(found["z_bm25"]).all() == (kind != "scores")
    assert np.isfinite(found["overlap"]).all()


def test_nothing_has_no_features() -> None:
    assert matrix("Who?", [], Words()).shape == (0, len(FEATURES))
    assert matrix("?!", [Passage(id="1", text="...")], Words()).shape == (1, len(FEATURES))


@pytest.mark.parametrize(
    ("question", "right", "wrong"),
    [
        ("谁写了红楼梦?", "红楼梦的作者是曹雪芹。", "北京是中国的首都。"),
        ("من كتب رواية زقاق المدق؟", "زقاق المدق رواية كتبها نجيب محفوظ", "القاهرة هي عاصمة مصر"),
        ("Кто написал «Войну и мир»?", "Роман «Войну и мир» написал Толстой.", "Москва стоит на реке."),
        ("WHO WROTE STRASSE?", "Straße: someone wrote it", "nothing of that kind"),
    ],
)
def test_any_script_has_words(question: str, right: str, wrong: str) -> None:
    passages = [Passage(id="1", text=right), Passage(id="2", text=wrong)]
    for name in ("overlap", "overlap_local", "bm25", "window", "density"):
        found = column(name, question, passages)
        assert found[0] > found[1], name


def test_words_in_a_row_near_each_other_and_missing() -> None:
    question = "first man on the moon"
    filler = " ".join(f"w{i}" for i in range(40))
    passages = [
        Passage(id="1", text="He was the first man on the moon."),
        Passage(id="2", text=f"Moon {filler} a man {filler} was on it the first."),
        Passage(id="3", text="Nothing."),
    ]
    assert column("pairs", question, passages) == [1.0, 0.0, 0.0]
    assert column("overlap", question, passages)[:2] == [1.0, 1.0]
    window = column("window", question, passages)
    assert window[0] == 1.0 > window[1] > window[2] == 0.0
    assert column("rarest_missing", question, passages)[:2] == [0.0, 0.0]
    assert column("rarest_missing", question, passages)[2] > 0


def test_titles_that_others_mention() -> None:
    passages = [
        Passage(id="1", title="Jane Austen", text="She wrote."),
        Passage(id="2", title="Emma", text="A novel by Jane Austen."),
        Passage(id="3", title="Jane Austen", text="Jane Austen lived, and jane austen died."),
    ]
    assert column("mentioned", "Who?", passages) == [2.0, 0.0, 1.0]
    assert column("mentions", "Who?", passages)[0] == 0.0
    assert column("title_repeated", "Who?", passages) == [1.0, 0.0, 1.0]


def test_what_several_passages_name_is_agreed_on() -> None:
    passages = [Passage(id=str(i), text=f"It was by {name} then.") for i, name in enumerate(["Bach", "Bach", "Liszt"])]
    found = column("names_agreed", "Who was it by?", passages)
    assert found[0] == found[1] == 0.5 > found[2]


def test_a_question_brings_its_choices() -> None:
    question = question_with_choices("Which melts first?", ["solid ice", "pure gold"])
    assert split_choices(question) == ("Which melts first?", ["solid ice", "pure gold"])
    assert split_choices("Is it\nthis") == ("Is it\nthis", [])
    passages = [Passage(id="1", text="Ice is solid."), Passage(id="2", text="Solid gold melts.")]
    assert column("choice_best", question, passages) == [1.0, 0.5]
    assert column("choice_lead", question, passages) == [1.0, 0.0]
    assert np.isnan(column("choice_best", "Which?", passages)).all()


# --- trees ---------------------------------------------------------------------------------------------------------


def test_a_selector_is_the_same_after_saving(tmp_path: Path) -> None:
    trees = small_trees()
    write_trees(trees, tmp_path, {"questions": 60})
    selector = open_selector(tmp_path)
    assert isinstance(selector, FeatureSelector)
    assert isinstance(selector, Selector)
    assert not isinstance(selector, BatchSelector)  # it scores one question at a time
    assert isinstance(selector, Lazy)
    assert is_listwise(selector)
    record = records(1, seed=5)[0]
    expected = trees.predict(features_of(examples([record]), trees.words)[0])
    assert selector.score(record.question, record.ctxs).tolist() == expected.tolist()
    assert selector.score("Who?", []).tolist() == []
    assert int(np.argmax(expected)) == record.silver


def test_a_seed_gives_the_same_trees_and_another_one_others() -> None:
    assert small_trees(0).text == small_trees(0).text != small_trees(1).text


def test_models_are_joined_by_weight() -> None:
    one, two = small_trees(0), small_trees(1)
    rows = np.concatenate(features_of(examples(records(20, seed=9)), one.words))
    both = Trees(one.names, one.words, joined([(one.text, 0.25), (two.text, 2.0)]))
    np.testing.assert_allclose(both.predict(rows), 0.25 * one.predict(rows) + 2 * two.predict(rows), atol=1e-4)


def test_more_columns_stand_behind_the_features() -> None:
    made = examples(records(60, noise=True))
    rng = np.random.default_rng(0)
    extra = [np.stack([rng.normal(size=4), np.asarray(e.own)], axis=1) for e in made]  # the second one knows
    trees = fit_trees(made, extra=extra, extra_names=["noise", "known"], seeds=1, rounds=10, leaves=4, least=5)
    assert trees.names[-2:] == ("noise", "known")
    own = [np.hstack([m, e]) for m, e in zip(features_of(made, trees.words), extra, strict=True)]
    assert np.mean([np.argmax(trees.predict(m)) == np.argmax(e.own) for m, e in zip(own, made, strict=True)]) > 0.9
    with pytest.raises(ModelError, match="columns"):
        trees.predict(own[0][:, :-1])


@pytest.mark.parametrize("objective", ["softmax", "expected"])
def test_gradients_are_those_of_the_objective(objective: str) -> None:
    rng = np.random.default_rng(0)
    labels, scores, sizes, h = rng.normal(size=7), rng.normal(size=7), np.array([3, 4]), 1e-6

    def value(at: FloatArray) -> float:
        found = 0.0
        for part in (slice(0, 3), slice(3, 7)):
            log_p = at[part] - np.logaddexp.reduce(at[part])
            own = labels[part] / (0.5 if objective == "softmax" else 1.0)
            if objective == "softmax":
                found -= float(np.exp(own - np.logaddexp.reduce(own)) @ log_p)
            else:
                found += float(np.exp(log_p) @ (own.max() - own))
        return found

    gradient, hessian = gradient_of(objective, labels, sizes, 0.5)(scores, None)
    for i in range(7):
        step = np.zeros(7)
        step[i] = h
        assert gradient[i] == pytest.approx((value(scores + step) - value(scores - step)) / (2 * h), abs=1e-5)
    assert (hessian > 0).all()


@pytest.mark.parametrize("damage", ["trees", "no trees", "features", "unknown"])
def test_a_damaged_folder_is_named(tmp_path: Path, damage: str) -> None:
    write_trees(small_trees(), tmp_path, {})
    known = (tmp_path / FEATURES_FILE).read_text()
    if damage == "trees":
        (tmp_path / TREES_FILE).write_text("Tree=0\nnothing")
    elif damage == "no trees":
        (tmp_path / TREES_FILE).unlink()
    elif damage == "features":
        (tmp_path / FEATURES_FILE).write_text('{"version": 1}')
    else:
        (tmp_path / FEATURES_FILE).write_text(known.replace('"overlap"', '"overlapping"'))
    with pytest.raises(DataError):
        read_trees(tmp_path)


# --- a prior -------------------------------------------------------------------------------------------------------


def test_labels_that_teach_nothing_leave_the_prior_as_it_is() -> None:
    prior = small_trees()
    kept = 0
    for seed in range(3):
        trees, went = go_on(prior, examples(records(40, seed=10 + seed, noise=True)), seeds=1, seed=seed)
        kept += trees is prior
        assert (went.strength == 0) == (trees is prior)
        assert went.strength == 0 or went.prior - went.best > went.error
    assert kept >= 2


def test_labels_that_teach_move_a_prior_that_knows_nothing() -> None:
    prior = fit_trees(examples(records(60, noise=True)), seeds=1, rounds=2, leaves=3, least=10)
    trees, went = go_on(prior, examples(records(100, seed=20)), seeds=1)
    assert went.strength > 0
    fresh = examples(records(50, seed=21))
    own = features_of(fresh, trees.words)

    def regret(of: Trees) -> float:
        return float(
            np.mean([max(e.own) - e.own[int(of.predict(m).argmax())] for e, m in zip(fresh, own, strict=True)])
        )

    assert regret(trees) < regret(prior)


# --- training and use ----------------------------------------------------------------------------------------------


def test_train_makes_a_feature_selector(tmp_path: Path) -> None:
    made = records(80)
    out = tmp_path / "s"
    selector = train(made, out, kind="features", start="scratch", temperature=0.25)
    assert isinstance(selector, FeatureSelector)
    card = (out / "README.md").read_text()
    assert "held-out regret (nats)" in card
    assert "base" not in card
    before = selector.score(made[0].question, made[0].ctxs)
    again = train(made, out, kind="features", start="scratch", temperature=0.25)
    assert again.score(made[0].question, made[0].ctxs).tolist() == before.tolist()
    assert train(made, tmp_path / "t", kind="features", start=str(out)).name == str(tmp_path / "t")


def test_the_prior_is_in_the_package_and_small() -> None:
    selector = open_selector(PRIOR)
    assert isinstance(selector, FeatureSelector)
    folder = Path(FeatureSelector.__init__.__code__.co_filename).parent / "gain_features"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000
    passages = [
        Passage(id="1", title="Paris", text="Paris is the capital of France."),
        Passage(id="2", title="Emma (novel)", text="Emma is a novel written by English author Jane Austen in 1815."),
        Passage(id="3", title="Novel", text="A novel is a long work of fiction."),
    ]
    for given in (passages, [Scored(id=p.id, title=p.title, text=p.text, score=0.5) for p in passages]):
        assert int(np.argmax(selector.score("Who wrote the novel Emma?", given))) == 1


def test_without_a_selector_the_prior_serves() -> None:
    passages = [Passage(id="1", text="Nothing at all."), Passage(id="2", text="Emma was written by Austen.")]
    rag = GainRAG(OverlapRetriever(passages), llm=OverlapLM(), depth=2)
    assert isinstance(rag.selector, FeatureSelector)
    assert len(rag.answer("Who wrote Emma?").candidates) == 3


class Crowded:
    """A selector whose scores fall with the number of candidates."""

    listwise, threshold = True, -2.5

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        return np.array([-float(len(passages)) + (p.origin == "generated") for p in passages])


def test_lazily_a_passage_is_judged_as_if_there_were_no_pseudo_passage() -> None:
    own = Scored(id="g", text="own", origin="generated")
    two = Retrieved(id="1", question="?", ctxs=[Scored(id="a", text="a"), Scored(id="b", text="b"), own])
    three = replace(two, id="2", ctxs=[Scored(id="c", text="c"), *two.ctxs])
    found = select([two, three], Crowded(), pseudo="lazy")
    assert [(r.extra["pseudo_skipped"], r.ctxs[0].id, r.ctxs[0].score) for r in found] == [
        (True, "a", -2.0),
        (False, "g", -3.0),
    ]
    passages = [Passage(id=str(i), text=f"p{i}") for i in range(3)]
    result = GainRAG(OverlapRetriever(passages), Crowded(), OverlapLM(), depth=3).answer("Who?")
    assert [c.score for c in result.candidates] == [-3.0, -4.0, -4.0, -4.0]


def test_a_cross_encoder_is_opened_as_one(cross_encoder: Path) -> None:
    assert isinstance(open_selector(cross_encoder, dtype="float32"), CrossEncoderSelector)


def test_words_of_a_text() -> None:
    assert words_of("a_b, c-d") == ["a", "b", "c", "d"]


def test_latin_text_has_the_words_that_any_text_has() -> None:
    letters = "".join(map(chr, (*range(0x80, 0x300), *range(0x2000, 0x2070))))
    text = " ".join(f"a{letter}b {letter}" for letter in letters)
    assert words_of(text) == [word for word in words_of(f"{text} 在") if word != "在"]


def test_a_handful_of_questions_is_no_crash(tmp_path: Path) -> None:
    """Unless it is told another kind, train makes a feature selector of few questions."""
    assert isinstance(train(records(12), tmp_path / "s", keep_worse=True), FeatureSelector)
    for n in (1, 12):
        few = records(n)
        scratch = train(few, tmp_path / str(n), kind="features", start="scratch")
        assert isinstance(scratch, FeatureSelector)
        assert np.ptp(scratch.score(few[0].question, few[0].ctxs)) > 0


def test_a_selector_on_relevance_starts_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trees that ship learned from gains: a rival that starts from them is none."""
    made = records(30)
    for record in made:
        for n, ctx in enumerate(record.ctxs):
            ctx.hasanswer = n == 1
    own: dict[str, Any] = {"kind": "features", "only_kept": False, "keep_worse": True}
    for labels, said in (("relevance", f"from nothing, as {PRIOR} learned from gains"), ("gain", f"from {PRIOR}\n")):
        train(made, tmp_path / labels, **own, labels=labels)  # type: ignore[arg-type]
        assert f"the trees start {said}" in capsys.readouterr().err
    assert "| start | scratch |" in (tmp_path / "relevance" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("features", {"retrieval_prior": False}),  # the default's value is a choice, too
        ("features", {"learning_rate": 0.1}),
        ("features", {"base": "embedded:all-minilm-l6-v2"}),
        ("features", {"folds": 3}),
        ("cross-encoder", {"folds": 3}),
        ("cross-encoder", {"start": "scratch"}),
        ("stack", {"start": "embedded:gain-features"}),
        ("stack", {"retrieval_prior": True}),
    ],
)
def test_what_the_kind_does_not_read_is_refused(tmp_path: Path, kind: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"train: kind '{kind}' does not read {next(iter(given))}"):
        train(records(12), tmp_path / "s", kind=kind, **given)  # type: ignore[arg-type]


def test_trees_are_tuned_by_folds_and_then_learn_from_all_questions(tmp_path: Path) -> None:
    made = records(40)
    shared: dict[str, Any] = {"kind": "features", "only_kept": False}
    trials = tune(made, tmp_path / "s", None, shared, temperature=[1.0], seeds=2)
    assert [trial.settings for trial in trials] == [{}, {"temperature": 1.0}]
    assert [len(trial.regrets) for trial in trials] == [2, 2]
    best = next(trial for trial in trials if trial.best)
    alone = train(made, tmp_path / "t", **shared, **best.settings, keep_worse=True)
    kept = open_selector(tmp_path / "s")
    for record in made[:3]:
        assert kept.score(record.question, record.ctxs).tolist() == alone.score(record.question, record.ctxs).tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s", "t"]
    with pytest.raises(ConfigError, match="tune: kind 'features' does not read epochs"):
        tune(made, tmp_path / "s", None, shared, epochs=[1])
    with pytest.raises(ConfigError, match="3 folds, and 5 questions"):
        tune(made[:5], tmp_path / "s", None, shared, temperature=[0.25])
