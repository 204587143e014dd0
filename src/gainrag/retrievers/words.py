"""The scores of BM25, from word numbers that come in blocks: memory does not grow with the corpus.

Two passes. The first counts each word of each passage and puts the counts aside, block by block; then it is known in
how many passages a word occurs, and so where its column of scores begins. The second takes the blocks up again, scores
them and writes each score to its place.

The numbers are those of bm25s in Lucene's form, to the last bit; its format of a sparse matrix by columns, too.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.signedinteger[Any]]

# Bytes of counts that are put aside in memory before they go to the disk.
_IN_MEMORY = 64 << 20


def weigh_words(
    blocks: Iterable[tuple[Ints, Ints]], vocabulary: Mapping[str, int], k1: float, b: float, scratch: str | Path | None
) -> dict[str, npt.NDArray[Any]]:
    """The matrix of scores [passage, word] by columns.

        score = log(1 + (n - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / mean length))

    Args:
        blocks: of consecutive passages: their lengths in words [passage], and their words' numbers end to end.
        vocabulary: all words once the last block was taken.
        scratch: a folder for what is large and for what is put aside; None: the former is held in memory.

    Returns:
        data (float32) and indices (int32, the passages' rows, which go up within a word): one for each word of each
        passage; indptr (int64, one more than there are words): where each word's begin.

    Raises:
        OSError: the disk is full.
    """
    frequency, lengths = np.zeros(0, dtype=np.int64), []
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=None if scratch is None else str(scratch)) as aside:
        for length, words in blocks:
            counted = _count(length, words)
            frequency = _added(frequency, np.bincount(counted[0]))
            lengths.append(length)
            for column in counted:
                np.lib.format.write_array(aside, column, allow_pickle=False)
        frequency = _added(frequency, np.zeros(len(vocabulary), dtype=np.int64))
        starts = np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64)
        passages, size = sum(map(len, lengths)), int(starts[-1])
        mean = np.float64(sum(int(length.sum()) for length in lengths)) / passages
        rarity = _rarity(frequency, passages)
        data, indices = _room(size, np.float32, scratch), _room(size, np.int32, scratch)
        aside.seek(0)
        first, next_free = 0, starts[:-1].copy()
        for length in lengths:
            words, rows, times = (np.lib.format.read_array(aside, allow_pickle=False) for _ in range(3))
            # A corpus of passages without any word divides 0 by 0, on the way to no score at all.
            with np.errstate(invalid="ignore"):
                norms = k1 * ((1 - b) + b * length / mean)
            begins = np.flatnonzero(np.r_[True, words[1:] != words[:-1]]) if len(words) else np.zeros(0, dtype=np.intp)
            runs = np.diff(np.r_[begins, len(words)])
            places = np.repeat(next_free[words[begins]] - begins, runs) + np.arange(len(words))
            data[places] = rarity[words] * (times / (norms[rows] + times))
            indices[places] = rows + first
            next_free[words[begins]] += runs
            first += len(length)
    return {"data": data, "indices": indices, "indptr": starts}


def _count(lengths: Ints, words: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    """(word, row within the block, how often) of each word of each passage, by word and then row."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    pairs, times = np.unique(words.astype(np.int64) << 32 | rows, return_counts=True)
    return (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32), times.astype(np.float32)


def _added(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Two counts by word number, summed; the longer one's length."""
    total = np.zeros(max(len(one), len(other)), dtype=np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _rarity(frequency: npt.NDArray[np.int64], passages: int) -> npt.NDArray[np.float32]:
    """What a word weighs by the number of passages it occurs in; 0 where it occurs in none."""
    distinct, which = np.unique(frequency, return_inverse=True)
    # The library's logarithm, not numpy's: they differ in the last bit.
    weights = [math.log(1 + (passages - df + 0.5) / (df + 0.5)) if df else 0.0 for df in distinct.tolist()]
    return np.array(weights, dtype=np.float32)[which]


def _room(size: int, kind: type[np.generic], scratch: str | Path | None) -> npt.NDArray[Any]:
    """An array to be filled: in memory, or in a file without a name that is gone with the process."""
    if scratch is None or not size:
        return np.empty(size, dtype=kind)
    with tempfile.TemporaryFile(dir=scratch) as file:
        _allocate(file, size * np.dtype(kind).itemsize)
        return np.memmap(file, dtype=kind, mode="r+", shape=(size,))


def _allocate(file: IO[bytes], size: int) -> None:
    """Take the disk's blocks now: a disk that is full is an error here, and kills who writes to mapped memory."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))
        file.flush()
