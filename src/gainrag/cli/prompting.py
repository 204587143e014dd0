"""What the commands do in which a language model works on every question of a file: augment, synthesize and answer.

All questions here, or a share of them (`--shard`), which `merge` joins with the others, or all on a cluster (`--ray`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gainrag import answering, augmentation, ingestion, lms, synthesis
from gainrag.cluster import Cluster, check_cluster
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
    if arguments["out"] is not None and lms.address_of(own["model"], own.get("base_url")) is not None:
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
    """A command of this module: its stage, the argument that names its input, and how many questions it works on
    together, by what the model runs on.

    more: what the stage is given beside its settings; it is recorded among them.
    """

    stage: Callable[..., Any]
    source: str
    sizes: Mapping[str, int]
    need_answers: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def augment(arguments: Arguments) -> None:
    """Retrieved records -> candidates."""
    _do(Work(augmentation.augment, "retrieved", augmentation.CHUNK), arguments)


def answer(arguments: Arguments) -> None:
    """Selected records -> answers."""
    more = {}
    if source := arguments.get("calibrate"):
        more["threshold"] = threshold = answering.calibrate_on(list(read(source, Answer)), str(source))
        first, second = threshold.choices
        asked = f"by {threshold.questions} training questions"
        said = f"{first} where loss({second}) - loss({first}) is above {threshold.value:.3f} nats, {asked}"
        print(said, file=sys.stderr)
    _do(Work(answering.answer, "selected", answering.CHUNK, more=more), arguments)


def _do(work: Work, arguments: Arguments) -> None:
    """Have the model write something for each record: here, for a share of them, or on a cluster."""
    cluster = _cluster_of(arguments)
    if cluster.ray is not None:
        _on_cluster(work, arguments, cluster)
        return
    records, lm, memory, more = _begin(work, arguments)
    work.stage(records, lm, arguments["out"], memory, **own_of(work.stage, arguments), **work.more)
    settings = {**memory["settings"], **msgspec.to_builtins(work.more)}
    write_meta(arguments["out"], settings, memory["inputs"], more=more)


def _begin(work: Work, arguments: Arguments) -> tuple[list[Retrieved], Any, dict[str, Any], dict[str, Any]]:
    """The questions to work on, the model, what records depend on, and what else their meta file says."""
    shard = Shard.parse(arguments["shard"]) if arguments.get("shard") else None
    path, out = arguments[work.source], arguments["out"]
    if shard and (is_stream(path) or is_stream(out)):
        hint = "name files: shards are merged by what is in their meta files"
        raise UsageError("a shard has no meta file on a stream", where="--shard", hint=hint)
    records = ingestion.read_retrieved(path, need_answers=work.need_answers)
    lm, llm = open_lm(arguments)
    memory = memory_of(work.stage, arguments, lm, llm, **{work.source: path})
    if shard is None:
        return records, lm, memory, {}
    chunk = chunk_begun(out, chunk_for(lm, work.sizes))
    mine = share(records, shard, chunk)
    memory["settings"][SHARD] = shard.settings(chunk)
    print(f"shard {shard}: {len(mine)} of {count(len(records), 'question')}", file=sys.stderr)
    return mine, lm, memory, {PATHS: {work.source: os.path.abspath(path)}}


def _cluster_of(arguments: Arguments) -> Cluster:
    cluster = Cluster(**own_of(Cluster, arguments))
    check_cluster(cluster, {**own_of(lms.open_lm, arguments), "model": arguments["llm"]})
    if cluster.ray and arguments.get("shard"):
        raise UsageError("--ray and --shard are two ways to the same", where="--shard", hint="use one of them")
    return cluster


def _on_cluster(work: Work, arguments: Arguments, cluster: Cluster) -> None:
    from gainrag.cluster.driving import distribute

    path, out = arguments[work.source], arguments["out"]
    records = ingestion.read_retrieved(path, need_answers=work.need_answers)
    llm = {**own_of(lms.open_lm, arguments), "model": arguments["llm"]}
    facts, own = lms.facts(llm), own_of(work.stage, arguments)
    settings = recorded(work.stage, own)
    settings |= {"prompt": settings["prompt"] or lms.form_of(llm), "llm": facts, **msgspec.to_builtins(work.more)}
    memory = {"settings": settings, "inputs": hashes({work.source: path})}
    llm["dtype"] = facts["dtype"]
    failed = distribute(
        work.stage, records, out, memory, cluster=cluster, llm=llm, sizes=work.sizes, settings=own, more=work.more
    )
    summary = None
    if work.stage is synthesis.synthesize:
        summary = {**synthesis.summarize(list(read(out, GainRecord))), "diagnosis": None}
        print(synthesis.describe(summary), file=sys.stderr)
    write_meta(out, **memory, summary=summary, more={"failed": failed} if failed else None)


def synthesize(arguments: Arguments) -> None:
    """Candidates -> gain records, and with --diagnose how good the labels are."""
    own, out, sample = own_of(synthesis.synthesize, arguments), arguments["out"], arguments["diagnose"]
    if sample:
        _check_diagnosis(arguments)
    sizes = synthesis.chunk_sizes(settings_of(synthesis.synthesize, own)["labels"])
    work = Work(synthesis.synthesize, "candidates", sizes, need_answers=True)
    cluster = _cluster_of(arguments)
    if cluster.ray is not None:
        _on_cluster(work, arguments, cluster)
        return
    candidates, lm, memory, more = _begin(work, arguments)
    if sample and is_current(out, **memory):
        print(f"{out}: reused, made with the same settings from the same candidates", file=sys.stderr)
        records = list(read(out, GainRecord))
    else:
        records = synthesis.synthesize(candidates, lm, out, memory, **own)
    summary = synthesis.summarize(records)
    write_meta(out, **memory, summary={**summary, "diagnosis": None}, more=more)
    print(synthesis.describe(summary), file=sys.stderr)
    if not sample:
        return
    # Only now: what is labelled stays labelled, whatever becomes of the diagnosis.
    asked = synthesis.evenly_spaced(records, sample)
    answers = sum(len(record.ctxs) for record in asked)
    print(f"diagnosis: {answers} answers, to every candidate of {len(asked)} questions", file=sys.stderr)
    diagnosis = synthesis.diagnose(records, lm, **own_of(synthesis.diagnose, arguments) | {"sample": sample})
    write_meta(out, **memory, summary={**summary, "diagnosis": diagnosis})
    print(synthesis.describe_diagnosis(diagnosis), file=sys.stderr)


def _check_diagnosis(arguments: Arguments) -> None:
    where = "gainrag synthesize"
    if arguments.get("labels") == "sampled":
        what = "--diagnose compares alphas, and sampled labels have none"
        hint = "leave it out: what share of the answers is right is said anyway"
        raise UsageError(what, where=where, hint=hint)
    if arguments.get("shard") or arguments.get("ray"):
        what = "--diagnose asks one model, here, about questions of the whole file"
        hint = "make the labels; then the same command with --diagnose and without --shard and --ray takes them"
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
