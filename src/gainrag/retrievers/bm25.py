"""Retrieval by words: BM25 (Lucene's form) over stemmed English words without stop words."""

from __future__ import annotations

import re
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import DataError
from gainrag.files.progress import progress
from gainrag.files.streams import read_json
from gainrag.prompts import selector_text
from gainrag.records import Passage, Scored
from gainrag.retrievers.store import damaged, hold, load_array, scored, top_rows
from gainrag.retrievers.words import Ints, weigh_words

if TYPE_CHECKING:
    import bm25s

# A word of one character counts: "season 2" is not "season 3".
_WORD = re.compile(r"\w+")
# The form of BM25: the scores in an index are its.
_FORM: dict[str, Any] = {"method": "lucene", "k1": 1.5, "b": 0.75}
# Passages of a block while an index is built, and words at which it ends sooner: some 200 MB of memory.
_BLOCK, _BLOCK_WORDS = 50_000, 4_000_000


class BM25:
    """A BM25 index and the passages it was made from. Make it with `build` or `load`.

    A passage's title counts as part of its text. A passage that shares no word with the question scores 0; such
    passages fill a ranking up to k, in the order of the corpus. Several threads may search at a time.
    """

    def __init__(self, engine: bm25s.BM25, passages: Sequence[Passage], where: str | Path = "bm25") -> None:
        self._engine = engine
        self.passages = passages
        self._where = where
        self._words = word_splitter()

    @classmethod
    def build(cls, passages: Iterable[Passage], *, scratch: str | Path | None = None) -> BM25:
        """Index passages: a `PassageStore` is read from disk as it goes, anything else is held in memory.

        The index is that of `bm25s.BM25.index`, number for number. That one needs all words of a corpus in memory at
        once, several times over; here it is the vocabulary, and one block of passages.

        Args:
            scratch: a folder on a disk that has room for what is made on the way, about 20 bytes for each word of each
                passage: it is mapped into memory, and gone with the process. By default it is held in memory.

        Raises:
            DataError: there is no passage.
        """
        held = hold(passages)
        # Word 0 is the empty word, which no text has: a corpus of stop words alone has a vocabulary, too.
        vocabulary: dict[str, int] = {"": 0}
        scores = weigh_words(_numbered(held, vocabulary), vocabulary, _FORM["k1"], _FORM["b"], scratch)
        return cls(_engine(vocabulary, {**scores, "num_docs": len(held)}), held)

    def save(self, folder: str | Path) -> None:
        """Write the word index (not the passages) as arrays and JSON."""
        self._engine.save(str(folder), show_progress=False, allow_pickle=False)

    @classmethod
    def load(cls, folder: str | Path, passages: Sequence[Passage]) -> BM25:
        """Open what `save` wrote, mapped into memory.

        Raises:
            DataError: the folder is damaged or was made from other passages.
        """
        folder = Path(folder)
        try:
            params = read_json(folder / "params.index.json")
            words = msgspec.convert(read_json(folder / "vocab.index.json"), dict[str, int])
        except (DataError, msgspec.ValidationError) as error:
            raise damaged(folder, str(error)) from None
        if (documents := params.get("num_docs")) != len(passages):
            raise damaged(folder, f"{documents} documents but {len(passages)} passages")
        if other := [key for key, value in _FORM.items() if params.get(key) != value]:
            raise damaged(folder, f"{other[0]} is {params.get(other[0])}, not {_FORM[other[0]]}")
        data = load_array(folder / "data.csc.index.npy", np.float32)
        rows = load_array(folder / "indices.csc.index.npy", np.int32, length=len(data))
        starts = _starts(folder / "indptr.csc.index.npy", len(data))
        if sorted(words.values()) != list(range(len(starts) - 1)):
            raise damaged(folder, f"the words' numbers are not those of its {len(starts) - 1} words")
        # Read without a sign, a negative row is one beyond the corpus: an error where it is used, not another passage.
        scores = {"data": data, "indices": rows.view(np.uint32), "indptr": starts, "num_docs": len(passages)}
        return cls(_engine(words, scores), passages, folder)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first; equal scores in the order of the corpus."""
        found = []
        for question in questions:
            ids = self._engine.get_tokens_ids(self._words(question))
            try:
                scores = self._engine.get_scores_from_ids(ids)
            except IndexError as error:
                raise damaged(self._where, str(error)) from None
            if not ((scores >= 0) & (scores < np.inf)).all():  # nor is NaN
                raise damaged(self._where, "scores that are no numbers from 0 up")
            found.append([scored(self.passages[int(row)], float(scores[row])) for row in top_rows(scores, k)])
        return found


def _engine(words: dict[str, int], scores: dict[str, Any]) -> bm25s.BM25:
    """A search engine over scores that are there already."""
    import bm25s

    engine = bm25s.BM25(**_FORM)
    engine.vocab_dict, engine.unique_token_ids_set = words, set(words.values())
    engine.nonoccurrence_array = None  # Lucene's form has none
    engine.scores = scores
    return engine


def _numbered(passages: Sequence[Passage], vocabulary: dict[str, int]) -> Iterator[tuple[Ints, Ints]]:
    """The passages in blocks, as `weigh_words` takes them; new words get the next numbers of the vocabulary."""
    words = word_splitter()
    ids, lengths = array("i"), array("i")
    for passage in progress(passages, "reading words", unit="passages", total=len(passages)):
        before = len(ids)
        ids.extend([vocabulary.setdefault(w, len(vocabulary)) for w in words(selector_text(passage))])
        lengths.append(len(ids) - before)
        if len(lengths) == _BLOCK or len(ids) >= _BLOCK_WORDS:
            yield np.array(lengths), np.array(ids)
            ids, lengths = array("i"), array("i")
    if lengths:
        yield np.array(lengths), np.array(ids)


def _starts(file: Path, end: int) -> npt.NDArray[Any]:
    """Where each word's passages begin in the arrays of scores and rows, and where the last one's end.

    Raises:
        DataError: they do not go up from 0 to the end.
    """
    found = load_array(file, np.int64, np.int32)
    if len(found) < 2 or found[0] != 0 or found[-1] != end or (np.diff(found) < 0).any():
        raise damaged(file.parent, f"{file.name} does not go up from 0 to {end}")
    return found


def word_splitter() -> Callable[[str], list[str]]:
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
