"""Vectors of a corpus that is too large to be compared one by one: a compressed index of FAISS finds candidates, and
the vectors themselves, in half precision on the disk, put them in order.

    vectors.npy   [passage, dimension], float16
    codes.faiss   the same vectors compressed, in lists of neighbours: only the lists nearest to a question are read

Both are mapped into memory: what is read of them stays there as long as there is room. Who makes them:
`gainrag.retrievers.compressing`.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import ConfigError
from gainrag.retrievers.store import damaged, load_array, top_rows

VECTORS_FILE, CODES_FILE = "vectors.npy", "codes.faiss"

Kind = Literal["none", "int8", "pq"]

# Up to so many passages their vectors are compared one by one, and up to so many they are rounded to a byte a number.
_FLAT, _INT8 = 500_000, 10_000_000
# Candidates for each passage that is wanted: the coarser the codes, the more.
_CANDIDATES = {"int8": 2, "pq": 8}
# What k-means wants to see for each list, and for each of the 256 centres of a product quantizer.
_POINTS = 39
_CENTRES = 256


class Recall(msgspec.Struct, frozen=True):
    """What is found of what a flat index finds, when so many lists are looked at: means over the questions asked.

    at_10, at_100: the share of its 10 and 100 best passages that are among the 10 and 100 found.
    """

    probes: int
    at_10: float
    at_100: float


class Compression(msgspec.Struct, frozen=True):
    """How vectors were compressed, as the index's meta file records it.

    factory: FAISS's description of the index.
    bytes: of codes.faiss.
    head: SHA-256 of what stands before its lists, see `head_of`.
    probes: lists that a search looks at.
    asked: what recall was measured with, and of how many: `questions` that were given, or `openings` of passages.
    recall: by probes, from few to many; the last is that of a search.
    """

    kind: Kind
    factory: str
    bytes: int
    head: str
    probes: int
    asked: dict[str, int]
    recall: list[Recall]


def kind_for(passages: int, asked: Literal["auto"] | Kind) -> Kind:
    """How the vectors of so many passages are compressed, where nobody says.

    Raises:
        ConfigError: there are too few passages to learn a product quantizer from.

    >>> [kind_for(n, "auto") for n in (100_000, 2_000_000, 21_000_000)]
    ['none', 'int8', 'pq']
    """
    if asked == "pq" and passages < _POINTS * _CENTRES:
        what = f"{passages:,} passages are too few to learn a product quantizer from"
        raise ConfigError(what, where="compression", hint=f"it needs {_POINTS * _CENTRES:,}; choose int8 or none")
    if asked != "auto":
        return asked
    return "none" if passages <= _FLAT else "int8" if passages <= _INT8 else "pq"


def lists_for(passages: int) -> int:
    """In how many lists of neighbours vectors are kept: the power of 2 nearest to twice the root of their number.

    >>> [lists_for(n) for n in (5, 20_000, 2_000_000, 21_000_000)]
    [1, 256, 2048, 8192]
    """
    return min(1 << round(math.log2(2 * math.sqrt(passages))), max(1, passages // _POINTS))


def code_bytes(kind: Kind, dimension: int) -> int:
    """Bytes of a compressed vector: one a number (int8), or one for each four or more numbers (pq)."""
    if kind == "int8":
        return dimension
    return max(m for m in range(1, max(1, dimension // 4) + 1) if dimension % m == 0)


def factory_for(kind: Kind, passages: int, dimension: int) -> str:
    """FAISS's description of an index.

    >>> factory_for("int8", 2_000_000, 384), factory_for("pq", 21_000_000, 768)
    ('IVF2048,SQ8', 'IVF8192,PQ192np')
    """
    # np: without an order of the centres that this search does not use, and that takes seconds for each byte of a code.
    codes = "SQ8" if kind == "int8" else f"PQ{code_bytes(kind, dimension)}np"
    return f"IVF{lists_for(passages)},{codes}"


class Compressed:
    """The compressed vectors of a folder, searched as FAISS's own indexes are. Several threads may search at a time.

    Args:
        folder: holds vectors.npy and codes.faiss.
        passages: how many the vectors are of.
        compression: how they were compressed.

    Raises:
        DataError: a file is missing or damaged, or they do not belong together.
    """

    def __init__(self, folder: str | Path, passages: int, compression: Compression) -> None:
        import faiss

        self.folder, file = Path(folder), Path(folder) / CODES_FILE
        self._vectors = load_array(self.folder / VECTORS_FILE, np.float16, length=passages, dimensions=2)
        self.ntotal, self.d = self._vectors.shape
        self.compression = compression
        try:
            # FAISS believes what a file says of itself: what is wrong or missing there would end the process.
            if (size := file.stat().st_size) != compression.bytes:
                raise damaged(file, f"{size} bytes, not {compression.bytes}")
            if head_of(file, self.ntotal, compression.kind, self.d) != compression.head:
                raise damaged(file, "it does not begin as it did when it was written")
            self._codes: Any = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        except (OSError, RuntimeError, MemoryError) as error:
            raise damaged(file, str(error).split("\n")[0]) from None
        found = (getattr(self._codes, "nlist", None), self._codes.d, self._codes.ntotal, self._codes.metric_type)
        wanted = (lists_for(self.ntotal), self.d, self.ntotal, faiss.METRIC_INNER_PRODUCT)
        if found != wanted:
            what = "(lists, dimension, vectors, metric)"
            raise damaged(file, f"{what} are {found}, not {wanted}")

    def search(
        self, queries: npt.NDArray[np.float32], k: int, probes: int | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and rows of the k best vectors of each query, as [query, k], best first.

        Scores are those of the vectors in half precision, not of their codes. Where the nearest lists hold fewer than k
        vectors, more are looked at.

        Args:
            k: at most as many as there are vectors.
            probes: lists to look at; by default what was found to be enough when the vectors were compressed.

        Raises:
            DataError: the files are damaged.
        """
        import faiss

        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        wanted = min(self.ntotal, k * _CANDIDATES[self.compression.kind])
        looked_at = min(probes or self.compression.probes, self._codes.nlist)
        while True:
            lists: Any = faiss.SearchParametersIVF
            _, found = self._codes.search(queries, wanted, params=lists(nprobe=looked_at))
            if looked_at == self._codes.nlist or (found[:, k - 1] >= 0).all():
                break
            looked_at = min(2 * looked_at, self._codes.nlist)
        for i, candidates in enumerate(found):
            at = np.sort(candidates[candidates >= 0])
            if len(at) < k or int(at[-1]) >= self.ntotal or (np.diff(at) == 0).any():
                raise damaged(self.folder / CODES_FILE, "it does not hold each vector once")
            exact = self.take(at) @ queries[i]
            best = top_rows(exact, k)
            scores[i], rows[i] = exact[best], at[best]
        return scores, rows

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors of some rows, as [row, dimension].

        Raises:
            DataError: one is not finite.
        """
        vectors: npt.NDArray[np.float32] = np.asarray(self._vectors[rows], dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise damaged(self.folder / VECTORS_FILE, "vectors that are not finite")
        return vectors

    def reconstruct(self, row: int) -> npt.NDArray[np.float32]:
        """The vector of a row."""
        (vector,) = self.take(np.array([row]))
        return np.asarray(vector, dtype=np.float32)


def head_of(file: Path, passages: int, kind: Kind, dimension: int) -> str:
    """SHA-256 of what stands before the lists in a file of codes: how it is built, the centres, the lists' lengths.

    Of each vector the lists have the code and a row of 8 bytes, and they are the last in the file.

    Raises:
        OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size - passages * (code_bytes(kind, dimension) + 8)
        return hashlib.sha256(stream.read(max(0, size))).hexdigest()


def read_compression(recorded: object, folder: str | Path) -> Compression | None:
    """How the vectors of an index were compressed, as its meta file says; None: not at all.

    Raises:
        DataError: it says nothing that makes sense.
    """
    if recorded is None:
        return None
    try:
        found = msgspec.convert(recorded, Compression)
    except msgspec.ValidationError as error:
        raise damaged(folder, f"compression: {error}") from None
    if found.kind == "none" or found.probes < 1:
        raise damaged(folder, f"compression: {found.kind} with {found.probes} probes")
    return found


