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

The stages are functions of one record, `State`; `FLOW` lists them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
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
from gainrag.files.meta import hashes, write_meta
from gainrag.files.progress import say
from gainrag.files.streams import open_output, read, write, write_json
from gainrag.records import Question, Retrieved
from gainrag.runs import (
    contradictions,
    costs,
    labelling,
    making,
    printing,
    retrieving,
    systems,
    thresholds,
    tuning,
    validation,
    variants,
)
from gainrag.runs.config import Config, Options, Sweep
from gainrag.runs.folder import Run, claim
from gainrag.runs.names import GAINRAG, RELEVANCE, by_seed, file_name
from gainrag.runs.questions import draw, read_all
from gainrag.runs.state import State
from gainrag.selectors import CrossEncoderSelector
from gainrag.settings import check_settings, parameters, settings_of


def run(config: Config, out: str | Path, update: bool = False, **settings: Any) -> evaluation.Evaluation:
    """Run every stage of a config in a run folder; what is current there is reused.

    Args:
        update: allow a folder that was made with another config; the stages that it changes are made again.
        settings: those of `gainrag.runs.config.Options`.

    Raises:
        StaleError: the folder was made with another config and `update` is off.
        DataError: it is no run folder, or another process is at work in it.
        ConfigError: a setting contradicts another, or the data; nothing has been written then.
        ModelError: a model or the folder of a further system is not there.
        GainragError: whatever a stage raises.
    """
    check_settings(settings, parameters(Options), where="run")
    options, folder = Options(**settings), Path(out)
    contradictions.check(config, options)
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
    for depth in contradictions.depths(state.run.config, state.options).values():
        selection.cut(state.retrieved["test"], depth)  # a corpus too small fails here, not after hours of labelling


def train(state: State) -> None:
    """gains/, retrieved/ -> warm_start/, relevance/, selector/, variants/: the cross-encoders."""
    options, warm = state.options, set()
    if options.warm_start and variants.wants_warm_start(state.run.config):
        warm = {q.id for q in draw(state.train, options.warm_start_questions, options.seed)}
        warm -= variants.not_for_warm_starts(state.run.config, state.labelled)
    first = [record for record in state.retrieved["train"] if record.id in warm]
    alpha = labelling.recommended_alpha(state)
    state.selectors = variants.train_all(state.run, first, state.gains["train"], options.seeds, alpha)


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


# The run: its stages in order.
FLOW: tuple[Callable[[State], None], ...] = (
    ingest,
    ask,
    questions,
    retrieve,
    labelling.augment,
    labelling.synthesize,
    labelling.augment_test,
    labelling.synthesize_test,
    labelling.compare_proxy,
    labelling.diagnose,
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
