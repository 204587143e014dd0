"""The passages under an index, by row: on disk they are mapped into memory and decoded one at a time.

Row numbers are corpus positions. Rankings are made of rows, here and nowhere else, so that ties fall the same way in
every retriever: the earlier passage of the corpus first.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt

from gainrag.errors import DataError
from gainrag.records import Passage, Scored, check, encode, from_builtins

PASSAGES_FILE, OFFSETS_FILE = "passages.jsonl", "offsets.npy"


class PassageStore(Sequence[Passage]):
    """Passages as a read-only sequence over `passages.jsonl` and the byte offsets of its lines.

    Args:
        folder: holds `passages.jsonl` and `offsets.npy` (int64, one more than there are passages).

    Raises:
        DataError: a file is missing, or the two do not belong together.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._offsets: npt.NDArray[np.int64] = load_array(self.folder / OFFSETS_FILE, np.int64)
        try:
            with open(self.folder / PASSAGES_FILE, "rb") as stream:
                self._lines = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise damaged(self.folder, f"{PASSAGES_FILE}: {error}") from None
        if len(self._offsets) < 2 or int(self._offsets[-1]) != len(self._lines):
            raise damaged(self.folder, f"{OFFSETS_FILE} does not fit {PASSAGES_FILE}")

    @classmethod
    def write(cls, folder: str | Path, passages: Iterable[Passage]) -> PassageStore:
        """Write a stream of passages into an existing folder and open it. Held in memory: 8 bytes a passage.

        Raises:
            DataError: there is no passage.
        """
        folder = Path(folder)
        offsets = array("q", [0])
        with open(folder / PASSAGES_FILE, "wb") as stream:
            for passage in passages:
                offsets.append(offsets[-1] + stream.write(encode(passage)))
        if len(offsets) == 1:
            raise DataError("the corpus has no passages", hint="an index needs at least one")
        np.save(folder / OFFSETS_FILE, np.frombuffer(offsets, dtype=np.int64), allow_pickle=False)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: int) -> Passage: ...
    @overload
    def __getitem__(self, row: slice) -> list[Passage]: ...
    def __getitem__(self, row: int | slice) -> Passage | list[Passage]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(row)
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        if not 0 <= start < end <= len(self._lines):
            raise damaged(self.folder, f"passage {row} is said to go from byte {start} to {end}")
        try:
            passage = from_builtins(Passage, msgspec.json.decode(self._lines[start:end]))
            check(passage, f"passage {row}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DataError) as error:
            raise damaged(self.folder, f"passage {row}: {error}") from None
        return passage

    def __iter__(self) -> Iterator[Passage]:
        return (self[row] for row in range(len(self)))


def load_array(
    file: Path, *kinds: type[np.generic], length: int | None = None, dimensions: int = 1
) -> npt.NDArray[Any]:
    """An array that `np.save` wrote, mapped into memory.

    Args:
        kinds: the types its numbers may have.
        length: how many rows it must have.
        dimensions: 1, or 2 of vectors that lie one after another.

    Raises:
        DataError: it is missing, of another type or shape, or no array.
    """
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy evaluates a header: what a damaged one raises has no common base
        raise damaged(file.parent, f"{file.name}: {error}") from None
    if not isinstance(found, np.ndarray) or found.ndim != dimensions or found.dtype not in kinds:
        is_now = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "no array"
        wanted = f"{np.dtype(kinds[0])} [{'n' if dimensions == 1 else 'n, dimension'}]"
        raise damaged(file.parent, f"{file.name} is {is_now}, not {wanted}")
    if length is not None and len(found) != length:
        raise damaged(file.parent, f"{file.name} has {len(found)} rows, not {length}")
    return found


def hold(passages: Iterable[Passage]) -> Sequence[Passage]:
    """The passages as a sequence: a store on disk stays there, anything else is held in memory.

    Raises:
        DataError: there is no passage.
    """
    held = passages if isinstance(passages, PassageStore) else tuple(passages)
    if not held:
        raise DataError("the corpus has no passages", hint="an index needs at least one")
    return held


def damaged(folder: str | Path, why: str) -> DataError:
    """The error for an index folder whose files are missing or do not belong together."""
    return DataError(f"the index is incomplete or damaged ({why})", where=str(folder), hint="run `gainrag index` again")


def top_rows(scores: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """The rows of the k highest scores, best first; equal scores by row. All rows where k (from 1) is larger.

    >>> top_rows(np.array([1.0, 3.0, 2.0, 3.0, 2.0]), 3).tolist()
    [1, 3, 2]
    """
    rows: npt.NDArray[np.int64]
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        rows = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
        rows.sort()
    else:
        rows = np.arange(len(scores))
    return rows[np.argsort(-scores[rows], kind="stable")]


def scored(passage: Passage, score: float) -> Scored:
    """The passage as a retriever returns it; its further keys go with it."""
    return Scored(
        id=passage.id, title=passage.title, text=passage.text, origin=passage.origin, extra=passage.extra, score=score
    )
