"""Every command of the command line: its arguments, the stages whose parameters are its flags, and what it writes."""

from __future__ import annotations

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
from gainrag.cli.arguments import Argument, Command, calibrate, data, llm, shard, source, target
from gainrag.cluster import Cluster
from gainrag.report import report
from gainrag.runs import beginning
from gainrag.runs.config import Options
from gainrag.selectors import PRIOR, CrossEncoderSelector, exporting, pushing
from gainrag.selectors.fetching import SELECTOR

# What an interruption leaves where something was finished, said to whoever pressed Ctrl-C.
GOES_ON = "What is finished is kept; run the same command again to continue."
STAGES_KEPT = "Finished stages are kept; run the same command again to continue."

COMMANDS: tuple[Command, ...] = (
    Command(
        "init",
        "Look at your documents, questions, engines and machine, and write a config for `gainrag run`.",
        actions.init,
        (
            # Not `reads`: the config may lie in the folder.
            Argument(("folder",), {"help": "the folder of your documents [.]", "nargs": "?", "default": "."}),
            target("the config, a new file [%(default)s]", required=False, default="config.toml"),
        ),
        (beginning.init,),
    ),
    Command(
        "ingest",
        "Read documents, a data set's official release, or another's files into questions and a corpus.",
        actions.ingest,
        (
            source(
                "name",
                "docs (a folder of Markdown, HTML, reStructuredText, text, and with an extra PDF and Office files), "
                "a format, or a data set's official release: %(choices)s",
                choices=["docs", *actions.FORMATS, *sorted(ingestion.RELEASES)],
                metavar="WHAT",
            ),
            source("path", "the folder or file [of a release: download from the hub]", nargs="?", metavar="PATH"),
            target("the folder for questions.jsonl (of several splits: train.jsonl ..) and corpus.jsonl"),
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
            source("corpus", "passages: JSON lines or DPR's TSV, plain or .gz"),
            llm(),
            target("the folder for train.jsonl, tune.jsonl, test.jsonl, and what was rejected in written-1.jsonl .."),
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
            source("corpus", "passages: JSON lines or DPR's TSV, plain or .gz, or -"),
            target("the index folder"),
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
            source("questions", "questions as JSON lines, or -"),
            target("retrieved.jsonl, or -"),
            Argument(("--index",), {"required": True, "metavar": "FOLDER", "help": "an index folder"}, True),
        ),
        (retrieval.retrieve,),
    ),
    Command(
        "augment",
        "Add the pseudo-passage that the language model writes itself.",
        prompting.augment,
        (source("retrieved", "retrieved records, or -"), llm(), target("candidates.jsonl, or -"), shard()),
        (augmentation.augment, lms.open_lm, Cluster),
        ("model",),
        kept=GOES_ON,
    ),
    Command(
        "probe",
        "Say what better selection, retrieval and reading could each bring, before anything is trained.",
        actions.probe,
        (
            source("candidates", "candidates or retrieved records with gold answers; with --index questions; or -"),
            llm(),
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
            source("candidates", "candidates with gold answers, or -"),
            llm(),
            target("gains.jsonl, or -"),
            shard(),
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
            source("gains", "gain records (retrieved ones for --labels relevance), or -"),
            target("the selector folder"),
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
            source("candidates", "candidates, or -"),
            target("selected.jsonl, or -"),
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
            source("selector", "a selector folder"),
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
            source("selector", "a selector folder"),
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
            source("selected", "retrieved records, or -"),
            llm(),
            calibrate(),
            target("answers.jsonl, or -"),
            shard(),
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
            source("shards", "what `--shard 0/N`, `--shard 1/N` .. made, all of them", nargs="+", metavar="SHARD"),
            target("candidates.jsonl, gains.jsonl or answers.jsonl"),
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
            source("answers", "one file a system; NAME.seed1.jsonl is a further seed of NAME.jsonl", nargs="+"),
            target("evaluation.json"),
        ),
        (evaluation.evaluate,),
    ),
    Command(
        "run",
        "Every stage of a config; a finished stage whose inputs have not changed is reused.",
        actions.run,
        (
            source("config", "a TOML config"),
            target("the run folder"),
            data("the config's folder"),
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
        (source("run", "a finished run folder"),),
        (report,),
    ),
    Command(
        "share",
        "Write a run folder without the texts of its data sets, to pass on.",
        actions.share,
        (source("run", "a run folder, finished or not"), target("a new folder"), data("the run folder")),
        writes="folder",
    ),
    Command(
        "restore",
        "Make a run folder of a shared one, from the same data sets.",
        actions.restore,
        (
            source("shared", "what `gainrag share` wrote"),
            target("the run folder, a new one"),
            data("the shared folder"),
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
            source("config", "a TOML config"),
            data("the config's folder"),
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
        (target("the run folder", required=False, default="runs/demo"),),
        writes="inside",
        kept=STAGES_KEPT,
    ),
)
