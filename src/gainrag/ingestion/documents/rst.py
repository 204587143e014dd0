"""reStructuredText -> blocks, by its lines: Sphinx's directives and roles are markup that docutils alone reports as
errors and leaves out, text and all.

| markup | becomes |
|---|---|
| a title over or under a line of signs | a heading; levels in the order in which their signs first come |
| `::` and what is indented behind it, `code-block`, `>>>` | code |
| grid tables, simple tables, `csv-table`, `list-table` | a table, as it stands |
| an object (`class:: Model(..)`), an admonition, any other directive | a line of text, then what is in it |
| comments, link targets, and directives that hold no text (`toctree`, `index`, `image` ..) | nothing |
| roles (:meth:`~Model.save`), links | their text |
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

from gainrag.ingestion.documents.blocks import Block

_SIGNS = re.compile(r"^([!-/:-@\[-`{-~])\1+\s*$")
_EXPLICIT = re.compile(r"^\s*\.\.(\s|$)")
_DIRECTIVE = re.compile(r"^\s*\.\. (?:\|[^|]+\| )?([\w:+.-]+?):: ?(.*)$")
_OPTION = re.compile(r"^\s*:[\w -]+:( |$)")
_TABLE = re.compile(r"^\s*(\+[-=+]+\+|=+( +=+)+)\s*$")
_SIMPLE = re.compile(r"^\s*=+( +=+)+\s*$")
_CODE = frozenset(("code", "code-block", "sourcecode", "parsed-literal", "literalinclude", "doctest", "testcode"))
_CODE |= {"console", "ipython", "prompt", "math", "productionlist", "plot", "jupyter-execute", "testoutput"}
_TABLES = frozenset(("csv-table", "list-table", "flat-table", "table"))
# They hold names of files, of classes, of styles, never prose.
_SILENT = frozenset(
    (
        *("autoclass", "autodata", "autofunction", "automethod", "automodule", "autosummary"),
        *("class-name", "codeauthor", "contents", "cssclass", "currentmodule", "default-domain", "default-role"),
        *(
            "digraph",
            "graphviz",
            "highlight",
            "image",
            "include",
            "index",
            "inheritance-diagram",
            "meta",
            "module",
            "moduleauthor",
        ),
        *(
            "py:currentmodule",
            "py:module",
            "raw",
            "replace",
            "role",
            "rst-class",
            "sectionauthor",
            "sectnum",
            "tabularcolumns",
        ),
        *("target-notes", "testcleanup", "testsetup", "toctree", "unicode"),
    )
)
# What is in them stands for itself; so does the line of those that say no more than where to put it.
_PLAIN = frozenset(("centered", "compound", "container", "glossary", "rubric", "tab-item", "tab-set"))
_BARE = frozenset(("figure", "hlist", "ifconfig", "only"))
_ROLE = re.compile(r":[\w:+.-]+:`([^`]+)`")
_LINK = re.compile(r"`([^`<>]+?)\s*<[^`>]*>`_{0,2}")
_REFERENCE = re.compile(r"`([^`]+)`__?")
_TARGET = re.compile(r"^(.*?)\s*<[^>]*>$", re.DOTALL)


def read_rst(text: str) -> list[Block]:
    """The blocks of a reStructuredText page.

    >>> read_rst("Emma\\n====\\nBy :class:`~novels.Austen`::\\n\\n    1815\\n")[1:]
    [Block(kind='text', text='By Austen:', level=0), Block(kind='code', text='1815', level=0)]
    """
    reader = _Reader()
    reader.read(text.expandtabs(8).split("\n"))
    return reader.found


def looks_like_rst(text: str) -> bool:
    """Whether a text is reStructuredText by its directives, or by a title that a line as long stands under."""
    lines = text[:20_000].split("\n")
    return any(
        _DIRECTIVE.match(line) or (above.strip() and _SIGNS.match(line) and abs(len(line) - len(above)) <= 2)
        for above, line in itertools.pairwise(lines)
    )


def plain(text: str) -> str:
    """A text without roles and links.

    >>> plain("See :meth:`~Model.save` and `the docs <https://x.org>`_, or :ref:`here <there>`.")
    'See save and the docs, or here.'
    """
    return _REFERENCE.sub(r"\1", _LINK.sub(r"\1", _ROLE.sub(lambda found: _role(found[1]), text)))


def _role(content: str) -> str:
    if named := _TARGET.match(content):
        return named[1] or content
    return content.rsplit(".", 1)[-1] if content.startswith("~") else content.lstrip("!.")


class _Reader:
    """The blocks found so far, and the levels of headings by their signs."""

    def __init__(self) -> None:
        self.found: list[Block] = []
        self._styles: list[tuple[str, bool]] = []

    def read(self, lines: Sequence[str]) -> None:
        """Add the blocks of lines."""
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
            elif heading := self._heading(lines, at):
                at = heading
            elif _EXPLICIT.match(lines[at]):
                end = _indented(lines, at + 1, _indent(lines[at]))
                self._explicit(lines[at], lines[at + 1 : end])
                at = end
            elif _TABLE.match(lines[at]):
                end = _table_end(lines, at)
                self._add("table", lines[at:end])
                at = end
            else:
                at = self._paragraph(lines, at)

    def _heading(self, lines: Sequence[str], at: int) -> int | None:
        """Where the text goes on behind a heading that begins here."""
        over = bool(_SIGNS.match(lines[at]))
        title = at + 1 if over else at
        if title + 1 >= len(lines) or not lines[title].strip() or not _SIGNS.match(lines[title + 1]):
            # A line of signs alone is a transition.
            return at + 1 if over and len(lines[at].strip()) > 3 and not _TABLE.match(lines[at]) else None
        signs, text = lines[title + 1].strip(), lines[title].strip()
        if (over and signs[0] != lines[at].strip()[0]) or (not over and lines[title][0] == " "):
            return None
        if len(signs) < min(4, len(text)) or _SIGNS.match(text):
            return None
        style = (signs[0], over)
        if style not in self._styles:
            self._styles.append(style)
        self.found.append(Block("heading", plain(text).replace("``", ""), self._styles.index(style) + 1))
        return title + 2

    def _explicit(self, first: str, inner: Sequence[str]) -> None:
        """A directive, or what is no text: a comment, a link's target, a footnote's number."""
        directive = _DIRECTIVE.match(first)
        if directive is None:
            if note := re.match(r"^\s*\.\. (\[[^\]]+\] .*)$", first):
                self._add("text", [note[1], *inner])
            return
        name, argument = directive[1], directive[2].strip()
        if name in _SILENT:
            return
        body = list(inner)
        while body and (not body[0].strip() or _OPTION.match(body[0])):
            if not body.pop(0).strip():
                break
        if name in _CODE:
            self._add("code", [argument, *body] if name == "math" else body)
            return
        if name in _TABLES:
            self._add("table", [argument, *body] if argument else body)
            return
        inside = textwrap.dedent("\n".join(body)).split("\n")
        if name in _PLAIN and argument:
            self._add("text", [argument])
        elif name not in _PLAIN | _BARE:
            self._add("text", [f"{name.rpartition(':')[2]}: {argument}".strip()])
        self.read(inside)

    def _paragraph(self, lines: Sequence[str], at: int) -> int:
        """Add a paragraph, and the literal block that it announces; where the text goes on."""
        end = at
        while end < len(lines) and lines[end].strip() and not (end > at and _EXPLICIT.match(lines[end])):
            end += 1
        own = list(lines[at:end])
        if own[0].lstrip().startswith(">>>"):
            self._add("code", own)
            return end
        literal = own[-1].rstrip().endswith("::")
        if literal:
            own[-1] = own[-1].rstrip()[:-1].rstrip() if own[-1].strip() != "::" else ""
        self._add("text", own)
        if not literal:
            return end
        after = _indented(lines, end, _indent(lines[at]))
        self._add("code", lines[end:after])
        return after

    def _add(self, kind: str, lines: Sequence[str]) -> None:
        text = textwrap.dedent("\n".join(lines)).strip("\n").rstrip()
        if not text.strip():
            return
        if kind == "text":
            self.found.append(Block("text", plain(text)))
        else:
            self.found.append(Block("code" if kind == "code" else "table", text))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _indented(lines: Sequence[str], at: int, indent: int) -> int:
    """Where the lines end that are blank or indented by more than `indent`."""
    end = at
    for position in range(at, len(lines)):
        if lines[position].strip():
            if _indent(lines[position]) <= indent:
                break
            end = position + 1
    return end


def _table_end(lines: Sequence[str], at: int) -> int:
    """Where a table ends: a simple one with a border and a blank line, which its rows may hold, too."""
    end, borders = at, 0
    while end < len(lines):
        border = bool(_SIMPLE.match(lines[end]))
        borders += border
        if not lines[end].strip() and not (_SIMPLE.match(lines[at]) and borders < 2):
            break
        end += 1
        if border and borders >= 2 and (end >= len(lines) or not lines[end].strip()):
            break
    return end
