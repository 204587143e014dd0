"""A cross-encoder's fast scores are those of CrossEncoder.predict, whatever stands beside a pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from gainrag.demo import load
from gainrag.prompts import selector_text
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors import CrossEncoderSelector, scoring
from gainrag.selectors.internals import is_plain
from gainrag.selectors.scoring import make_batches, score_pairs

Requests = list[tuple[str, list[Passage]]]


@pytest.fixture(scope="module")
def requests() -> Requests:
    """Eight questions with twenty-five passages each, some of them shared, cut, without a title, or empty."""
    questions, _, corpus = load()
    odd = [Passage(id="own", text="No title, as the pseudo-passage."), Passage(id="empty", text="")]
    long = [Passage(id=f"long{i}", title="Long", text=" ".join([corpus[i].text] * 4)) for i in range(3)]
    return [(q.question, [*corpus[12 * n : 12 * n + 20], *long, *odd]) for n, q in enumerate(questions[:8])]


@pytest.fixture(scope="module")
def expected(cross_encoder: Path, requests: Requests) -> list[FloatArray]:
    """What CrossEncoder.predict says to all requests."""
    model = CrossEncoder(str(cross_encoder), device="cpu")
    return [np.asarray(model.predict([(q, selector_text(p)) for p in passages])) for q, passages in requests]


def test_float32_scores_are_those_of_predict(
    cross_encoder: Path, requests: Requests, expected: list[FloatArray]
) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    assert max(scores.std() for scores in expected) > 0.1
    for scores, plain in zip(selector.score_many(requests), expected, strict=True):
        assert np.abs(scores - plain).max() < 1e-4


def test_a_pairs_score_does_not_depend_on_the_others(cross_encoder: Path, requests: Requests) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    together = selector.score_many(requests[:3])
    backwards = selector.score_many([(q, passages[::-1]) for q, passages in requests[2::-1]])
    alone = CrossEncoderSelector(cross_encoder, dtype="float32", batch_tokens=1)
    for i, (question, passages) in enumerate(requests[:3]):
        assert np.abs(together[i] - backwards[2 - i][::-1]).max() < 1e-5
        assert np.abs(together[i][:5] - alone.score(question, passages[:5])).max() < 1e-5


def test_bfloat16_chooses_the_same_and_has_no_ties(
    cross_encoder: Path, requests: Requests, expected: list[FloatArray]
) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="bfloat16")
    assert selector.settings == {"model": str(cross_encoder), "backend": "torch", "dtype": "bfloat16"}
    found = selector.score_many(requests)
    same = [int(np.argmax(a)) == int(np.argmax(b)) for a, b in zip(found, expected, strict=True)]
    assert all(same)
    assert all(len(set(scores.tolist())) == len(scores) for scores in found)


def test_what_bfloat16_cannot_tell_from_the_best_is_scored_in_float32(
    cross_encoder: Path, requests: Requests, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="bfloat16")
    for scores, plain in zip(selector.score_many(requests), expected, strict=True):
        best = scores.argmax()
        if (scores > scores[best] - 0.1).sum() > 1:
            assert scores[best] == pytest.approx(plain[best], abs=1e-4)
    monkeypatch.setattr("gainrag.selectors.cross_encoder.ROUNDING", {"bfloat16": 100.0})
    for scores, plain in zip(selector.score_many(requests), expected, strict=True):
        exact = np.abs(scores - plain) < 1e-4
        assert exact[np.argsort(-plain)[:6]].all()  # of eight that were scored again, about the best eight
        assert not exact.all()


def test_a_model_with_a_prompt_of_its_own_is_left_to_predict(cross_encoder: Path, requests: Requests) -> None:
    model = CrossEncoderSelector(cross_encoder, dtype="float32").model
    plain = score_pairs(model, requests[:1])[0]
    model.prompts, model.default_prompt_name = {"query": "Which passage answers? "}, "query"
    question, passages = requests[0]
    expected = model.predict([(question, selector_text(p)) for p in passages])
    assert score_pairs(model, requests[:1])[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert np.abs(plain - expected).max() > 1e-3


def garbled(*_: object, **__: object) -> None:
    raise TypeError("got an unexpected argument\nand a second line")


@pytest.mark.parametrize("change", ["tokens differ", "tokens fail"])
def test_where_sentence_transformers_changed_it_scores_itself(
    cross_encoder: Path,
    requests: Requests,
    expected: list[FloatArray],
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    if change == "tokens differ":
        pad = scoring._pad
        monkeypatch.setattr(scoring, "_pad", lambda t, e, m: {k: v * 0 + 1 for k, v in pad(t, e, m).items()})
    else:
        monkeypatch.setattr(scoring, "_pad", garbled)
    for scores, plain in zip(selector.score_many(requests[:2]), expected[:2], strict=True):
        assert np.abs(scores - plain).max() < 1e-4
    said = [record.getMessage() for record in caplog.records if record.name.startswith("gainrag")]
    assert len(said) == 1
    assert "\n" not in said[0]


def test_a_model_whose_inside_is_unknown_is_left_to_predict(caplog: pytest.LogCaptureFixture) -> None:
    class Renamed:
        """A CrossEncoder of another release."""

        def __getitem__(self, n: int) -> object:
            return object()

    for _ in range(2):
        assert not is_plain(Renamed())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("change", ["missing", "without effect"])
def test_a_head_that_cannot_be_kept_in_float32_opens_the_whole_in_float32(
    cross_encoder: Path,
    requests: Requests,
    expected: list[FloatArray],
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    as_it_is = CrossEncoder.set_keep_in_fp32_modules

    def changed(self: CrossEncoder, names: list[str]) -> None:
        if names and change == "missing":
            raise AttributeError("no such method")
        if not names:  # as on the way of loading
            as_it_is(self, names)

    monkeypatch.setattr(CrossEncoder, "set_keep_in_fp32_modules", changed)
    selector = CrossEncoderSelector(cross_encoder, dtype="bfloat16")
    assert selector.dtype == "float32"
    assert len([record for record in caplog.records if record.name.startswith("gainrag")]) == 1
    for scores, plain in zip(selector.score_many(requests[:1]), expected[:1], strict=True):
        assert np.abs(scores - plain).max() < 1e-4


def test_no_questions_and_no_passages(cross_encoder: Path) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    assert selector.score_many([]) == []
    none, one = selector.score_many([("Who?", []), ("Who?", [Passage(id="1", text="Nobody.")])])
    assert (none.shape, one.shape) == ((0,), (1,))
    assert selector.score("Who?", []).shape == (0,)


def test_batches_hold_every_pair_once_within_the_tokens() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500).tolist()
    batches = make_batches(lengths, tokens=128)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert max(padded) <= 128
    assert sum(padded) < 1.05 * sum(lengths)
    assert make_batches([500], tokens=128) == [[0]]
