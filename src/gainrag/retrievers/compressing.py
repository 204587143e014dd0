"""From passages to compressed vectors, in steps that may be stopped at any moment, by kill -9 too.

    encode    vectors.npy          appended block by block; how far it is stands in the folder's begun.json
    train     trained.faiss        k-means on a sample
    add       added-0.faiss ..     each 250,000 vectors by themselves
    merge     codes.faiss          all parts; then the lists a search must look at are chosen, and recall is measured

Each file appears whole: one that is there is not made again. Sampling and k-means are seeded, so that an index that was
stopped and continued has the bytes of one that was not.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import ModelError
from gainrag.files.folders import Begun
from gainrag.files.progress import progress_bar, say
from gainrag.records import Passage
from gainrag.retrievers.compressed import (
    CODES_FILE,
    VECTORS_FILE,
    Compressed,
    Compression,
    Kind,
    Recall,
    factory_for,
    head_of,
    lists_for,
)
from gainrag.retrievers.dense import (
    Dense,
    Encoding,
    Known,
    dimension_of,
    encode_passages,
    encode_questions,
    load_encoder,
    say_encoded,
)
from gainrag.retrievers.store import load_array

logger = logging.getLogger(__name__)

DENSE_FILE, DENSE_FOLDER = "dense.faiss", "dense"
# Batches a block: enough for passages of like length to share one; a block is what a kill costs.
_BATCHES = 64
# Vectors added at a time, and of a part.
_STEP, _PART = 1 << 14, 250_000
# Vectors that k-means sees of each list, and at least.
_SAMPLE, _LEAST = 64, 20_000
# How many of a flat index's 100 best must be found, on average: more lists are looked at until they are.
_WANTED = 0.95
_TRAINED = "trained.faiss"
# Questions that recall is measured with; of a passage its first words, where nobody gave questions.
_ASKED, _WORDS = 200, 12


def build_dense(
    begun: Begun,
    passages: Sequence[Passage],
    how: Encoding,
    kind: Kind,
    known: Known | None,
    asked: Callable[[], tuple[str, npt.NDArray[np.float32]]],
) -> tuple[int, Compression | None]:
    """Encode passages into a folder: a flat index, or compressed vectors.

    Args:
        begun: the folder, and what of it is there already.
        known: vectors that are taken for passages of the same text.
        asked: see `compress`.

    Returns:
        How many passages are longer than the encoder's window, and how their vectors were compressed, if they were.

    Raises:
        ModelError: the encoder cannot be loaded, or gives vectors that are not finite.
    """
    if kind == "none" and not begun.kept:
        model, normalize, batch_size = how
        dense = Dense.build(passages, model=model, normalize=normalize, batch_size=batch_size, known=known)
        dense.save(begun.folder / DENSE_FILE)
        return dense.truncated or 0, None
    folder = begun.folder / DENSE_FOLDER
    folder.mkdir(exist_ok=True)
    if not (begun.folder / DENSE_FILE).exists():
        encode_to(folder / VECTORS_FILE, passages, begun, how, np.float32 if kind == "none" else np.float16, known)
    truncated = int(begun.done["truncated"])
    if kind != "none":
        return truncated, compress(folder, len(passages), kind, asked)
    if not (begun.folder / DENSE_FILE).exists():
        _flat_from(folder / VECTORS_FILE, len(passages), begun.folder / DENSE_FILE)
    shutil.rmtree(folder)
    return truncated, None


def probing_queries(
    passages: Sequence[Passage], questions: Sequence[str], how: Encoding
) -> tuple[str, npt.NDArray[np.float32]]:
    """What recall is measured with, and its vectors: questions where there are some, else the first words of
    passages, which are drawn at random."""
    if questions:
        name, among = "questions", list(questions)
    else:
        name, among = "openings of passages", []
        for row in _drawn(len(passages)):
            among.append(" ".join(passages[row].text.split()[:_WORDS]))
    texts = [among[i] for i in _drawn(len(among))]
    return name, encode_questions(load_encoder(how.model), texts, how.model, how.normalize)


def _drawn(among: int) -> list[int]:
    """Rows drawn at random, in order; all where there are few."""
    rows: list[int] = np.sort(np.random.default_rng(0).choice(among, min(among, _ASKED), replace=False)).tolist()
    return rows


def encode_to(
    file: Path,
    passages: Sequence[Passage],
    begun: Begun,
    how: Encoding,
    kind: type[np.float16] | type[np.float32],
    known: Known | None = None,
) -> None:
    """Write the vectors of passages to a file, from where an earlier process stopped, and note how far they are.

    Held in memory: the encoder and one block.

    Args:
        kind: the type of the numbers in the file.
        known: vectors that are taken for passages of the same text.

    Raises:
        ModelError: the encoder cannot be loaded, or gives vectors that are not finite in this type.
    """
    encoder = load_encoder(how.model)
    shape = (len(passages), dimension_of(encoder))
    header = _npy_header(shape, kind)
    done, truncated, taken = (int(begun.done.get(key, 0)) for key in ("encoded", "truncated", "taken"))
    with (
        open(file, "r+b" if done else "wb") as stream,
        progress_bar("encoding", unit="passages", total=len(passages), done=done) as bar,
    ):
        stream.write(header)
        # What a kill left of a block is cut off.
        stream.truncate(len(header) + done * shape[1] * np.dtype(kind).itemsize)
        stream.seek(0, os.SEEK_END)
        blocks = encode_passages(encoder, passages, how, known=known, start=done, batches=_BATCHES, by_tokens=True)
        for block in blocks:
            with np.errstate(over="ignore"):
                numbers = block.vectors.astype(kind)
            if not np.isfinite(numbers).all():
                hint = "normalize, or do not compress"
                raise ModelError(f"its vectors are too large for {np.dtype(kind)}", where=how.model, hint=hint)
            stream.write(numbers.tobytes())
            stream.flush()
            done, truncated, taken = done + len(numbers), truncated + block.truncated, taken + block.taken
            begun.note(encoded=done, truncated=truncated, taken=taken)
            bar.update(len(numbers))
    say_encoded(len(passages), truncated, taken, encoder, how.model)


def _flat_from(vectors: Path, passages: int, out: Path) -> None:
    """Vectors in single precision become a flat index of FAISS. Held in memory: all of them."""
    import faiss

    rows = load_array(vectors, np.float32, length=passages, dimensions=2)
    index = faiss.IndexFlatIP(rows.shape[1])
    for start in range(0, passages, _STEP):
        index.add(np.asarray(rows[start : start + _STEP]))
    _write_whole(index, out)


def compress(
    folder: Path, passages: int, kind: Kind, asked: Callable[[], tuple[str, npt.NDArray[np.float32]]]
) -> Compression:
    """Compress the vectors of a folder, choose how many lists a search looks at, and measure what it finds.

    Held in memory: the codes, up to three times while they are merged, and the sample.

    Args:
        folder: holds vectors.npy, as `encode_to` writes it in half precision.
        passages: how many vectors there are.
        asked: gives what recall is measured with, and its vectors as [query, dimension].

    Returns:
        What the meta file records.
    """
    vectors = load_array(folder / VECTORS_FILE, np.float16, length=passages, dimensions=2)
    factory = factory_for(kind, passages, vectors.shape[1])
    if not (folder / CODES_FILE).exists():
        _train(folder, vectors, factory)
        parts = _add(folder, vectors)
        _merge(folder, parts)
    for left in [folder / _TRAINED, *folder.glob("added-*.faiss")]:
        left.unlink(missing_ok=True)
    name, queries = asked()
    lists = lists_for(passages)
    codes = folder / CODES_FILE
    head = head_of(codes, passages, kind, vectors.shape[1])
    found = Compression(kind, factory, codes.stat().st_size, head, lists, {name: len(queries)}, [])
    found = _choose(Compressed(folder, passages, found), vectors, queries)
    best = found.recall[-1]
    shares = f"recall@10 {best.at_10:.3f}, recall@100 {best.at_100:.3f} of a flat index, on {len(queries)} {name}"
    say(f"{factory}, {found.probes} of {lists} lists looked at: {shares}")
    if best.at_100 < _WANTED:
        logger.warning(
            "recall@100 is %.3f, below %.2f, although all lists are looked at: a finer compression finds more",
            *(best.at_100, _WANTED),
        )
    return found


def exact_rows(vectors: npt.NDArray[Any], queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """The rows of the k best vectors of each query, by comparing all, as [query, k]; best first, equal ones by row."""
    import faiss

    scores, rows = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _STEP):
        block = np.asarray(vectors[start : start + _STEP], dtype=np.float32)
        near, at = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.hstack([scores, near]), np.hstack([rows, at + start])
        best = np.lexsort((rows, -scores), axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows


def recall(found: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], k: int) -> float:
    """The share of the k best rows wanted that are among the k best found, as a mean over queries.

    >>> recall(np.array([[1, 2], [5, 6]]), np.array([[2, 3], [6, 5]]), 2)
    0.75
    """
    k = min(k, wanted.shape[1])
    hits = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(found, wanted, strict=True)]
    return float(np.mean(hits)) / k


def _choose(index: Compressed, vectors: npt.NDArray[Any], queries: npt.NDArray[np.float32]) -> Compression:
    """Look at more and more lists until enough is found."""
    k, lists = min(100, len(vectors)), lists_for(len(vectors))
    wanted = exact_rows(vectors, queries, k)
    measured: list[Recall] = []
    for probes in (2**i for i in range(3, 64)):
        probes = min(probes, lists)
        rows = index.search(queries, k, probes)[1]
        measured.append(Recall(probes, round(recall(rows, wanted, 10), 4), round(recall(rows, wanted, 100), 4)))
        if probes == lists or measured[-1].at_100 >= _WANTED:
            break
    return msgspec.structs.replace(index.compression, probes=measured[-1].probes, recall=measured)


def _train(folder: Path, vectors: npt.NDArray[Any], factory: str) -> None:
    import faiss

    if (folder / _TRAINED).exists():
        return
    passages, dimension = vectors.shape
    number = min(passages, max(_LEAST, _SAMPLE * lists_for(passages)))
    rows = np.sort(np.random.default_rng(0).choice(passages, number, replace=False))
    say(f"{factory}: learning the lists from {number:,} of {passages:,} vectors")
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(np.asarray(vectors[rows], dtype=np.float32))
    _write_whole(index, folder / _TRAINED)


def _add(folder: Path, vectors: npt.NDArray[Any]) -> list[Path]:
    import faiss

    parts = []
    with progress_bar("compressing", unit="vectors", total=len(vectors)) as bar:
        for first in range(0, len(vectors), _PART):
            parts.append(folder / f"added-{first // _PART}.faiss")
            end = min(first + _PART, len(vectors))
            if parts[-1].exists():
                bar.update(end - first)
                continue
            part = faiss.read_index(str(folder / _TRAINED))
            for start in range(first, end, _STEP):
                rows = np.arange(start, min(start + _STEP, end))
                part.add_with_ids(np.asarray(vectors[rows], dtype=np.float32), rows)
                bar.update(len(rows))
            _write_whole(part, parts[-1])
    return parts


def _merge(folder: Path, parts: Sequence[Path]) -> None:
    import faiss

    whole = faiss.read_index(str(folder / _TRAINED))
    for file in parts:
        whole.merge_from(faiss.read_index(str(file)), 0)
    _write_whole(whole, folder / CODES_FILE)


def _write_whole(index: Any, file: Path) -> None:
    """Write an index of FAISS; the file appears when the disk has it."""
    import faiss

    beside = file.with_name(file.name + ".new")
    faiss.write_index(index, str(beside))
    with open(beside, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(beside, file)


def _npy_header(shape: tuple[int, int], kind: type[np.generic]) -> bytes:
    """How numpy begins the file of an array."""
    header = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()
