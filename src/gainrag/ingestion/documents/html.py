"""HTML -> blocks: the main part of a page, without its navigation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gainrag.ingestion.documents.blocks import Block, Unreadable

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

# What is no text of the page: programs, navigation, forms, and the signs that link a heading to itself.
_AROUND = "script, style, noscript, template, svg, nav, header, footer, aside, form, button, [hidden], .headerlink"
_MAIN = ("main", "[role=main]", "article", "body")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img"),
        *("input", "ins", "kbd", "label", "mark", "math", "q", "s", "samp", "small", "span", "strike", "strong"),
        *("sub", "sup", "time", "tt", "u", "var", "wbr"),
    )
)
_SPACE = re.compile(r"\s+")


def read_html(text: str) -> list[Block]:
    """The blocks of an HTML page; its title is the page's own unless there is a heading of the first level.

    >>> [block.text for block in read_html("<h1>Emma</h1><nav>Home</nav><p>A <b>novel</b>.</p><ul><li>1815</ul>")]
    ['Emma', 'A novel.', '- 1815']

    Raises:
        Unreadable: its elements are nested too deep.
    """
    from selectolax.lexbor import LexborHTMLParser

    page = LexborHTMLParser(text)
    title = page.css_first("title")
    named = _SPACE.sub(" ", title.text(deep=True)).strip() if title else ""
    # A header that holds the page's only heading is no navigation.
    heading = page.css_first("h1")
    around = _AROUND if heading is None or _outside(heading) else _AROUND.replace(" header,", "")
    for node in page.css(around):
        node.decompose()
    body = next((found for name in _MAIN if (found := page.css_first(name)) is not None), None)
    if body is None:
        return []
    walk = _Walk()
    try:
        walk.inside(body)
    except RecursionError:
        raise Unreadable("HTML that is nested too deep") from None
    walk.flush()
    first = any(block.kind == "heading" and block.level == 1 for block in walk.found)
    return walk.found if first or not named else [Block("heading", named, 0), *walk.found]


def _outside(node: LexborNode) -> bool:
    """Whether a node is in no header."""
    above = node.parent
    while above is not None and above.tag != "header":
        above = above.parent
    return above is None


class _Walk:
    """The blocks found on the way through a tree, and the text of the one that has begun."""

    def __init__(self) -> None:
        self.found: list[Block] = []
        self._text: list[str] = []

    def flush(self, kind: str = "text") -> None:
        """End the block of text that has begun."""
        if text := _SPACE.sub(" ", "".join(self._text)).strip():
            self.found.append(Block("text", f"- {text}" if kind == "li" else text))
        self._text.clear()

    def inside(self, node: LexborNode) -> None:
        """Go through what is in a node."""
        for child in node.iter(include_text=True):
            tag = child.tag or ""
            if tag == "-text":
                self._text.append(child.text(deep=False))
            elif tag in _INLINE:
                self.inside(child)
            elif tag == "br":
                self._text.append(" ")
            else:
                self.flush()
                self._block(child, tag)

    def _block(self, node: LexborNode, tag: str) -> None:
        if tag in _HEADINGS:
            if text := _SPACE.sub(" ", node.text(deep=True)).strip():
                self.found.append(Block("heading", text, _HEADINGS[tag]))
        elif tag == "pre":
            if (code := node.text(deep=True).strip("\n").rstrip()).strip():
                self.found.append(Block("code", code))
        elif tag == "table" and not node.css_first("table table, pre, h1, h2, h3, h4, h5, h6"):
            if rows := _rows(node):
                self.found.append(Block("table", "\n".join(rows)))
        elif not tag.startswith("-") and tag != "_comment":
            self.inside(node)
            self.flush(tag)


def _rows(table: LexborNode) -> list[str]:
    """A table as Markdown, its first row the head. One that lays out a page holds headings and code: it is none."""
    rows = []
    for row in table.css("tr"):
        cells = [_SPACE.sub(" ", cell.text(deep=True, separator=" ")).strip() for cell in row.css("th, td")]
        if any(cells):
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
            if len(rows) == 1:
                rows.append("|" + "---|" * len(cells))
    return rows
