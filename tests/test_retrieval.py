"""Retrieval: rankings are whole, ordered and repeatable, and fused by the formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.protocols import Retriever
from gainrag.records import Passage, Question, Scored, to_builtins
from gainrag.retrieval import retrieve
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.dense import Dense
from gainrag.retrievers.hybrid import Hybrid, fit_weights
from gainrag.retrievers.store import top_rows

PASSAGES = [
    Passage(id="danube", title="Danube", text="The Danube flows to the Black Sea through Vienna and Budapest."),
    Passage(id="rhine", title="Rhine", text="The Rhine flows to the North Sea through Basel and Cologne."),
    Passage(id="rhine2", title="Rhine", text="The Rhine flows to the North Sea through Basel and Cologne."),
    Passage(id="emma", title="Emma", text="Emma is a novel by Jane Austen.", extra={"year": 1815}),
    Passage(id="season3", title="Lost", text="Season 3 was broadcast in 2006."),
    Passage(id="season2", title="Lost", text="Season 2 was broadcast in 2005."),
    Passage(id="stop", text="to be or not to be"),
]
QUESTIONS = ["Which river flows through Cologne?", "Who wrote Emma?", "when was season 2 broadcast", "xyzzy", "of the"]


@pytest.fixture(scope="module")
def bm25() -> BM25:
    return BM25.build(PASSAGES)


@pytest.fixture(scope="module")
def dense() -> Dense:
    return Dense.build(PASSAGES, batch_size=2)


@pytest.fixture(scope="module", params=["bm25", "dense", "hybrid"])
def retriever(request: pytest.FixtureRequest, bm25: BM25, dense: Dense) -> Retriever:
    retrievers: dict[str, Retriever] = {"bm25": bm25, "dense": dense, "hybrid": Hybrid([dense, bm25])}
    return retrievers[request.param]


class Listed:
    """A retriever whose rankings are given."""

    def __init__(self, *ids: str, score: float = 1.0) -> None:
        self.ids, self.score = ids, score
        self.asked: list[int] = []

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        self.asked.append(k)
        return [[Scored(id=i, text=f"text of {i}", score=self.score) for i in self.ids[:k]] for _ in questions]


def test_rankings_are_whole_and_ordered(retriever: Retriever) -> None:
    assert isinstance(retriever, Retriever)
    for found in retriever.search(QUESTIONS, 100):
        assert sorted(p.id for p in found) == sorted(p.id for p in PASSAGES)  # k beyond the corpus: all of it, once
        scores = [p.score for p in found]
        assert None not in scores
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


def test_smaller_k_is_a_prefix(retriever: Retriever) -> None:
    whole = retriever.search(QUESTIONS, len(PASSAGES))
    for k in (1, 2, 3):
        assert [found[:k] for found in whole] == retriever.search(QUESTIONS, k)


def test_batched_equals_single(retriever: Retriever) -> None:
    batched = retriever.search(QUESTIONS, 4)
    for question, found in zip(QUESTIONS, batched, strict=True):
        (alone,) = retriever.search([question], 4)
        assert [p.id for p in alone] == [p.id for p in found]
        # Standardised scores are distances in units of a small spread, which makes differences larger.
        close = 2e-4 if isinstance(retriever, Hybrid) else 2e-6
        assert [p.score for p in alone] == pytest.approx([p.score for p in found], abs=close)
    assert retriever.search([], 4) == []


def test_equal_scores_in_corpus_order(retriever: Retriever) -> None:
    (found,) = retriever.search(["Which river flows through Cologne?"], 2)
    assert [p.id for p in found] == ["rhine", "rhine2"]


def test_passages_come_back_whole(retriever: Retriever) -> None:
    (found,) = retriever.search(["Who wrote Emma?"], 1)
    added = {"score", "scores"}
    whole = {key: value for key, value in to_builtins(found[0]).items() if key not in added}
    assert whole == to_builtins(PASSAGES[3])
    if isinstance(retriever, Hybrid):  # what each part thought of it
        parts = {type(part).__name__.lower(): part for part in retriever.retrievers}
        alone = {name: part.search(["Who wrote Emma?"], 1)[0][0] for name, part in parts.items()}
        assert {part.id for part in alone.values()} == {found[0].id}
        assert found[0].scores == pytest.approx({name: part.score for name, part in alone.items()}, abs=2e-6)


def test_bm25_reads_stems_and_single_characters(bm25: BM25) -> None:
    found = bm25.search(["the broadcasting of season 2", "Which novels did Austen write?", "xyzzy of the"], 7)
    assert found[0][0].id == "season2"
    assert found[1][0].id == "emma"
    assert [(p.id, p.score) for p in found[2]] == [(p.id, 0.0) for p in PASSAGES]


def test_bm25_is_lucenes_formula() -> None:
    texts = ["apple apple pear", "pear plum", "plum plum plum plum"]
    retriever = BM25.build([Passage(id=str(i), text=text) for i, text in enumerate(texts)])
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))  # apple is in 1 of 3 passages
    expected = idf * 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 3))  # twice; mean length 3
    assert retriever.search(["apple"], 1)[0][0].score == pytest.approx(expected, rel=1e-6)


def test_corpus_without_words_can_be_searched() -> None:
    (found,) = BM25.build([Passage(id="1", text="to be or not to be"), Passage(id="2", text="?!")]).search(["to be"], 5)
    assert [(p.id, p.score) for p in found] == [("1", 0.0), ("2", 0.0)]


@pytest.mark.parametrize("kind", [BM25, Dense])
def test_empty_corpus(kind: type[BM25] | type[Dense]) -> None:
    with pytest.raises(DataError, match="no passages"):
        kind.build(iter(()))


def test_dense_scores_are_cosines(dense: Dense) -> None:
    (found,) = dense.search(["Emma\nEmma is a novel by Jane Austen."], 1)  # as the index reads the passage
    assert found[0].id == "emma"
    assert found[0].score == pytest.approx(1.0, abs=1e-5)


@pytest.fixture
def contriever(tmp_path: Path) -> Path:
    """A small encoder in the form in which Contriever is published: BERT and its tokenizer, no recipe for pooling."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word.strip(".,?").lower() for p in PASSAGES for word in f"{p.title} {p.text}".split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path / "contriever")
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "contriever")
    return tmp_path / "contriever"


def test_contriever_is_the_dot_product_of_mean_vectors(contriever: Path) -> None:
    import torch
    from transformers import BertModel, BertTokenizer

    model, tokenizer = BertModel.from_pretrained(contriever).eval(), BertTokenizer.from_pretrained(contriever)

    def mean(texts: list[str]) -> torch.Tensor:
        """As the authors' model card computes it: the mean over the last layer's tokens, padding left out."""
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            tokens = model(**batch)[0]
        kept = batch["attention_mask"][..., None]
        means: torch.Tensor = (tokens * kept).sum(dim=1) / kept.sum(dim=1)
        return means

    # The authors join title and text with a space: to BERT a line end is the same.
    expected = mean(QUESTIONS) @ mean([f"{p.title} {p.text}".strip() for p in PASSAGES]).T
    dense = Dense.build(PASSAGES, model=str(contriever), normalize=False, batch_size=3)
    for row, found in zip(expected, dense.search(QUESTIONS, len(PASSAGES)), strict=True):
        scores = {p.id: p.score for p in found}
        assert [scores[p.id] for p in PASSAGES] == pytest.approx(row.tolist(), abs=1e-4)
    assert expected.max() > 1.5  # no cosine


def test_dense_says_what_it_cut(caplog: pytest.LogCaptureFixture) -> None:
    long = Passage(id="long", text="river " * 2000)
    assert Dense.build([PASSAGES[0], long]).truncated == 1
    assert "1 of 2 passages" in caplog.text


def test_unknown_encoder(tmp_path: Path) -> None:
    for model in ("embedded:none", str(tmp_path / "none")):
        with pytest.raises(ModelError, match="all-minilm-l6-v2"):
            Dense.build(PASSAGES, model=model)


def test_fusion_is_the_formula() -> None:
    (found,) = Hybrid([Listed("a", "b", "c"), Listed("c", "a", "d")], k0=60, fusion="ranks").search(["?"], 10)
    expected = {"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "d": 1 / 63}
    assert {p.id: p.score for p in found} == pytest.approx(expected)
    assert [p.id for p in found] == ["a", "c", "b", "d"]


def test_fusion_ties_go_to_the_first_retriever() -> None:
    one, other = Listed("a", "b", "c"), Listed("b", "a", "d")
    assert [p.id for p in Hybrid([one, other], fusion="ranks").search(["?"], 4)[0]] == ["a", "b", "c", "d"]
    assert [p.id for p in Hybrid([other, one], fusion="ranks").search(["?"], 4)[0]] == ["b", "a", "d", "c"]


def test_fusion_of_equal_rankings_is_that_ranking() -> None:
    (found,) = Hybrid([Listed("a", "b", "c")] * 3).search(["?"], 3)
    assert [p.id for p in found] == ["a", "b", "c"]


def test_fusion_searches_deeper_than_k() -> None:
    listed = Listed(*(str(i) for i in range(300)))
    for k in (1, 150):
        assert len(Hybrid([listed]).search(["?"], k)[0]) == k
    assert listed.asked == [100, 150]


def test_words_that_match_nothing_do_not_vote(bm25: BM25) -> None:
    """Where BM25 finds no word, its filler must not move the other ranking."""
    order = [p.id for p in reversed(PASSAGES)]
    assert [p.id for p in Hybrid([Listed(*order), bm25]).search(["xyzzy"], 7)[0]] == order


class Scoring:
    """Returns passages with these scores, best first."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        best = sorted(self.scores, key=lambda name: -self.scores[name])[:k]
        return [[Scored(id=name, text=name, score=self.scores[name]) for name in best] for _ in questions]


def test_fusion_by_scores_is_the_formula() -> None:
    """One retriever is sure of a, the other prefers b by a little and never saw a: it has the least score there."""
    parts = [Scoring(a=9.0, b=1.0, c=0.0), Scoring(b=0.52, c=0.51, d=0.5)]
    (found,) = Hybrid(parts, weights={"scoring": 0.6, "scoring-2": 0.4}).search(["?"], 10)
    own, other = np.array([9.0, 1.0, 0.0]), np.array([0.52, 0.51, 0.5])
    z = {name: (own[i] - own.mean()) / own.std() for i, name in enumerate("abc")} | {"d": (0 - own.mean()) / own.std()}
    y = {name: (other[i] - other.mean()) / other.std() for i, name in enumerate("bcd")}
    y["a"] = y["d"]
    assert {p.id: p.score for p in found} == pytest.approx({n: 0.6 * z[n] + 0.4 * y[n] for n in "abcd"}, abs=1e-4)
    assert [p.id for p in found] == ["a", "b", "c", "d"]
    assert [p.scores for p in found][:2] == [{"scoring": 9.0}, {"scoring": 1.0, "scoring-2": 0.52}]


def test_fusion_by_scores_does_not_depend_on_scale_or_k() -> None:
    many = {f"p{i}": float(i) ** 1.5 for i in range(250)}
    plain = Hybrid([Scoring(**many), Scoring(**{name: -score for name, score in many.items()})])
    larger = Hybrid([Scoring(**{n: 7 + 3 * s for n, s in many.items()}), plain.retrievers[1]])
    (first,), (again,) = plain.search(["?"], 90), larger.search(["?"], 90)
    assert [(p.id, p.score) for p in first] == [(p.id, p.score) for p in again]
    (deeper,) = plain.search(["?"], 100)
    assert [p.id for p in deeper][:90] == [p.id for p in first]


def test_a_part_that_tells_nothing_apart_does_not_count() -> None:
    (found,) = Hybrid([Scoring(a=1.0, b=1.0, c=1.0), Scoring(c=2.0, b=1.0, a=0.0)]).search(["?"], 3)
    assert [p.id for p in found] == ["c", "b", "a"]
    (found,) = Hybrid([Listed("a", "b")]).search(["?"], 2)  # no scores: its order
    assert [p.id for p in found] == ["a", "b"]


def test_weights_are_fitted_on_what_holds_an_answer() -> None:
    right, wrong = Scoring(a=3.0, b=2.0, c=1.0, d=0.0), Scoring(d=3.0, c=2.0, a=1.0, b=0.0)
    hybrid = Hybrid([right, wrong])
    asked = [Question(id=str(i), question="?", answers=[answer]) for i, answer in enumerate("aaab")]
    weights = fit_weights([(hybrid, asked)])
    assert weights["scoring"] > 0.8
    assert sum(weights.values()) == pytest.approx(1)
    for taught in ([], [Question(id="1", question="?")], [Question(id="1", question="?", answers=["none"])]):
        assert fit_weights([(hybrid, taught)]) == hybrid.weights == {"scoring": 0.5, "scoring-2": 0.5}


@pytest.mark.parametrize("weights", [{}, {"scoring": 1.0}, {"scoring": 0.0, "scoring-2": 0.0},
                                     {"scoring": -1.0, "scoring-2": 1.0}, {"scoring": 1.0, "bm25": 1.0}])  # fmt: skip
def test_weights_are_the_retrievers(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="weights"):
        Hybrid([Scoring(a=1.0), Scoring(b=1.0)], weights=weights)


def test_hybrid_of_nothing() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Hybrid([])


def test_retrieve_marks_answers_and_keeps_the_question(bm25: BM25) -> None:
    asked = Question(id="1", question="Who wrote Emma?", answers=["jane austen", "J. Austen"], extra={"gold": [1]})
    unknown = Question(id="2", question="Which river flows through Cologne?")
    first, second = retrieve([asked, unknown], bm25, k=3)
    assert [ctx.hasanswer for ctx in first.ctxs] == [ctx.id == "emma" for ctx in first.ctxs]
    assert all(ctx.hasanswer is None for ctx in second.ctxs)
    assert to_builtins(first)["gold"] == [1]
    assert (first.id, first.answers, len(first.ctxs)) == ("1", asked.answers, 3)


def test_retrieve_in_batches_is_retrieve(bm25: BM25) -> None:
    questions = [Question(id=str(i), question=QUESTIONS[i % len(QUESTIONS)]) for i in range(300)]
    found = retrieve(questions, bm25, k=2)
    assert [r.id for r in found] == [q.id for q in questions]
    assert [c.id for c in found[257].ctxs] == [c.id for c in found[2].ctxs]
    assert retrieve([], bm25, k=2) == []


@pytest.mark.parametrize("k", [0, -1])
def test_retrieve_nothing(bm25: BM25, k: int) -> None:
    with pytest.raises(ConfigError, match="k is"):
        retrieve([Question(id="1", question="?")], bm25, k=k)


def test_top_rows_is_a_stable_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 5, 50).astype(np.float32)
    expected = sorted(range(50), key=lambda row: (-scores[row], row))
    for k in (1, 7, 50, 60):
        assert top_rows(scores, k).tolist() == expected[:k]
