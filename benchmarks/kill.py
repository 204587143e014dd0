"""kill -9 at random moments, then other settings and back: are the final files those of a run never stopped?

    python benchmarks/kill.py [--stage synthesize ..] [--kills 20] [--questions 12] [--seed 0]

For each stage (synthesize, augment, answer, train, run) on a few questions of the demo. Before a kill the output is not
there, or finished with these settings, or with other ones. After it the command is run with other settings, which may
refuse what was begun, and with the first ones again. Prints a line a kill, and exits 1 when any bytes differ.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from gainrag import answering, augmentation, cli, demo, synthesis
from gainrag.files.streams import file_hash, write
from gainrag.retrieval import retrieve
from gainrag.testing import OverlapRetriever

LM = "embedded:smollm2-135m-instruct"
# So that a few questions are several chunks.
CHUNK = 4

CONFIG = """
[run]
diagnose = 0
warm_start = false
train_questions = {questions}
test_questions = 2

[[dataset]]
name = "demo"
corpus = "corpus.jsonl"
train = "train.jsonl"
test = "test.jsonl"

[llm]
model = "{lm}"
dtype = "float32"

[index]
retriever = "bm25"

[retrieve]
k = 2

[augment]
max_new_tokens = {tokens}

[synthesize]
max_new_tokens = 4

[answer]
max_new_tokens = 4

[train]
epochs = 1
group_size = 2
only_kept = false
max_length = 64

[evaluate]
resamples = 100
"""


@dataclass(frozen=True)
class Stage:
    """A command under test: its arguments, and the ones that differ between the two settings."""

    name: str
    arguments: tuple[str, ...]
    settings: tuple[tuple[str, ...], tuple[str, ...]]
    output: str

    def command(self, which: int, out: Path) -> list[str]:
        """The arguments with the first or the second settings."""
        return [self.name, *self.arguments, *self.settings[which], "-o", str(out / self.output)]


def stages(inputs: Path) -> list[Stage]:
    """Every stage that takes long, on the inputs in a folder."""
    candidates, gains = str(inputs / "candidates.jsonl"), str(inputs / "gains.jsonl")
    tokens = (("--max-new-tokens", "4"), ("--max-new-tokens", "5"))
    alpha = (("--alpha", "0"), ("--alpha", "0.5"))
    training = ("--epochs", "1", "--group-size", "2", "--max-length", "64", "--no-only-kept", "--keep-worse")
    configs = ((str(inputs / "a.toml"),), (str(inputs / "b.toml"),))
    return [
        Stage("synthesize", (candidates, "--llm", LM, "--max-new-tokens", "4"), alpha, "gains.jsonl"),
        Stage("augment", (candidates, "--llm", LM), tokens, "candidates.jsonl.gz"),
        Stage("answer", (candidates, "--llm", LM), tokens, "answers.jsonl"),
        Stage("train", (gains, *training), (("--seed", "0"), ("--seed", "1")), "selector"),
        Stage("run", ("--update",), configs, "run"),
    ]


def begin(arguments: Sequence[str], log: Path) -> int:
    """Start a command in a process of its own, what it says going to a file; the process id.

    Forked, so that the libraries need not be imported each time; nothing was computed before.
    """
    if child := os.fork():
        return child
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        for stage in (synthesis, augmentation, answering):
            stage.CHUNK["cpu"] = CHUNK
        os._exit(cli.main(arguments))
    except BaseException:
        traceback.print_exc()
        os._exit(70)


def finish(arguments: Sequence[str], log: Path) -> int:
    """Run a command to its end; its exit status.

    Raises:
        RuntimeError: it ended in a traceback.
    """
    _, status = os.waitpid(begin(arguments, log), 0)
    if (code := os.waitstatus_to_exitcode(status)) not in (0, 1):
        raise RuntimeError(log.read_text())
    return code


def killed_at(arguments: Sequence[str], log: Path, moment: float) -> bool:
    """Start a command and kill it after so many seconds; whether it was still running."""
    child, until = begin(arguments, log), time.monotonic() + moment
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def prepare(inputs: Path, questions: int) -> None:
    """Candidates, gains and two configs, from the demo's data."""
    train, _, corpus = demo.load()
    write(inputs / "candidates.jsonl", retrieve(train[:questions], OverlapRetriever(corpus), k=2))
    for name in ("corpus", "train", "test"):
        shutil.copyfile(demo.FOLDER / f"{name}.jsonl", inputs / f"{name}.jsonl")
    for name, tokens in (("a", 4), ("b", 5)):
        (inputs / f"{name}.toml").write_text(CONFIG.format(questions=questions, lm=LM, tokens=tokens))
    make = ["synthesize", str(inputs / "candidates.jsonl"), "--llm", LM, "-o", str(inputs / "gains.jsonl")]
    if finish(make, inputs / "log"):
        raise RuntimeError((inputs / "log").read_text())


def fingerprint(home: Path) -> dict[str, str]:
    """All files by name and bytes, but for the pools that a run keeps its answers in: what other settings asked
    stays there, too. The answers that are read from them are compared."""
    files = sorted(path for path in home.rglob("*") if path.is_file() and not path.name.startswith("pool."))
    return {str(path.relative_to(home)): file_hash(path) for path in files}


def differences(home: Path, wanted: dict[str, str], *, begun: bool = False) -> list[str]:
    """The files that are not as they should be.

    Args:
        begun: what other settings began may lie there, too.
    """
    found = fingerprint(home)
    if begun:
        found = {name: digest for name, digest in found.items() if ".part" not in name and "/." not in f"/{name}"}
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def try_stage(stage: Stage, folder: Path, kills: int, rng: random.Random) -> int:
    """Kill a stage so many times; how many times something was wrong afterwards."""
    whole, log = (folder / "whole 0", folder / "whole 1"), folder / "log"
    took = 0.0
    for which, home in enumerate(whole):
        home.mkdir(parents=True)
        began = time.monotonic()
        if finish(stage.command(which, home), log):
            raise RuntimeError(log.read_text())
        took = max(took, time.monotonic() - began)
    wanted = [fingerprint(home) for home in whole]
    print(f"{stage.name}: uninterrupted {took:.1f} s", flush=True)
    killed = wrong = 0
    while killed < kills:
        home = folder / "killed"
        shutil.rmtree(home, ignore_errors=True)
        before = rng.choice(("nothing", "these settings", "other settings"))
        if before == "nothing":
            home.mkdir()
        else:
            shutil.copytree(whole[before == "other settings"], home)
        moment = rng.uniform(0, took)
        if not killed_at(stage.command(0, home), log, moment):
            continue
        killed += 1
        left = sorted(path.name for path in home.rglob("*") if path.name.startswith(".") or ".part" in path.name)
        refused = finish(stage.command(1, home), log)
        if refused and "begun with other settings" not in log.read_text():
            raise RuntimeError(log.read_text())
        differ = [] if refused else differences(home, wanted[1], begun=True)
        if finish(stage.command(0, home), log):
            raise RuntimeError(log.read_text())
        differ += differences(home, wanted[0])
        wrong += bool(differ)
        between = "were refused" if refused else "went through"
        verdict = f"DIFFERENT: {', '.join(differ)}" if differ else "the same"
        print(
            f"{stage.name} {killed}: from {before}, killed after {moment:.1f} s, left {', '.join(left) or 'nothing'}; "
            f"other settings {between}; {verdict}",
            flush=True,
        )
    return wrong


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = [stage.name for stage in stages(Path())]
    parser.add_argument("--stage", action="append", choices=names)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    # Imported once for all processes.
    import sentence_transformers  # noqa: F401

    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs"
        inputs.mkdir()
        prepare(inputs, arguments.questions)
        wrong = 0
        for stage in stages(inputs):
            if stage.name in (arguments.stage or names):
                rng = random.Random(f"{stage.name} {arguments.seed}")
                wrong += try_stage(stage, Path(scratch) / stage.name, arguments.kills, rng)
    print("all the same" if not wrong else f"{wrong} DIFFERENT")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
