"""Scores of one prediction or one ranking: pure functions of strings, flags and numbers, no files.

| function      | of                        | value                                                     |
|---------------|---------------------------|-----------------------------------------------------------|
| `contains`    | prediction, gold answers  | 1.0 when a gold stands in the prediction as whole words   |
| `exact_match` | prediction, gold answers  | 1.0 when the prediction is a gold                         |
| `f1`          | prediction, gold answers  | token overlap with the nearest gold, 0 to 1               |
| `accuracy`    | prediction, gold answers  | 1.0 when the prediction is the right choice, letter for letter |
| `paper_em`    | prediction, gold answers  | containment as published, by characters; to compare only  |
| `has_answer`  | text, gold answers        | whether a gold stands in the text, by DPR's tokens        |
| `holds_answer`| passage, gold answers     | `has_answer` of the passage's text, without its title     |
| `recall_at_k` | has-answer flags, ranked  | share of questions with an answer in the first k          |
| `gold_recall` | ranks of gold passages    | share of them in the first k                              |
| `auc_within`  | gains, correctness        | how well gains tell right from wrong within one question  |
| `auc`         | margins, classes          | how well margins tell one class from another over questions |

All of a prediction or a text take the best over the gold answers, but for `accuracy`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

from gainrag.errors import ConfigError, DataError
from gainrag.records import Passage, Scored

FloatArray = npt.NDArray[np.float64]

# Unicode's punctuation, and the symbols of ASCII that SQuAD drops with it ("$", "+", "<" ..).
_PUNCTUATION = regex.compile(r"[\p{P}!-/:-@\[-`{-~]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

# DPR's SimpleTokenizer: a run of letters, digits and marks, or any other single visible character.
_TOKENS = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")

# A letter or digit of a script that is written without spaces between words, with its vowel signs and tones.
_UNSPACED = regex.compile(
    r"(?V1)[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{N}]]\p{M}*"
)

# "1,000,000", and neither "1,2" nor "1,0000".
_THOUSANDS = regex.compile(r"(?<=\d),(?=\d{3}(?!\d))")

# Forms of a character that are the same in print: "ﬁ", "１", "Ⅳ". Not "²", "½" and "´": 10² is not 102, and O´Neill is
# one word.
_SAME_IN_PRINT = regex.compile(r"(?V1)[\p{NFKC_QC=No}--[\p{dt=super}\p{dt=sub}\p{dt=fraction}\p{Sk}]]")

# Normalisation sorts each run of marks in quadratic time. Unicode's Stream-Safe Text Format (UAX 15) breaks runs of
# more than 30, which no language has, with a joiner that shows nothing.
_LONG_RUN = regex.compile(r"(\p{M}{30})(?=\p{M})")
_JOINER = "\u034f"

# Stands between tokens when they are searched as one string; a control character, so no token can hold it.
_SEPARATOR = "\x1f"


def fold(text: str) -> str:
    """The text as it is compared: what case, encoding and missing spaces would tell apart is made equal. Linear time.

    Case is folded in full, and forms that are the same in print become one (NFKC, but superscripts, subscripts and
    fractions stay what they are). In scripts that are written without spaces between words (Chinese, Japanese, Thai,
    Lao, Khmer, Burmese) each character is a word, as in the tokens of multilingual BERT: spaces are put around it.

    >>> fold("STRASSE") == fold("Straße"), fold("ﬁve １０ m²"), fold("在北京")
    (True, 'five 10 m²', ' 在  北  京 ')
    """
    if text.isascii():
        return text.lower()
    text = _SAME_IN_PRINT.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text).casefold()
    text = unicodedata.normalize("NFC", _LONG_RUN.sub(rf"\1{_JOINER}", text))
    return spaced(text)


def spaced(text: str) -> str:
    """The text with spaces around each character of a script that is written without spaces between words."""
    apart: str = _UNSPACED.sub(r" \g<0> ", text)
    return apart


def normalise(text: str) -> str:
    """Fold case and forms, drop punctuation, drop a/an/the, collapse white space, in that order.

    SQuAD's normalisation exactly where the text is ASCII. Beyond ASCII two things are added: the text is folded (see
    `fold`), so that two spellings of "é" are equal and a decomposed "à" is not taken for an article; and punctuation
    is dropped whatever its script, where SQuAD would keep "–" and "’".

    >>> normalise("  The U.S. of   A!")
    'us of'
    >>> normalise("O’Neill, an artist"), normalise("答案是北京。")
    ('oneill artist', '答 案 是 北 京')
    """
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", fold(text))).split())


def contains(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when some normalised gold occurs as whole words in the normalised prediction, else 0.0.

    A gold that normalises to nothing ("The") never matches.

    >>> contains("It was the Art of War.", ["Art"]), contains("a party", ["Art"]), contains("anything", ["The"])
    (1.0, 0.0, 0.0)
    """
    said = f" {normalise(prediction)} "
    golds = map(normalise, answers)
    return float(any(gold and f" {gold} " in said for gold in golds))


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the normalised prediction equals some normalised gold as a whole string, else 0.0. SQuAD's rule.

    >>> exact_match("the Eiffel Tower", ["Eiffel tower."]), exact_match("Eiffel Tower, Paris", ["Eiffel tower"])
    (1.0, 0.0)
    """
    said = normalise(prediction)
    return float(any(said == normalise(gold) for gold in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Token F1 with the nearest gold: 2PR / (P + R), P = shared / |prediction|, R = shared / |gold|, normalised tokens.

    A token counts as shared as often as both have it. Where the prediction or the gold has no token left, SQuAD's
    rule holds: 1.0 if neither has any, else 0.0. No answers: 0.0.

    >>> f1("Barack Obama", ["Obama", "Michelle Obama Robinson"])
    0.6666666666666666
    >>> f1("", ["Obama"])
    0.0
    """
    said = normalise(prediction).split()
    return max((_token_f1(said, normalise(gold).split()) for gold in answers), default=0.0)


def _token_f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    shared = sum((Counter(said) & Counter(gold)).values())
    # 2PR / (P + R) with both fractions cleared.
    return 2.0 * shared / (len(said) + len(gold))


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the prediction is the first gold answer, letter for letter: for questions with choices, of which the
    first answer is the right one.

    >>> accuracy("Yes", ["Yes"]), accuracy("yes", ["Yes"]), accuracy("", [])
    (1.0, 0.0, 0.0)
    """
    return float(bool(answers) and prediction == answers[0])


def paper_em(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when some normalised gold is a substring of the normalised prediction: "EM" as published, to compare only.

    It has the published faults: parts of words match, and a gold that normalises to nothing matches anything.

    >>> paper_em("a party", ["Art"]), paper_em("anything", ["The"])
    (1.0, 1.0)
    """
    said = normalise(prediction)
    return float(any(normalise(gold) in said for gold in answers))


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether the tokens of some answer stand in the text in a row: DPR's has_answer.

    DPR's SimpleTokenizer on the folded text (see `fold`): a token is a run of letters, digits and marks, or one other
    visible character; punctuation counts. Beside the folding two things differ from DPR: the comma between thousands
    is left out, so that "1,000" is "1000", as in `contains`, and holds no "1"; and an answer without a token never
    matches, where in DPR it always would.

    >>> has_answer("The party was in São Paulo.", ["sao paulo"]), has_answer("Born in São Paulo.", ["São Paulo"])
    (False, True)
    >>> has_answer("a party", ["Art"]), has_answer("The U.S. Navy", ["U.S."]), has_answer("text", [""])
    (False, True, False)
    >>> has_answer("答案是北京。", ["北京"]), has_answer("1,000 m", ["1000"])
    (True, True)
    """
    golds = [gold for gold in map(_answer_tokens, answers) if gold != _SEPARATOR]
    if not golds:
        return False
    tokens = _joined_tokens(text)
    return any(gold in tokens for gold in golds)


def holds_answer(passage: Passage, answers: Sequence[str]) -> bool:
    """Whether a passage holds an answer: `has_answer` of its text alone, the title left out, which is DPR's rule.

    The one meaning of "holds an answer": of the marks `hasanswer`, of recall, of the system that reads the first
    passage with an answer, of the figures on labels, and of the report.

    >>> holds_answer(Passage(id="1", title="Emma", text="A novel by Jane Austen."), ["Emma"])
    False
    """
    return has_answer(passage.text, answers)


def _joined_tokens(text: str) -> str:
    """The tokens with a separator before, between and after, so that finding tokens in a row is finding a string."""
    tokens: list[str] = _TOKENS.findall(_THOUSANDS.sub("", fold(text)))
    return _SEPARATOR.join(["", *tokens, ""]) if tokens else _SEPARATOR


# The same answers are looked for in each of a question's hundred passages.
@lru_cache(maxsize=4096)
def _answer_tokens(answer: str) -> str:
    return _joined_tokens(answer)


def recall_at_k(ranked: Sequence[Sequence[bool]], k: int) -> float:
    """Share of questions with an answer in the first k passages.

    `ranked` has, for each question, the has-answer flag of each passage, best first; a shorter ranking counts as it is.

    >>> recall_at_k([[False, True], [True], [False, False]], k=1)
    0.3333333333333333

    Raises:
        ConfigError: k is less than 1.
        DataError: there is no question.
    """
    if k < 1:
        raise ConfigError(f"recall at k needs k of at least 1, not {k}", hint="give a positive k")
    if not ranked:
        raise DataError("recall of no questions is not defined", hint="give at least one question")
    return sum(any(flags[:k]) for flags in ranked) / len(ranked)


def gold_recall(ranks: Sequence[int], k: int) -> float:
    """The share of a question's gold passages among its first k; 0 where no candidate is gold.

    >>> gold_recall([1, 7], k=5), gold_recall([], k=5)
    (0.5, 0.0)
    """
    return sum(rank <= k for rank in ranks) / len(ranks) if ranks else 0.0


def auc(values: npt.ArrayLike, positive: Sequence[bool], weights: npt.ArrayLike | None = None) -> FloatArray:
    """How often a question of the class has a higher value than one of the other; of equal values half.

    >>> float(auc([3.0, 1.0, 2.0], [True, False, True]))
    1.0

    Args:
        values: one a question.
        positive: whether it is of the class.
        weights: how often each question counts, [.., question]; once when left out.

    Returns:
        [..]; NaN where all that counts is of one class.
    """
    own, mask = np.asarray(values, dtype=np.float64), np.asarray(positive, dtype=bool)
    counts = np.ones(len(own)) if weights is None else np.asarray(weights, dtype=np.float64)
    high, low = counts[..., mask], counts[..., ~mask]
    above, equal = own[mask][:, None] > own[~mask], own[mask][:, None] == own[~mask]
    won = ((high @ (above + 0.5 * equal)) * low).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(won / (high.sum(axis=-1) * low.sum(axis=-1)), dtype=np.float64)


def auc_within(gains: Sequence[float], correct: Sequence[bool]) -> float | None:
    """How often a passage that yields a right answer has a higher gain than one that yields a wrong one.

    AUC = mean over pairs (right, wrong) of [gain_right > gain_wrong] + 0.5 [equal]. 1 is perfect, 0.5 is chance.
    None where all are right or all are wrong: there is no pair to compare.

    >>> auc_within([-1.0, -2.0, -2.0], [True, False, True])
    0.75
    >>> auc_within([-1.0, -2.0], [True, True]) is None
    True

    Raises:
        DataError: the two differ in length, or a gain is not a number.
    """
    if len(gains) != len(correct):
        raise DataError(f"{len(gains)} gains but {len(correct)} correctness flags", hint="give one flag a gain")
    if any(math.isnan(gain) for gain in gains):
        raise DataError("a gain is not a number (NaN)", hint="score the question again")
    right = [gain for gain, good in zip(gains, correct, strict=True) if good]
    wrong = [gain for gain, good in zip(gains, correct, strict=True) if not good]
    if not right or not wrong:
        return None
    won = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    return won / (len(right) * len(wrong))


def mark_answers(passages: Iterable[Scored], answers: Sequence[str]) -> None:
    """Mark each passage with whether it holds one of the answers, where they are known."""
    for passage in passages if answers else ():
        passage.hasanswer = holds_answer(passage, answers)
