"""What an index needs, before it is begun: memory and disk by arithmetic, time by a short measurement.

The arithmetic is that of the largest step, on the high side: words of a vocabulary by Heaps' law, 120 bytes for each
id and word that Python holds, codes three times while parts are merged. docs/large-corpora.md has measured values
beside it.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gainrag.errors import ResourceError
from gainrag.files.progress import say
from gainrag.ingestion import read_passages
from gainrag.prompts import selector_text
from gainrag.records import Passage, encode
from gainrag.retrievers.bm25 import word_splitter
from gainrag.retrievers.compressed import Kind, code_bytes, kind_for
from gainrag.retrievers.dense import Encoding, dimension_of, encode_passages, load_encoder

# Passages that are looked at to know what the others are like, and of those how many are encoded to know how long it
# takes.
_LOOKED_AT, _ENCODED = 1000, 64
# Python, torch and the libraries; an encoder with one batch.
_BASE, _ENCODER = 600_000_000, 1_000_000_000
# Bytes of an id or a word that Python holds; of a text's digest and its row.
_HELD, _DIGEST = 120, 200
# BM25 while it is built: bytes of one block of counts; for each word of each passage the index itself, what is put
# aside, and the index again while it is written.
_BLOCK, _INDEX, _ASIDE = 400_000_000, 8, 12
# Bytes a passage of a search over scores of all passages.
_SCORES = 16
_GB = 1e9


class Corpus(NamedTuple):
    """What is known of a corpus, or guessed from its beginning.

    passages: how many.
    bytes: of a passage as JSON, on average.
    words: different ones of a passage, on average.
    counted: whether their number is known, not guessed.
    """

    passages: int
    bytes: float
    words: float
    counted: bool


class Needs(NamedTuple):
    """Bytes that an index needs while it is built, beside what is there already."""

    memory: float
    disk: float


class Seen(NamedTuple):
    """The first passages of a corpus, and what they say of it."""

    first: list[Passage]
    corpus: Corpus


def looked_at(file: str | Path) -> Seen:
    """A corpus file as its first passages make it look; how many there are follows from its size.

    Raises:
        DataError: they are malformed, or there is none.
    """
    first = list(islice(read_passages(file), _LOOKED_AT))
    if len(first) < _LOOKED_AT:
        return _seen(first, len(first), True)
    lines = b"".join(encode(passage) for passage in first)
    stored = len(zlib.compress(lines)) if str(file).endswith(".gz") else len(lines)
    return _seen(first, max(len(first), round(os.path.getsize(file) / stored * len(first))), False)


def looked_into(passages: Sequence[Passage]) -> Seen:
    """A corpus that was read already, as its first passages make it look."""
    return _seen(list(passages[:_LOOKED_AT]), len(passages), True)


def _seen(first: list[Passage], passages: int, counted: bool) -> Seen:
    split = word_splitter()
    size = sum(len(encode(passage)) for passage in first) / len(first)
    words = sum(len(set(split(selector_text(passage)))) for passage in first) / len(first)
    return Seen(first, Corpus(passages, size, words, counted))


def plan(
    seen: Seen, out: Path, parts: Sequence[str], compression: Literal["auto"] | Kind, how: Encoding | None
) -> None:
    """Say what building an index will take on this machine.

    Args:
        how: how vectors are made; None where there are none.

    Raises:
        ResourceError: it has too little memory or disk.
        ConfigError: there are too few passages for the compression.
    """
    corpus = seen.corpus
    kind, dimension, seconds = None, 0, {}
    if "bm25" in parts:
        seconds["words"] = _measure_words(seen.first)
    if how is not None:
        kind, encoder = kind_for(corpus.passages, compression), load_encoder(how.model)
        dimension, seconds["encoding"] = dimension_of(encoder), _measure_encoder(encoder, seen.first, how)
    # Vectors of an index that is there are looked up by their texts.
    known = corpus.passages if how is not None and out.exists() else 0
    wanted = needs(corpus, parts, kind or "none", dimension, known)
    memory, disk = free_memory(), _free_disk(out)
    about = [f"memory {wanted.memory / _GB:.1f}" + (f" of {memory / _GB:.1f} GB" if memory else " GB")]
    about.append(f"disk {wanted.disk / _GB:.1f} of {disk / _GB:.1f} GB")
    about += [f"{what} {_duration(took * corpus.passages)}" for what, took in seconds.items()]
    vectors = f"vectors {'flat' if kind == 'none' else kind}, " if kind else ""
    say(f"{'' if corpus.counted else 'about '}{corpus.passages:,} passages: {vectors}{', '.join(about)}")
    for what, need, free in (("memory", wanted.memory, memory), ("disk", wanted.disk, disk)):
        if free is not None and need > free:
            raise ResourceError(
                f"an index of {corpus.passages:,} passages needs about {need / _GB:.1f} GB of {what}, "
                f"{free / _GB:.1f} GB are free",
                where=str(out),
                hint="docs/large-corpora.md says what needs less; --no-preflight tries it nevertheless",
            )


def needs(corpus: Corpus, parts: Sequence[str], kind: Kind, dimension: int, known: int = 0) -> Needs:
    """What building an index needs.

    Args:
        parts: bm25, dense or both.
        kind: how vectors are compressed.
        dimension: numbers of a vector.
        known: vectors of an earlier index that are looked up.

    >>> corpus = Corpus(21_000_000, 700.0, 55.0, True)
    >>> ["%.0f GB" % (n / 1e9) for n in needs(corpus, ["bm25", "dense"], "pq", 384)]
    ['8 GB', '66 GB']
    """
    n = corpus.passages
    entries = n * corpus.words
    # Reading holds the ids; then each part by itself.
    steps, disk, transient = [float(n * _HELD)], n * (corpus.bytes + 8), [0.0]
    if "bm25" in parts:
        vocabulary = 60 * entries**0.5
        steps.append(vocabulary * 2 * _HELD + _BLOCK + n * _SCORES)
        disk += entries * _INDEX
        transient.append(entries * (_ASIDE + _INDEX))
    if "dense" in parts:
        steps.append(_ENCODER + known * _DIGEST)
        if kind == "none":
            steps.append(4.0 * dimension * n)
            disk += 4.0 * dimension * n
            transient.append(4.0 * dimension * n)
        else:
            codes = float(code_bytes(kind, dimension) + 8) * n
            steps.append(3 * codes + _BLOCK)
            disk += 2.0 * dimension * n + codes
            transient.append(codes)
    return Needs(_BASE + max(steps), disk + max(transient))


def _measure_words(first: Sequence[Passage]) -> float:
    """Seconds that reading, splitting and scoring a passage take here, from a few."""
    split, began = word_splitter(), time.perf_counter()
    for passage in first:
        split(selector_text(passage))
    # Reading and writing a passage, and scoring its words, take about twice as long again.
    return 3 * (time.perf_counter() - began) / len(first)


def _measure_encoder(encoder: Any, first: Sequence[Passage], how: Encoding) -> float:
    """Seconds that encoding a passage takes here, from a few."""
    next(encode_passages(encoder, first[:2], how))  # the first call makes ready
    some = first[:_ENCODED]
    began = time.perf_counter()
    for _ in encode_passages(encoder, some, how):
        pass
    return (time.perf_counter() - began) / len(some)


def free_memory() -> float | None:
    """Bytes that processes here can still take: of the machine, or of the group that Linux keeps them in; None where
    the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024.0 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        # What of files is kept in memory counts as used, and makes room when it is needed.
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return min(free, float(limit - used + int(stat["file"])))
    except (OSError, ValueError, KeyError):  # no group, or one without a limit
        return free


def _free_disk(out: Path) -> float:
    """Bytes that are free where a folder will be, and what an earlier process made of it already."""
    place, begun = out.absolute().parent, out.with_name(f"{out.name}.part")
    while not place.exists():
        place = place.parent
    made = sum(path.stat().st_size for path in begun.rglob("*") if path.is_file()) if begun.is_dir() else 0
    return float(shutil.disk_usage(place).free + made)


def _duration(seconds: float) -> str:
    """A time in the unit that people would choose.

    >>> _duration(95), _duration(7_000), _duration(300_000)
    ('2 min', '1.9 h', '3.5 days')
    """
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"
