"""What a feature selector sees of a passage: numbers of the question, the passage and the retrievers' scores.

They know nothing of language models, work in any script, and need no retriever in particular: candidates with one score
or none have fewer of them. A feature is one number a passage; NaN is "not known", which boosted trees treat as a value
of its own. "Says" is a word's weight, its idf as a share of the highest (0 to 1), see `gainrag.selectors.words`.

No feature of this module changes when the candidates are permuted. Those of the list that they come in, such as the
retrievers' scores, are in gainrag.selectors.list_features; `FEATURES` has all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.candidates import Candidates, Feature, Flags, Ints, once
from gainrag.selectors.list_features import (
    candidates,
    generated,
    place,
    retriever_gap,
    retriever_raw,
    retriever_z,
    score_best,
    score_gap,
    score_mean,
    score_rank,
    score_worst,
)
from gainrag.selectors.words import Words, as_compared, words_of

# --- the question's words in the passage ---------------------------------------------------------------------------


def overlap(c: Candidates) -> FloatArray:
    """What the question's words in title or text say, as a share of what all of them say."""
    return _share(c, c.pair_owner, c.pair_word, c.weight)


def overlap_title(c: Candidates) -> FloatArray:
    """The same, of the title alone."""
    return _share(c, c.title_owner, c.title_word, c.weight)


def overlap_local(c: Candidates) -> FloatArray:
    """The same, of title or text, by how rare a word is among the candidates: what tells these apart."""
    return _share(c, c.pair_owner, c.pair_word, c.local_weight)


def _share(c: Candidates, owner: Ints, word: Ints, weight: FloatArray) -> FloatArray:
    there = c.known[word]
    whole = float(weight[c.asked_words].sum())
    return c.total(weight[word[there]], owner[there]) / (whole or 1.0)


def rarest_missing(c: Candidates) -> FloatArray:
    """What the most telling word of the question says that the passage lacks, 0 to 1; 0 where it lacks none."""
    has = np.zeros((c.n, len(c.asked_words)), dtype=bool)
    there = c.known[c.pair_word]
    has[c.pair_owner[there], np.searchsorted(c.asked_words, c.pair_word[there])] = True
    return np.asarray((~has * c.weight[c.asked_words]).max(axis=1, initial=0.0))


def names_missing(c: Candidates) -> FloatArray:
    """Share of the question's words with a capital, its first word aside, that the passage lacks; NaN without any."""
    names = np.unique(c.asked[1:][c.asked_capital[1:]])
    if not len(names):
        return np.full(c.n, np.nan)
    return 1 - c.total(np.ones(len(c.pair_word)) * np.isin(c.pair_word, names), c.pair_owner) / len(names)


def bm25(c: Candidates) -> FloatArray:
    """BM25 by the learned weights (k1 1.2, b 0.75): how often the question's words stand there counts, and length."""
    counted = np.unique(c.owner[c.hits] * c.size + c.token[c.hits], return_counts=True)
    owner, word, times = counted[0] // max(1, c.size), counted[0] % max(1, c.size), counted[1]
    norm = 1.2 * (0.25 + 0.75 * c.length / max(1.0, float(c.length.mean())))
    return c.total(c.weight[word] * times * 2.2 / (times + norm[owner]), owner) / c.asked_weight


def density(c: Candidates) -> FloatArray:
    """What the question's words say, each time one stands there, by word of the passage."""
    return np.asarray(c.total(c.weight[c.token[c.hits]], c.owner[c.hits]) / np.maximum(1, c.length))


def window(c: Candidates) -> FloatArray:
    """The share of the question that stands within 20 words of each other, at its best place, 0 to 1."""
    found = np.zeros(c.n)
    np.maximum.at(found, c.owner[c.hits], c.windows)
    return found / c.asked_weight


def window_at(c: Candidates) -> FloatArray:
    """log(1 + where that place begins, in words): what a passage is about stands in front."""
    best, at = once(c, "window", window) * c.asked_weight, np.full(c.n, np.nan)
    owner = c.owner[c.hits]
    first = np.flatnonzero(c.windows >= best[owner] - 1e-12)[::-1]
    at[owner[first]] = c.at[c.hits[first]]
    return np.asarray(np.log1p(at))


def pairs(c: Candidates) -> FloatArray:
    """Share of the question's pairs of neighbouring words that stand in the passage so."""
    return _runs_share(c, 2)


def triples(c: Candidates) -> FloatArray:
    """Share of the question's runs of three words that stand in the passage so."""
    return _runs_share(c, 3)


def _runs_share(c: Candidates, length: int) -> FloatArray:
    asked = np.unique(c.asked_runs(length))
    if not len(asked):
        return np.full(c.n, np.nan)
    runs = c.runs(c.hits, length)
    place = np.minimum(np.searchsorted(asked, runs), len(asked) - 1)
    there = np.flatnonzero(asked[place] == runs)
    both = np.unique(c.owner[c.hits[there]] * len(asked) + place[there])
    return np.bincount(both // len(asked), minlength=c.n) / len(asked)


# --- the title -----------------------------------------------------------------------------------------------------


def title_new(c: Candidates) -> FloatArray:
    """Number of the title's words that the question lacks."""
    return c.total(~c.known[c.title_word], c.title_owner)


def title_known(c: Candidates) -> FloatArray:
    """What the title's words say that the question has, as a share of all of the title's: 1, the question names it."""
    said = c.total(c.weight[c.title_word], c.title_owner)
    known = c.total(c.weight[c.title_word] * c.known[c.title_word], c.title_owner)
    return np.where(said > 0, known / np.where(said > 0, said, 1), np.nan)


def title_length(c: Candidates) -> FloatArray:
    """Words of the title."""
    return c.title_length.astype(np.float64)


def title_repeated(c: Candidates) -> FloatArray:
    """Number of other candidates with the same title: pieces of one page."""
    titles = [p.title for p in c.passages]
    counts = {title: titles.count(title) for title in set(titles)}
    return np.array([counts[t] - 1 if t else np.nan for t in titles], dtype=np.float64)


def mentioned(c: Candidates) -> FloatArray:
    """Number of other candidates whose text holds this one's title: the other half of a question of two steps."""
    return c.mentions[0]


def mentions(c: Candidates) -> FloatArray:
    """Number of other candidates' titles that this one's text holds."""
    return c.mentions[1]


# --- what the passage says that the question does not --------------------------------------------------------------


def length(c: Candidates) -> FloatArray:
    """log(1 + words of title and text)."""
    return np.asarray(np.log1p(c.length))


def capitals(c: Candidates) -> FloatArray:
    """Share of the passage's different words that are written with a capital and new: names that may be the answer."""
    return _new(c, c.capital & ~c.number)


def numbers(c: Candidates) -> FloatArray:
    """Share of the different words that are new numbers."""
    return _new(c, c.number)


def years(c: Candidates) -> FloatArray:
    """Number of new years: four digits from 1000 to 2999."""
    return c.total(c.year[c.pair_word] & ~c.known[c.pair_word], c.pair_owner)


def rareness(c: Candidates) -> FloatArray:
    """What a new word says on average, 0 to 1."""
    new = ~c.known[c.pair_word]
    counts = np.maximum(1, c.total(new, c.pair_owner))
    return c.total(c.weight[c.pair_word] * new, c.pair_owner) / counts


def _new(c: Candidates, kind: Flags) -> FloatArray:
    found = kind[c.pair_word] & ~c.known[c.pair_word]
    return c.total(found, c.pair_owner) / np.maximum(1, c.total(np.ones(len(found)), c.pair_owner))


def capitals_near(c: Candidates) -> FloatArray:
    """log(1 + new words with a capital within 10 words of a telling word of the question)."""
    return _near(c, c.token_capital & ~c.number[c.token])


def numbers_near(c: Candidates) -> FloatArray:
    """log(1 + new numbers within 10 words of a telling word of the question)."""
    return _near(c, c.number[c.token])


def _near(c: Candidates, kind: Flags) -> FloatArray:
    return np.asarray(np.log1p(c.total(kind & c.near & ~c.known[c.token] & ~c.in_title, c.owner)))


# --- agreement between candidates ----------------------------------------------------------------------------------


def agreement(c: Candidates) -> FloatArray:
    """Mean share of other candidates that have a new word of the passage, by what the word says."""
    if c.n < 2:
        return np.full(c.n, np.nan)
    new = ~c.known[c.pair_word]
    owner, word = c.pair_owner[new], c.pair_word[new]
    said = c.total(c.weight[word], owner)
    shared = c.total(c.weight[word] * (c.frequency[word] - 1) / (c.n - 1), owner)
    return np.where(said > 0, shared / np.where(said > 0, said, 1), np.nan)


def names_agreed(c: Candidates) -> FloatArray:
    """The most other candidates that share one new name or number of the passage, as a share of them: what many
    passages name is likely the answer."""
    if c.n < 2:
        return np.full(c.n, np.nan)
    kind = (c.capital | c.number) & ~c.known & (c.weight > 0.4)
    there = kind[c.pair_word]
    found = np.zeros(c.n)
    np.maximum.at(found, c.pair_owner[there], (c.frequency[c.pair_word[there]] - 1) / (c.n - 1))
    return found


def pseudo_shared(c: Candidates) -> FloatArray:
    """What the pseudo-passage's new words say that the passage has, as a share of all of them: what the language model
    remembers of its own. NaN where there is no pseudo-passage."""
    if not c.generated.any():
        return np.full(c.n, np.nan)
    written = np.unique(c.pair_word[c.generated[c.pair_owner]])
    weight = np.zeros(c.size)
    weight[written] = c.weight[written]
    weight[c.asked_words] = 0
    whole = float(weight.sum())
    return c.total(weight[c.pair_word], c.pair_owner) / whole if whole else np.full(c.n, np.nan)


# --- the question --------------------------------------------------------------------------------------------------


def asking(c: Candidates) -> FloatArray:
    """The number of its first word with which questions are asked (who, which, when), learned in training."""
    return _asking(c, 0)


def asking_second(c: Candidates) -> FloatArray:
    """The number of the second such word: "how many", "which year"."""
    return _asking(c, 1)


def _asking(c: Candidates, which: int) -> FloatArray:
    numbers = c.words.numbers
    known = [numbers[w] for w in map(as_compared, words_of(c.question)) if w in numbers]
    return np.full(c.n, known[which] if len(known) > which else np.nan)


def asked_length(c: Candidates) -> FloatArray:
    """Words of the question."""
    return np.full(c.n, float(len(c.asked)))


def asked_weight(c: Candidates) -> FloatArray:
    """What the question's different words say on average: a question of names, or one of common words."""
    return np.full(c.n, c.asked_weight / max(1, len(c.asked_words)))


def asked_numbers(c: Candidates) -> FloatArray:
    """Number of the question's words that begin with a digit."""
    return np.full(c.n, float(c.number[c.asked].sum()))


# --- choices -------------------------------------------------------------------------------------------------------


def choice_best(c: Candidates) -> FloatArray:
    """The highest share, over the choices, of what a choice's words say that stand in the passage; NaN without any."""
    return _choices(c).max(axis=0) if c.choices else np.full(c.n, np.nan)


def choice_lead(c: Candidates) -> FloatArray:
    """How far that share is above the second choice's: a passage that decides."""
    if len(c.choices) < 2:
        return np.full(c.n, np.nan)
    ordered = np.sort(_choices(c), axis=0)
    return np.asarray(ordered[-1] - ordered[-2])


def _choices(c: Candidates) -> FloatArray:
    """By choice and passage, the share of what the choice's words say that stand there."""
    found = np.zeros((len(c.choices), c.n))
    for row, choice in zip(found, c.choices, strict=True):
        own = {as_compared(w) for w in words_of(choice)}
        whole = sum(c.words.weight(w) for w in own)
        known = [c.numbers[w] for w in own if w in c.numbers]
        there = np.isin(c.pair_word, known)
        row += c.total(c.weight[c.pair_word] * there, c.pair_owner) / (whole or 1.0)
    return found


# --- the table -----------------------------------------------------------------------------------------------------


def relative(c: Candidates, of: Feature) -> FloatArray:
    """A feature in standard deviations from its mean over the question's candidates: what ranks within a question."""
    values = once(c, of.__name__, of)
    known = np.isfinite(values)
    spread = float(values[known].std()) if known.any() else 0.0
    return (values - values[known].mean()) / spread if spread > 0 else np.where(known, 0.0, np.nan)


def _table() -> dict[str, Feature]:
    plain: tuple[Feature, ...] = (
        score_mean, score_best, score_worst, score_gap, score_rank, place, candidates, generated,
        overlap, overlap_title, overlap_local, rarest_missing, names_missing, bm25, density, window, window_at, pairs,
        triples, title_new, title_known, title_length, title_repeated, mentioned, mentions, length, capitals, numbers,
        years, rareness, capitals_near, numbers_near, agreement, names_agreed, pseudo_shared, asking, asking_second,
        asked_length, asked_weight, asked_numbers, choice_best, choice_lead,
    )  # fmt: skip
    found: dict[str, Feature] = {feature.__name__: feature for feature in plain}
    for feature in (retriever_z, retriever_raw, retriever_gap):
        for name in ("bm25", "dense"):
            found[f"{feature.__name__.removeprefix('retriever_')}_{name}"] = partial(feature, name=name)
    for of in (overlap, overlap_local, bm25, density, window, pairs, agreement, length, pseudo_shared, choice_best):
        found[f"{of.__name__}_relative"] = partial(relative, of=of)
    return found


# Those that are numbers of things, not amounts.
CATEGORIES = ("asking", "asking_second")

# By name, one number a passage.
FEATURES: dict[str, Feature] = _table()


def matrix(
    question: str, passages: Sequence[Passage], words: Words, names: Sequence[str] = tuple(FEATURES)
) -> FloatArray:
    """The features of each passage, [passage, feature], NaN where one is not known.

    Args:
        question: with its choices, where it has any, see `gainrag.prompts.question_with_choices`.
        words: what was learned about words.
        names: which features, in the order of the columns.

    Raises:
        KeyError: there is no such feature.
    """
    if not passages:
        return np.empty((0, len(names)))
    seen = Candidates(question, passages, words)
    with np.errstate(invalid="ignore"):
        return np.stack([once(seen, name, FEATURES[name]) for name in names], axis=1)
