"""Settings, flags and outputs of the fuzz."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from gainrag.cli.arguments import Command
from gainrag.cli.commands import COMMANDS
from gainrag.runs.stages import STAGES
from gainrag.settings import fits, parameters
from tests.fuzz_world import NO_MODEL, WEIRD, Case, Rng, World, as_lines, damaged

# Cases of settings that were accepted once, or must never be.
SETTINGS: dict[str, dict[str, Sequence[Any]]] = {
    "train": {
        "epochs": (0, -1, 1e20),
        "learning_rate": (math.nan, math.inf, 0.0, -1e-5),
        "temperature": (math.nan, math.inf, 0.0, -1.0),
        "validation": (math.nan, 1.0, 2.0, -0.5),
        "max_length": (0, -5, 1, 10**11),
        "seed": (-1, 2**64 - 1),
        "weight_decay": (math.nan, -1.0, 5.0),
        "warmup": (math.nan, -0.1, 2.0),
        "dropout": (math.nan, -0.1, 1.5),
        "last_layers": (-1,),
        "device": ("tpu", ""),
        "group_size": (1, 0, 10**6),
        "groups_per_step": (0,),
        "retrieval_prior": (True, "yes"),
        "base": ("", 5),
        "labels": ("none", 3),
        "alpha": (1e308, -1.0),
    },
    "retrieve": {"k": (0, -1, 10**6, 1.5, "4", True)},
    "index": {"retriever": ("bm26", ""), "batch_size": (0, -3)},
    "answer": {"max_new_tokens": (0, -1), "prompt": ("none",)},
    "augment": {"max_new_tokens": (0, -1)},
    "synthesize": {
        "alpha": (1e308, -0.5, math.nan, []),
        "keep": ("all",),
        "labels": ("guessed",),
        "n": (0, 3.5, 10**6),
        "at_most": (1, -1),
        "sampling_temperature": (0.0, math.nan, 5.0),
    },
    "evaluate": {"resamples": (0, -1), "confidence": (1.0, math.nan, 0.0), "seed": (-1,)},
    "run": {"train_questions": (-3,), "top": ([0], [1000], [-1], "x"), "diagnose": (-1,), "seeds": (0, -1, 1000)},
    "sweep": {"k": ([], [0], [-1], 0)},
    "tune": {"temperature": ([0.0], [math.nan]), "learning_rate": ([-1.0],), "seeds": (0,)},
    "llm": {"dtype": ("float8",), "device": ("tpu",)},
    "select": {"k": (0,), "pseudo": ("maybe",)},
}


def settings(world: World, rng: Rng) -> Case:
    """A config with one setting changed."""
    path = world.new("config.toml")
    plain = (world.data / "config.toml").read_text()
    if rng.random() < 0.5:
        table = rng.choice(list(SETTINGS))
        key = rng.choice(list(SETTINGS[table]))
        value, bad = rng.choice(SETTINGS[table][key]), True
    else:
        table = rng.choice(list(STAGES))
        known = parameters(STAGES[table])
        key = rng.choice([*known, "alhpa"])
        value = rng.choice(
            [v for v in WEIRD if v is not None and not isinstance(v, dict)] + [math.nan, math.inf, -math.inf]
        )
        bad = key not in known or not fits(value, known[key].annotation)
    lines = [line for line in plain.splitlines() if not line.startswith(f"{key} =")]
    header = f"[{table}]"
    if header not in lines:
        lines.append(header)
    lines.insert(lines.index(header) + 1, f"{key} = {_toml(value)}")
    path.write_text("\n".join(lines))
    if rng.random() < 0.1:
        what, bad, data = damaged(path.read_bytes(), rng)
        bad = bad and what not in ("cut", "null line", "empty", "Latin-1", "NaN")
        path.write_bytes(data)
    else:
        what = f"[{table}] {key} = {value!r}"
    argv = ["validate", str(path), "--no-measure", "--data", str(world.data)]
    return Case("settings", what, argv, bad, [path.name, key, table])


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return str(value)  # nan, inf
    if isinstance(value, list):
        return f"[{', '.join(_toml(v) for v in value if v is not None and not isinstance(v, dict))}]"
    return json.dumps(value)


def datasets(world: World, rng: Rng) -> Case:
    """A config with other data sets."""
    path, good = (
        world.new("config.toml"),
        {"name": "rivers", "corpus": "corpus.jsonl", "train": "train.jsonl", "test": "test.jsonl"},
    )
    key, value = rng.choice(
        [
            ("name", "../../../x"), ("name", "/tmp/x"), ("name", ""), ("name", "a/b"), ("name", "."), ("name", 5),
            ("name", "a\0b"), ("name", "x" * 300), ("train", "none.jsonl"), ("train", ""), ("train", "."), ("train", 5),
            ("train", "corpus.jsonl"), ("train", "a\0b"), ("test", "train.jsonl"), ("corpus", "train.jsonl"),
            ("corpus", "none"), ("corpus", []), ("x", 1),
        ]
    )  # fmt: skip
    table = {**good, key: value}
    path.write_text(
        "[[dataset]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in table.items()) + '[index]\nretriever = "bm25"\n'
    )
    argv = ["validate", str(path), "--no-measure", "--data", str(world.data)]
    names = [path.name, key, *(str(v) for v in table.values() if v)]
    return Case("datasets", f"{key} = {value!r}", argv, True, names)


def flags(world: World, rng: Rng) -> Case:
    """A command with one flag of another value; what it reads is not there, so that nothing is computed."""
    command = rng.choice([c for c in COMMANDS if c.stages])
    known = {name: p for stage in command.stages for name, p in parameters(stage).items() if name not in command.skip}
    name = rng.choice(list(known))
    annotation = known[name].annotation
    text = rng.choice(
        ["", "x", "0", "-1", "1.5", "nan", "inf", "-inf", "1e308", "9" * 25, "auto", "true", "\u0660", "cuda:7", "1,2"]
    )
    flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
    argv = [command.name, *_needed(command, world), f"{flag}={text}" if len(flag) > 2 else f"{flag}{text}"]
    values: list[Any] = [text]
    for kind in (int, float):
        try:
            values.append(kind(text))
        except ValueError:
            continue
    bad = annotation is bool or not any(fits(v, annotation) or fits([v], annotation) for v in values)
    return Case(
        "flags",
        f"{command.name} {flag} {text!r}",
        argv,
        bad,
        [flag, flag.strip("-"), text or "none", "none", "nowhere"],
    )


def _needed(command: Command, world: World) -> list[str]:
    """The arguments a command cannot do without, for things that are not there."""
    found = []
    for argument in command.arguments:
        first, *_ = argument.flags
        if first.startswith("-") and argument.options.get("required"):
            found += [first, str(world.new("out")) if first == "-o" else NO_MODEL]
        elif not first.startswith("-"):
            found.append(argument.options["choices"][0] if argument.options.get("choices") else "none.jsonl")
    # What would find something without being told, or serve for ever.
    more = {"ingest": ["--source", "none.json"], "serve": ["--selector", "./none"]}
    return [*found, *more.get(command.name, [])]


def outputs(world: World, rng: Rng) -> Case:
    """Outputs that cannot be."""
    good = world.new("questions.jsonl")
    good.write_bytes(as_lines(world.good["questions"]))
    out = rng.choice(["", ".", "/proc/x", str(good), "a\0b", str(good / "x"), "x" * 300, str(good.parent)])
    argv = rng.choice(
        [
            ["retrieve", str(good), "--index", str(world.index), "-o", out],
            ["index", str(world.data / "corpus.jsonl"), "--retriever", "bm25", "-o", out],
        ]
    )
    return Case("outputs", f"{argv[0]} {out[-20:]!r}", argv, True, ["case", "proc", "output", "x", "."])
