"""What each command of the command line does: read, call the stage, write, leave the meta file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gainrag import (
    answering,
    augmentation,
    config,
    evaluation,
    exporting,
    indexing,
    ingestion,
    lms,
    reporting,
    retrieval,
    running,
    selection,
    sharing,
    synthesis,
    systems,
    training,
)
from gainrag.artefacts import hashes, meta_path, write_meta
from gainrag.config import parameters, settings_of
from gainrag.errors import UsageError
from gainrag.records import Answer, GainRecord, read, read_json, write, write_json
from gainrag.report import REPORTS, report
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.lazy import SKIPPED

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Argument:
    """One argument that no stage parameter stands behind: a file, a folder, a model."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A command: its arguments, the stages whose parameters are its flags, and what it does."""

    name: str
    help: str
    run: Callable[[Arguments], None]
    arguments: tuple[Argument, ...] = ()
    stages: tuple[Callable[..., Any], ...] = ()
    skip: tuple[str, ...] = ()


def _input(name: str, help: str, **more: Any) -> Argument:
    return Argument((name,), {"help": help, **more})


def _output(help: str, **more: Any) -> Argument:
    return Argument(("-o", "--out"), {"required": True, "metavar": "PATH", "help": help, **more})


def _llm() -> Argument:
    return Argument(
        ("--llm",), {"required": True, "metavar": "MODEL", "help": "embedded:NAME, a Hugging Face id or a folder"}
    )


def _own(stage: Callable[..., Any], arguments: Arguments) -> dict[str, Any]:
    """The arguments that are the stage's parameters."""
    return {name: arguments[name] for name in parameters(stage) if name in arguments}


def _open_lm(arguments: Arguments) -> tuple[Any, dict[str, Any]]:
    lm = lms.open_lm(**{**_own(lms.open_lm, arguments), "model": arguments["llm"]})
    print(f"{lm.name}: {lm.dtype} on {lm.device}", file=sys.stderr)
    return lm, {"model": lm.name, "dtype": lm.dtype, "device": lm.device}


def _memory(stage: Callable[..., Any], arguments: Arguments, llm: dict[str, Any], **inputs: str) -> dict[str, Any]:
    settings = {**settings_of(stage, _own(stage, arguments)), "llm": llm}
    return {"settings": settings, "inputs": hashes(inputs)}


def _ingest(arguments: Arguments) -> None:
    name, source = arguments["name"], arguments["source"]
    own = _own(ingestion.ingest, arguments)
    found = ingestion.ingest(name, source, **own)
    out, suffix = Path(arguments["out"]), ".jsonl.gz" if arguments["gz"] else ".jsonl"
    inputs = hashes({f"source {split}".strip(): path for split, path in found.sources.items()})
    if own.get("aliases"):
        inputs |= hashes({"aliases": own["aliases"]})
    settings = {**settings_of(ingestion.ingest, own), "name": name}
    if source is None:
        settings["hub"] = ingestion.RELEASES[name].hub
    # One file of questions is plainly that; of several, each is called after its split.
    several = len(found.questions) > 1
    files: dict[str, list[Any]] = {split if several else "questions": q for split, q in found.questions.items()}
    for stem, records in {**files, "corpus": found.passages}.items():
        if records:
            write(out / f"{stem}{suffix}", records)
            write_meta(out / f"{stem}{suffix}", settings, inputs, dict(found.counts))
    print(found, file=sys.stderr)


def _index(arguments: Arguments) -> None:
    indexing.index(arguments["corpus"], arguments["out"], **_own(indexing.index, arguments))


def _retrieve(arguments: Arguments) -> None:
    questions = ingestion.read_questions(arguments["questions"], need_answers=False)
    retriever = indexing.open_index(arguments["index"])
    own = _own(retrieval.retrieve, arguments)
    write(arguments["out"], retrieval.retrieve(questions, retriever, **own))
    inputs = hashes({"questions": arguments["questions"], "index": Path(arguments["index"]) / indexing.META_FILE})
    write_meta(arguments["out"], settings_of(retrieval.retrieve, own), inputs)


def _augment(arguments: Arguments) -> None:
    retrieved = ingestion.read_retrieved(arguments["retrieved"], need_answers=False)
    lm, llm = _open_lm(arguments)
    memory = _memory(augmentation.augment, arguments, llm, retrieved=arguments["retrieved"])
    augmentation.augment(retrieved, lm, arguments["out"], memory, **_own(augmentation.augment, arguments))
    write_meta(arguments["out"], memory["settings"], memory["inputs"])


def _synthesize(arguments: Arguments) -> None:
    candidates = ingestion.read_retrieved(arguments["candidates"], need_answers=True)
    lm, llm = _open_lm(arguments)
    memory = _memory(synthesis.synthesize, arguments, llm, candidates=arguments["candidates"])
    records = synthesis.synthesize(candidates, lm, arguments["out"], memory, **_own(synthesis.synthesize, arguments))
    summary = synthesis.summarize(records)
    own = _own(synthesis.diagnose, arguments) | {"sample": arguments["diagnose"]}
    diagnosis = synthesis.diagnose(records, lm, **own) if arguments["diagnose"] else None
    write_meta(arguments["out"], memory["settings"], memory["inputs"], {**summary, "diagnosis": diagnosis})
    print(synthesis.describe(summary, diagnosis), file=sys.stderr)


def _train(arguments: Arguments) -> None:
    own = _own(training.train, arguments)
    source = arguments["gains"]
    if own.get("labels") == "relevance":
        records: list[Any] = ingestion.read_retrieved(source, need_answers=True)
    else:
        records = list(read(source, GainRecord))
    facts: dict[str, Any] = {"data": Path(source).name}
    if str(source) != "-" and meta_path(source).exists():
        made = read_json(meta_path(source)).get("settings", {})
        facts |= {"LLM": made.get("llm", {}).get("model"), "prompt": made.get("prompt"), "alphas": made.get("alpha")}
    inputs: dict[str, str | Path] = {"gains": source}
    if arguments.get("warm_start"):
        warm = Path(arguments["out"]).with_name(Path(arguments["out"]).name + "-warm-start")
        retrieved = ingestion.read_retrieved(arguments["warm_start"], need_answers=True)
        print(f"warm start on {len(retrieved)} questions, into {warm}", file=sys.stderr)
        shared = {k: own[k] for k in ("base", "seed", "max_length", "dtype", "device") if k in own}
        training.train(retrieved, warm, {"data": Path(arguments["warm_start"]).name}, labels="relevance", **shared)
        inputs["warm start"] = arguments["warm_start"]
        own["base"] = str(warm)
    training.train(records, arguments["out"], facts, **own)
    write_meta(arguments["out"], settings_of(training.train, own), hashes(inputs))


def _select(arguments: Arguments) -> None:
    candidates = ingestion.read_retrieved(arguments["candidates"], need_answers=False)
    own = _own(selection.select, arguments)
    selector = CrossEncoderSelector(arguments["selector"], **_own(CrossEncoderSelector, arguments))
    selected = selection.select(candidates, selector, **own)
    write(arguments["out"], selected)
    inputs: dict[str, str | Path] = {"candidates": arguments["candidates"]}
    if Path(arguments["selector"]).exists():
        inputs["selector"] = arguments["selector"]
    skipped = selection.skipped_share(selected)
    write_meta(
        arguments["out"],
        {**settings_of(selection.select, own), "selector": selector.settings},
        hashes(inputs),
        {SKIPPED: skipped} if skipped is not None else None,
    )
    if skipped is not None:
        print(f"{skipped:.1%} of {len(selected)} questions do without the pseudo-passage", file=sys.stderr)


def _export(arguments: Arguments) -> None:
    source = arguments["candidates"]
    candidates = ingestion.read_retrieved(source, need_answers=False) if source else ()
    folder = exporting.export(arguments["selector"], arguments["out"], candidates, **_own(exporting.export, arguments))
    print(f"exported into {folder}", file=sys.stderr)


def _answer(arguments: Arguments) -> None:
    selected = ingestion.read_retrieved(arguments["selected"], need_answers=False)
    lm, llm = _open_lm(arguments)
    memory = _memory(answering.answer, arguments, llm, selected=arguments["selected"])
    answering.answer(selected, lm, arguments["out"], memory, **_own(answering.answer, arguments))
    write_meta(arguments["out"], memory["settings"], memory["inputs"])


def _evaluate(arguments: Arguments) -> None:
    paths = arguments["answers"]
    names = [Path(p).name.removesuffix(".gz").removesuffix(".jsonl") for p in paths]
    if len(set(names)) < len(names):
        names = [str(p) for p in paths]
    if len(set(names)) < len(names):
        raise UsageError("a file is named twice", where="gainrag evaluate", hint="name each system's answers once")
    answers = {name: list(read(path, Answer)) for name, path in zip(names, paths, strict=True)}
    own = _own(evaluation.evaluate, arguments)
    found = evaluation.evaluate(answers, **own)
    write_json(arguments["out"], found.to_json())
    write_meta(arguments["out"], settings_of(evaluation.evaluate, own), hashes(dict(zip(names, paths, strict=True))))
    print(reporting.text_table(found), file=sys.stderr)


def _run(arguments: Arguments) -> None:
    read = config.read_config(arguments["config"], running.STAGES, arguments["data"])
    out = arguments["out"]
    own = {**read.table("run"), **_own(running.run, arguments)}
    found = running.run(read, out, arguments["update"], **own)
    print(reporting.text_table(found, baseline=systems.GAINRAG))
    print(f"everything is in {out}", file=sys.stderr)


def _report(arguments: Arguments) -> None:
    folder = Path(arguments["run"])
    report(folder, **_own(report, arguments))
    for name in REPORTS:
        print(folder / name, file=sys.stderr)


def _share(arguments: Arguments) -> None:
    folder = Path(arguments["run"])
    read = config.read_config(folder / "config.toml", running.STAGES, arguments["data"])
    files = sharing.share(folder, arguments["out"], read)
    print(f"{len(files)} files of records, without the data's texts, in {arguments['out']}", file=sys.stderr)


def _restore(arguments: Arguments) -> None:
    folder = Path(arguments["shared"])
    read = config.read_config(folder / "config.toml", running.STAGES, arguments["data"])
    files = sharing.restore(folder, arguments["out"], read)
    print(f"{len(files)} files of records, as they were shared, in {arguments['out']}", file=sys.stderr)


def _validate(arguments: Arguments) -> None:
    from gainrag.validation import validate

    read = config.read_config(arguments["config"], running.STAGES, arguments["data"])
    for line in validate(read):
        print(line, file=sys.stderr)
    print("valid", file=sys.stderr)


def _demo(arguments: Arguments) -> None:
    from gainrag.demo import demo

    demo(arguments["out"])


_DATA = Argument(
    ("--data",), {"metavar": "FOLDER", "help": "where relative data paths of the config start [the config's folder]"}
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "ingest",
        "Read a data set's official release into questions and, where it brings passages, a corpus.",
        _ingest,
        (
            _input("name", "the data set: %(choices)s", choices=sorted(ingestion.RELEASES), metavar="NAME"),
            _output("the folder for questions.jsonl (of several splits: train.jsonl ..) and corpus.jsonl"),
            Argument(
                ("--source",),
                {"metavar": "PATH", "help": "an official file, or a folder of them [download from the hub]"},
            ),
            Argument(("--gz",), {"action": "store_true", "help": "write .jsonl.gz"}),
        ),
        (ingestion.ingest,),
    ),
    Command(
        "index",
        "Build an index folder from passages.",
        _index,
        (_input("corpus", "passages: JSON lines or DPR's TSV, plain or .gz, or -"), _output("the index folder")),
        (indexing.index,),
    ),
    Command(
        "retrieve",
        "Find each question's k best passages.",
        _retrieve,
        (
            _input("questions", "questions as JSON lines, or -"),
            _output("retrieved.jsonl, or -"),
            Argument(("--index",), {"required": True, "metavar": "FOLDER", "help": "an index folder"}),
        ),
        (retrieval.retrieve,),
    ),
    Command(
        "augment",
        "Add the pseudo-passage that the language model writes itself.",
        _augment,
        (_input("retrieved", "retrieved records, or -"), _llm(), _output("candidates.jsonl, or -")),
        (augmentation.augment, lms.open_lm),
        ("model",),
    ),
    Command(
        "synthesize",
        "Measure how much each candidate helps the language model to the right answer.",
        _synthesize,
        (
            _input("candidates", "candidates with gold answers, or -"),
            _llm(),
            _output("gains.jsonl, or -"),
            Argument(
                ("--diagnose",),
                {
                    "type": int,
                    "default": 0,
                    "metavar": "N",
                    "help": "answer every candidate of N questions, compare the alphas, and recommend one",
                },
            ),
        ),
        (synthesis.synthesize, lms.open_lm),
        ("model",),
    ),
    Command(
        "train",
        "Distil gains into a selector.",
        _train,
        (
            _input("gains", "gain records (retrieved ones for --labels relevance), or -"),
            _output("the selector folder"),
            Argument(
                ("--warm-start",),
                {"metavar": "FILE", "help": "retrieved records: first train on whether passages hold an answer"},
            ),
        ),
        (training.train,),
    ),
    Command(
        "select",
        "Keep the k candidates that the selector scores highest.",
        _select,
        (
            _input("candidates", "candidates, or -"),
            _output("selected.jsonl, or -"),
            Argument(
                ("--selector",), {"required": True, "metavar": "MODEL", "help": "a selector folder or any reranker"}
            ),
        ),
        (selection.select, CrossEncoderSelector),
    ),
    Command(
        "export",
        "Put a copy of a selector for ONNX Runtime or OpenVINO into its folder.",
        _export,
        (
            _input("selector", "a selector folder"),
            Argument(("-o", "--out"), {"metavar": "PATH", "help": "a new selector folder [in place]"}),
            Argument(
                ("--candidates",),
                {"metavar": "FILE", "help": "candidates to learn the ranges of openvino's int8 from"},
            ),
        ),
        (exporting.export,),
    ),
    Command(
        "answer",
        "Answer each question from its passages.",
        _answer,
        (_input("selected", "retrieved records, or -"), _llm(), _output("answers.jsonl, or -")),
        (answering.answer, lms.open_lm),
        ("model",),
    ),
    Command(
        "evaluate",
        "Score answers, with intervals, and compare systems.",
        _evaluate,
        (_input("answers", "one file a system", nargs="+"), _output("evaluation.json")),
        (evaluation.evaluate,),
    ),
    Command(
        "run",
        "Every stage of a config; a finished stage whose inputs have not changed is reused.",
        _run,
        (
            _input("config", "a TOML config"),
            _output("the run folder"),
            _DATA,
            Argument(("--update",), {"action": "store_true", "help": "allow a folder made with another config"}),
        ),
        (running.run,),
    ),
    Command(
        "report",
        "Show what a finished run found: a page, text, and all numbers as JSON, in the run folder.",
        _report,
        (_input("run", "a finished run folder"),),
        (report,),
    ),
    Command(
        "share",
        "Write a run folder without the texts of its data sets, to pass on.",
        _share,
        (_input("run", "a run folder, finished or not"), _output("a new folder"), _DATA),
    ),
    Command(
        "restore",
        "Make a run folder of a shared one, with the data at hand.",
        _restore,
        (_input("shared", "what `gainrag share` wrote"), _output("the run folder, a new one"), _DATA),
    ),
    Command(
        "validate",
        "Check everything that can be checked before compute is spent.",
        _validate,
        (_input("config", "a TOML config"), _DATA),
    ),
    Command(
        "demo",
        "The whole method on a small data set that ships with the package.",
        _demo,
        (_output("the run folder", required=False, default="runs/demo"),),
    ),
)
