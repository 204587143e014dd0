"""A small world of good inputs for the fuzz, and what is done to bytes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gainrag.cli.main import main
from gainrag.files.streams import write
from gainrag.indexing import open_index
from gainrag.ingestion import read_questions
from gainrag.records import Answer, Gained, GainRecord, Record, Retrieved
from gainrag.retrieval import retrieve
from gainrag.runs.sharing import share
from tests.small_run import WITH_REAL_BASE, config_of, write_data

Rng = random.Random

# Names a model that is not there: a command that says so has accepted its input.
NO_MODEL = "/nowhere/model"
# What turns up where something else should be.
WEIRD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        10**25,
        1e308,
        "",
        " ",
        "\u0000",
        "x",
        "\u2028",
        "é" * 300,
        [],
        {},
        [None],
        [[]],
    ),
    *([1], ["a", "a"], {"a": 1}, {"0.0": "x"}, {"id": 1}, [{"id": "p"}], [{"id": "p", "text": "t"}] * 2, {"": None}),
)


@dataclass(frozen=True)
class Case:
    """A command line to try.

    bad: whether it must be refused.
    names: one of these must be in the message of a refusal.
    """

    kind: str
    what: str
    argv: Sequence[str]
    bad: bool = False
    names: Sequence[str] = ()


class World:
    """Good inputs of every kind in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.data = folder / "data"
        self.data.mkdir()
        write_data(self.data)
        (self.data / "config.toml").write_text(WITH_REAL_BASE + '\n[index]\nretriever = "bm25"\n')
        self.index = folder / "index"
        assert main(["index", str(self.data / "corpus.jsonl"), "-o", str(self.index), "--retriever", "bm25"]) == 0
        retrieved = retrieve(read_questions(self.data / "train.jsonl", need_answers=True), open_index(self.index), k=4)
        self.good: dict[str, list[dict[str, Any]]] = {}
        made: dict[str, Sequence[Record]] = {
            "retrieved": retrieved,
            "gains": _gains(retrieved),
            "answers": _answers(retrieved),
        }
        for name, records in made.items():
            write(folder / f"{name}.jsonl", records)
            self.good[name] = [json.loads(line) for line in (folder / f"{name}.jsonl").open()]
        for name, file in {"corpus": "corpus.jsonl", "questions": "train.jsonl"}.items():
            self.good[name] = [json.loads(line) for line in (self.data / file).open()]
        self._make_run(retrieved)
        self._parts: dict[str, Path] = {}

    def _make_run(self, retrieved: Sequence[Retrieved]) -> None:
        run = self.folder / "run"
        for question in retrieved:
            question.extra["dataset"] = "rivers"
        write(run / "retrieved" / "train.jsonl", retrieved)
        shutil.copy(self.data / "config.toml", run / "config.toml")
        self.shared = self.folder / "shared"
        share(run, self.shared, config_of(self.data))

    def new(self, name: str) -> Path:
        """A path that nothing is at, with this name."""
        folder = self.folder / f"case{self.count % 50}"
        self.count += 1
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder / name

    def recorded(self) -> Path:
        """A copy of a finished run."""
        from tests.recorded_run import make_run

        if "recorded" not in self._parts:
            self._parts["recorded"] = make_run(self.folder / "recorded", n=12)
        return Path(shutil.copytree(self._parts["recorded"], self.new("recorded")))

    def selector(self) -> Path:
        """A copy of a selector's folder: a cross-encoder of one small layer."""
        if "selector" not in self._parts:
            self._parts["selector"] = _small_selector(self.folder / "selector")
        return Path(shutil.copytree(self._parts["selector"], self.new("selector")))


def _gains(retrieved: Sequence[Retrieved]) -> list[GainRecord]:
    def passages(r: Retrieved) -> list[Gained]:
        return [
            Gained(id=c.id, text=c.text, score=c.score, loss={"0.0": 1.0 + i, "0.5": 2.0 + i}, gain=-float(i))
            for i, c in enumerate(r.ctxs)
        ]

    shared = ("id", "question", "answers")
    return [
        GainRecord(**{k: getattr(r, k) for k in shared}, kept=True, prediction="x", silver=0, ctxs=passages(r))
        for r in retrieved
    ]


def _answers(retrieved: Sequence[Retrieved]) -> list[Answer]:
    return [Answer(id=r.id, question=r.question, answers=r.answers, prediction="Seine", ctxs=r.ctxs) for r in retrieved]


def _small_selector(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from gainrag.models.folder import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("embedded:all-minilm-l6-v2"))
    torch.manual_seed(0)
    size = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=128, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "laziness.json").write_text('{"threshold": 0.5, "loss": 0.1}')
    return folder


def as_lines(values: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def damaged(data: bytes, rng: Rng) -> tuple[str, bool, bytes]:
    """(what, whether it is certainly wrong, bytes)."""
    first, rest = data.split(b"\n", 1)
    place = rng.randrange(len(data))
    nested = b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    choices: list[tuple[str, bool, bytes]] = [
        ("empty", True, b"\n \n"),
        ("cut", True, data[: rng.randrange(1, max(2, len(first)))]),
        ("one byte", False, data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]),
        ("a slice twice", False, data[:place] + data[max(0, place - 9) : place] + data[place:]),
        ("UTF-16", True, data.decode().encode("utf-16")),
        ("Latin-1", True, data.replace(b"river", b"r\xedver", 1)),
        ("byte-order mark", False, b"\xef\xbb\xbf" + data),
        ("one array", False, b"[" + data.strip().replace(b"\n", b",\n") + b"]"),
        ("CSV", True, b"id,question\n1,Who?\n"),
        ("Parquet", True, b"PAR1\x15\x04\x00\xff" * 9),
        ("nested deep", True, nested + rest),
        ("noise", True, rng.randbytes(rng.randrange(1, 400))),
        ("null line", True, b"null\n" + rest),
        ("NaN", True, data.replace(b'"answers": [', b'"answers": [NaN, ', 1) + b'{"id": NaN}\n'),
        ("pickle", True, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."),
    ]
    return rng.choice(choices)
