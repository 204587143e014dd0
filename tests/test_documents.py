"""A folder of documents becomes passages: whole sections where they fit, nothing lost, a second run that is short."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gainrag.errors import DataError
from gainrag.ingestion import Documents, ingest_documents, read_passages
from gainrag.ingestion.documents.blocks import Block
from gainrag.ingestion.documents.duplicates import alike, bands, shingles
from gainrag.ingestion.documents.html import read_html
from gainrag.ingestion.documents.markdown import read_markdown
from gainrag.ingestion.documents.passages import cut, outline
from gainrag.ingestion.documents.rst import read_rst
from gainrag.ingestion.documents.texts import decode_text
from gainrag.records import Passage

MARKDOWN = """---
title: Front
---
# Harbours
The harbours of the bay.

## Deep ones
| name | depth |
|------|-------|
| Ost  | 12 m  |

```python
# no heading
depth = 12
```

### Ost
Ships moor here.
"""
RST = """
=======
Harbours
=======

The :class:`~bay.Harbour` of the `bay <https://example.org>`_::

    depth = 12

.. note:: Ships moor
   here.

.. toctree::

   other

.. only:: html

   Seen on pages.

Deep ones
---------

=====  =====
name   depth
=====  =====
Ost    12 m
=====  =====

.. comment that nobody reads

.. method:: moor(ship, *, side)
   :async:

   Bring a ship in.
"""
HTML = """<html><head><title>Bay - Site</title></head><body><nav>Home</nav>
<main><h1>Harbours<a class="headerlink" href="#x">¶</a></h1><p>The <b>harbours</b> of<br>the bay.</p>
<pre>depth = 12
</pre><ul><li>Ost</li><li>West</li></ul>
<table><tr><th>name</th><th>depth</th></tr><tr><td>Ost</td><td>12 m</td></tr></table></main>
<footer>Imprint</footer></body></html>"""


def words(text: str) -> int:
    return len(text.split())


def test_markdown_blocks() -> None:
    found = read_markdown(MARKDOWN)
    assert [(block.kind, block.level) for block in found] == [
        ("heading", 0),
        ("heading", 1),
        ("text", 0),
        ("heading", 2),
        ("table", 0),
        ("code", 0),
        ("heading", 3),
        ("text", 0),
    ]
    assert found[5].text == "```python\n# no heading\ndepth = 12\n```"


def test_rst_blocks() -> None:
    assert read_rst(RST) == [
        Block("heading", "Harbours", 1),
        Block("text", "The Harbour of the bay:"),
        Block("code", "depth = 12"),
        Block("text", "note: Ships moor"),
        Block("text", "here."),
        Block("text", "Seen on pages."),
        Block("heading", "Deep ones", 2),
        Block("table", "=====  =====\nname   depth\n=====  =====\nOst    12 m\n=====  ====="),
        Block("text", "method: moor(ship, *, side)"),
        Block("text", "Bring a ship in."),
    ]


def test_html_blocks() -> None:
    assert read_html(HTML) == [
        Block("heading", "Harbours", 1),
        Block("text", "The harbours of the bay."),
        Block("code", "depth = 12"),
        Block("text", "- Ost"),
        Block("text", "- West"),
        Block("table", "| name | depth |\n|---|---|\n| Ost | 12 m |"),
    ]


def test_sections_are_titles_and_stay_whole() -> None:
    root = outline(read_markdown(MARKDOWN), "file")
    (whole,) = cut(root, 200, words, Counter())
    assert whole.title == "Harbours"
    assert "\n\nDeep ones\n\n| name | depth |" in whole.text
    assert "Ost\n\nShips moor here." in whole.text
    apart = list(cut(root, 18, words, Counter()))
    assert (apart[0].title, apart[-1].title) == ("Harbours", "Harbours > Deep ones > Ost")
    assert apart[-1].text == "Ships moor here."


@pytest.mark.parametrize("size", [12, 30, 80])
def test_passages_fit_and_no_word_is_lost(size: int) -> None:
    prose = " ".join(f"Sentence number {i} stands here." for i in range(40))
    rows = "\n".join(f"| {i} | value {i} |" for i in range(30))
    code = "```\n" + "\n".join(f"x{i} = {i}" for i in range(40)) + "\n```"
    page = f"# Page\n{prose}\n\n## Table\n\n| a | b |\n|---|---|\n{rows}\n\n## Code\n{code}\n"
    counts: Counter[str] = Counter()
    pieces = list(cut(outline(read_markdown(page), "p"), size, words, counts))
    for piece in pieces:
        assert words(piece.title) + words(piece.text) <= size + 1
    text = " ".join(piece.text for piece in pieces)
    assert all(f"number {i} stands" in text for i in range(40))
    assert all(f"| {i} | value {i} |" in text for i in range(30))
    assert all(f"x{i} = {i}" in text for i in range(40))
    if size == 30:  # each part says which columns these are
        assert all(piece.text.startswith("| a | b |") for piece in pieces if "| value" in piece.text)
    assert all(piece.text.count("```") == 2 for piece in pieces if "x1 =" in piece.text)
    assert counts["paragraphs cut between sentences"] == 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("café".encode(), "café"),
        ("café".encode("utf-8-sig"), "café"),
        ("café".encode("utf-16"), "café"),
        ("Der Zug fährt über die große Brücke nach Köln, und die Gäste grüßen.".encode("cp1252"), None),
    ],
)
def test_encodings(data: bytes, text: str | None) -> None:
    found, encoding = decode_text(data)
    assert found == (text or data.decode("cp1252"))
    assert (encoding == "utf-8") == (text is not None and data[:2] != b"\xff\xfe")


def test_a_declared_encoding_is_believed() -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><p>Łódź</p></html>'.encode("iso-8859-2")
    assert "Łódź" in decode_text(page, declared=True)[0]


def test_bands_find_what_is_alike() -> None:
    text = " ".join(f"word{i}" for i in range(200))
    near = text.replace("word100", "other")
    assert alike(shingles(text), shingles(near)) > 0.9
    assert any(bands(text)[i : i + 8] == bands(near)[i : i + 8] for i in range(0, 64, 8))
    assert bands(text) != bands(" ".join(f"term{i}" for i in range(200)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "docs"
    (source / "deep").mkdir(parents=True)
    (source / ".git").mkdir()
    (source / ".git" / "config.txt").write_text("hidden")
    (source / "bay.md").write_text(MARKDOWN)
    (source / "deep" / "index.html").write_text(HTML)
    (source / "deep" / "page.rst").write_text(RST)
    (source / "plain.txt").write_bytes("Die Fähre fährt täglich über den Fluß nach Süden.\n\nZwei.".encode("cp1252"))
    (source / "empty.md").write_text(" \n")
    (source / "logo.png").write_bytes(b"\x89PNG")
    (source / "zero.txt").write_bytes(b"a\0b")
    return source


def run(folder: Path, **settings: float | int) -> tuple[Documents, list[Passage]]:
    out = folder.parent / "data"
    found = ingest_documents(folder, out, **settings)  # type: ignore[arg-type]
    return found, list(read_passages(out / "corpus.jsonl"))


def test_a_folder_becomes_a_corpus_and_everything_left_out_is_named(folder: Path) -> None:
    found, passages = run(folder)
    assert [passage.id for passage in passages] == [
        "bay.md#top",
        "deep/index.html#top",
        "deep/page.rst#top",
        "plain.txt#top",
    ]
    assert found.passages == len(passages)
    assert "fährt täglich über" in next(passage.text for passage in passages if passage.id == "plain.txt#top")
    left = [json.loads(line) for line in (folder.parent / "data" / "left_out.jsonl").read_text().splitlines()]
    assert {entry["file"]: entry["reason"] for entry in left} == {
        "empty.md": "empty",
        "logo.png": "no reader for .png",
        "zero.txt": "binary",
    }
    assert found.counts["hidden folders not read"] == 1
    shown = str(found)
    assert "1 file left out: no reader for .png (logo.png)" in shown
    assert "read as cp125" in shown


def test_a_second_run_reads_what_has_changed(folder: Path) -> None:
    _, before = run(folder)
    corpus = folder.parent / "data" / "corpus.jsonl"
    written = corpus.stat().st_mtime_ns
    again, _ = run(folder)
    assert again.counts["files read"] == 0
    assert corpus.stat().st_mtime_ns == written
    (folder / "bay.md").write_text(MARKDOWN.replace("Ships moor here.", "Boats moor here."))
    (folder / "plain.txt").unlink()
    os.utime(folder / "deep" / "page.rst", ns=(1, 1))  # touched, not changed
    changed, after = run(folder)
    assert (changed.counts["files read"], changed.counts["files gone"]) == (1, 1)
    old, new = ({passage.id: passage for passage in found} for found in (before, after))
    assert old.keys() - new.keys() == {"plain.txt#top"}
    assert [id for id in new if new[id] != old[id]] == ["bay.md#top"]
    smaller, passages = run(folder, size=30)
    assert smaller.counts["files read"] == 6
    assert len(passages) > len(after)


def test_near_duplicates_are_merged_and_named(folder: Path) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    (folder / "a.txt").write_text(text)
    (folder / "b.txt").write_text(text + " end")
    (folder / "c.txt").write_text(text.upper() + "\n")
    found, passages = run(folder)
    assert found.counts["near-duplicate passages merged"] == 2
    assert {"a.txt#top", "b.txt#top", "c.txt#top"} & {passage.id for passage in passages} == {"a.txt#top"}
    left = (folder.parent / "data" / "left_out.jsonl").read_text()
    assert '{"passage":"b.txt#top","reason":"near-duplicate of a.txt#top"}' in left
    (folder / "a.txt").unlink()  # what was merged into it comes back
    _, passages = run(folder)
    assert {"b.txt#top", "c.txt#top"} & {passage.id for passage in passages} == {"b.txt#top"}
    strict, _ = run(folder, near_duplicate=1.0)
    assert strict.counts["near-duplicate passages merged"] == 0


def test_headings_that_come_twice_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    part = "## Options\n" + " ".join(f"word{i}" for i in range(90)) + "\n\n"
    (tmp_path / "docs" / "page.md").write_text("# Page\n" + part + part.replace("word", "term"))
    _, passages = run(tmp_path / "docs")
    ids = [passage.id for passage in passages]
    assert len(set(ids)) == len(ids)
    assert {passage.title for passage in passages} == {"Page > Options"}


def test_a_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "logo.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"none of its files has text.*no reader for \.png"):
        run(tmp_path / "docs")
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path / "nowhere")


def test_a_damaged_store_is_said(folder: Path) -> None:
    run(folder)
    (folder.parent / "data" / "documents.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(DataError, match="the store is damaged"):
        run(folder)


def test_office_files_need_the_extra_or_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "report.xlsx").write_bytes(b"PK\x03\x04 and no more")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "markitdown", None)
        found, _ = run(folder)
        assert found.reasons[".xlsx needs an extra: pip install 'gainrag[documents]'"] == 1
    pytest.importorskip("markitdown")
    sheets: Any = pytest.importorskip("openpyxl")
    found, _ = run(folder)  # the same file is looked at again
    assert any(reason.startswith("markitdown cannot read it") for reason in found.reasons)
    book = sheets.Workbook()
    book.active.append(["harbour", "depth"])
    book.active.append(["Ost", "12 m"])
    book.save(folder / "report.xlsx")
    _, passages = run(folder)
    assert any("12 m" in passage.text for passage in passages if passage.id.startswith("report.xlsx#"))
