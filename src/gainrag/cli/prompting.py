"""What the commands do in which a language model works on every question of a file: augment, synthesize and answer.

All questions here, or a share of them (`--shard`), which `merge` joins with the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gainrag import answering, augmentation, ingestion, lms, synthesis
from gainrag.errors import UsageError
from gainrag.files import merging
from gainrag.files.meta import hashes, is_current, write_meta
from gainrag.files.places import calls_path, is_stream
from gainrag.files.resuming import chunk_begun
from gainrag.files.sharding import PATHS, SHARD, Shard, share
from gainrag.files.streams import read
from gainrag.prompts import for_model
from gainrag.protocols import chunk_for
from gainrag.records import Answer, GainRecord, Retrieved
from gainrag.settings import count, parameters, recorded, settings_of

Arguments = Mapping[str, Any]


def own_of(stage: Callable[..., Any], arguments: Arguments) -> dict[str, Any]:
    """The arguments that are the stage's parameters."""
    return {name: arguments[name] for name in parameters(stage) if name in arguments}


def open_lm(arguments: Arguments) -> tuple[Any, dict[str, Any]]:
    """The model of a command, and what identifies it. What an engine answers is kept beside the command's output."""
    own = {**own_of(lms.open_lm, arguments), "model": arguments["llm"]}
    kept: dict[str, Any] = {}
    if lms.address_of(own["model"], own.get("base_url")) is not None:
        kept["calls"] = calls_path(arguments["out"])
    lm = lms.open_lm(**kept, **own)
    print(lms.described(lm), file=sys.stderr)
    return lm, lms.facts(own)


def memory_of(
    stage: Callable[..., Any], arguments: Arguments, lm: Any, llm: dict[str, Any], **inputs: str
) -> dict[str, Any]:
    """What a stage's records depend on: its settings, the model, and its inputs."""
    own = recorded(stage, own_of(stage, arguments))
    return {"settings": {**own, "prompt": for_model(own["prompt"], lm).form, "llm": llm}, "inputs": hashes(inputs)}


@dataclass(frozen=True)
class Work:
    """A command under way: the questions that it works on, with the model and what the records depend on.

    more: what the meta file says beside that.
    """

    records: list[Retrieved]
    lm: Any
    memory: dict[str, Any]
    more: dict[str, Any]


def _begin(
    stage: Callable[..., Any], source: str, sizes: Mapping[str, int], arguments: Arguments, need_answers: bool = False
) -> Work:
    """Read the questions of a file, given as argument `source`, and open the model.

    Args:
        sizes: how many questions the stage works on together, by what the model runs on.
    """
    shard = Shard.parse(arguments["shard"]) if arguments.get("shard") else None
    path, out = arguments[source], arguments["out"]
    if shard and (is_stream(path) or is_stream(out)):
        hint = "name files: shards are merged by what is in their meta files"
        raise UsageError("a shard has no meta file on a stream", where="--shard", hint=hint)
    records = ingestion.read_retrieved(path, need_answers=need_answers)
    lm, llm = open_lm(arguments)
    memory = memory_of(stage, arguments, lm, llm, **{source: path})
    if shard is None:
        return Work(records, lm, memory, {})
    chunk = chunk_begun(out, chunk_for(lm, sizes))
    mine = share(records, shard, chunk)
    memory["settings"][SHARD] = shard.settings(chunk)
    print(f"shard {shard}: {len(mine)} of {count(len(records), 'question')}", file=sys.stderr)
    return Work(mine, lm, memory, {PATHS: {source: os.path.abspath(path)}})


def augment(arguments: Arguments) -> None:
    """Retrieved records -> candidates."""
    work = _begin(augmentation.augment, "retrieved", augmentation.CHUNK, arguments)
    _write(work, augmentation.augment, arguments)


def answer(arguments: Arguments) -> None:
    """Selected records -> answers."""
    source = arguments.get("calibrate")
    more = {}
    if source:
        more["threshold"] = threshold = answering.calibrate_on(list(read(source, Answer)), str(source))
        first, second = threshold.choices
        asked = f"by {threshold.questions} training questions"
        said = f"{first} where loss({second}) - loss({first}) is above {threshold.value:.3f} nats, {asked}"
        print(said, file=sys.stderr)
    _write(_begin(answering.answer, "selected", answering.CHUNK, arguments), answering.answer, arguments, **more)


def _write(work: Work, stage: Callable[..., Any], arguments: Arguments, **more: Any) -> None:
    """Have the model write something for each record.

    Args:
        more: what the stage is given beside its settings; it is recorded among them.
    """
    stage(work.records, work.lm, arguments["out"], work.memory, **own_of(stage, arguments), **more)
    settings = {**work.memory["settings"], **msgspec.to_builtins(more)}
    write_meta(arguments["out"], settings, work.memory["inputs"], more=work.more)


def synthesize(arguments: Arguments) -> None:
    """Candidates -> gain records, and with --diagnose how good the labels are."""
    own = own_of(synthesis.synthesize, arguments)
    if arguments["diagnose"]:
        _check_diagnosis(arguments)
    sizes = synthesis.chunk_sizes(settings_of(synthesis.synthesize, own)["labels"])
    work = _begin(synthesis.synthesize, "candidates", sizes, arguments, need_answers=True)
    out, sample, memory = arguments["out"], arguments["diagnose"], work.memory
    if sample and is_current(out, **memory):
        print(f"{out}: reused, made with the same settings from the same candidates", file=sys.stderr)
        records = list(read(out, GainRecord))
    else:
        records = synthesis.synthesize(work.records, work.lm, out, memory, **own)
    summary = synthesis.summarize(records)
    write_meta(out, **memory, summary={**summary, "diagnosis": None}, more=work.more)
    print(synthesis.describe(summary), file=sys.stderr)
    if not sample:
        return
    # Only now: what is labelled stays labelled, whatever becomes of the diagnosis.
    asked = synthesis.evenly_spaced(records, sample)
    answers = sum(len(record.ctxs) for record in asked)
    print(f"diagnosis: {answers} answers, to every candidate of {len(asked)} questions", file=sys.stderr)
    diagnosis = synthesis.diagnose(records, work.lm, **own_of(synthesis.diagnose, arguments) | {"sample": sample})
    write_meta(out, **memory, summary={**summary, "diagnosis": diagnosis})
    print(synthesis.describe_diagnosis(diagnosis), file=sys.stderr)


def _check_diagnosis(arguments: Arguments) -> None:
    where = "gainrag synthesize"
    if arguments.get("labels") == "sampled":
        what = "--diagnose compares alphas, and sampled labels have none"
        hint = "leave it out: what share of the answers is right is said anyway"
        raise UsageError(what, where=where, hint=hint)
    if arguments.get("shard"):
        what = "--diagnose is of all questions, and a shard has some"
        hint = "merge the shards, then run the same command without --shard and with --diagnose: it takes their labels"
        raise UsageError(what, where=where, hint=hint)


def merge(arguments: Arguments) -> None:
    """Shards -> the whole."""
    shards = merging.check_shards(arguments["shards"], arguments["of"])
    out, source = arguments["out"], str(shards.source)
    order: Sequence[str] = [record.id for record in ingestion.read_retrieved(source, need_answers=False)]
    merging.join(shards, order, out)
    summary: dict[str, Any] | None = None
    if shards.summarized:
        summary = {**synthesis.summarize(list(read(out, GainRecord))), "diagnosis": None}
        print(synthesis.describe(summary), file=sys.stderr)
    write_meta(out, shards.settings, shards.inputs, summary, more={"versions": shards.versions})
    said = f"{count(len(order), 'question')} of {count(len(shards.paths), 'shard')}, in the order of {source}"
    print(said, file=sys.stderr)
