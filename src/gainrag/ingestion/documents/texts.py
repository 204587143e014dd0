"""Files -> blocks: which reader a file has by its name, and the characters that its bytes mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gainrag.ingestion.documents.blocks import Block, Unreadable
from gainrag.ingestion.documents.html import read_html
from gainrag.ingestion.documents.markdown import read_markdown
from gainrag.ingestion.documents.rst import looks_like_rst, read_rst

EXTRA = "gainrag[documents]"
# Bytes of a file. One is read whole, and takes some ten times as much memory on its way.
LARGEST = 32 << 20

_DECLARED = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)=[\"']?([\w-]+)", re.IGNORECASE)
_HEADING = re.compile(r"^(#{1,6} \S|```)", re.MULTILINE)
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Page(NamedTuple):
    """A file's blocks, and what is to be said of how it was read (its encoding, where that is not UTF-8)."""

    blocks: list[Block]
    note: str | None = None


def read_page(path: Path, data: bytes) -> Page:
    """The blocks of a file.

    Raises:
        Unreadable: there is no reader for it, it holds no text, or its characters cannot be told.
    """
    check_reader(path)
    suffix = path.suffix.lower()
    if suffix in _CONVERTED:
        return Page(_convert(path))
    if not data.strip():
        raise Unreadable("empty")
    text, encoding = decode_text(data, declared=_READERS[suffix] is read_html)
    blocks = _READERS[suffix](text.replace("\r\n", "\n").replace("\r", "\n"))
    if not any(block.kind != "heading" for block in blocks):
        raise Unreadable("no text besides headings")
    return Page(blocks, None if encoding == "utf-8" else f"read as {encoding}")


def check_reader(path: Path) -> None:
    """Whether there is a reader for a file's name.

    Raises:
        Unreadable: there is none.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS and suffix not in _CONVERTED:
        raise Unreadable(f"no reader for {suffix}" if suffix else "no reader for names without an ending")


def is_readable(path: Path) -> bool:
    """Whether there is a reader for a file's name."""
    try:
        check_reader(path)
    except Unreadable:
        return False
    return True


def may_change(reason: str | None) -> bool:
    """Whether a file that gave no passages for this reason may give some though it has not changed: the extra may be
    installed now, and what could not be read may be read."""
    return reason is not None and (EXTRA in reason or reason.startswith("cannot be read"))


def decode_text(data: bytes, *, declared: bool = False) -> tuple[str, str]:
    """(text, the name of its encoding): UTF-8, or what a byte-order mark, an HTML page's head, or the bytes say.

    >>> decode_text("The café is naïve".encode("utf-16"))
    ('The café is naïve', 'utf-16')

    Raises:
        Unreadable: it is no text, or in no encoding that fits it.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(name), "utf-8" if name == "utf-8-sig" else name
            except UnicodeDecodeError:
                break
    if b"\0" in data[:8192]:
        raise Unreadable("binary")
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        pass
    if declared and (found := _DECLARED.search(data[:2048])):
        try:
            return data.decode(found[1].decode()), found[1].decode().lower()
        except (LookupError, UnicodeDecodeError):
            pass
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None:
        raise Unreadable("no text in any known encoding")
    return str(best), best.encoding


def _read_text(text: str) -> list[Block]:
    """A text of whatever markup it has: many projects write reStructuredText or Markdown under .txt."""
    if looks_like_rst(text):
        return read_rst(text)
    if _HEADING.search(text):
        return read_markdown(text)
    return [Block("text", part) for part in re.split(r"\n\s*\n", text) if part.strip()]


_READERS: dict[str, Callable[[str], list[Block]]] = {
    **dict.fromkeys((".md", ".markdown", ".mdx", ".qmd"), read_markdown),
    **dict.fromkeys((".rst", ".rest"), read_rst),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".txt", ".text"), _read_text),
}
# What markitdown turns into Markdown, each by the converter of its kind alone: what that one cannot read (a damaged
# file) others would pass on as plain text, or as the list of an archive.
_CONVERTED = {
    ".pdf": "PdfConverter",
    ".docx": "DocxConverter",
    ".pptx": "PptxConverter",
    ".xlsx": "XlsxConverter",
    ".xls": "XlsConverter",
    ".epub": "EpubConverter",
    ".ipynb": "IpynbConverter",
    ".msg": "OutlookMsgConverter",
}


def _convert(path: Path) -> list[Block]:
    """The blocks of a PDF, an Office file and the like.

    Raises:
        Unreadable: the extra is not installed, the file is damaged, or it holds no text (pictures of pages do not).
    """
    try:
        from markitdown import MarkItDown, converters
    except ImportError:
        raise Unreadable(f"{path.suffix.lower()} needs an extra: pip install '{EXTRA}'") from None
    try:
        reader = MarkItDown(enable_builtins=False, enable_plugins=False)
        reader.register_converter(getattr(converters, _CONVERTED[path.suffix.lower()])())
        text = reader.convert(str(path)).markdown
    except Exception as error:  # what its converters raise has no common base
        raise Unreadable(f"markitdown cannot read it ({type(error).__name__})") from None
    # Page breaks of a PDF are no text.
    blocks = read_markdown(text.replace("\f", "\n\n").replace("\0", ""))
    if not blocks:
        raise Unreadable("no text in it (pictures of pages need OCR)")
    return blocks
