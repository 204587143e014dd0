"""Retrieval by meaning: a sentence encoder's vectors, searched by inner product: exactly, or compressed.

Vectors are brought to length 1 (cosine similarity) unless the encoder was trained for their plain dot product, as
Contriever was: its vectors are the mean of its last layer, which sentence-transformers takes for any encoder that
comes without a recipe of its own.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gainrag.errors import ModelError
from gainrag.files.progress import progress_bar, say
from gainrag.prompts import selector_text
from gainrag.records import Passage, Scored
from gainrag.retrievers.compressed import Compressed, Compression
from gainrag.retrievers.store import damaged, hold, scored, top_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "embedded:all-minilm-l6-v2"

logger = logging.getLogger(__name__)

# Encoded at a time: enough batches for passages of like length to share one, little enough to hold in memory.
_BATCHES_A_CHUNK = 8
# Single-precision sums differ in their last digits with their order: scores equal to six places are equal.
_PLACES = 6
# So many more than k are fetched, so that equal scores at the cut fall in the order of the corpus.
_SPARE = 16
# Vectors looked at in one go when an index is opened.
_ROWS = 1 << 16


class Dense:
    """Encoded passages in a FAISS index, flat or compressed. Make it with `build` (flat) or `load`.

    The encoder reads "title\\ntext", as a selector does; what is longer than its window is cut at the end, and
    `truncated` says of how many passages.
    """

    def __init__(
        self,
        vectors: Any,
        passages: Sequence[Passage],
        encoder: SentenceTransformer,
        model: str,
        normalize: bool,
        truncated: int | None,
    ) -> None:
        self._vectors = vectors
        self.passages = passages
        self._encoder = encoder
        self.model = model
        self.normalize = normalize
        self.truncated = truncated
        self._encoding = threading.Lock()  # the encoder's tokenizer keeps how long a text may be

    @classmethod
    def build(
        cls,
        passages: Iterable[Passage],
        *,
        model: str = MODEL,
        normalize: bool = True,
        batch_size: int = 64,
        known: Known | None = None,
    ) -> Dense:
        """Encode passages: a `PassageStore` is read from disk as it goes, anything else is held in memory.

        The vectors are held in memory while they are made: 4 bytes x dimension a passage.

        Args:
            model: the sentence encoder: `embedded:NAME`, a Hugging Face id or a local folder.
            normalize: compare by cosine; off for encoders made for the dot product.
            batch_size: passages encoded at a time.
            known: vectors of the same encoder, made in the same way, that are taken for passages of the same text.

        Raises:
            DataError: there is no passage.
            ModelError: the encoder cannot be loaded, or gives vectors that are not finite.
        """
        import faiss

        held = hold(passages)
        encoder = load_encoder(model)
        vectors, truncated, taken = faiss.IndexFlatIP(dimension_of(encoder)), 0, 0
        with progress_bar("encoding", unit="passages", total=len(held)) as bar:
            for block in encode_passages(encoder, held, Encoding(model, normalize, batch_size), known=known):
                vectors.add(block.vectors)
                truncated, taken = truncated + block.truncated, taken + block.taken
                bar.update(len(block.vectors))
        say_encoded(len(held), truncated, taken, encoder, model)
        return cls(vectors, held, encoder, model, normalize, truncated)

    def save(self, file: str | Path) -> None:
        """Write the vectors (not the passages)."""
        import faiss

        faiss.write_index(self._vectors, str(file))

    @classmethod
    def load(
        cls,
        file: str | Path,
        passages: Sequence[Passage],
        *,
        model: str = MODEL,
        normalize: bool = True,
        compression: Compression | None = None,
    ) -> Dense:
        """Open what `save` wrote, mapped into memory.

        Args:
            file: the vectors; where they are compressed, the folder of `gainrag.retrievers.compressed`.
            model: the encoder the vectors were made with.
            normalize: whether they were normalised.
            compression: how they were compressed; None: not at all.

        Raises:
            DataError: the file is damaged or was made from other passages or with another encoder.
            ModelError: the encoder cannot be loaded.
        """
        vectors = _open(file, len(passages), compression)
        encoder = load_encoder(model)
        if vectors.d != dimension_of(encoder):
            raise damaged(file, f"vectors of {vectors.d} numbers, but {model} makes {dimension_of(encoder)}")
        return cls(vectors, passages, encoder, model, normalize, None)

    def search(self, questions: Sequence[str], k: int) -> list[list[Scored]]:
        """The k best passages of each question, best first; equal scores in the order of the corpus."""
        if not questions:
            return []
        with self._encoding:
            queries = encode_questions(self._encoder, questions, self.model, self.normalize)
        depth = min(k + _SPARE, len(self.passages))
        scores, rows = self._vectors.search(queries, depth)
        found = []
        for line, at in zip(np.round(scores.astype(np.float64), _PLACES), rows, strict=True):
            in_order = np.argsort(at)
            line, at = line[in_order], at[in_order]
            found.append([scored(self.passages[int(at[i])], float(line[i])) for i in top_rows(line, k)])
        return found


class Encoding(NamedTuple):
    """How passages are encoded: the sentence encoder's name, whether vectors are normalised, passages at a time."""

    model: str
    normalize: bool
    batch_size: int


class Block(NamedTuple):
    """Some consecutive passages, encoded.

    vectors: [passage, dimension], float32.
    truncated: how many of them are longer than the encoder's window.
    taken: of how many the vector was known.
    """

    vectors: npt.NDArray[np.float32]
    truncated: int
    taken: int


def encode_passages(
    encoder: SentenceTransformer,
    passages: Sequence[Passage],
    how: Encoding,
    *,
    known: Known | None = None,
    start: int = 0,
    batches: int = _BATCHES_A_CHUNK,
    by_tokens: bool = False,
) -> Iterator[Block]:
    """The vectors of passages from a row on, so many batches a block.

    Within a block the encoder sorts texts by their characters, so that those of a batch are alike and little is padded.

    Args:
        by_tokens: sort them by their tokens instead, which pads less. The last digits of vectors may differ.

    Raises:
        ModelError: it gives vectors that are not finite.
    """
    chunk = how.batch_size * batches
    for at in range(start, len(passages), chunk):
        texts = [selector_text(passage) for passage in passages[at : at + chunk]]
        rows = [known.row(text) if known else None for text in texts]
        vectors = np.empty((len(texts), dimension_of(encoder)), dtype=np.float32)
        if new := [i for i, row in enumerate(rows) if row is None]:
            size = how.batch_size if by_tokens else len(new)
            if by_tokens:
                tokens = _count_tokens(encoder, [texts[i] for i in new])
                new = [new[i] for i in np.argsort(tokens, kind="stable")]
            for first in range(0, len(new), size):
                some = new[first : first + size]
                made = _encode(encoder.encode_document, [texts[i] for i in some], how.batch_size, how.normalize)
                vectors[some] = _finite(made, how.model)
        for i, row in enumerate(rows):
            if known and row is not None:
                vectors[i] = known.vector(row)
        yield Block(vectors, _count_truncated(encoder, texts), len(texts) - len(new))


def encode_questions(
    encoder: SentenceTransformer, questions: Sequence[str], model: str, normalize: bool
) -> npt.NDArray[np.float32]:
    """The vectors of questions, as [question, dimension].

    Raises:
        ModelError: they are not finite.
    """
    return _finite(_encode(encoder.encode_query, list(questions), 64, normalize), model)


def say_encoded(passages: int, truncated: int, taken: int, encoder: SentenceTransformer, model: str) -> None:
    """What a person should know of an encoding that is done."""
    if taken:
        say(f"{taken} of {passages} passages as in the index that was there: their vectors are taken from it")
    if truncated:
        logger.warning(
            "%d of %d passages are longer than the %s tokens that %s reads: their ends are not searched",
            truncated,
            passages,
            encoder.max_seq_length,
            model,
        )


class Known:
    """The vectors of an index that is there already, by the texts they were made of. Held in memory: 16 bytes a text,
    and its row.

    Args:
        file: what `Dense.save` wrote, or the folder of compressed vectors.
        passages: those of the same index.
        compression: how they were compressed; None: not at all.

    Raises:
        DataError: the file is damaged, or of other passages.
    """

    def __init__(
        self, file: str | Path, passages: Sequence[Passage], compression: Compression | None = None
    ) -> None:
        self._vectors = _open(file, len(passages), compression)
        self._rows = {_digest(selector_text(passage)): row for row, passage in enumerate(passages)}

    def row(self, text: str) -> int | None:
        """Where the vector of a text is; None where there is none."""
        return self._rows.get(_digest(text))

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        """The vector of a row."""
        return np.asarray(self._vectors.reconstruct(row), dtype=np.float32)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


# How FAISS begins the file of a flat index by inner product: its kind, the vectors' length and number, two fillers,
# whether it is trained, the metric, and how many numbers follow.
_HEADER = struct.Struct("<4siqqq?iQ")


def _open(file: str | Path, passages: int, compression: Compression | None) -> Any:
    """A flat index of FAISS, or compressed vectors, mapped into memory.

    Raises:
        DataError: it is none, damaged, or of another number of passages.
    """
    import faiss

    if compression is not None:
        return Compressed(file, passages, compression)
    _check_file(Path(file), passages)
    try:
        vectors = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise damaged(file, str(error).split("\n")[0]) from None
    _check_vectors(vectors, file)
    return vectors


def _check_file(file: Path, passages: int) -> None:
    """Whether a file is a flat index by inner product, of so many vectors, and whole: FAISS takes any kind, and
    believes what it says about its size.

    Raises:
        DataError: it is not.
    """
    try:
        with open(file, "rb") as stream:
            kind, dimension, count, _, _, _, metric, numbers = _HEADER.unpack(stream.read(_HEADER.size))
        size = file.stat().st_size
    except (OSError, struct.error) as error:
        raise damaged(file, str(error)) from None
    if kind != b"IxFI" or metric != 0:
        raise damaged(file, "it is no flat index by inner product")
    if count != passages:
        raise damaged(file, f"{count} vectors but {passages} passages")
    if dimension < 1 or numbers != dimension * count or size != _HEADER.size + 4 * numbers:
        raise damaged(file, f"{size} bytes for {count} vectors of {dimension} numbers")


def _check_vectors(vectors: Any, file: str | Path) -> None:
    """A vector that is not finite would never be found, and nobody would know. Reads them once, as a search does."""
    for start in range(0, vectors.ntotal, _ROWS):
        if not np.isfinite(vectors.reconstruct_n(start, min(_ROWS, vectors.ntotal - start))).all():
            raise damaged(file, "vectors that are not finite")


def load_encoder(model: str) -> SentenceTransformer:
    """The sentence encoder of a name: `embedded:NAME`, a Hugging Face id or a local folder.

    Raises:
        ModelError: it cannot be loaded, weights are missing or pickled, or it needs remote code.
    """
    from gainrag.models.folder import resolve
    from gainrag.models.loading import careful_loading, check_fitting, check_tokenizer

    folder = resolve(model)
    with careful_loading(model, folder, spare=["pooler."]):  # vectors are made of tokens: many encoders come without
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(folder, trust_remote_code=False, model_kwargs={"use_safetensors": True})
        check_tokenizer(encoder.tokenizer, model)
        check_fitting(encoder.tokenizer, encoder[0].auto_model, model)
        return encoder


def dimension_of(encoder: SentenceTransformer) -> int:
    """How many numbers its vectors have.

    Raises:
        ModelError: it does not say.
    """
    dimension = encoder.get_embedding_dimension()
    if dimension is None:
        raise ModelError("the encoder does not say how long its vectors are", hint="use a sentence encoder")
    return int(dimension)


def _encode(encode: Any, texts: list[str], batch_size: int, normalize: bool) -> npt.NDArray[np.float32]:
    vectors = encode(texts, batch_size=batch_size, normalize_embeddings=normalize, show_progress_bar=False)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _finite(vectors: npt.NDArray[np.float32], model: str) -> npt.NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise ModelError("the encoder gave vectors that are not finite", where=model, hint="use another encoder")
    return vectors


def _count_truncated(encoder: SentenceTransformer, texts: list[str]) -> int:
    """How many texts are longer than the encoder's window."""
    window = encoder.max_seq_length
    if window is None:
        return 0
    # A token is at least a character: most texts need not be tokenized to know.
    long = [text for text in texts if len(text) + 2 > window]
    if not long:
        return 0
    return sum(length > window for length in _count_tokens(encoder, long))


def _count_tokens(encoder: SentenceTransformer, texts: list[str]) -> list[int]:
    """How many tokens each text has, be it longer than the encoder's window or not."""
    return [len(ids) for ids in encoder.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]]
