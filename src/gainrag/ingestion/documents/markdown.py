"""Markdown -> blocks. The text stays as it is written: markdown-it says only which lines belong together."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from gainrag.ingestion.documents.blocks import Block, Kind

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*\n", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
# Attributes behind a heading, as in `## Install {#install}`.
_ATTRIBUTES = re.compile(r"\s*\{[^}]*\}\s*$")
_KINDS: dict[str, Kind] = {"fence": "code", "code_block": "code", "table_open": "table"}


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    # What stands inside a line is not looked at, and takes most of the time.
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def read_markdown(text: str) -> list[Block]:
    """The blocks of a Markdown text: CommonMark with tables. A title in front matter is the page's own.

    >>> read_markdown("# Emma\\nA novel.\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |")[0]
    Block(kind='heading', text='Emma', level=1)
    """
    found: list[Block] = []
    if front := _FRONT.match(text):
        text = text[front.end() :]
        if title := _TITLE.search(front[1]):
            found.append(Block("heading", title[1].strip("\"'"), 0))
    text = _COMMENT.sub("", text)
    lines = text.split("\n")
    tokens = _parser().parse(text)
    for at, token in enumerate(tokens):
        # Headings inside of lists and quotations are part of these.
        if token.level or token.map is None:
            continue
        own = "\n".join(lines[token.map[0] : token.map[1]]).rstrip()
        if token.type == "heading_open":
            found.append(Block("heading", plain(tokens[at + 1].content), int(token.tag[1:])))
        elif own.strip():
            found.append(Block(_KINDS.get(token.type, "text"), own))
    return found


def plain(heading: str) -> str:
    """A heading without its markup.

    >>> plain("The `gainrag` [command](cli.md) {#command}")
    'The gainrag command'
    """
    return _LINK.sub(r"\1", _ATTRIBUTES.sub("", heading)).replace("`", "").replace("**", "").strip()
