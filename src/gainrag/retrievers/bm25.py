"""Retrieval by words: BM25 (Lucene's form) over stemmed English words without stop words."""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.files.progress import progress
from gainrag.prompts import selector_text
from gainrag.records import Passage, Scored
from gainrag.retrievers.store import damaged, hold, scored, top_rows

if TYPE_CHECKING:
    import bm25s

# A word of one character counts: "season 2" is not "season 3".
_WORD = re.compile(r"\w+")


class BM25:
    """A BM25 index and the passages it was made from. Make it with `build` or `load`.

    A passage's title counts as part of its text. A passage that shares no word with the question scores 0; such
    passages fill a ranking up to k, in the order of the corpus. Several threads may search at a time.
    """

    def __init__(self, engine: bm25s.BM25, passages: Sequence[Passage]) -> None:
        self._engine = engine
        self.passages = passages
        self._words = _word_splitter()

    @classmethod
    def build(cls, passages: Iterable[Passage]) -> BM25:
        """Index passages: a `PassageStore` is read from disk as it goes, anything else is held in memory.

        Raises:
            DataError: there is no passage.
        """
        import bm25s

        held = hold(passages)
        words = _word_splitter()
        # Word 0 is the empty word, which no text has: a corpus of stop words alone has a vocabulary, too.
        vocabulary: dict[str, int] = {"": 0}
        ids: list[array[int]] = []
        for passage in progress(held, "reading words", unit="passages", total=len(held)):
            ids.append(array("i", [vocabulary.setdefault(w, len(vocabulary)) for w in words(selector_text(passage))]))
        engine = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        # Passages without any word divide 0 by 0 on the way to no score at all.
        with np.errstate(invalid="ignore"):
            engine.index((ids, vocabulary), show_progress=False)
        return cls(engine, held)

    def save(self, folder: str | Path) -> None:
        """Write the word index (not the passages) as arrays and JSON."""
        self._engine.save(str(folder), show_progress=False, allow_pickle=False)

    @classmethod
    def load(cls, folder: str | Path, passages: Sequence[Passage]) -> BM25:
        """Open what `save` wrote, mapped into memory.

        Raises:
            DataError: the folder is damaged or was made from other passages.
        """
        import bm25s

        try:
            engine = bm25s.BM25.load(str(folder), mmap=True, allow_pickle=False, show_progress=False)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise damaged(folder, str(error)) from None
        if engine.scores["num_docs"] != len(passages):
            raise damaged(folder, f"{engine.scores['num_docs']} documents but {len(passages)} passages")
        return cls(engine, passages)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first; equal scores in the order of the corpus."""
        found = []
        for question in questions:
            ids = self._engine.get_tokens_ids(self._words(question))
            scores = self._engine.get_scores_from_ids(ids)
            found.append([scored(self.passages[int(row)], float(scores[row])) for row in top_rows(scores, k)])
        return found


def _word_splitter() -> Callable[[str], list[str]]:
    """text -> its words: lower case, stop words left out, stemmed. The stemmer keeps what it works on: one thread at a
    time."""
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

    stop_words = frozenset(STOPWORDS_EN)
    stemming = threading.Lock()
    stem: Any = Stemmer.Stemmer("english").stemWords

    def words(text: str) -> list[str]:
        found = [word for word in _WORD.findall(text.lower()) if word not in stop_words]
        with stemming:
            return list(stem(found))

    return words
