"""Every command of the command line: its arguments, the stages whose parameters are its flags, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    probing,
    retrieval,
    selection,
    serving,
    synthesis,
    training,
)
from gainrag.cli import actions, prompting
from gainrag.cluster import Cluster
from gainrag.files.locks import lock
from gainrag.files.places import Writes, check_input, check_output, check_replaceable
from gainrag.report import report
from gainrag.runs import beginning
from gainrag.runs.config import Options
from gainrag.selectors import PRIOR, CrossEncoderSelector, exporting, pushing
from gainrag.selectors.fetching import SELECTOR

# What an interruption leaves, said to whoever pressed Ctrl-C.
STARTS_OVER = "Nothing was written; run the same command again to start over."
GOES_ON = "What is finished is kept; run the same command again to continue."
STAGES_KEPT = "Finished stages are kept; run the same command again to continue."

# Parameters of stages that may name a file or a folder to read.
_READ = ("base", "start", "aliases")


@dataclass(frozen=True)
class Argument:
    """One argument that no stage parameter stands behind: a file, a folder, a model.

    Args:
        reads: it names a file or a folder that the command reads.
    """

    flags: tuple[str, ...]
    options: dict[str, Any]
    reads: bool = False

    @property
    def name(self) -> str:
        """What its value is called among the arguments."""
        return self.flags[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Command:
    """A command: its arguments, the stages whose parameters are its flags, and what it does.

    Args:
        writes: what its --out is.
        replaces: of a folder that may be there already, the file, or one of several, by which it is known,
            and what it is called.
        kept: what an interruption leaves, as a sentence for whoever caused it.
    """

    name: str
    help: str
    action: Callable[[actions.Arguments], None]
    arguments: tuple[Argument, ...] = ()
    stages: tuple[Callable[..., Any], ...] = ()
    skip: tuple[str, ...] = ()
    writes: Writes = "file"
    replaces: tuple[str | Sequence[str], str] | None = None
    kept: str = STARTS_OVER

    def run(self, arguments: actions.Arguments) -> None:
        """Check the output, and do what the command does while holding the output's lock.

        Raises:
            DataError: an input can have no such name; the output is an input or something that must not be replaced,
                cannot be written, or another process is writing it.
            GainragError: whatever the command raises.
        """
        for path in (*self._inputs(arguments), str(arguments.get("llm") or "")):
            check_input(path)
        if (out := arguments.get("out")) is None:
            self.action(arguments)
            return
        check_output(out, self._inputs(arguments), writes=self.writes)
        if self.replaces:
            check_replaceable(out, *self.replaces)
        # A folder that others may write in, too, has its lock inside.
        with lock(Path(out) / "gainrag" if self.writes == "inside" else out):
            self.action(arguments)

    def _inputs(self, arguments: actions.Arguments) -> list[str]:
        """Every file and folder that is read."""
        names = [argument.name for argument in self.arguments if argument.reads]
        given = [arguments.get(name) for name in (*names, *_READ)]
        return [str(path) for value in given if value for path in (value if isinstance(value, list) else [value])]


def _input(name: str, help: str, **more: Any) -> Argument:
    return Argument((name,), {"help": help, **more}, reads=True)


def _output(help: str, **more: Any) -> Argument:
    return Argument(("-o", "--out"), {"required": True, "metavar": "PATH", "help": help, **more})


def _llm() -> Argument:
    names = "embedded:NAME, a Hugging Face id, a folder, a GGUF file, or an endpoint: http://HOST:PORT/v1#NAME"
    return Argument(("--llm",), {"required": True, "metavar": "MODEL", "help": names})


def _shard() -> Argument:
    text = "work on share I of N of the questions, I from 0; `gainrag merge` joins what all of them made"
    return Argument(("--shard",), {"metavar": "I/N", "help": text})


def _calibrate() -> Argument:
    text = "for two fixed choices such as Yes and No: this system's answers to training questions, to set the threshold"
    return Argument(("--calibrate",), {"metavar": "ANSWERS", "help": text}, reads=True)


def _data(default: str) -> Argument:
    text = f"the folder that relative data paths of the config start from [{default}]"
    return Argument(("--data",), {"metavar": "FOLDER", "help": text})


COMMANDS: tuple[Command, ...] = (
    Command(
        "init",
        "Look at your documents, questions, engines and machine, and write a config for `gainrag run`.",
        actions.init,
        (
            # Not `reads`: the config may lie in the folder.
            Argument(("folder",), {"help": "the folder of your documents [.]", "nargs": "?", "default": "."}),
            _output("the config, a new file [%(default)s]", required=False, default="config.toml"),
        ),
        (beginning.init,),
    ),
    Command(
        "ingest",
        "Read documents, a data set's official release, or another's files into questions and a corpus.",
        actions.ingest,
        (
            _input(
                "name",
                "docs (a folder of Markdown, HTML, reStructuredText, text, and with an extra PDF and Office files), "
                "a format, or a data set's official release: %(choices)s",
                choices=["docs", *actions.FORMATS, *sorted(ingestion.RELEASES)],
                metavar="WHAT",
            ),
            _input("path", "the folder or file [of a release: download from the hub]", nargs="?", metavar="PATH"),
            _output("the folder for questions.jsonl (of several splits: train.jsonl ..) and corpus.jsonl"),
            Argument(("--source",), {"metavar": "PATH", "help": "PATH by another name"}),
            Argument(("--gz",), {"action": "store_true", "help": "write .jsonl.gz"}),
        ),
        (ingestion.ingest, ingestion.convert, ingestion.ingest_documents),
        writes="inside",
        kept="Finished files, and documents that were read, are kept; run the same command again to continue.",
    ),
    Command(
        "ask",
        "Have the language model write questions on a corpus, and keep those that a passage helps to answer.",
        actions.ask,
        (
            _input("corpus", "passages: JSON lines or DPR's TSV, plain or .gz"),
            _llm(),
            _output("the folder for train.jsonl, tune.jsonl, test.jsonl, and what was rejected in written-1.jsonl .."),
            Argument(
                ("--index",),
                {"metavar": "FOLDER", "help": "the index in which questions must find their passages [words: BM25]"},
                reads=True,
            ),
            Argument(
                ("--questions",),
                {"metavar": "FILE", "help": "questions that people asked, with answers: they go to test, marked"},
                reads=True,
            ),
        ),
        (asking.ask, lms.open_lm),
        ("model",),
        writes="inside",
        kept=GOES_ON,
    ),
    Command(
        "index",
        "Build an index folder from passages.",
        actions.index,
        (
            _input("corpus", "passages: JSON lines or DPR's TSV, plain or .gz, or -"),
            _output("the index folder"),
            Argument(
                ("--questions",),
                {"metavar": "FILE", "help": "training questions: the weights of hybrid's scores are fitted on them"},
                reads=True,
            ),
        ),
        (indexing.index,),
        writes="folder",
        replaces=(indexing.META_FILE, "index"),
    ),
    Command(
        "retrieve",
        "Find each question's k best passages.",
        actions.retrieve,
        (
            _input("questions", "questions as JSON lines, or -"),
            _output("retrieved.jsonl, or -"),
            Argument(("--index",), {"required": True, "metavar": "FOLDER", "help": "an index folder"}, True),
        ),
        (retrieval.retrieve,),
    ),
    Command(
        "augment",
        "Add the pseudo-passage that the language model writes itself.",
        prompting.augment,
        (_input("retrieved", "retrieved records, or -"), _llm(), _output("candidates.jsonl, or -"), _shard()),
        (augmentation.augment, lms.open_lm, Cluster),
        ("model",),
        kept=GOES_ON,
    ),
    Command(
        "probe",
        "Say what better selection, retrieval and reading could each bring, before anything is trained.",
        actions.probe,
        (
            _input("candidates", "candidates or retrieved records with gold answers; with --index questions; or -"),
            _llm(),
            Argument(
                ("-o", "--out"),
                {"metavar": "FOLDER", "help": "a folder to keep labels, answers and probe.json in [nothing is kept]"},
            ),
            Argument(("--index",), {"metavar": "FOLDER", "help": "an index folder, to retrieve from first"}, True),
        ),
        (probing.probe, retrieval.retrieve, lms.open_lm),
        ("model",),
        writes="inside",
        kept="With --out, what is finished is kept; run the same command again to continue.",
    ),
    Command(
        "synthesize",
        "Measure how much each candidate helps the language model to the right answer.",
        prompting.synthesize,
        (
            _input("candidates", "candidates with gold answers, or -"),
            _llm(),
            _output("gains.jsonl, or -"),
            _shard(),
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
        (synthesis.synthesize, lms.open_lm, Cluster),
        ("model",),
        kept=GOES_ON,
    ),
    Command(
        "train",
        "Distil gains into a selector.",
        actions.train,
        (
            _input("gains", "gain records (retrieved ones for --labels relevance), or -"),
            _output("the selector folder"),
            Argument(
                ("--warm-start",),
                {"metavar": "FILE", "help": "retrieved records: first train on whether passages contain an answer"},
                reads=True,
            ),
        ),
        (training.train,),
        writes="folder",
        replaces=(SELECTOR, "selector folder"),
        kept="No selector was written (a finished warm start stays); run the same command again to start over.",
    ),
    Command(
        "select",
        "Keep the k candidates that the selector scores highest.",
        actions.select,
        (
            _input("candidates", "candidates, or -"),
            _output("selected.jsonl, or -"),
            Argument(
                ("--selector",),
                {
                    "default": PRIOR,
                    "metavar": "MODEL",
                    "help": f"a selector folder or any reranker [{PRIOR}, which serves until you train one]",
                },
                reads=True,
            ),
        ),
        (selection.select, CrossEncoderSelector),
    ),
    Command(
        "export",
        "Put a copy of a selector for ONNX Runtime or OpenVINO into its folder.",
        actions.export,
        (
            _input("selector", "a selector folder"),
            Argument(("-o", "--out"), {"metavar": "PATH", "help": "a new selector folder [in place]"}),
            Argument(
                ("--candidates",),
                {"metavar": "FILE", "help": "candidates to learn the ranges of openvino's int8 from"},
                reads=True,
            ),
        ),
        (exporting.export,),
        writes="folder",
    ),
    Command(
        "push",
        "Upload a selector folder to the Hugging Face hub, with all that was learned and its card.",
        actions.push,
        (
            _input("selector", "a selector folder"),
            Argument(("repo",), {"help": "OWNER/NAME on the hub; then a name to give as --selector"}),
        ),
        (pushing.push,),
        kept="The hub may have kept files that it was sent; run the same command again to push all of them.",
    ),
    Command(
        "answer",
        "Answer each question from its passages.",
        prompting.answer,
        (
            _input("selected", "retrieved records, or -"),
            _llm(),
            _calibrate(),
            _output("answers.jsonl, or -"),
            _shard(),
        ),
        (answering.answer, lms.open_lm, Cluster),
        ("model",),
        kept=GOES_ON,
    ),
    Command(
        "merge",
        "Join what shards made, once it is checked that all are there: the bytes that one machine would have written.",
        prompting.merge,
        (
            _input("shards", "what `--shard 0/N`, `--shard 1/N` .. made, all of them", nargs="+", metavar="SHARD"),
            _output("candidates.jsonl, gains.jsonl or answers.jsonl"),
            Argument(
                ("--of",),
                {"metavar": "FILE", "help": "the input that they are shares of [where it was when they were made]"},
                reads=True,
            ),
        ),
    ),
    Command(
        "evaluate",
        "Score answers, with intervals, and compare systems.",
        actions.evaluate,
        (
            _input("answers", "one file a system; NAME.seed1.jsonl is a further seed of NAME.jsonl", nargs="+"),
            _output("evaluation.json"),
        ),
        (evaluation.evaluate,),
    ),
    Command(
        "run",
        "Every stage of a config; a finished stage whose inputs have not changed is reused.",
        actions.run,
        (
            _input("config", "a TOML config"),
            _output("the run folder"),
            _data("the config's folder"),
            Argument(("--update",), {"action": "store_true", "help": "allow a folder made with another config"}),
        ),
        (Options,),
        writes="inside",
        kept=STAGES_KEPT,
    ),
    Command(
        "report",
        "Show what a finished run found: a page, text, and all numbers as JSON, in the run folder.",
        actions.report,
        (_input("run", "a finished run folder"),),
        (report,),
    ),
    Command(
        "share",
        "Write a run folder without the texts of its data sets, to pass on.",
        actions.share,
        (_input("run", "a run folder, finished or not"), _output("a new folder"), _data("the run folder")),
        writes="folder",
    ),
    Command(
        "restore",
        "Make a run folder of a shared one, from the same data sets.",
        actions.restore,
        (
            _input("shared", "what `gainrag share` wrote"),
            _output("the run folder, a new one"),
            _data("the shared folder"),
        ),
        writes="folder",
    ),
    Command(
        "serve",
        "Serve selectors over HTTP: the rerank endpoint that others' clients call, answers, and a playground.",
        actions.serve,
        (
            Argument(
                ("--selector",),
                {
                    "action": "append",
                    "metavar": "MODEL",
                    "help": f"a selector folder or any reranker, or NAME=MODEL; may be given several times [{PRIOR}]",
                },
            ),
            Argument(("--index",), {"metavar": "FOLDER", "help": "an index folder, for /answer"}, True),
            Argument(("--llm",), {"metavar": "MODEL", "help": "a language model, for /answer"}),
        ),
        (serving.serve,),
        kept="Begun requests were finished; run the same command again to serve.",
    ),
    Command(
        "validate",
        "Check everything that can be checked before compute is spent.",
        actions.validate,
        (
            _input("config", "a TOML config"),
            _data("the config's folder"),
            Argument(
                ("--no-measure",),
                {
                    "dest": "measure",
                    "action": "store_false",
                    "help": "do not open the language model to measure what the run will take",
                },
            ),
        ),
    ),
    Command(
        "engines",
        "Find out what a language model behind HTTP can do: its engine, what its losses are, its context, its speed.",
        actions.engines,
        (Argument(("url",), {"help": "http://HOST:PORT/v1#NAME; NAME may be left out where there is one model"}),),
        (lms.examine,),
    ),
    Command(
        "demo",
        "The whole method on a small data set that ships with the package.",
        actions.demo,
        (_output("the run folder", required=False, default="runs/demo"),),
        writes="inside",
        kept=STAGES_KEPT,
    ),
)
