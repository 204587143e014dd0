"""What each command of the command line does: read, call the stage, write, leave the meta file.

Which commands there are, and with what arguments, is in gainrag.cli.commands; what those do that ask a language model
about every question is in gainrag.cli.prompting.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from gainrag import (
    asking,
    evaluation,
    indexing,
    ingestion,
    lms,
    probing,
    retrieval,
    selection,
    serving,
    synthesis,
    training,
)
from gainrag.cli.probing import screen
from gainrag.cli.prompting import memory_of, open_lm, own_of
from gainrag.errors import DataError, UsageError
from gainrag.files.locks import lock
from gainrag.files.meta import hashes, meta_path, write_meta
from gainrag.files.places import check_output
from gainrag.files.streams import read, read_json, write, write_json
from gainrag.records import Answer, GainRecord
from gainrag.report import REPORTS
from gainrag.report import report as make_report
from gainrag.retrievers.bm25 import BM25
from gainrag.runs import beginning, config, names, printing, sharing, stages
from gainrag.runs.names import by_seed
from gainrag.selectors import PRIOR, CrossEncoderSelector, exporting, open_selector, pushing
from gainrag.selectors.lazy import SKIPPED
from gainrag.selectors.saving import check_target
from gainrag.settings import parameters, recorded, settings_of
from gainrag.training.labels import AT_ALPHA

Arguments = Mapping[str, Any]
# Others' formats, by the names that `gainrag ingest` takes.
FORMATS = get_args(ingestion.Format)


def _read_config(path: str | Path, arguments: Arguments) -> config.Config:
    return config.read_config(path, stages.STAGES, arguments["data"])


def ingest(arguments: Arguments) -> None:
    """Documents, an official release, or another's files -> questions and, where there are passages, a corpus."""
    name = arguments["name"]
    path = arguments["path"] or arguments["source"]
    if arguments["path"] and arguments["source"]:
        raise UsageError("PATH is given twice", where="gainrag ingest", hint="leave out --source")
    stage = ingestion.ingest_documents if name == "docs" else ingestion.convert if name in FORMATS else ingestion.ingest
    known = parameters(stage)
    others = (ingestion.ingest, ingestion.convert, ingestion.ingest_documents)
    for flag in (flag for other in others for flag in parameters(other) if flag in arguments and flag not in known):
        what = f"--{flag.replace('_', '-')} is none of the flags for {name}"
        raise UsageError(what, where="gainrag ingest", hint="leave it out")
    if stage is not ingestion.ingest and path is None:
        raise UsageError("PATH is missing", where="gainrag ingest", hint=f"gainrag ingest {name} PATH -o FOLDER")
    if name == "docs":
        _ingest_documents(path, arguments)
    elif name in FORMATS:
        _convert(name, path, arguments)
    else:
        _ingest_release(name, path, arguments)


def _ingest_documents(path: str, arguments: Arguments) -> None:
    """A folder of documents -> a corpus; `ingest_documents` writes it, with its meta file."""
    if arguments["gz"]:
        raise UsageError("--gz is none of the flags for docs", where="gainrag ingest", hint="leave it out")
    print(
        ingestion.ingest_documents(path, arguments["out"], **own_of(ingestion.ingest_documents, arguments)),
        file=sys.stderr,
    )


def _convert(name: str, path: str, arguments: Arguments) -> None:
    """Another's files -> questions and a corpus; `convert` writes them."""
    suffix = ".jsonl.gz" if arguments["gz"] else ".jsonl"
    own = own_of(ingestion.convert, arguments)
    found = ingestion.convert(name, path, arguments["out"], suffix, **own)
    inputs, settings = hashes({"source": path}), {**settings_of(ingestion.convert, own), "name": name}
    for stem in found.files:
        write_meta(Path(arguments["out"]) / f"{stem}{suffix}", settings, inputs, dict(found.counts))
    print(found, file=sys.stderr)


def _ingest_release(name: str, source: str | None, arguments: Arguments) -> None:
    """An official release -> questions and, where it brings passages, a corpus."""
    own = own_of(ingestion.ingest, arguments)
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
    paths = {out / f"{stem}{suffix}": records for stem, records in {**files, "corpus": found.passages}.items()}
    for path in paths:
        check_output(path, [*found.sources.values(), own.get("aliases", "-")])
    for path, records in paths.items():
        if not records:
            continue
        write(path, records)
        write_meta(path, settings, inputs, dict(found.counts))
    print(found, file=sys.stderr)


def init(arguments: Arguments) -> None:
    """What is there -> a config."""
    own, out = own_of(beginning.init, arguments), arguments["out"]
    print(beginning.init(arguments["folder"], out, **own), file=sys.stderr)
    print(f"\nNow read {out}, and: gainrag run {out} -o runs/first && gainrag report runs/first", file=sys.stderr)


def ask(arguments: Arguments) -> None:
    """A corpus -> questions by split."""
    passages = list(ingestion.read_passages(arguments["corpus"]))
    real = ingestion.read_questions(arguments["questions"], need_answers=True) if arguments["questions"] else []
    retriever = indexing.open_index(arguments["index"]) if arguments["index"] else BM25.build(passages)
    lm, llm = open_lm(arguments)
    inputs: dict[str, str] = {"corpus": arguments["corpus"]}
    if arguments["index"]:
        inputs["index"] = str(Path(arguments["index"]) / indexing.META_FILE)
    memory = memory_of(asking.ask, arguments, lm, llm, **inputs)
    # What is written does not depend on how many are wanted in all, nor on how they are divided.
    own = own_of(asking.ask, arguments)
    found = asking.ask(passages, lm, retriever, arguments["out"], {"llm": llm, "inputs": memory["inputs"]}, real, **own)
    for split, questions in found.splits.items():
        path = Path(arguments["out"]) / f"{split}.jsonl"
        if questions:
            write(path, questions)
            write_meta(path, memory["settings"], memory["inputs"], {"tried": found.tried, **found.rejected})
    print(found, file=sys.stderr)


def index(arguments: Arguments) -> None:
    """Passages -> an index folder."""
    file = arguments["questions"]
    questions = ingestion.read_questions(file, need_answers=True) if file else ()
    indexing.index(arguments["corpus"], arguments["out"], list(questions), **own_of(indexing.index, arguments))


def retrieve(arguments: Arguments) -> None:
    """Questions -> retrieved records."""
    questions = ingestion.read_questions(arguments["questions"], need_answers=False)
    retriever = indexing.open_index(arguments["index"])
    own = own_of(retrieval.retrieve, arguments)
    write(arguments["out"], retrieval.retrieve(questions, retriever, **own))
    inputs = hashes({"questions": arguments["questions"], "index": Path(arguments["index"]) / indexing.META_FILE})
    write_meta(arguments["out"], settings_of(retrieval.retrieve, own), inputs)


def probe(arguments: Arguments) -> None:
    """Candidates, or questions and an index -> what could be won, on standard output."""
    source, folder, own = arguments["candidates"], arguments["index"], own_of(retrieval.retrieve, arguments)
    if own and not folder:
        raise UsageError("-k is of retrieval", where="gainrag probe", hint="leave it out, or give --index")
    inputs = {"candidates": source}
    if folder:
        inputs["index"] = str(Path(folder) / indexing.META_FILE)
        questions = ingestion.read_questions(source, need_answers=True)
        asked = synthesis.evenly_spaced(questions, settings_of(probing.probe, arguments)["n"])
        candidates, of = retrieval.retrieve(asked, indexing.open_index(folder), **own), len(questions)
    else:
        candidates = ingestion.read_retrieved(source, need_answers=True)
        of = len(candidates)
    lm, llm = open_lm(arguments)
    memory = {"llm": llm, "inputs": hashes(inputs), **own}
    found = probing.probe(candidates, lm, arguments["out"], memory, **own_of(probing.probe, arguments))
    found = msgspec.structs.replace(found, of=of)
    if arguments["out"] is not None:
        path = Path(arguments["out"]) / "probe.json"
        write_json(path, msgspec.to_builtins(found))
        write_meta(path, {**settings_of(probing.probe, arguments), "llm": llm, **own}, memory["inputs"])
    print(screen(found))


def train(arguments: Arguments) -> None:
    """Gain records -> a selector folder; with --warm-start another one before it, which it starts from."""
    own = own_of(training.train, arguments)
    source = arguments["gains"]
    warm = Path(arguments["out"]).with_name(Path(arguments["out"]).name + "-warm-start")
    if arguments.get("warm_start"):
        if settings_of(training.train, own)["kind"] != "cross-encoder":
            raise UsageError(
                "--warm-start is for cross-encoders",
                where="gainrag train",
                hint="leave it out: a stack warms up in its folds, see --relevance-epochs; or use --kind cross-encoder",
            )
        check_output(warm, (source, arguments["warm_start"], own.get("base", "-")), writes="folder")
        check_target(warm)
    if own.get("labels") == "relevance":
        records: list[Any] = ingestion.read_retrieved(source, need_answers=True)
    else:
        records = list(read(source, GainRecord))
    facts: dict[str, Any] = {"data": Path(source).name}
    if str(source) != "-" and meta_path(source).exists():
        facts |= _made_with(meta_path(source))
        asked = settings_of(training.train, own)
        best = synthesis.recommended_alpha(read_json(meta_path(source)).get("summary"))
        if best is not None and asked["alpha"] is None and asked["labels"] in AT_ALPHA:
            print(f"alpha {best:g}, which the labels' diagnosis recommends; --alpha sets another", file=sys.stderr)
            own["alpha"] = best
    inputs: dict[str, str | Path] = {"gains": source}
    if arguments.get("warm_start"):
        retrieved = ingestion.read_retrieved(arguments["warm_start"], need_answers=True)
        print(f"warm start on {len(retrieved)} questions, into {warm}", file=sys.stderr)
        shared = {k: own[k] for k in ("base", "seed", "max_length", "dtype", "device") if k in own}
        # A beginning only: it need not be better than the retriever's order yet.
        begun = {"data": Path(arguments["warm_start"]).name}
        training.train(retrieved, warm, begun, kind="cross-encoder", labels="relevance", keep_worse=True, **shared)
        inputs["warm start"] = arguments["warm_start"]
        own["base"] = str(warm)
    training.train(records, arguments["out"], facts, **own)
    write_meta(arguments["out"], recorded(training.train, own), hashes(inputs))


def _made_with(meta: Path) -> dict[str, Any]:
    """What labels were made with, by their meta file."""
    made = read_json(meta).get("settings", {})
    llm = made.get("llm", {}) if isinstance(made, dict) else None
    if not isinstance(llm, dict):
        raise DataError("its settings are damaged", where=str(meta), hint="remove it, or make the labels again")
    alphas = None if made.get("labels") == "sampled" else made.get("alpha")
    return {"LLM": llm.get("model"), "prompt": made.get("prompt"), "alphas": alphas}


def select(arguments: Arguments) -> None:
    """Candidates -> the best of them."""
    candidates = ingestion.read_retrieved(arguments["candidates"], need_answers=False)
    own = own_of(selection.select, arguments)
    selector = open_selector(arguments["selector"], **own_of(CrossEncoderSelector, arguments))
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


def export(arguments: Arguments) -> None:
    """A selector folder -> the same for another runtime."""
    source = arguments["candidates"]
    candidates = ingestion.read_retrieved(source, need_answers=False) if source else ()
    with lock(arguments["out"] or arguments["selector"]):
        own = own_of(exporting.export, arguments)
        folder = exporting.export(arguments["selector"], arguments["out"], candidates, **own)
    print(f"exported into {folder}", file=sys.stderr)


def push(arguments: Arguments) -> None:
    """A selector folder -> the hub."""
    repo = arguments["repo"]
    where = pushing.push(arguments["selector"], repo, **own_of(pushing.push, arguments))
    print(f"pushed: {where}; name it as --selector {repo}", file=sys.stderr)


def evaluate(arguments: Arguments) -> None:
    """Answers of several systems -> evaluation.json and a table. NAME.seed1.jsonl beside NAME.jsonl is a further run of
    NAME, as a run folder has them."""
    paths = arguments["answers"]
    names = [Path(p).name.removesuffix(".gz").removesuffix(".jsonl") for p in paths]
    if len(set(names)) < len(names):
        names = [str(p) for p in paths]
    if len(set(names)) < len(names):
        raise UsageError("a file is named twice", where="gainrag evaluate", hint="name each system's answers once")
    answers = {name: list(read(path, Answer)) for name, path in zip(names, paths, strict=True)}
    own = own_of(evaluation.evaluate, arguments)
    found = evaluation.evaluate(*by_seed(answers), **own)
    write_json(arguments["out"], found.to_json())
    write_meta(arguments["out"], settings_of(evaluation.evaluate, own), hashes(dict(zip(names, paths, strict=True))))
    print(printing.text_table(found), file=sys.stderr)


def run(arguments: Arguments) -> None:
    """A config -> a run folder."""
    read = _read_config(arguments["config"], arguments)
    out = arguments["out"]
    own = {**read.table("run"), **own_of(config.Options, arguments)}
    found = stages.run(read, out, arguments["update"], **own)
    print(printing.text_table(found, baseline=names.GAINRAG))
    print(f"everything is in {out}", file=sys.stderr)


def report(arguments: Arguments) -> None:
    """A run folder -> its reports."""
    folder = Path(arguments["run"])
    make_report(folder, **own_of(make_report, arguments))
    for name in REPORTS:
        print(folder / name, file=sys.stderr)


def share(arguments: Arguments) -> None:
    """A run folder -> one without the texts of its data."""
    folder = Path(arguments["run"])
    files = sharing.share(folder, arguments["out"], _read_config(folder / "config.toml", arguments))
    print(f"{len(files)} files of records, without the data's texts, in {arguments['out']}", file=sys.stderr)


def restore(arguments: Arguments) -> None:
    """What was shared -> a run folder."""
    folder = Path(arguments["shared"])
    files = sharing.restore(folder, arguments["out"], _read_config(folder / "config.toml", arguments))
    print(f"{len(files)} files of records, as they were shared, in {arguments['out']}", file=sys.stderr)


def serve(arguments: Arguments) -> None:
    """Selectors -> a server."""
    index, model = arguments["index"], arguments["llm"]
    if bool(index) != bool(model):
        hint = "give both for /answer, or neither"
        raise UsageError("--index and --llm go together", where="gainrag serve", hint=hint)
    own = own_of(serving.serve, arguments)
    lm = lms.open_lm(model=model) if model else None
    retriever = indexing.open_index(index) if index else None
    serving.serve(arguments["selector"] or (PRIOR,), retriever, lm, **own)


def validate(arguments: Arguments) -> None:
    """A config -> what it would use, or the first thing wrong with it."""
    from gainrag.runs import validation

    read = _read_config(arguments["config"], arguments)
    for line in validation.validate(read, arguments["measure"]):
        print(line, file=sys.stderr)
    print("valid", file=sys.stderr)


def engines(arguments: Arguments) -> None:
    """An endpoint -> what it can do."""
    for line in lms.examine(arguments["url"], **own_of(lms.examine, arguments)):
        print(line, flush=True)


def demo(arguments: Arguments) -> None:
    """The run on the data set that ships with the package."""
    from gainrag.demo import demo as run_demo

    run_demo(arguments["out"])
