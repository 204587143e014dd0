"""Indexing: a corpus becomes a folder that retrievers open without reading it whole.

    passages.jsonl, offsets.npy   the passages, and where each begins
    bm25/                         the word index
    dense.faiss                   the vectors; of large corpora compressed, in dense/ (gainrag.retrievers.compressed)
    index.meta.json               settings, versions, the weights of a hybrid's parts, and the corpus file's path, size,
                                  time and SHA-256

What takes hours is kept in NAME.part while it is made, and continued after a kill (gainrag.files.folders).

The folder holds everything a search needs; the corpus file is looked at only to say when it has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from gainrag.errors import ConfigError, DataError, ResourceError, StaleError
from gainrag.files.folders import Begun, continue_folder, open_output_folder
from gainrag.files.meta import versions
from gainrag.files.places import check_replaceable
from gainrag.files.progress import progress, say
from gainrag.files.streams import file_hash, input_errors, read_json, write_json
from gainrag.ingestion import read_passages
from gainrag.models.identity import identity
from gainrag.protocols import Retriever
from gainrag.records import Question
from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.compressed import Compression, kind_for, read_compression
from gainrag.retrievers.compressing import DENSE_FILE, DENSE_FOLDER, build_dense, probing_queries
from gainrag.retrievers.dense import MODEL, Dense, Encoding, Known, load_encoder
from gainrag.retrievers.hybrid import Fusion, Hybrid, check_weights, fit_weights
from gainrag.retrievers.sizing import looked_at, looked_into, plan
from gainrag.retrievers.store import PassageStore, damaged
from gainrag.settings import Batch, Name, added_later, checked

Kind = Literal["bm25", "dense", "hybrid"]
META_FILE, BM25_FOLDER = "index.meta.json", "bm25"
# Bytes of a corpus file that is not worth a preflight, and passages from which on what is made is kept.
_SMALL, _LARGE = 8_000_000, 100_000


@added_later("compression", "preflight")
@checked
def index(
    corpus: str | Path,
    out: str | Path,
    questions: Sequence[Question] = (),
    *,
    retriever: Kind = "hybrid",
    fusion: Fusion = "scores",
    model: Name = MODEL,
    normalize: bool = True,
    batch_size: Batch = 64,
    compression: Literal["auto", "none", "int8", "pq"] = "auto",
    preflight: bool = True,
) -> None:
    """Build an index folder from a corpus file. The folder appears whole or not at all.

    An index that was at `out` before is replaced once the new one is complete; of passages that have not changed its
    vectors are taken, where the encoder is the same. Passage texts and words are streamed through the disk. Of 100,000
    passages and more, and of compressed vectors, what is made is kept in `OUT.part`: after a kill the same call
    continues it.

    Args:
        questions: training questions with answers, which the weights of a hybrid's scores are fitted on. Without them
            both parts weigh the same.
        retriever: bm25, dense or hybrid (both).
        fusion: how hybrid puts the two rankings together: the sum of their standardised scores, or of reciprocal ranks.
        model: the sentence encoder of dense and hybrid: embedded:NAME, a Hugging Face id or a local folder.
        normalize: compare dense vectors by cosine; off for encoders made for the dot product, such as Contriever.
        batch_size: passages encoded at a time.
        compression: of dense vectors; auto is none up to 500,000 passages, int8 up to 10 million, pq above.
        preflight: say before the start what a large corpus will take, and refuse what does not fit this machine.

    Raises:
        ConfigError: no such retriever or fusion, batch_size is less than 1, there are questions and nothing to weigh,
            or a compression of nothing or of too few passages.
        DataError: the corpus is missing, empty or malformed, or `out` is something other than an index.
        ModelError: the encoder cannot be loaded.
        ResourceError: the disk is full, or memory or disk will not do; what was at `out` is still there.
        StaleError: what was begun there was begun with other settings, or the corpus changed while it was read.
    """
    parts = parts_of(retriever)
    fused = fusion if len(parts) > 1 else None
    if questions and fused != "scores":
        hint = "leave them out, or choose hybrid and scores"
        raise ConfigError("there are no weights to fit on questions", where="questions", hint=hint)
    if compression in ("int8", "pq") and "dense" not in parts:
        raise ConfigError("there are no vectors to compress", where="compression", hint="choose dense or hybrid")
    # What cannot work fails before the corpus is read.
    out = Path(out)
    check_replaceable(out, META_FILE, "index")
    encoding = Encoding(model, normalize, batch_size) if "dense" in parts else None
    if encoding:
        load_encoder(model)
    before = _look(corpus)
    passages_expected = 0
    if before is not None and before.size > _SMALL:
        seen = looked_at(corpus)
        passages_expected = seen.corpus.passages
        if preflight:
            plan(seen, out, parts, compression, encoding)
    settings = {
        "retriever": retriever,
        "fusion": fused,
        "model": model if encoding else None,
        "normalize": normalize if encoding else None,
        "batch_size": batch_size,
    }
    begun_with = None
    if before is not None and (passages_expected >= _LARGE or compression in ("int8", "pq")):
        now = {"compression": compression, "identity": identity(model) if encoding else None}
        begun_with = {"corpus": before, **{key: value for key, value in settings.items() if key != "fusion"}, **now}
    with _short_writes(out), _kept_or_not(out, begun_with) as begun:
        folder = begun.folder
        passages = _store(begun, corpus)
        if preflight and before is None and len(passages) >= _LARGE:  # standard input is not looked at before
            plan(looked_into(passages), out, parts, compression, encoding)
        if "bm25" in parts and not begun.done.get("bm25"):
            BM25.build(passages, scratch=folder).save(folder / BM25_FOLDER)
            begun.note(bm25=True)
        truncated: int | None = None
        compressed: Compression | None = None
        if encoding:
            kind = kind_for(len(passages), compression)
            known = _known(out, model, normalize, kind)
            asked = partial(probing_queries, passages, [q.question for q in questions], encoding)
            truncated, compressed = build_dense(begun, passages, encoding, kind, known, asked)
            del known
        weights: dict[str, float] | None = None
        if questions:
            hybrid = _hybrid(_open_parts(folder, passages, parts, model, normalize, compressed))
            weights = fit_weights([(hybrid, questions)])
        digest = None if before is None else file_hash(corpus)
        if _look(corpus) != before:
            raise StaleError(
                "the corpus changed while it was read", where=str(corpus), hint="run `gainrag index` again"
            )
        meta: dict[str, Any] = {
            "settings": settings,
            # None until they are fitted: both parts weigh the same.
            "weights": weights,
            "passages": len(passages),
            # What tells the encoder from another of its name; None where that is not known.
            "identity": identity(model) if encoding else None,
            # Passages whose end the encoder did not read.
            "truncated": truncated,
            "corpus": None if before is None else {**msgspec.structs.asdict(before), "sha256": digest},
            "versions": versions(),
        }
        if compressed is not None:
            meta["compression"] = msgspec.to_builtins(compressed)
        write_json(folder / META_FILE, meta)


@contextmanager
def _kept_or_not(out: Path, begun_with: Mapping[str, Any] | None) -> Iterator[Begun]:
    """The folder to build in: one that the next process continues, where there is something it was begun with."""
    if begun_with is None:
        with open_output_folder(out) as folder:
            yield Begun(folder)
    else:
        with continue_folder(out, begun_with) as begun:
            yield begun


def _store(begun: Begun, corpus: str | Path) -> PassageStore:
    """The passages, written where they are not."""
    if begun.done.get("passages"):
        return PassageStore(begun.folder)
    passages = progress(read_passages(corpus), "reading passages", unit="passages")
    store = PassageStore.write(begun.folder, passages)
    begun.note(passages=len(store))
    return store


def _known(out: Path, model: str, normalize: bool, kind: str) -> Known | None:
    """The vectors of the index that is there, where the same encoder made them in the same way. Compressed ones were
    rounded: a flat index takes none of them."""
    if not (out / META_FILE).is_file() or (now := identity(model)) is None:
        return None
    try:
        meta = _read_meta(out)
        if (meta.settings.model, meta.settings.normalize, meta.identity) != (model, normalize, now):
            return None
        compression = read_compression(meta.compression, out)
        if compression is not None and kind == "none":
            return None
        return Known(out / (DENSE_FOLDER if compression else DENSE_FILE), PassageStore(out), compression)
    except DataError as error:
        say(f"{out}: nothing of the index that was there is used: {error.what}")
        return None


def parts_of(retriever: str) -> tuple[str, ...]:
    """The single retrievers that a kind is made of."""
    return ("bm25", "dense") if retriever == "hybrid" else (retriever,)


def open_index(folder: str | Path, *, corpus: str | Path | None = None) -> Retriever:
    """Open an index folder as the retriever it was built for, its files mapped into memory.

    The corpus file is hashed only when its size or time is not what was recorded. One that is gone is no error: the
    folder holds the passages.

    Args:
        corpus: the corpus the index should be of; by default the file it was built from.

    Raises:
        DataError: this is no index, or it is damaged.
        StaleError: the corpus is not the one the index was built from.
        ModelError: the encoder cannot be loaded.
    """
    folder = Path(folder)
    if not (folder / META_FILE).is_file():
        raise DataError(f"this is no index ({META_FILE} is missing)", where=str(folder), hint="run `gainrag index`")
    meta = _read_meta(folder)
    _check_fresh(folder, meta.corpus, corpus)
    passages = PassageStore(folder)
    if len(passages) != meta.passages:
        raise damaged(folder, f"{len(passages)} passages, {meta.passages} recorded")
    # Indexes from before there was a choice are of normalised vectors.
    normalize = meta.settings.normalize is not False
    kinds = parts_of(meta.settings.retriever)
    compression = read_compression(meta.compression, folder)
    parts = _open_parts(folder, passages, kinds, meta.settings.model or MODEL, normalize, compression)
    if len(parts) == 1:
        return next(iter(parts.values()))
    try:
        # Indexes from before there was a choice fuse ranks.
        return _hybrid(parts, fusion=meta.settings.fusion or "ranks", weights=meta.weights)
    except ConfigError as error:
        raise damaged(folder, f"{META_FILE}: {error.what}") from None


def set_fusion(folder: str | Path, fusion: Fusion, weights: Mapping[str, float] | None) -> None:
    """Change how a hybrid index puts its rankings together; nothing else in the folder changes.

    Args:
        weights: of scores, by retriever; both weigh the same when None.

    Raises:
        DataError: it is no index of a hybrid, or damaged.
        ConfigError: the weights are not of its retrievers.
    """
    folder = Path(folder)
    kind = _read_meta(folder).settings.retriever
    if kind != "hybrid":
        raise DataError(f"the index is {kind}, nothing is fused there", where=str(folder), hint="index with hybrid")
    if weights is not None:
        check_weights(weights, parts_of(kind))
    meta = read_json(folder / META_FILE)
    settings = {**meta["settings"], "fusion": fusion}
    own = None if weights is None else dict(weights)
    if (meta["settings"], meta.get("weights")) != (settings, own):
        write_json(folder / META_FILE, {**meta, "settings": settings, "weights": own})


def _open_parts(
    folder: Path,
    passages: PassageStore,
    kinds: Sequence[str],
    model: str,
    normalize: bool,
    compression: Compression | None,
) -> dict[str, Retriever]:
    """The single retrievers of an index folder, by kind."""
    parts: dict[str, Retriever] = {}
    if "bm25" in kinds:  # first, as it is opened in no time
        parts["bm25"] = BM25.load(folder / BM25_FOLDER, passages)
    if "dense" in kinds:
        file = folder / (DENSE_FOLDER if compression else DENSE_FILE)
        parts["dense"] = Dense.load(file, passages, model=model, normalize=normalize, compression=compression)
    return parts


def _hybrid(parts: Mapping[str, Retriever], **settings: Any) -> Hybrid:
    """The two as one: of equal scores the order is dense's."""
    return Hybrid([parts["dense"], parts["bm25"]], **settings)


class _Settings(msgspec.Struct):
    retriever: Kind
    model: str | None
    normalize: bool | None = None
    fusion: Fusion | None = None


class _Corpus(msgspec.Struct):
    """What is known about a corpus file: all but its hash without reading it."""

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None


class _Meta(msgspec.Struct):
    """What opening an index needs of its meta file."""

    settings: _Settings
    passages: int
    corpus: _Corpus | None
    weights: dict[str, float] | None = None
    identity: str | None = None
    compression: Any = None


def _read_meta(folder: Path) -> _Meta:
    try:
        return msgspec.convert(read_json(folder / META_FILE), _Meta)
    except (DataError, msgspec.ValidationError) as error:
        raise damaged(folder, f"{META_FILE}: {error}") from None


def _look(corpus: str | Path) -> _Corpus | None:
    """What is known about a corpus file without reading it; None for standard input."""
    if str(corpus) == "-":
        return None
    with input_errors(corpus):
        stat = os.stat(corpus)
        return _Corpus(path=str(Path(corpus).resolve()), size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _check_fresh(folder: Path, recorded: _Corpus | None, corpus: str | Path | None) -> None:
    if recorded is None:
        if corpus is None:
            return
        raise StaleError(
            f"the index was built from standard input and cannot be compared with {corpus}",
            where=str(folder),
            hint="run `gainrag index` on the file",
        )
    if corpus is None and not Path(recorded.path).is_file():
        return
    now = _look(recorded.path if corpus is None else corpus)
    if now is None:
        raise ConfigError("standard input cannot be compared with an index", where="corpus", hint="name the file")
    if now == msgspec.structs.replace(recorded, sha256=None):
        return
    if now.size != recorded.size or file_hash(now.path) != recorded.sha256:
        raise StaleError(
            f"the corpus {now.path} is not what the index was built from",
            where=str(folder),
            hint="run `gainrag index` again",
        )


@contextmanager
def _short_writes(out: Path) -> Iterator[None]:
    """numpy and FAISS report a full disk as a short write, without an error number."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (isinstance(error, OSError) and error.errno is None and "written" in str(error)) or (
            isinstance(error, RuntimeError) and "write error" in str(error)
        ):
            raise ResourceError(
                f"could not be written whole ({error})", where=str(out), hint="free some space and run it again"
            ) from None
        raise
