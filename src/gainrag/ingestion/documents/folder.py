"""A folder of documents -> corpus.jsonl, and again after some of them changed."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gainrag.errors import DataError, require
from gainrag.files.locks import lock
from gainrag.files.meta import digest, is_current, write_meta
from gainrag.files.progress import progress
from gainrag.files.streams import input_errors, open_output, read_lines
from gainrag.ingestion.documents import duplicates
from gainrag.ingestion.documents.blocks import Unreadable
from gainrag.ingestion.documents.passages import cut, outline
from gainrag.ingestion.documents.store import NAME, File, Store, open_store
from gainrag.ingestion.documents.texts import LARGEST, check_reader, may_change, read_page
from gainrag.ingestion.documents.tokens import TokenCount
from gainrag.records import Passage
from gainrag.settings import Length, Name, checked

CORPUS, LEFT_OUT = "corpus.jsonl", "left_out.jsonl"
_OWN = (CORPUS, LEFT_OUT, NAME, "corpus.meta.json")
# Part of what a store was made with: raised when the same file would give other passages.
READING = 1

Likeness = Annotated[float, Meta(ge=0.7, le=1.0)]  # of near-duplicates; MinHash's bands find no others surely

# What stands before a page's first section.
_TOP = "top"
_NO_SLUG = re.compile(r"[^\w]+")


@dataclass
class Documents:
    """What became of a folder.

    Args:
        passages: in the corpus.
        counts: files and passages, by what became of them.
        left_out: each file without passages and each merged passage, with its reason, as in left_out.jsonl.
        notes: how a file was read, where that needs to be said, by file.
    """

    passages: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line a figure, the reasons with an example each."""
        lines = [f"{self.passages} passages", *(f"{count} {what}" for what, count in self.counts.items() if count)]
        for reason, count in self.reasons.most_common():
            lines.append(f"{count} {'file' if count == 1 else 'files'} left out: {reason} ({self.examples[reason]})")
        for note, count in Counter(self.notes.values()).most_common():
            first = next(path for path, own in self.notes.items() if own == note)
            lines.append(f"{count} {'file' if count == 1 else 'files'} {note} ({first})")
        return "\n".join(lines)


@checked
def ingest_documents(
    folder: str | Path,
    out: str | Path,
    skip: Collection[Path] = (),
    *,
    size: Length = 200,
    tokenizer: Name = "embedded:all-minilm-l6-v2",
    near_duplicate: Likeness = 0.9,
) -> Documents:
    """Read a folder's documents into OUT/corpus.jsonl, and what gave no passages into OUT/left_out.jsonl.

    A second run reads the files that are new or changed; a changed file replaces its own passages alone, and the ids
    of all others stay. Ids are made of path and place: `guide/install.md#linux/apt.2` is a section's second passage.

    Args:
        skip: folders among the documents that are not read.
        size: tokens of a passage at most, its title included: 200 and a question fit the 256 of the default encoder,
            and twice the 512 of a cross-encoder.
        tokenizer: the model whose tokens are counted: that of the selector, or of a dense index.
        near_duplicate: passages as alike as this are merged, the first one stays: the share of all runs of five words
            that two have in common; 1 merges those alone whose words are the same.

    Raises:
        DataError: there is no such folder, or none of its files has text.
        ConfigError: the extra is not installed.
        ModelError: the tokenizer cannot be loaded.
        ResourceError: the disk is full; what is read is kept, and running again continues.
    """
    source, out = Path(folder), Path(out)
    with input_errors(source):
        os.stat(source)
    require("ingest", "charset_normalizer", "markdown_it", "selectolax", "semchunk")
    count = TokenCount(tokenizer)
    found = Documents()
    with lock(out / "gainrag"), open_store(out) as store:
        cutting = {"size": size, "tokenizer": tokenizer, "reading": READING}
        if store.begin(msgspec.json.encode(cutting).decode()):
            found.counts["settings other than before: all files read again"] += 1
        _read_all(_walk(source, out.resolve(), {path.resolve() for path in skip}, found), store, count, size, found)
        files = list(store.files().values())
        _tell(files, found)
        settings = {**cutting, "near_duplicate": near_duplicate}
        inputs = {"documents": digest("\n".join(f"{file.path} {file.sha256}" for file in files))}
        corpus = out / CORPUS
        if found.counts["files read"] + found.counts["files gone"] or not is_current(corpus, settings, inputs):
            _write(store, files, corpus, near_duplicate, found)
            write_meta(corpus, settings, inputs, {"passages": found.passages, **found.counts, **found.reasons})
        else:
            found.counts["corpus as it was, nothing has changed"] += 1
            found.passages = sum(1 for _ in read_lines(corpus))
    return found


def _walk(source: Path, out: Path, skip: Collection[Path], found: Documents) -> Iterator[tuple[str, Path]]:
    """(path below the folder, file), folder by folder. What is hidden, linked or to be skipped is counted, not read;
    what this writes itself is no document."""
    if source.is_file():
        yield source.name, source
        return
    for folder, folders, names in os.walk(source):
        for name in sorted(folders):
            linked = Path(folder, name).is_symlink()
            if name.startswith(".") or linked:
                folders.remove(name)
                found.counts["linked folders not followed" if linked else "hidden folders not read"] += 1
            elif skip and Path(folder, name).resolve() in skip:
                folders.remove(name)
                found.counts["folders that gainrag wrote not read"] += 1
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                found.counts["hidden files not read"] += 1
            elif not (out == path.parent.resolve() and name.startswith(_OWN)):
                yield path.relative_to(source).as_posix(), path


def _read_all(walk: Iterator[tuple[str, Path]], store: Store, count: TokenCount, size: int, found: Documents) -> None:
    """Bring the store to what the folder holds now."""
    known, seen = store.files(), set()
    for name, path in progress(walk, "reading documents", unit="files"):
        seen.add(name)
        try:
            name.encode()
            stat = path.stat()
        except (OSError, UnicodeEncodeError) as error:
            found.reasons[reason := f"cannot be read ({type(error).__name__})"] += 1
            found.examples.setdefault(reason, ascii(name))
            continue
        before = known.get(name)
        same = before and (before.size, before.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        if same and not may_change(before.reason if before else None):
            continue
        file, passages = _read_file(name, path, stat, count, size)
        if before and before.sha256 == file.sha256 and before.reason == file.reason:
            store.touch(file)
            continue
        store.put(file, passages)
        found.counts["files read"] += 1
    for name in sorted(known.keys() - seen):
        store.remove(name)
        found.counts["files gone"] += 1
    found.counts["files as before"] = len(seen) - found.counts["files read"]
    store.commit()


def _read_file(
    name: str, path: Path, stat: os.stat_result, count: TokenCount, size: int
) -> tuple[File, list[tuple[Passage, bytes]]]:
    """A file and its passages, with the bands of these."""
    file = File(name, stat.st_size, stat.st_mtime_ns, sha256="")
    try:
        if stat.st_size > LARGEST:
            raise Unreadable(f"larger than {LARGEST >> 20} MiB")
        check_reader(path)
        data = path.read_bytes()
        file = file._replace(sha256=hashlib.sha256(data).hexdigest())
        page = read_page(path, data)
    except Unreadable as error:
        return file._replace(reason=str(error)), []
    except OSError as error:
        return file._replace(reason=f"cannot be read ({error.strerror})"), []
    counts: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    passages: list[tuple[Passage, bytes]] = []
    root = outline(page.blocks, _name(name))
    for piece in cut(root, size, count, counts):
        anchor = "/".join(_slug(head) for head in piece.anchor[1:]) or _TOP
        taken[anchor] += 1
        id = f"{name}#{anchor}" + (f".{taken[anchor]}" if taken[anchor] > 1 else "")
        passage = Passage(id=id, title=piece.title, text=piece.text)
        passages.append((passage, duplicates.bands(piece.text)))
    return file._replace(note=page.note, counts=msgspec.json.encode(counts).decode()), passages


def _name(name: str) -> str:
    """What a page without a title is called: its file, or the folder that it is the index of."""
    path = Path(name)
    stem = path.stem
    return path.parent.name if stem.lower() in ("index", "readme") and path.parent.name else stem


def _slug(heading: str) -> str:
    return _NO_SLUG.sub("-", heading.lower()).strip("-")[:60] or "section"


def _tell(files: list[File], found: Documents) -> None:
    """Count what became of the files."""
    for file in files:
        if file.reason:
            found.reasons[file.reason] += 1
            found.examples.setdefault(file.reason, file.path)
        else:
            found.counts["files with passages"] += 1
        if file.note:
            found.notes[file.path] = file.note
        found.counts.update(msgspec.json.decode(file.counts, type=dict[str, int]))


def _write(store: Store, files: list[File], corpus: Path, near_duplicate: float, found: Documents) -> None:
    """The corpus without its near-duplicates, and the list of what is not in it.

    Raises:
        DataError: there is not one passage.
    """
    signatures, rows = store.signatures()
    if not len(rows):
        hint = "; ".join(f"{count} {reason}" for reason, count in found.reasons.most_common(3))
        what = "none of its files has text"
        raise DataError(what, where=str(corpus.parent), hint=hint or "the folder is empty")
    into = duplicates.merged(signatures, lambda at: store.text(int(rows[at])), near_duplicate)
    wanted = dict.fromkeys(into.values(), "")
    dropped: list[tuple[str, int]] = []
    with open_output(corpus) as stream:
        for at, line in enumerate(store.lines()):
            if at in wanted or at in into:
                id = msgspec.json.decode(line, type=_Id).id
                if at in wanted:
                    wanted[at] = id
                if at in into:
                    dropped.append((id, into[at]))
                    continue
            stream.write(line)
    with open_output(corpus.with_name(LEFT_OUT)) as stream:
        for file in files:
            if file.reason:
                _line(stream, {"file": file.path, "reason": file.reason})
        for id, kept in dropped:
            _line(stream, {"passage": id, "reason": f"near-duplicate of {wanted[kept]}"})
    found.passages = len(rows) - len(into)
    found.counts["near-duplicate passages merged"] = len(into)


class _Id(msgspec.Struct):
    id: str


def _line(stream: Any, value: dict[str, str]) -> None:
    stream.write(msgspec.json.encode(value) + b"\n")
