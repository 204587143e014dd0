"""Bytes -> blocks -> lines -> JSON, within bounds: whatever is in a file, what comes of it is data or one line.

A line may have 64 MiB, a file that is read whole 2 GiB: a few megabytes of gzip can hold more than any machine has.
Blank lines are passed over a block at a time. Lines end with a line feed and with nothing else: U+0085 and U+2028
are characters like others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import msgspec

from gainrag.errors import DataError

BLOCK, LINE, WHOLE = 1 << 20, 64 << 20, 2 << 30
# What compressed text never reaches: above it, the file was made to fill a memory.
_INFLATION = 250
BOM = b"\xef\xbb\xbf"


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """A stream's bytes as they come, at most 1 MiB at a time; first as many as a byte-order mark has."""
    if start := stream.read(len(BOM)):
        yield start
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while block := read(BLOCK):
        yield block


def lines(path: object, found: Iterable[bytes], number: int = 1, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
    """The lines of blocks with their numbers, and with their line feeds.

    Args:
        number: the first line's.
        blank: yield blank lines, too.

    Raises:
        DataError: a line is longer than 64 MiB.
    """
    held = bytearray()  # the start of a line that goes on in the next block
    for block in found:
        if not blank and not held and block.isspace():
            number += block.count(b"\n")
            held += block[block.rfind(b"\n") + 1 :]
            continue
        *whole, rest = block.split(b"\n")
        for line in whole:
            if held:
                line = bytes(held) + line
                held.clear()
            if blank or not (line == b"" or line.isspace()):
                yield number, line + b"\n"
            number += 1
        held += rest
        if len(held) > LINE:
            name, do = guess(bytes(held[:BLOCK])) or ("one record only", "write one JSON object a line")
            raise DataError(f"a line of more than 64 MiB; looks like {name}", where=f"{path}:{number}", hint=do)
    if held and (blank or not held.isspace()):
        yield number, bytes(held)


def whole(path: object, found: Iterable[bytes], stored: int | None = None) -> bytes:
    """All bytes of blocks.

    Args:
        stored: the file's size on disk where it is compressed.

    Raises:
        DataError: they are more than 2 GiB, or far more than text of this size on disk can be.
    """
    limit = WHOLE if stored is None else min(WHOLE, max(LINE, _INFLATION * stored))
    data = bytearray()
    for block in found:
        data += block
        if len(data) > limit:
            what = f"more than {limit >> 20} MiB in one piece"
            raise DataError(what, where=str(path), hint="write JSON lines, which are read one by one")
    return bytes(data)


def decode(data: bytes | msgspec.Raw, where: str, *, kind: Any = Any, hint: str = "one JSON object a line") -> Any:
    """JSON as a type.

    Args:
        hint: what should have been there.

    Raises:
        DataError: it is no JSON (the message says what it looks like instead), nested too deep, or of another type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise DataError("no JSON: nested too deep", where=where, hint=hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if (found := guess(bytes(data)[:BLOCK])) is not None:
            raise DataError(f"no JSON: looks like {found[0]}", where=where, hint=found[1]) from None
        what = str(error) if isinstance(error, msgspec.ValidationError) else f"no JSON: {error}"
        raise DataError(what, where=where, hint=hint) from None


# --- what it is instead --------------------------------------------------------------------------------------------

_SAVE = "save it as JSON lines, one object a line"
_STARTS = (  # the first bytes of a format, its name, what to do
    (b"PAR1", "Parquet", f"{_SAVE}: pandas.read_parquet(..).to_json(.., orient='records', lines=True)"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8"),
    (b"\x1f\x8b", "gzip", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it, or pack it as .gz"),
    (b"BZh", "bzip2", "unpack it, or pack it as .gz"),
    (b"\xfd7zXZ", "xz", "unpack it, or pack it as .gz"),
    (b"PK\x03\x04", "a zip or Office file", f"unpack it, or {_SAVE}"),
    (b"%PDF", "PDF", _SAVE),
    (b"SQLite format 3", "an SQLite database", _SAVE),
    (b"ARROW1", "Arrow", _SAVE),
    (b"version https://git-lfs", "a Git LFS pointer", "get the file itself: git lfs pull"),
)
_HTML = re.compile(r"<(!doctype|html|\?xml|[a-z]+[ >])", re.IGNORECASE)
_MARKDOWN = re.compile(r"(#{1,6} |---\s*$|```|\* |- |> |\| |\[[^\]]+\]\()")
_PYTHON = re.compile(r"[\[{]\s*'")


def guess(data: bytes) -> tuple[str, str] | None:
    """What bytes that are no JSON look like, and what to do about it; None where nothing is recognised.

    >>> guess(b"id,question,answers")[0], guess(b"# Title")[0], guess(b'{"id": "1", ')
    ('CSV', 'Markdown', None)
    """
    for start, name, do in _STARTS:
        if data.startswith(start):
            return name, do
    if b"\0" in data[:64]:
        return ("UTF-16", "save it as UTF-8") if data[:64].count(b"\0") > 8 else ("a binary file", _SAVE)
    text = data[:4096].decode("utf-8", "replace").lstrip()
    line = text.split("\n", 1)[0]
    if _PYTHON.match(line):
        return "Python's notation", "write JSON, which has double quotes: json.dumps"
    if _HTML.match(line):
        return "HTML or XML", _SAVE
    if _MARKDOWN.match(line):
        return "Markdown", _SAVE
    if line[:1] not in ("{", "[", '"') or (line.startswith('"') and '",' in line):
        if line.count("\t"):
            return "a table with tabs (TSV)", "let DPR's TSV end in .tsv, or save it as JSON lines"
        if line.count(","):
            return "CSV", f"{_SAVE}: pandas.read_csv(..).to_json(.., orient='records', lines=True)"
    return None
