"""Which passages are asked about, spread over documents, and to which split a document's questions go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from gainrag.errors import DataError
from gainrag.prompts import Asked
from gainrag.records import Passage, Question, Retrieved, Scored

SPLITS = ("train", "tune", "test")
# Words of a passage that a question can be made from.
_FEWEST = 12


def document_of(passage: Passage) -> str:
    """What a passage is a part of: the file before the # of its id, else what stands before > in its title."""
    return passage.id.partition("#")[0] if "#" in passage.id else passage.title.partition(" > ")[0] or passage.id


def draw(passages: Sequence[Passage], number: int, shares: Mapping[str, float], seed: int) -> list[Retrieved]:
    """The passages to ask about: one of each document in turn, in an order of chance, before the next of any.

    Args:
        shares: of the kinds yes_no and two; the rest are facts.

    Returns:
        a record for each question to be written, with its passages, and its kind and document as `kind`, `document`.

    Raises:
        DataError: no passage has enough words.
    """
    rng = np.random.default_rng(seed)
    by_document: dict[str, list[int]] = defaultdict(list)
    for row, passage in enumerate(passages):
        if len(passage.text.split()) >= _FEWEST:
            by_document[document_of(passage)].append(row)
    if not by_document:
        raise DataError(f"no passage has {_FEWEST} words", where="ask", hint="give a corpus of texts")
    turns = []
    for name in sorted(by_document):
        rows = rng.permutation(by_document[name]).tolist()
        turns += [(turn, float(rng.random()), name, row) for turn, row in enumerate(rows)]
    found = []
    for at, (_, _, name, row) in enumerate(sorted(turns)[:number]):
        chance, own = float(rng.random()), by_document[name]
        kind: Asked = "fact"
        if chance < shares["yes_no"]:
            kind = "yes_no"
        elif chance < shares["yes_no"] + shares["two"] and len(own) > 1:
            kind = "two"
        rows = [row]
        if kind == "two":  # its neighbour says more of the same than any other
            place = own.index(row)
            rows = [own[place - 1], row] if place else [row, own[1]]
        ctxs = [_scored(passages[i]) for i in rows]
        extra = {"kind": kind, "document": name}
        found.append(Retrieved(id=f"written-{at + 1}", question="?", ctxs=ctxs, extra=extra))
    return found


def _scored(passage: Passage) -> Scored:
    return Scored(id=passage.id, title=passage.title, text=passage.text, extra=passage.extra, gold=True)


def split_by_document(questions: Sequence[Question], test: float, tune: float, seed: int) -> dict[str, list[Question]]:
    """Questions by split; all of one document in one: to whichever split lacks most of its share, the document with
    most questions first."""
    by_document: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_document[question.extra["document"]].append(question)
    shares = {"train": 1.0 - test - tune, "tune": tune, "test": test}
    found: dict[str, list[Question]] = {split: [] for split in SPLITS}
    order = np.random.default_rng(seed).permutation(sorted(by_document)).tolist()
    for name in sorted(order, key=lambda name: -len(by_document[name])):
        lack = {split: share * len(questions) - len(found[split]) for split, share in shares.items()}
        found[max(lack, key=lambda split: lack[split])] += by_document[name]
    return found
