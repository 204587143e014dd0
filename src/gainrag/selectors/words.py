"""The words of texts in any script, and what a feature selector learned about them: how common each one is.

A word is a run of letters, digits and marks; in scripts without spaces between words a character is one (see
`gainrag.metrics.fold`). No list of a language's stop words is used: how common a word is was counted in the passages
that a selector was trained on, and the words with which people ask were found by comparing questions with passages.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import msgspec
import regex

from gainrag.metrics import fold, spaced
from gainrag.records import Passage

_WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+")
# Most texts beyond ASCII have Latin letters and dashes: neither marks nor scripts without spaces, which a faster
# library finds the same words in.
_FURTHER = re.compile("[^\u0000-\u02ff\u2000-\u206f]")
_LATIN = re.compile(r"[^\W_]+")
_ASCII = {ord(c): " " for c in map(chr, range(128)) if c not in string.ascii_letters + string.digits}

# So many words are kept with their counts; the rest counts as rarer than all of them.
KEPT = 6000
# So many words with which questions are asked, each so many times as frequent in questions as in passages.
ASKING, RATIO = 32, 4.0


def words_of(text: str) -> list[str]:
    """The words as they are written, case and all.

    >>> words_of("Who wrote Emma, in 1815?"), words_of("在北京 now")
    (['Who', 'wrote', 'Emma', 'in', '1815'], ['在', '北', '京', 'now'])
    """
    if text.isascii():
        return text.translate(_ASCII).split()
    if not _FURTHER.search(text):
        return _LATIN.findall(text)
    found: list[str] = _WORD.findall(spaced(text))
    return found


@lru_cache(maxsize=65536)
def as_compared(word: str) -> str:
    """One word as it is compared: case and forms that look alike folded."""
    return fold(word).strip()


class Words(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What was learned about words.

    documents: how many passages were read.
    counts: in how many of them each of the most frequent words stands.
    asking: words with which questions are asked ("who", "which", "谁"), most frequent first.
    """

    documents: int = 0
    counts: dict[str, int] = {}
    asking: list[str] = []

    @cached_property
    def rarest(self) -> float:
        """The weight of a word that is not among `counts`."""
        return self._weight(min(self.counts.values(), default=2) / 2)

    def _weight(self, count: float) -> float:
        """log(documents / count), as a share of its highest value: 0 for a word in every passage. Where nothing is
        known all words weigh 1."""
        if not self.counts:
            return 1.0
        return max(0.0, math.log((self.documents + 1) / (count + 0.5)) / math.log(2 * self.documents + 2))

    @cached_property
    def weights(self) -> dict[str, float]:
        """How much each of the most frequent words says, from 0 to 1."""
        return {word: self._weight(count) for word, count in self.counts.items()}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word with which questions are asked."""
        return {word: n for n, word in enumerate(self.asking)}

    def weight(self, word: str) -> float:
        """How much a word says (its idf as a share of the highest), from 0 to 1."""
        return self.weights.get(word, self.rarest)


def learn_words(questions: Iterable[str], passages: Iterable[Passage], *, kept: int = KEPT) -> Words:
    """Count words in passages and questions, each different text once."""
    texts = {f"{p.title} {p.text}" for p in passages if p.origin != "generated"}
    counts, length = _documents(texts)
    asking, asked_length = _documents(dict.fromkeys(questions))
    # Per word of text: a passage is longer than a question, and holds any word more often.
    likely = [w for w, n in _most(asking, 40 * ASKING) if n / asked_length > RATIO * counts[w] / max(1, length)]
    return Words(documents=len(texts), counts=dict(_most(counts, kept)), asking=likely[:ASKING])


def _documents(texts: Iterable[str]) -> tuple[Counter[str], int]:
    """In how many texts each word stands, and the sum of these numbers."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update({as_compared(word) for word in words_of(text)})
    return found, found.total()


def _most(counts: Counter[str], kept: int) -> Sequence[tuple[str, int]]:
    """The most frequent words; of equals the first by name, so that the same texts give the same table."""
    return sorted(((w, n) for w, n in counts.items() if n > 1), key=lambda item: (-item[1], item[0]))[:kept]
