"""Near-duplicate passages: those whose texts share almost all their runs of five words.

Two texts are alike by the Jaccard index of their shingles, the sets of all runs of five words. MinHash finds the pairs
worth a look (A. Broder, On the resemblance and containment of documents, 1997): 8 bands of 4 of the least hashes, so
that of two texts alike by 0.9 one pair in 5000 is missed. Each pair found is then compared by all its shingles, so that
none is merged wrongly. Held in memory are the bands, 64 bytes a passage; libraries hold whole indexes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

BANDS, ROWS, RUN = 8, 4, 5
# Passages that differ from each other are compared with a new one, the latest so many: boilerplate puts thousands of
# unlike ones into one band.
_COMPARED = 50

_Numbers = npt.NDArray[np.uint64]
_RANDOM = np.random.default_rng(20_26)
_FACTORS: _Numbers = _RANDOM.integers(1, 2**63, (BANDS * ROWS, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str) -> _Numbers:
    """The numbers of a text's runs of five words, without case; of a shorter text, of all its words. Sorted, no two
    alike."""
    words = np.fromiter((zlib.crc32(word) for word in text.lower().encode().split()), dtype=np.uint64)
    width = max(1, min(RUN, len(words)))
    runs = np.zeros(max(0, len(words) - width + 1), dtype=np.uint64)
    for place in range(width):
        runs = _mixed(runs ^ words[place : place + len(runs)])
    return np.unique(runs)


def _mixed(numbers: _Numbers) -> _Numbers:
    """Numbers whose bits all depend on all bits of those given."""
    numbers = (numbers ^ (numbers >> np.uint64(29))) * _MIX
    return numbers ^ (numbers >> np.uint64(32))


def bands(text: str) -> bytes:
    """The bands of a text's MinHash: 8 numbers of 64 bits."""
    runs = shingles(text)
    if not len(runs):
        return bytes(8 * BANDS)
    hashes = runs[None, :] * _FACTORS
    least = np.min(hashes ^ (hashes >> np.uint64(32)), axis=1).reshape(BANDS, ROWS)
    found = np.zeros(BANDS, dtype=np.uint64)
    for row in range(ROWS):
        found = _mixed(found ^ least[:, row])
    return found.tobytes()


def alike(one: _Numbers, other: _Numbers) -> float:
    """The Jaccard index of two sets of shingles.

    >>> alike(shingles("a b c d e f"), shingles("a b c d e g"))
    0.3333333333333333
    """
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


def merged(signatures: _Numbers, text_of: Callable[[int], str], threshold: float) -> dict[int, int]:
    """For each passage that is merged, the earlier one that it is a near-duplicate of.

    Args:
        signatures: bands, [passage, 8].
        text_of: a passage's text by its row.
        threshold: least Jaccard index of two that are merged.
    """
    into: dict[int, int] = {}
    for band in range(signatures.shape[1]):
        column = signatures[:, band]
        order = np.argsort(column, kind="stable")
        same = column[order]
        starts = np.flatnonzero(np.r_[True, same[1:] != same[:-1]])
        ends = np.r_[starts[1:], len(same)]
        several = ends - starts > 1
        for start, end in zip(starts[several], ends[several], strict=True):
            _merge_group(order[start:end].tolist(), into, text_of, threshold)
    return into


def _merge_group(rows: Sequence[int], into: dict[int, int], text_of: Callable[[int], str], threshold: float) -> None:
    """Compare passages that share a band, in their order."""
    kept: list[tuple[int, _Numbers]] = []
    for row in rows:
        if row in into:
            continue
        own = shingles(text_of(row))
        found = next((other for other, theirs in kept if alike(own, theirs) >= threshold), None)
        if found is None:
            kept = [*kept[-_COMPARED + 1 :], (row, own)]
        else:
            into[row] = found
