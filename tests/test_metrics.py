from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gainrag.errors import ConfigError, DataError
from gainrag.metrics import (
    auc_within,
    contains,
    exact_match,
    f1,
    fold,
    has_answer,
    holds_answer,
    mark_answers,
    normalise,
    paper_em,
    recall_at_k,
)
from gainrag.records import Passage, Scored

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


@pytest.mark.parametrize(
    ("text", "gold", "same"),
    [
        ("答案是北京。", "北京", True),
        ("答案是北京。", "京北", False),
        ("クジラは哺乳類です", "哺乳類", True),
        ("データ", "データ", True),
        ("เมืองหลวงคือกรุงเทพมหานคร", "กรุงเทพมหานคร", True),
        ("ແມ່ນວຽງຈັນ", "ວຽງຈັນ", True),
        ("គឺភ្នំពេញ។", "ភ្នំពេញ", True),
        ("မြို့တော်မှာနေပြည်တော်", "နေပြည်တော်", True),
        ("ก่", "ก", False),  # a letter with its tone is one character
        ("서울은 수도이다", "서울", False),  # Korean is written with spaces
        ("in １９９８年", "1998", True),
        ("ｶﾞﾗｽ", "ガラス", True),
        ("the ﬁfth", "fifth", True),
        ("in der Goethestraße 5", "GOETHESTRASSE", True),
        ("ΟΔΥΣΣΕΎΣ", "οδυσσεύς", True),
        ("10² metres", "102", False),
        ("1½ litres", "11 2", False),
        ("It was 1,000 m", "1000", True),
        ("It was 1000 m", "1,000", True),
        ("It was 12,345,678 m", "12345678", True),
        ("It was 14,000 m", "14", False),
        ("It was \uff11\uff0c\uff10\uff10\uff10 m", "1000", True),
    ],
)
def test_what_counts_as_the_same_counts_alike_in_answers_and_passages(text: str, gold: str, same: bool) -> None:
    assert has_answer(text, [gold]) is same
    assert (contains(text, [gold]) == 1.0) is same
    assert exact_match(gold, [gold]) == 1.0
    if same:
        assert f1(text, [gold]) > 0


def test_only_thousands_lose_their_comma() -> None:
    assert has_answer("Add 1,2 and 3", ["2"])
    assert has_answer("Article 12,3456", ["12"])
    assert has_answer("in May,100 came", ["100"])


def test_overlap_without_spaces_is_by_character() -> None:
    assert f1("答案是北京。", ["北京"]) == pytest.approx(2 * 2 / (5 + 2))


def test_a_passage_holds_an_answer_by_its_text_alone() -> None:
    named = Scored(id="1", title="Emma", text="A novel by Jane Austen.")
    assert not holds_answer(named, ["Emma"])
    assert holds_answer(Passage(id="2", title="", text="Emma is a novel."), ["Emma"])
    mark_answers([named], ["Emma"])
    assert named.hasanswer is False


TEXTS = st.text() | st.text(alphabet="aAthe .,1\uff10ßﬁé\u0301\u0323北กี", max_size=12)


@given(TEXTS, st.lists(TEXTS, max_size=3))
@example("é", ["e\u0301"])
def test_the_metrics_keep_their_order_and_their_range(prediction: str, golds: list[str]) -> None:
    found = {metric: metric(prediction, golds) for metric in (contains, exact_match, f1, paper_em)}
    assert all(0.0 <= value <= 1.0 for value in found.values())
    if found[contains]:
        assert found[f1] > 0
        assert found[paper_em] == 1.0
    if found[exact_match] and normalise(prediction):
        assert found[contains] == found[f1] == 1.0
    for metric, value in found.items():
        assert metric(prediction, golds[::-1]) == value


@given(TEXTS, TEXTS)
def test_f1_and_exact_match_are_symmetric(one: str, other: str) -> None:
    assert f1(one, [other]) == f1(other, [one])
    assert exact_match(one, [other]) == exact_match(other, [one])


@given(TEXTS, TEXTS, TEXTS)
def test_an_answer_is_found_between_other_words(before: str, gold: str, after: str) -> None:
    text = f"{before} \n {gold} \n {after}"
    assert contains(text, [gold]) == float(bool(normalise(gold)))
    # A gold of white space and control characters has no token.
    assert has_answer(text, [gold]) == has_answer(gold, [gold])


@given(TEXTS)
def test_the_unicode_form_does_not_matter(text: str) -> None:
    for form in ("NFC", "NFD"):
        assert fold(unicodedata.normalize(form, text)) == fold(text)


@pytest.mark.parametrize("part", ["\u0301", "\u0340", "\u0316\u0301", "e\u0301", "北", "ﬁ", "1,000,", "a ", "-"])
def test_long_texts_take_linear_time(part: str) -> None:
    """In quadratic time the marks took 7 s, and five times as many 179 s."""
    text = part * (400_000 // len(part))
    started = time.perf_counter()
    for metric in (contains, f1, has_answer):
        metric(text, [text[:100], "Paris"])
    assert time.perf_counter() - started < 10


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
