"""A question and its candidate passages as arrays of word numbers: what features are computed from.

Everything is made once for a question and for all its passages together, so that a feature is a few operations on
arrays, not a loop over passages: 101 passages of a hundred words have ten thousand words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain, count

import numpy as np
import numpy.typing as npt

from gainrag.prompts import split_choices
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.words import Words, as_compared, words_of

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Words of a window in which question words are looked for together.
WINDOW = 20
# Numbers of a table that are held at a time: one request must not take all memory.
CELLS = 8_000_000
# The longest title that is looked for in other passages, in words.
TITLE = 6


class Candidates:
    """What the features share.

    Words have numbers, from 0, that mean something within one question only. A token is a word at its place.

    n: how many passages there are.
    token, owner, at, in_title: by token its word, its passage, its place in the passage, whether it is in the title.
    weight, number, year, capital: by word how much it says (0 to 1), whether it begins with a digit, is a year, is
        written with a capital somewhere.
    asked: the question's words in their order; `known` marks by word those that the question has.
    pair_word, pair_owner: each passage's different words, as two arrays of equal length.
    memory: what was computed once, by name.
    """

    def __init__(self, question: str, passages: Sequence[Passage], words: Words) -> None:
        self.question, self.choices = split_choices(question)
        self.memory: dict[str, FloatArray] = {}
        self.passages, self.words, self.n = passages, words, len(passages)
        self.generated = np.array([p.origin == "generated" for p in passages], dtype=bool)
        titles = [words_of(p.title) if p.title else [] for p in passages]
        texts = [words_of(p.text) for p in passages]
        written_asked = words_of(self.question)
        parts = [part for pair in zip(titles, texts, strict=True) for part in pair]
        numbers = _numbering()
        raw = np.fromiter(map(numbers.__getitem__, chain(written_asked, *parts)), dtype=np.int64)
        self._number(list(numbers), words)
        folded = self._folded[raw]
        self.asked, self.token = folded[: len(written_asked)], folded[len(written_asked) :]
        self.token_capital = self._written_capital[raw[len(written_asked) :]]
        self.asked_capital = self._written_capital[raw[: len(written_asked)]]
        lengths = np.array([len(part) for part in parts], dtype=np.int64).reshape(-1, 2)
        self.title_length = lengths[:, 0]
        self.length = lengths.sum(axis=1)
        self.owner = np.repeat(np.arange(self.n), self.length)
        self.start = np.cumsum(self.length) - self.length
        self.at = np.arange(len(self.token)) - self.start[self.owner]
        self.in_title = self.at < self.title_length[self.owner]
        self.known = np.zeros(self.size, dtype=bool)
        self.known[self.asked] = True
        self.pair_owner, self.pair_word = self._pairs(self.owner, self.token)
        title = self.in_title
        self.title_owner, self.title_word = self._pairs(self.owner[title], self.token[title])

    def _number(self, written: list[str], words: Words) -> None:
        """Number the words as they are compared, and note what each is like."""
        numbers = _numbering()
        compared = [w.lower() if w.isascii() else as_compared(w) for w in written]
        self._folded = np.fromiter(map(numbers.__getitem__, compared), dtype=np.int64)
        self._written_capital = np.array([w[0].isupper() for w in written], dtype=bool)
        self.numbers, self.size = dict(numbers), len(numbers)
        rarest, weights = words.rarest, words.weights
        self.weight = np.array([weights.get(w, rarest) for w in numbers], dtype=np.float64)
        self.number, self.year = np.zeros(self.size, dtype=bool), np.zeros(self.size, dtype=bool)
        for n, word in enumerate(numbers):
            if word[:1].isdigit():
                self.number[n] = True
                self.year[n] = len(word) == 4 and word[0] in "12" and word.isdigit()

    def _pairs(self, owner: Ints, word: Ints) -> tuple[Ints, Ints]:
        """Each passage's different words."""
        both = np.unique(owner * self.size + word)
        return both // max(1, self.size), both % max(1, self.size)

    def total(self, values: npt.ArrayLike, owner: Ints) -> FloatArray:
        """The sum of values by passage."""
        found = np.bincount(owner, weights=np.asarray(values, dtype=np.float64), minlength=self.n)
        return np.asarray(found, dtype=np.float64)

    @cached_property
    def asked_words(self) -> Ints:
        """The question's different words."""
        return np.unique(self.asked)

    @cached_property
    def asked_weight(self) -> float:
        """How much all of the question's words say."""
        return float(self.weight[self.asked_words].sum()) or 1.0

    @cached_property
    def frequency(self) -> FloatArray:
        """By word, in how many of the passages it stands."""
        return np.bincount(self.pair_word, minlength=self.size).astype(np.float64)

    @cached_property
    def local_weight(self) -> FloatArray:
        """By word, how rare it is among the passages: log((n + 1) / (passages that have it + 0.5))."""
        return np.maximum(0.0, np.log((self.n + 1) / (self.frequency + 0.5)))

    @cached_property
    def capital(self) -> Flags:
        """By word, whether some passage writes it with a capital inside its text."""
        found = np.zeros(self.size, dtype=bool)
        found[self.token[self.token_capital & (self.at > self.title_length[self.owner])]] = True
        return found

    @cached_property
    def hits(self) -> Ints:
        """The tokens that are words of the question, by their number among all tokens."""
        return np.flatnonzero(self.known[self.token])

    @cached_property
    def windows(self) -> FloatArray:
        """By hit, how much the question's different words say that stand in the window that begins there."""
        end = np.minimum(self.hits + WINDOW, (self.start + self.length)[self.owner[self.hits]])
        last, hit = np.searchsorted(self.hits, end), np.arange(len(self.hits))
        found: FloatArray = np.zeros(len(self.hits))
        # Of all words of a question at once; of some at a time where a long question meets long passages.
        step = max(1, CELLS // (len(self.hits) + 1))
        for first in range(0, len(self.asked_words), step):
            asked = self.asked_words[first : first + step]
            rows = np.full(self.size, -1, dtype=np.int64)
            rows[asked] = np.arange(len(asked))
            row = rows[self.token[self.hits]]
            # By question word and hit, how often the word stood before it: the difference of two tells what is between.
            seen = np.zeros((len(asked), len(self.hits) + 1), dtype=np.int32)
            seen[row[row >= 0], hit[row >= 0] + 1] = 1
            np.cumsum(seen, axis=1, out=seen)
            there = seen[:, last] > seen[:, hit]
            found = found + self.weight[asked] @ there
        return found

    @cached_property
    def near(self) -> Flags:
        """By token, whether a word of the question that says something stands within half a window."""
        strong = self.hits[self.weight[self.token[self.hits]] >= 0.3]
        edges = np.zeros(len(self.token) + 1, dtype=np.int64)
        owner = self.owner[strong]
        np.add.at(edges, np.maximum(strong - WINDOW // 2, self.start[owner]), 1)
        np.add.at(edges, np.minimum(strong + WINDOW // 2 + 1, (self.start + self.length)[owner]), -1)
        return np.cumsum(edges)[:-1] > 0

    def runs(self, where: Ints, length: int) -> npt.NDArray[np.uint64]:
        """By token given, a number for the run of so many tokens that begins there: equal for equal runs; 0 where the
        passage ends before."""
        left = self.length[self.owner[where]] - self.at[where]
        return _runs(self.token, where, left, length)

    def asked_runs(self, length: int) -> npt.NDArray[np.uint64]:
        """The numbers of the question's runs of so many words."""
        size = len(self.asked)
        found = _runs(self.asked, np.arange(size), size - np.arange(size), length)
        return found[found > 0]

    @cached_property
    def mentions(self) -> tuple[FloatArray, FloatArray]:
        """By passage, how many other passages hold its title in their text, and how many others' titles its text holds.

        A title that the question has, too, links nothing; nor does one of more than TITLE words.
        """
        into, out = np.zeros(self.n), np.zeros(self.n)
        begins = np.zeros(self.size, dtype=bool)
        begins[self.token[self.start[self.title_length > 0]]] = True
        where = np.flatnonzero(begins[self.token] & ~self.in_title)
        for length in range(1, TITLE + 1):
            titled = np.flatnonzero(self.title_length == length)
            if not len(titled):
                continue
            runs = self.runs(where, length)
            distinct, which = np.unique(self.runs(self.start[titled], length), return_inverse=True)
            # Where a title stands in a text: by title and passage, each pair once.
            place = np.minimum(np.searchsorted(distinct, runs), len(distinct) - 1)
            found = np.flatnonzero(distinct[place] == runs)
            pairs = np.unique(place[found] * self.n + self.owner[where[found]])
            holders, held = np.bincount(pairs // self.n, minlength=len(distinct)), pairs % self.n
            own = np.isin(which * self.n + titled, pairs)
            into[titled] = np.maximum(0, holders[which] - own)
            out += np.bincount(held, minlength=self.n)
            out[titled] -= own
        return into, out


def _numbering() -> defaultdict[str, int]:
    """A dictionary that gives each word asked for the next number."""
    return defaultdict(count().__next__)


def _runs(token: Ints, where: Ints, left: Ints, length: int) -> npt.NDArray[np.uint64]:
    """A number for each run that begins `where`, 0 where fewer tokens are left."""
    found = np.zeros(len(where), dtype=np.uint64)
    whole = np.flatnonzero(left >= length)
    number = np.full(len(whole), 1469598103934665603 + length, dtype=np.uint64)
    for step in range(length):
        number = (number ^ (token[where[whole] + step].astype(np.uint64) + np.uint64(1))) * np.uint64(1099511628211)
    found[whole] = number | np.uint64(1)
    return found


# One number a passage.
Feature = Callable[[Candidates], FloatArray]


def once(c: Candidates, name: str, feature: Feature) -> FloatArray:
    """A feature that others build on, computed once."""
    if name not in c.memory:
        c.memory[name] = feature(c)
    return c.memory[name]
