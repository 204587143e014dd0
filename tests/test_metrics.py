from __future__ import annotations

import unicodedata

import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.metrics import auc_within, contains, exact_match, f1, has_answer, normalise, paper_em, recall_at_k

PAIRS = [
    ("The Eiffel Tower, in Paris.", ["Eiffel tower"]),
    ("Paris", ["paris", "City of Light"]),
    ("a party", ["Art"]),
    ("", ["Art"]),
    ("I do not know", ["Lyon"]),
    ("Barack Hussein Obama II", ["Barack Obama", "Obama"]),
    ("1,000 metres", ["1000 metres"]),
]


def test_normalise_follows_squad_on_ascii() -> None:
    assert normalise("The  quick-brown fox, an A.B.") == "quickbrown fox ab"
    assert normalise("$5 + (tax)") == "5 tax"
    assert normalise("Theatre another") == "theatre another"


def test_normalise_is_idempotent_and_ignores_the_unicode_form() -> None:
    for text in ("São Tomé à Paris", "Æneas — “Trojan”", "Zürich\u2013Genève", "ΑΘΗΝΑ"):
        once = normalise(text)
        assert normalise(once) == once
        assert normalise(unicodedata.normalize("NFD", text)) == once


def test_a_decomposed_letter_is_no_article() -> None:
    assert normalise(unicodedata.normalize("NFD", "à la carte")) == "à la carte"


def test_typographic_punctuation_equals_plain() -> None:
    assert exact_match("O\u2019Neill", ["O'Neill"]) == 1.0


@pytest.mark.parametrize("empty", ["The", "a", "...", "", "An."])
def test_an_empty_gold_is_contained_in_nothing(empty: str) -> None:
    for prediction in ("anything", "The", "", "a an the"):
        assert contains(prediction, [empty]) == 0.0
    assert contains("Paris", [empty, "Paris"]) == 1.0


def test_containment_is_by_whole_words() -> None:
    assert contains("a party", ["Art"]) == 0.0
    assert paper_em("a party", ["Art"]) == 1.0
    assert contains("modern art.", ["Art"]) == 1.0
    assert contains("the art of war", ["Art of the War"]) == 1.0
    assert contains("war of art", ["art war"]) == 0.0


def test_the_published_measure_matches_an_empty_gold() -> None:
    assert paper_em("anything", ["The"]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("Barack Obama", "Obama", 2 / 3),  # P 1/2, R 1
        ("cat sat on the mat", "cat mat", 2 / 3),  # tokens cat sat on mat: P 1/2, R 1
        ("to be or not to be", "to be", 1 / 2),  # P 2/6, R 1
        ("to be", "to be to be", 2 / 3),  # counted as often as both have it: P 1, R 1/2
        ("Paris", "London", 0.0),
        ("Paris", "paris.", 1.0),
        ("", "Paris", 0.0),
        ("Paris", "The", 0.0),
        ("the", "The", 1.0),
    ],
)
def test_f1_by_hand(prediction: str, gold: str, expected: float) -> None:
    assert f1(prediction, [gold]) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [contains, exact_match, f1, paper_em])
def test_answer_metrics_take_the_best_gold_in_any_order(metric) -> None:  # type: ignore[no-untyped-def]
    for prediction, golds in PAIRS:
        best = max(metric(prediction, [gold]) for gold in golds)
        assert metric(prediction, golds) == metric(prediction, golds[::-1]) == best
        assert metric(prediction, []) == 0.0


def test_stricter_metrics_are_never_higher() -> None:
    for prediction, golds in PAIRS:
        assert exact_match(prediction, golds) <= contains(prediction, golds) <= paper_em(prediction, golds)
        assert exact_match(prediction, golds) <= f1(prediction, golds) <= 1.0


def test_has_answer_is_by_tokens() -> None:
    assert has_answer("She loved ART.", ["Art"])
    assert not has_answer("a party", ["Art"])
    assert has_answer("born in New\nYork City", ["new york"])
    assert not has_answer("new old york", ["new york"])
    assert not has_answer("It was 1,000 m", ["1000"])
    assert has_answer("It was 1,000 m", ["1,000"])
    assert has_answer("The U. S. Navy", ["U.S."])  # every mark is a token of its own


def test_has_answer_ignores_the_unicode_form_but_not_the_accents() -> None:
    for form in ("NFC", "NFD"):
        assert has_answer(unicodedata.normalize(form, "in São Paulo,"), [unicodedata.normalize("NFC", "são paulo")])
    assert not has_answer("in São Paulo", ["Sao Paulo"])
    assert has_answer("東京 タワー", ["東京"])
    assert has_answer("ΑΘΗΝΑ", ["αθηνα"])


@pytest.mark.parametrize("answers", [[], [""], ["  "], ["\x1f"]])
def test_has_answer_never_matches_an_answer_without_tokens(answers: list[str]) -> None:
    assert not has_answer("some text", answers)
    assert not has_answer("", answers)


def test_recall_grows_with_k() -> None:
    ranked = [[False, False, True], [True], [False, False], [False, True]]
    assert [recall_at_k(ranked, k) for k in (1, 2, 3, 100)] == [0.25, 0.5, 0.75, 0.75]


def test_recall_refuses_what_has_no_value() -> None:
    with pytest.raises(ConfigError, match="not 0"):
        recall_at_k([[True]], 0)
    with pytest.raises(DataError, match="no questions"):
        recall_at_k([], 1)


def test_auc_within() -> None:
    assert auc_within([3.0, 2.0, 1.0], [True, False, False]) == 1.0
    assert auc_within([3.0, 2.0, 1.0], [False, False, True]) == 0.0
    assert auc_within([1.0, 1.0], [True, False]) == 0.5
    assert auc_within([3.0, 2.0, 1.0, 0.0], [True, False, True, False]) == 0.75
    assert auc_within([1.0, 2.0], [True, True]) is auc_within([1.0], [False]) is auc_within([], []) is None
    with pytest.raises(DataError, match="2 gains but 1"):
        auc_within([1.0, 2.0], [True])
    with pytest.raises(DataError, match="NaN"):
        auc_within([1.0, float("nan")], [True, False])
