"""`gainrag run`: every stage from the corpus to the table, each a file in the run folder, reused while it is current.

data/        one folder a data set           where the run makes them: the corpus of documents, questions by the model
questions/   train.jsonl test.jsonl          what is learned from and what is tested on
index/       one folder a corpus, by the name of the first data set that has it
retrieved/   train.jsonl test.jsonl test.RETRIEVER.jsonl weights.json
candidates/  train.jsonl test.jsonl          with the pseudo-passage
gains/       train.jsonl test.jsonl          labels; the test split's serve the oracle alone
             reader.jsonl agreement.json     with a proxy: some of the same questions by [llm]'s model, and how far
                                             the two agree
diagnosis.json                               how well gains tell right candidates, by alpha
warm_start/ relevance/ selector/             cross-encoders; more of them in warm_starts/ and variants/, see there
scores/      SYSTEM.jsonl                    every test candidate rescored by a selector, best first
selected/    SYSTEM.jsonl                    what each system gives to the language model
answers/     SYSTEM.jsonl K/SYSTEM.jsonl      the latter from the first K passages, see [sweep]
             SYSTEM.seed1.jsonl ..            here, in scores/ and in selected/: of its selectors with further seeds
thresholds.json                              of data sets with two fixed choices, by system
evaluation.json table.txt

The stages are functions of one record, `State`: each reads what the stages before it made, and adds its own.
`FLOW` lists them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gainrag import (
    answering,
    asking,
    augmentation,
    evaluation,
    indexing,
    ingestion,
    lms,
    retrieval,
    selection,
    synthesis,
    training,
)
from gainrag.cluster import Cluster
from gainrag.files.locks import lock
from gainrag.files.meta import digest, hashes, write_meta
from gainrag.files.progress import say
from gainrag.files.streams import open_output, read, read_json, write, write_json
from gainrag.records import Answer, GainRecord, Question, Retrieved
from gainrag.runs import costs, making, printing, retrieving, systems, thresholds, tuning, validation, variants
from gainrag.runs.config import Config, Options, Sweep
from gainrag.runs.folder import Run, claim
from gainrag.runs.names import GAINRAG, RELEVANCE, by_seed, file_name
from gainrag.runs.questions import draw, read_all
from gainrag.runs.thresholds import Thresholds
from gainrag.selectors import CrossEncoderSelector
from gainrag.settings import check_settings, parameters, settings_of
from gainrag.training.labels import AT_ALPHA

# With fewer labelled questions, chance may hide that the pseudo-passage is the best one now and then. If it is never so
# in as many, it is in one of 17 at the most (95%).
ENOUGH_TO_SAY = 50


@dataclass
class State:
    """A run under way: what it was given, and what its stages have made so far.

    found: every question of the data sets, by split.
    train, test: all training questions in the order of a draw, and the drawn test questions.
    labelled: of the training questions those that get gain labels, by id, with their data set.
    retrieved: "train", "test", and the test questions' lists by the name of their retriever.
    candidates, gains: by split; no gains of the test split where `oracle` is off.
    selectors: by system and test data set, the folder of the selector that ranks its questions.
    chosen: by system, what it gives to the language model; K/SYSTEM are those of the sweep, SYSTEM.seed1 .. those of
        its further seeds.
    thresholds: by data set with two fixed choices and by system, what the margin of the two is compared with.
    """

    run: Run
    options: Options
    found: dict[str, list[Question]] = field(default_factory=dict)
    train: list[Question] = field(default_factory=list)
    test: list[Question] = field(default_factory=list)
    labelled: dict[str, str] = field(default_factory=dict)
    retrieved: dict[str, list[Retrieved]] = field(default_factory=dict)
    candidates: dict[str, list[Retrieved]] = field(default_factory=dict)
    gains: dict[str, list[GainRecord]] = field(default_factory=dict)
    selectors: dict[str, dict[str, Path]] = field(default_factory=dict)
    chosen: dict[str, list[Retrieved]] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    evaluation: evaluation.Evaluation | None = None

    def table(self, stage: str) -> dict[str, Any]:
        """The config's settings of a stage."""
        return self.run.config.table(stage)

    def path(self, *parts: str) -> Path:
        """A path inside the run folder."""
        return self.run.path(*parts)


def run(config: Config, out: str | Path, update: bool = False, **settings: Any) -> evaluation.Evaluation:
    """Run every stage of a config in a run folder; what is current there is reused.

    Args:
        update: allow a folder that was made with another config; the stages that it changes are made again.
        settings: those of `gainrag.runs.config.Options`.

    Raises:
        StaleError: the folder was made with another config and `update` is off.
        DataError: it is no run folder, or another process is at work in it.
        ConfigError: `gainrag.runs.validation` finds something; nothing has been written then.
        ModelError: a model or the folder of a further system is not there.
        GainragError: whatever a stage raises.
    """
    check_settings(settings, parameters(Options), where="run")
    options, folder = Options(**settings), Path(out)
    validation.check(config, options)
    if not (folder / "config.toml").exists():  # a run that was begun may hold all that a model is needed for
        validation.check_models(config, options.proxy)
    state = State(Run(folder, config.inside(folder), update, options.proxy), options)
    if not any(dataset.asked for dataset in config.datasets):
        _read(state)
    if not (any(dataset.made for dataset in config.datasets) or (folder / "config.toml").exists()):
        for line in costs.estimate(state.run, options, state.found, download=True):
            say(line)
    with lock(folder / "gainrag"):
        claim(folder, config, update)
        for stage in FLOW:
            stage(state)
    assert state.evaluation is not None
    return state.evaluation


def _read(state: State) -> None:
    """Read every question of the data sets, and check that they are what the config asks for."""
    state.found = read_all(state.run.config)
    validation.check_questions(state.run.config, state.options, state.found)


def ingest(state: State) -> None:
    """Documents -> data/NAME/corpus.jsonl, of data sets that name a folder of them."""
    making.ingest_all(state.run)


def ask(state: State) -> None:
    """data/NAME/corpus.jsonl -> data/NAME/train.jsonl, test.jsonl, of data sets without questions."""
    making.ask_all(state.run)


def questions(state: State) -> None:
    """Data files -> questions/: all training questions in the order of a draw, test questions drawn."""
    if not state.found:
        _read(state)
    options = state.options
    state.train = draw(state.found["train"], 0, options.seed)
    state.test = draw(state.found["test"], options.test_questions, options.seed)
    state.labelled = {q.id: str(q.extra["dataset"]) for q in draw(state.train, options.train_questions, options.seed)}
    settings = {"seed": options.seed, "test_questions": options.test_questions}
    for split, drawn in (("train", state.train), ("test", state.test)):
        artefact = state.path("questions", f"{split}.jsonl")
        sources = {d.name: path for d in state.run.config.datasets if (path := d.split(split))}
        state.run.stage(artefact, settings, sources, _writing(artefact, drawn))


def _writing(artefact: Path, records: Sequence[Question]) -> Callable[[dict[str, Any]], None]:
    """What writes records that are made already."""

    def make(_: dict[str, Any]) -> None:
        write(artefact, records)

    return make


def retrieve(state: State) -> None:
    """questions/ -> index/, retrieved/: lists of the test questions, and of the training questions that are needed."""
    # A warm start may want any of them, now or once more are labelled.
    warms_up = state.options.warm_start and variants.wants_warm_start(state.run.config)
    wanted = state.train if warms_up else [q for q in state.train if q.id in state.labelled]
    state.retrieved = retrieving.retrieve_all(state.run, wanted, state.test, state.options.train_k, state.train)
    for depth in validation.depths(state.run.config, state.options).values():
        selection.cut(state.retrieved["test"], depth)  # a corpus too small fails here, not after hours of labelling


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
    state.run.stage(artefact, settings, {"gains": state.path("gains", "train.jsonl")}, make)
    found = read_json(artefact)
    say(synthesis.describe(found["summary"], found["diagnosis"]))


def train(state: State) -> None:
    """gains/, retrieved/ -> warm_start/, relevance/, selector/, variants/: the cross-encoders."""
    options, warm = state.options, set()
    if options.warm_start and variants.wants_warm_start(state.run.config):
        warm = {q.id for q in draw(state.train, options.warm_start_questions, options.seed)}
        warm -= variants.not_for_warm_starts(state.run.config, state.labelled)
    first = [record for record in state.retrieved["train"] if record.id in warm]
    state.selectors = variants.train_all(state.run, first, state.gains["train"], options.seeds, _alpha(state))


def _alpha(state: State) -> float | None:
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


def choose(state: State) -> None:
    """candidates/, cross-encoders -> scores/, selected/: what each system gives to the language model."""
    lists = {name: records for name, records in state.retrieved.items() if name not in ("train", "test")}
    gains = state.gains.get("test", [])
    candidates = state.candidates["test"]
    state.chosen = systems.choose(state.run, lists, candidates, gains, state.selectors, state.options.top)
    rankers = systems.rankers(state.run, state.selectors)
    state.thresholds = thresholds.calibrate_all(
        state.run, state.candidates["train"], state.gains["train"], state.chosen, rankers
    )


def sweep(state: State) -> None:
    """scores/ -> more choices: the first k passages of either selector, for a part of the test questions."""
    if "sweep" not in state.run.config.tables:
        return
    own = Sweep(**state.table("sweep"))
    drawn = {question.id for question in draw(state.test, own.questions, state.options.seed)}
    for system in (system for system in (RELEVANCE, GAINRAG) if system in state.selectors):
        file = f"{file_name(system)}.jsonl"
        ranked = [r for r in read(state.path("scores", file), Retrieved) if r.id in drawn]
        state.chosen |= {f"{k}/{system}": selection.cut(ranked, k) for k in own.k}
        for old in state.path("answers").glob(f"*/{file}"):
            if old.parent.name not in map(str, own.k):  # of an earlier config: the report would draw it beside the rest
                old.unlink()
                say(f"{old.relative_to(state.run.folder)}: removed")


def answer(state: State) -> None:
    """What was chosen -> answers/: every system's answers, and those of the sweep."""
    state.answers = systems.answer_all(state.run, state.chosen, state.thresholds)


def evaluate(state: State) -> None:
    """answers/ -> evaluation.json, table.txt: the systems' scores, over their seeds; the sweep is for the report."""
    answers = {name: records for name, records in state.answers.items() if "/" not in name}
    table = {**state.table("evaluate"), "group_by": state.run.config.group_by}
    state.evaluation = found = evaluation.evaluate(*by_seed(answers), **table)
    artefact = state.path("evaluation.json")
    write_json(artefact, found.to_json())
    files = {name: state.path("answers", f"{file_name(name)}.jsonl") for name in answers}
    # The run's own settings: flags may have changed them, which the config's copy does not show.
    settings = {**settings_of(evaluation.evaluate, table), "run": asdict(state.options)}
    write_meta(artefact, settings, hashes(files))
    text = printing.text_table(found, baseline=GAINRAG)
    with open_output(state.path("table.txt")) as stream:
        stream.write(text.encode() + b"\n")


# The run: what is above, in this order.
FLOW: tuple[Callable[[State], None], ...] = (
    ingest,
    ask,
    questions,
    retrieve,
    augment,
    synthesize,
    augment_test,
    synthesize_test,
    compare_proxy,
    diagnose,
    train,
    choose,
    sweep,
    answer,
    evaluate,
)

# The tables of a config, with what each one's keys are the settings of.
STAGES: dict[str, Callable[..., Any]] = {
    "run": Options,
    "llm": lms.open_lm,
    "ingest": ingestion.ingest_documents,
    "ask": asking.ask,
    "cluster": Cluster,
    "index": indexing.index,
    "retrieve": retrieval.retrieve,
    "augment": augmentation.augment,
    "synthesize": synthesis.synthesize,
    "warm_start": training.train,
    "train": training.train,
    "tune": tuning.tune,
    "select": selection.select,
    "selector": CrossEncoderSelector,
    "answer": answering.answer,
    "evaluate": evaluation.evaluate,
    "sweep": Sweep,
}
