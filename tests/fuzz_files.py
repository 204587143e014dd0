"""Files and folders of the fuzz: one record, value or byte changed."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gainrag.files.streams import read_json
from tests.fuzz_world import NO_MODEL, WEIRD, Case, Rng, World, as_lines, damaged

CTX = "ctxs"
Place = tuple[Any, ...]
# What is certainly wrong, by place in a record.
_ID: dict[Place, Sequence[Any]] = {("id",): (None, "", " ", True, [], {}, 1.5)}
_ASKED: dict[Place, Sequence[Any]] = {
    **_ID,
    ("question",): (None, "", "\u3000", 5, []),
    ("answers",): (5, {}, [None]),
    ("choices",): ("yes", [1]),
}
_RANKED: dict[Place, Sequence[Any]] = {
    (CTX,): (None, 5, {}, "x", [None], [5], [[]], [{}]),
    (CTX, 0, "id"): (None, "", [], True),
    (CTX, 0, "text"): (None, "", " ", 5),
    (CTX, 0, "title"): (None, 5),
    (CTX, 0, "score"): ("high", [], "nan", True),
    (CTX, 0, "origin"): ("web", None),
    (CTX, 0, "hasanswer"): ("yes", 1),
    (CTX, 0, "scores"): ([1.0], {"a": "x"}, 5),
    (CTX, 0, "gold"): ("no", 3),
    (CTX, 1, "id"): ("same",),  # as another passage's
}
BAD: dict[str, dict[Place, Sequence[Any]]] = {
    "corpus": {**_ID, ("text",): (None, "", " \n", 5, []), ("title",): (5,), ("origin",): ("web",)},
    "questions": _ASKED,
    "retrieved": {**_ASKED, **_RANKED, (CTX,): (*_RANKED[CTX,], [])},
    "gains": {
        **_ASKED,
        **_RANKED,
        (CTX,): (*_RANKED[CTX,], []),
        ("answers",): (*_ASKED["answers",], [], [" "]),
        ("level",): ("rough",),
        ("silver",): (-1, 99, 1.5, "0", None, True),
        ("kept",): (1, "yes", None),
        ("prediction",): (5, None),
        ("loss_without",): ("x",),
        (CTX, 0, "gain"): (None, "x", []),
        (CTX, 0, "loss"): (None, {}, 5, {"0.0": "x"}, {"9.0": 1.0}, {"0.0": None}),
    },
    "answers": {**_ASKED, **_RANKED, ("prediction",): (5, None, [])},
}

COMMAND: dict[str, Callable[[World, str], list[str]]] = {
    "corpus": lambda w, path: ["index", path, "--retriever", "bm25", "-o", str(w.new("idx"))],
    "questions": lambda w, path: ["retrieve", path, "--index", str(w.index), "-o", str(w.new("out.jsonl"))],
    "retrieved": lambda w, path: ["select", path, "--selector", NO_MODEL, "-o", str(w.new("out.jsonl"))],
    "gains": lambda w, path: ["train", path, "--base", NO_MODEL, "-o", str(w.new("selector"))],
    "answers": lambda w, path: ["evaluate", path, "-o", str(w.new("evaluation.json"))],
}


def records(reader: str) -> Callable[[World, Rng], Case]:
    """Files of records, with one record changed or their bytes damaged."""

    def make(world: World, rng: Rng) -> Case:
        values = json.loads(json.dumps(world.good[reader]))
        path = world.new(f"{reader}.jsonl")
        bad, data = False, b""
        choice = rng.random()
        if choice < 0.45:
            at = rng.choice(list(BAD[reader]))
            value = rng.choice(BAD[reader][at])
            line = rng.randrange(len(values))
            what, bad = f"{'.'.join(map(str, at))} = {value!r}", True
            _put(values[line], at, values[line][CTX][0]["id"] if value == "same" else value)
        elif choice < 0.55:
            what, bad = "an id comes twice", True
            values.append(values[rng.randrange(len(values))])
        elif choice < 0.8:
            key = rng.choice([*values[0], "extra", "_id", "answer", "scores", "choices", "level", "x"])
            value = rng.choice(WEIRD)
            what = f"{key} := {value!r}"
            rng.choice(values)[key] = value
        else:
            what, bad, data = damaged(as_lines(values), rng)
        data = data or as_lines(values)
        if rng.random() < 0.2:
            path, data = path.with_name(path.name + ".gz"), gzip.compress(data)
            if rng.random() < 0.3:
                what, bad, data = f"{what}, gzip cut", True, data[: rng.randrange(1, len(data) - 1)]
        path.write_bytes(data)
        # The pseudo-passage and the like are as good as others: what a key outside the table means is not known.
        return Case(reader, what, COMMAND[reader](world, str(path)), bad, [path.name])

    return make


def _put(value: Any, at: Sequence[Any], new: Any) -> None:
    for key in at[:-1]:
        value = value[key]
    value[at[-1]] = new


def tsv(world: World, rng: Rng) -> Case:
    """DPR's table."""
    rows = ["id\ttext\ttitle", *(f"{p['id']}\t{p['text']}\tT" for p in world.good["corpus"])]
    line, path = rng.randrange(1, len(rows)), world.new("corpus.tsv")
    bad_rows = [
        "x",
        "1\t\t",
        "\tt\tT",
        'a\t"open',
        rows[1] if line != 1 else rows[2],
        "1\t2\t3\t4",
        'a\t"x"y\tT',
        "a\t\x00",
    ]
    rows[line] = rng.choice(bad_rows)
    data = "\n".join(rows).encode()
    what, bad = f"row {rows[line]!r}", True
    if rng.random() < 0.3:
        what, bad, data = damaged(data, rng)
        bad = bad and what != "null line"  # a first line of four letters is a header like any wrong one
    path.write_bytes(data)
    return Case("tsv", what, COMMAND["corpus"](world, str(path)), bad, [path.name])


def paths(world: World, rng: Rng) -> Case:
    """Inputs that are no files."""
    reader = rng.choice(list(COMMAND))
    base = world.new("x")
    base.with_name("loop").symlink_to("loop")
    base.with_name("folder").mkdir()
    base.write_text("")
    name = rng.choice(
        ["a\0b", "x" * 300, os.fsdecode(b"caf\xe9"), "loop", "folder", "none", "x", "x/y", "loop/y.gz", "n\nl"]
    )
    path = f"{base.parent}/{name}"
    return Case("paths", repr(name[:20]), COMMAND[reader](world, path), True, ["case"])


# --- folders -------------------------------------------------------------------------------------------------------


def _damage_file(file: Path, rng: Rng) -> tuple[str, bool]:
    """Damage a file; what was done, and whether nobody can take it for a good one."""
    data = file.read_bytes()
    if file.suffix in (".json", ".jsonl") and rng.random() < 0.5 and (value := _json_of(data)) is not None:
        inner, at = value, ""
        while isinstance(inner, dict | list) and inner:
            key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            at = f"{at}.{key}"
            if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.5:
                inner[key] = new = rng.choice(WEIRD)
                break
            inner = inner[key]
        file.write_text(json.dumps(value))
        return f"{file.name}{at} := {new!r}", False
    place = rng.randrange(max(1, len(data)))
    what, damaged = rng.choice(
        [
            ("empty", b""), ("null", b"null"), ("a list", b"[]"), ("an object", b"{}"), ("noise", rng.randbytes(200)),
            ("deep", b"[" * 100_000), ("cut", data[:place]), ("a byte", data[:place] + b"\xff" + data[place + 1 :]),
        ]
    )  # fmt: skip
    file.write_bytes(damaged)
    return f"{file.name} {what}", False


def _json_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def index_folder(world: World, rng: Rng) -> Case:
    """An index, one file damaged."""
    folder = Path(shutil.copytree(world.index, world.new("index")))
    file = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    what, bad = _damage_file(file, rng)
    out = str(folder.with_name("out.jsonl"))
    argv = ["retrieve", str(world.data / "test.jsonl"), "--index", str(folder), "-k", "3", "-o", out]
    return Case("index", what, argv, bad, ["case"])


def selector_folder(world: World, rng: Rng) -> Case:
    """A selector, one file damaged."""
    folder = world.selector()
    file = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "vocab.txt"))
    what, bad = _damage_file(file, rng)
    one = folder.with_name("one.jsonl")
    one.write_bytes(as_lines(world.good["retrieved"][:1]))
    argv = ["select", str(one), "--selector", str(folder), "--device", "cpu", "-o", str(folder.with_name("out.jsonl"))]
    return Case("selector", what, argv, bad, ["case"])


def shared_folder(world: World, rng: Rng) -> Case:
    """A shared run: its manifest, its records or its config damaged."""
    folder = Path(shutil.copytree(world.shared, world.new("shared")))
    manifest = folder / "shared.json"
    if rng.random() < 0.5:
        names = ["", ".", "..", "../x", "/x", "a\0b", "x" * 300, "retrieved", "retrieved/../../x", "config.toml"]
        (digest,) = read_json(manifest)["files"].values()
        files: Any = rng.choice(
            [None, [], "x", 5, {rng.choice(names): digest}, {"retrieved/train.jsonl": rng.choice(WEIRD)}]
        )
        manifest.write_text(json.dumps(rng.choice([{"files": files}, {"files": files}, {}, [], None])))
        what, bad = manifest.read_text()[:80], True
    elif rng.random() < 0.7:
        file = folder / "retrieved" / "train.jsonl.gz"
        plain = file.with_suffix("")
        plain.write_bytes(gzip.decompress(file.read_bytes()).split(b"\n")[0] + b"\n")
        what, _ = _damage_file(plain, rng)
        file.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        bad = True  # the digest is another
    else:
        what, bad = _damage_file(rng.choice([manifest, folder / "config.toml"]), rng)
    argv = ["restore", str(folder), "--data", str(world.data), "-o", str(folder.with_name("out"))]
    return Case("shared", what, argv, bad, ["case"])


def run_folder(world: World, rng: Rng) -> Case:
    """A finished run, one file damaged, and its report."""
    folder = world.recorded()
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl", ".toml"))
    special = [folder / "evaluation.json", *folder.glob("*.toml"), *folder.rglob("*.meta.json")]
    file = rng.choice(rng.choice([files, special]))
    if rng.random() < 0.1:
        file.unlink()
        file.mkdir()
        what = f"{file.name} a folder"
    else:
        what, _ = _damage_file(file, rng)
    return Case("report", what, ["report", str(folder)], False, ["case"])


def gains_meta(world: World, rng: Rng) -> Case:
    """What is beside a file of gains."""
    path = world.new("gains.jsonl")
    path.write_bytes(as_lines(world.good["gains"]))
    meta = path.with_name("gains.meta.json")
    meta.write_text(json.dumps({"settings": {"llm": {"model": "m"}, "prompt": "chat", "alpha": [0.0]}, "inputs": {}}))
    what, bad = _damage_file(meta, rng)
    return Case("meta", what, COMMAND["gains"](world, str(path)), bad, ["case"])
