"""What a run learns from: candidates with the pseudo-passage, their gains, and what these are worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gainrag import augmentation, synthesis, training
from gainrag.files.meta import digest
from gainrag.files.progress import say
from gainrag.files.streams import read, read_json, write, write_json
from gainrag.records import GainRecord, Retrieved
from gainrag.runs.folder import Run
from gainrag.runs.state import State
from gainrag.settings import parameters, settings_of
from gainrag.training.labels import AT_ALPHA

# With fewer labelled questions, chance may hide that the pseudo-passage is the best one now and then. If it is never so
# in as many, it is in one of 17 at the most (95%).
ENOUGH_TO_SAY = 50


def augment(state: State) -> None:
    """retrieved/train -> candidates/train: of the questions that get gains, with the pseudo-passage unless it is
    switched off."""
    _augment(state, "train", [r for r in state.retrieved["train"] if r.id in state.labelled], state.options.pseudo)


def augment_test(state: State) -> None:
    """retrieved/test -> candidates/test: the same of the test questions, without a pseudo-passage where the labels say
    that it is never the best."""
    _augment(state, "test", state.retrieved["test"], state.options.pseudo and _pseudo_helps(state.gains["train"]))


def _pseudo_helps(gains: Sequence[GainRecord]) -> bool:
    """Whether the pseudo-passage is ever the silver one; so it is, too, where there are too few questions to say."""
    with_one = [record for record in gains if any(ctx.origin == "generated" for ctx in record.ctxs)]
    if not with_one or any(record.ctxs[record.silver].origin == "generated" for record in with_one):
        return True
    found = f"the pseudo-passage is the best one of none of {len(with_one)} labelled questions"
    if len(with_one) < ENOUGH_TO_SAY:
        say(f"{found}, too few to do without it")
        return True
    say(f"{found}: none is written for the test questions, and no system reads one")
    return False


def _augment(state: State, split: str, records: Sequence[Retrieved], pseudo: bool) -> None:
    """The candidates of a split's questions, with the pseudo-passage or without."""
    table, artefact = state.table("augment"), state.path("candidates", f"{split}.jsonl")
    own = state.run.prompted(augmentation.augment, table, background=True) if pseudo else {"pseudo": False}

    def make(memory: dict[str, Any]) -> None:
        if pseudo:
            state.run.ask(augmentation.augment, records, artefact, memory, table, augmentation.CHUNK)
        else:
            write(artefact, records)

    retrieved = {"retrieved": state.path("retrieved", f"{split}.jsonl")}
    state.run.stage(artefact, own | {"questions": len(records)}, retrieved, make)
    state.candidates[split] = list(read(artefact, Retrieved))


def synthesize(state: State) -> None:
    """candidates/train -> gains/train: the labels, the proxy's where there is one."""
    table, proxy = state.table("synthesize"), state.run.proxy
    state.gains["train"] = _label(state, "train", state.candidates["train"], table, proxy)


def synthesize_test(state: State) -> None:
    """candidates/test -> gains/test: the test questions' gains for the oracle. What the best choice would bring to the
    model that answers, that model alone can say."""
    table, proxy = state.table("synthesize"), state.run.proxy
    if state.options.oracle:
        own = _readers_table(state.run, table) if proxy else table
        # The best of all candidates is asked for, not the best of some.
        every = {key: value for key, value in own.items() if key != "at_most"}
        state.gains["test"] = _label(state, "test", state.candidates["test"], every)


def _label(
    state: State, name: str, candidates: Sequence[Retrieved], table: dict[str, Any], proxy: str | None = None
) -> list[GainRecord]:
    """The labels of some candidates, in gains/NAME.jsonl, by the language model or by a proxy."""
    artefact = state.path("gains", f"{name}.jsonl")
    settings = state.run.prompted(synthesis.synthesize, table, proxy=proxy)
    split = "test" if name == "test" else "train"
    if name not in ("train", "test"):
        settings["ids"] = digest("\n".join(record.id for record in candidates))

    def make(memory: dict[str, Any]) -> dict[str, Any]:
        sizes = synthesis.chunk_sizes(settings_of(synthesis.synthesize, table)["labels"])
        state.run.ask(synthesis.synthesize, candidates, artefact, memory, table, sizes, proxy)
        return synthesis.summarize(list(read(artefact, GainRecord)))

    state.run.stage(artefact, settings, {"candidates": state.path("candidates", f"{split}.jsonl")}, make)
    return list(read(artefact, GainRecord))


def _readers_table(run: Run, table: dict[str, Any]) -> dict[str, Any]:
    """The settings of labels that the answering model makes beside a proxy: the proxy's, but sampled answers where it
    tells no losses."""
    if table.get("labels") == "sampled" or run.tells_losses():
        return table
    say(f"{run.llm_settings()['model']} tells no losses: what it labels itself are sampled answers")
    return {**{key: value for key, value in table.items() if key != "alpha"}, "labels": "sampled"}


def compare_proxy(state: State) -> None:
    """gains/ -> gains/reader.jsonl, gains/agreement.json: how far the proxy's labels agree with those that the
    answering model makes of some of the same questions."""
    proxy, some = state.run.proxy, state.options.proxy_questions
    if proxy is None or not some:
        return
    table = _readers_table(state.run, state.table("synthesize"))
    own = _label(state, "reader", state.candidates["train"][:some], table)
    artefact = state.path("gains", "agreement.json")

    def make(_: dict[str, Any]) -> None:
        write_json(artefact, synthesis.agree(state.gains["train"], own))

    settings = {"proxy": proxy, "reader": state.run.llm_settings()["model"]}
    inputs = {name: state.path("gains", f"{name}.jsonl") for name in ("train", "reader")}
    state.run.stage(artefact, settings, inputs, make)
    say(synthesis.describe_agreement(read_json(artefact)))


def diagnose(state: State) -> None:
    """gains/ -> diagnosis.json: how well gains tell right candidates from wrong ones, by alpha."""
    if not state.options.diagnose:
        return
    if state.table("synthesize").get("labels") == "sampled":
        say("no alphas are compared: sampled labels have none")
        return
    artefact, gains = state.path("diagnosis.json"), state.gains["train"]
    table = {k: v for k, v in state.table("synthesize").items() if k in parameters(synthesis.diagnose)}
    table["sample"] = state.options.diagnose

    def make(_: dict[str, Any]) -> None:
        found = synthesis.diagnose(gains, state.run.lm(), **table)
        write_json(artefact, {"summary": synthesis.summarize(gains), "diagnosis": found})

    settings = state.run.prompted(synthesis.diagnose, table)
    try:
        state.run.stage(artefact, settings, {"gains": state.path("gains", "train.jsonl")}, make)
    except synthesis.NothingToCompareError as error:  # a small reader, or few questions: what is left needs no alpha
        say(f"no alpha is recommended: {error}")
        return
    found = read_json(artefact)
    say(synthesis.describe(found["summary"], found["diagnosis"]))


def recommended_alpha(state: State) -> float | None:
    """The alpha to train on where the config names none, nor several to try: the one that the diagnosis recommends.
    None where that is the one that the gains are at, or there was no diagnosis."""
    artefact = state.path("diagnosis.json")
    own = settings_of(training.train, state.table("train"))
    told = own["alpha"] is not None or "alpha" in state.table("tune") or own["labels"] not in AT_ALPHA
    sampled = state.table("synthesize").get("labels") == "sampled"
    if told or sampled or not state.options.diagnose or not artefact.exists():
        return None
    best = synthesis.recommended_alpha(read_json(artefact))
    alphas = synthesis.as_alphas(settings_of(synthesis.synthesize, state.table("synthesize"))["alpha"])
    if best is None or best == alphas[0]:
        return None
    say(f"alpha {best:g}, which the diagnosis recommends, is trained on; alpha in [train] sets another")
    return best
