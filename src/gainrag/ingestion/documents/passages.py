"""Blocks -> passages that fit: sections stay whole where they can, and nothing is left out.

A section that fits is one passage under "Page > Section". A longer one is cut between its blocks, a block that is too
long for a passage between its lines or rows (a table's head and a code's fences stand in each part), and prose where a
sentence ends. Sections of a few words stand together under the title above them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gainrag.ingestion.documents.blocks import Block

SEPARATOR = " > "
# Sections shorter than this share of a passage stand together.
_FEW = 4
_FENCE = re.compile(r"^\s*(```+|~~~+)")
_RULE = re.compile(r"^\s*\|?[\s:|+=-]+\|?\s*$")

Count = Callable[[str], int]


@dataclass
class Section:
    """A heading, what stands under it, and the sections in it. `path` holds the headings from the page's title down."""

    path: tuple[str, ...]
    level: int
    blocks: list[Block] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    whole: _Item | None = None  # as one text, once it was asked for


@dataclass(frozen=True)
class Piece:
    """A passage before it has an id. `anchor` names the section that it begins with."""

    anchor: tuple[str, ...]
    title: str
    text: str


@dataclass
class _Item:
    """What is not cut any more: a block or a part of one, or a whole section."""

    text: str
    tokens: int
    section: Section | None = None


def outline(blocks: Sequence[Block], name: str) -> Section:
    """The sections of a page.

    The page's title is the only heading of its highest level, if nothing but a title stands before it; else the one
    that the file gives as its own, else `name`.
    """
    headings = [block for block in blocks if block.kind == "heading"]
    given = next((block.text for block in headings if not block.level), None)
    levels = [block.level for block in headings if block.level]
    top = min(levels, default=0)
    alone = levels.count(top) == 1 and levels[0] == top
    title = next((block.text for block in headings if block.level == top), "") if alone else given
    root = Section(path=(title or name,), level=top if alone else 0)
    open_sections = [root]
    for block in blocks:
        if block.kind != "heading":
            open_sections[-1].blocks.append(block)
        elif block.level and not (alone and block.level == top):
            while len(open_sections) > 1 and open_sections[-1].level >= block.level:
                open_sections.pop()
            section = Section((*open_sections[-1].path, block.text), block.level)
            open_sections[-1].sections.append(section)
            open_sections.append(section)
    return root


def cut(page: Section, size: int, count: Count, counts: Counter[str]) -> Iterator[Piece]:
    """The passages of a page in their order.

    Args:
        size: tokens of a passage, its title included, at most.
        count: the tokens of a text.
        counts: gets how many blocks were cut, by kind.
    """
    title = _title(page.path, size, count)
    budget = max(8, size - count(title))
    items: list[_Item | list[Piece]] = []
    for block in page.blocks:
        items += _parts(block, budget, count, counts)
    for section in page.sections:
        whole = _whole(section, count)
        # Its own title is longer than the one above it, by its heading, which is counted in the whole.
        if whole.tokens <= budget:
            items += [whole] if whole.text.strip() else []
        else:
            items.append(list(cut(section, size, count, counts)))
    yield from _packed(page, title, items, budget)


def _packed(page: Section, title: str, items: Iterable[_Item | list[Piece]], budget: int) -> Iterator[Piece]:
    """Items together where they fit, in their order."""
    held: list[_Item] = []
    for item in items:
        if isinstance(item, list):
            yield from _closed(page, title, held)
            yield from item
            continue
        tokens = sum(other.tokens for other in held)
        # A new section begins a new passage, unless what stands before it is short.
        if tokens + item.tokens > budget or (item.section and tokens * _FEW >= budget):
            yield from _closed(page, title, held)
        held.append(item)
    yield from _closed(page, title, held)


def _closed(page: Section, title: str, held: list[_Item]) -> Iterator[Piece]:
    """The passage that items make, and no items after it."""
    if not held:
        return
    first = held[0].section
    if len(held) == 1 and first is not None:
        heading = title + SEPARATOR + first.path[-1]
        text = held[0].text.removeprefix(first.path[-1]).lstrip("\n")
        yield Piece(first.path, heading, text)
    else:
        yield Piece((first or page).path, title, "\n\n".join(item.text for item in held))
    held.clear()


def _whole(section: Section, count: Count) -> _Item:
    """A section as one text, with its headings; without a text where there are headings alone."""
    if section.whole is None:
        section.whole = _joined(section, count)
    return section.whole


def _joined(section: Section, count: Count) -> _Item:
    inner = [_whole(child, count) for child in section.sections]
    texts = [*(block.text for block in section.blocks), *(item.text for item in inner if item.text)]
    if not texts:
        return _Item("", 0, section)
    tokens = count(section.path[-1]) + sum(count(block.text) for block in section.blocks)
    return _Item("\n\n".join([section.path[-1], *texts]), tokens + sum(item.tokens for item in inner), section)


def _title(path: Sequence[str], size: int, count: Count) -> str:
    """The headings from the page's title down, of at most a third of a passage: the middle ones give way first."""
    heads = list(path)
    while len(heads) > 2 and count(SEPARATOR.join(heads)) * 3 > size:
        del heads[len(heads) // 2]
    title = SEPARATOR.join(heads)
    if count(title) * 3 > size:
        title = _prose(heads[-1], size // 3, count)[0]
    return title


def _parts(block: Block, budget: int, count: Count, counts: Counter[str]) -> list[_Item]:
    """A block, cut where it is too long for a passage."""
    tokens = count(block.text)
    if tokens <= budget:
        return [_Item(block.text, tokens)]
    return [_Item(text, count(text)) for text in _torn(block, budget, count, counts)]


def _torn(block: Block, budget: int, count: Count, counts: Counter[str]) -> list[str]:
    """The parts of a block that is too long."""
    if block.kind == "text":
        counts["paragraphs cut between sentences"] += 1
        return _prose(block.text, budget, count)
    counts["tables cut between rows" if block.kind == "table" else "code blocks cut between lines"] += 1
    lines = block.text.split("\n")
    head, foot = _frame(block, lines)
    inside = lines[len(head) : len(lines) - len(foot)]
    room = budget - count("\n".join([*head, *foot]))
    if room < budget // 2:  # a head that takes most of a passage is a row like others
        head, foot, inside, room = [], [], lines, budget
    return ["\n".join([*head, *part, *foot]) for part in _lines(inside, room, count)]


def _frame(block: Block, lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of a table or of code that stand in each of its parts: at their beginning, and at their end."""
    if block.kind == "table":
        return (list(lines[:2]), []) if len(lines) > 2 and _RULE.match(lines[1]) else ([], [])
    fenced = len(lines) > 2 and _FENCE.match(lines[0]) and _FENCE.match(lines[-1])
    return ([lines[0]], [lines[-1]]) if fenced else ([], [])


def _lines(lines: Iterable[str], room: int, count: Count) -> Iterator[list[str]]:
    """Lines together as far as they fit; one that does not is cut like prose."""
    held: list[str] = []
    tokens = 0
    for line in lines:
        for part in [line] if count(line) <= room else _prose(line, room, count):
            own = count(part)
            if held and tokens + own > room:
                yield held
                held, tokens = [], 0
            held.append(part)
            tokens += own
    if any(line.strip() for line in held):
        yield held


def _prose(text: str, room: int, count: Count) -> list[str]:
    """A text cut where paragraphs, sentences, or at last words end."""
    import semchunk

    parts: list[str] = semchunk.chunk(text, max(1, room), count, memoize=False)
    return parts
