"""What -o may be: found out before any work, and never a file lost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli
from gainrag.errors import DataError, ResourceError
from gainrag.files.folders import open_output_folder
from gainrag.files.locks import lock
from gainrag.files.meta import write_meta
from gainrag.files.places import is_stream, meta_path, target
from gainrag.files.streams import disk_errors, open_output, read, read_json, write, write_json
from gainrag.records import Answer, GainRecord, Passage, Question, Retrieved, Scored
from gainrag.testing import OverlapLM
from tests.small_run import Model

ANSWERS = [Answer(id=f"q{i}", question="?", answers=["a"], prediction="a b"[i % 2 :]) for i in range(4)]
CORPUS = [Passage(id="1", text="The Seine flows through Paris."), Passage(id="2", text="Rain falls.")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with inputs for `evaluate`, which writes a file, and `index`, which writes a folder."""
    monkeypatch.chdir(tmp_path)
    write("answers.jsonl", ANSWERS)
    write("corpus.jsonl", CORPUS)
    return tmp_path


def evaluate(out: str) -> int:
    return cli.main(["evaluate", "answers.jsonl", "--resamples", "10", "-o", out])


def index(out: str) -> int:
    return cli.main(["index", "corpus.jsonl", "--retriever", "bm25", "-o", out])


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything below a folder, links as links."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def refused(capsys: pytest.CaptureFixture[str], status: int, *says: str) -> None:
    """The command failed with one line that says this."""
    assert status == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("gainrag: ")
    assert "Hint: " in lines[0]
    for words in says:
        assert words in lines[0]


BAD_NAMES = ["", ".", "..", "/", "/proc/x", "a\0b", "x" * 300, "x" * 230, "caf\udce9.json", "loop", "loop/x"]
BAD_NAMES += ["answers.jsonl/x", "/dev/full/x", "deep/" * 2000 + "x"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:20]))
def test_what_no_output_can_be_is_one_line(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("loop", "loop")
    before = tree(home)
    refused(capsys, evaluate(name))
    refused(capsys, index(name))
    if name not in (".", ".."):  # a run may write into the current folder
        config = home.parent / "config.toml"
        config.write_text('[[dataset]]\nname = "d"\ncorpus = "c"\ntest = "t"\n')
        refused(capsys, cli.main(["run", str(config), "-o", name]))
        config.unlink()
    assert tree(home) == before


def test_an_output_that_is_an_input_is_refused_whatever_it_is_called(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.symlink("answers.jsonl", "link.jsonl")
    os.link("answers.jsonl", "same.jsonl")
    os.symlink(".", "here")
    (home / "sub").mkdir()
    before = tree(home)
    for name in ("answers.jsonl", "./sub/../answers.jsonl", str(home / "answers.jsonl"), "link.jsonl", "same.jsonl",
                 "here/answers.jsonl"):  # fmt: skip
        refused(capsys, evaluate(name), "is an input, too")
    refused(capsys, index("corpus.jsonl"), "a folder is written")
    refused(capsys, cli.main(["select", "corpus.jsonl", "--selector", "sub", "-o", "sub"]), "is a folder")
    refused(capsys, cli.main(["train", "answers.jsonl", "--base", "sub", "-o", "here/sub"]), "is an input, too")
    assert tree(home) == before


def test_a_folder_that_holds_an_input_is_not_replaced(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert index("idx") == 0
    capsys.readouterr()
    before = tree(home)
    refused(capsys, cli.main(["index", "idx/passages.jsonl", "-o", "idx"]), "holds an input", "idx/passages.jsonl")
    assert tree(home) == before


@pytest.mark.parametrize("command", ["index", "train"])
def test_another_folder_is_noticed_before_any_work(
    command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "thesis").mkdir()
    (home / "thesis" / "thesis.txt").write_text("years of work")
    # That the input is missing would be the next thing to be found.
    refused(capsys, cli.main([command, "none.jsonl", "-o", "thesis"]), "is there already and is no")
    if command == "train":
        (home / "thesis").rename(home / "new-warm-start")
        argv = ["train", "none.jsonl", "--warm-start", "none.jsonl", "--kind", "cross-encoder", "-o", "new"]
        refused(capsys, cli.main(argv), "new-warm-start", "is no selector folder")


def test_ingest_does_not_write_over_its_source(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "questions.jsonl").write_text('{"question": "Who?", "answer": ["me"]}\n')
    before = tree(home)
    refused(capsys, cli.main(["ingest", "nq", "--source", "questions.jsonl", "-o", "."]), "is an input, too")
    assert tree(home) == before


def test_a_link_is_written_through(home: Path) -> None:
    (home / "far").mkdir()
    os.symlink("far/table.json", "link.json")
    for _ in range(2):  # first it leads to nothing
        assert evaluate("link.json") == 0
        assert os.readlink("link.json") == "far/table.json"
    assert read_json("far/table.json")
    assert meta_path("link.json").is_file()
    os.symlink("far/idx", "idx")
    for _ in range(2):
        assert index("idx") == 0
        assert os.readlink("idx") == "far/idx"
    assert (home / "far" / "idx" / "index.meta.json").is_file()
    assert sorted(os.listdir("far")) == ["idx", "table.json"]


def test_a_link_to_an_artefact_takes_its_old_meta_away(home: Path) -> None:
    write("a.jsonl", ANSWERS)
    write_meta("a.jsonl", {}, {})
    os.symlink("a.jsonl", "b.jsonl")
    write("b.jsonl", ANSWERS[:1])
    assert not meta_path("a.jsonl").exists()


def test_devices_and_pipes_are_written_and_never_replaced(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("/dev/null") == 0
    code = "import sys; from gainrag import cli; sys.exit(cli.main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "evaluate", "answers.jsonl", "--resamples", "10", "-o", "/dev/stdout"]
    assert b'"overall"' in subprocess.run(argv, capture_output=True, check=True).stdout
    os.mkfifo("pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_bytes()))
    reader.start()
    assert evaluate("pipe") == 0
    reader.join(10)
    assert b'"overall"' in found[0]
    capsys.readouterr()
    refused(capsys, index("pipe"), "is a stream; a folder is written")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        refused(capsys, evaluate("socket"), "is a device or socket")
    assert is_stream("/dev/null")
    assert is_stream("pipe")
    assert not is_stream("answers.jsonl")
    assert {path.name for path in home.iterdir()} == {"answers.jsonl", "corpus.jsonl", "pipe", "socket"}


@pytest.mark.skipif(not is_stream("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_a_full_disk(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, evaluate("/dev/full"), "disk is full")
    assert is_stream("/dev/full")
    with pytest.raises(ResourceError, match="disk is full"):
        write("/dev/full", ANSWERS)


def test_libraries_say_in_their_own_words_that_the_disk_is_full() -> None:
    class SafetensorError(Exception):
        pass

    with pytest.raises(ResourceError, match="disk is full"), disk_errors("selector"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), disk_errors("selector"):
        raise SafetensorError("invalid header")


def test_nothing_is_left_of_what_fails(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(home)
    assert cli.main(["evaluate", "none.jsonl", "-o", "new/deep/table.json"]) == 1
    assert tree(home) == before


# --- locks ---

HOLD = """
import sys, time
from gainrag.files.locks import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(home: Path) -> Iterator[Any]:
    """Another process that holds the lock of a path."""
    started: list[subprocess.Popen[bytes]] = []

    def hold(path: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_with_one_output(home: Path, other: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The second fails at once, and goes through when the first was killed."""
    for run, path, inside in ((evaluate, "table.json", "table.json"), (index, "idx", "idx")):
        process = other(inside)
        began = time.monotonic()
        refused(capsys, run(path), "another process is writing it", path)
        assert time.monotonic() - began < 5
        assert not (home / path).exists()
        process.kill()
        process.wait()
        assert run(path) == 0
        capsys.readouterr()
    assert {path.name for path in home.iterdir()} == {
        "answers.jsonl", "corpus.jsonl", "table.json", "table.meta.json", "idx",
    }  # fmt: skip


def test_two_processes_with_one_run_folder(folder: Path, other: Any, capsys: pytest.CaptureFixture[str]) -> None:
    other(str(folder / "out" / "gainrag"))
    refused(capsys, cli.main(["run", str(folder / "config.toml"), "-o", str(folder / "out")]), "another process")
    assert not list((folder / "out").glob("[!.]*"))


def test_two_threads_exclude_each_other_and_one_may_come_again(home: Path) -> None:
    said: list[str] = []

    def try_it() -> None:
        try:
            write("out.jsonl", ANSWERS)
        except DataError as error:
            said.append(str(error))

    with lock("out.jsonl"), lock("./out.jsonl"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        write("out.jsonl", ANSWERS[:1])
        assert (home / ".out.jsonl.lock").exists()
    assert "another process is writing it" in said[0]
    assert len(list(read("out.jsonl", Answer))) == 1
    assert not (home / ".out.jsonl.lock").exists()


def test_many_processes_write_one_output_in_turn_or_not_at_all(home: Path) -> None:
    """Whoever comes through wrote a whole file, and no lock stays behind."""
    code = (
        "import sys\nfrom gainrag.records import Question\nfrom gainrag.files.streams import write\n"
        "from gainrag.errors import DataError\n"
        "for i in range(40):\n"
        "    try: write('out.jsonl', [Question(id=f'{j}', question=sys.argv[1]) for j in range(50)])\n"
        "    except DataError as error: assert 'another process' in str(error), error\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    found = list(read("out.jsonl", Question))
    assert [q.id for q in found] == [str(j) for j in range(50)]
    assert len({q.question for q in found}) == 1
    assert not list(home.glob(".*"))


def test_a_folder_killed_between_its_two_renames_comes_back(home: Path) -> None:
    (home / ".selector.old").mkdir()
    (home / ".selector.old" / "config.json").write_text("{}")
    (home / ".selector.tmp").mkdir()
    with pytest.raises(KeyboardInterrupt), open_output_folder("selector"):
        raise KeyboardInterrupt
    assert (home / "selector" / "config.json").is_file()
    assert not list(home.glob(".*"))


def test_what_a_killed_process_left_in_a_new_run_folder_does_not_stop_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gainrag.runs.folder import claim
    from tests.small_run import config_of

    (folder / "out").mkdir()
    for name in (".config.toml.tmp", ".config.toml.lock", ".gainrag.lock"):
        (folder / "out" / name).touch()
    claim(folder / "out", config_of(folder), update=False)
    assert (folder / "out" / "config.toml").is_file()


def test_names_beside(home: Path) -> None:
    assert target("x/y.jsonl") == Path("x/y.jsonl")
    assert meta_path("gains.jsonl.gz").name == meta_path("gains").name == "gains.meta.json"
    with pytest.raises(DataError, match="is no file"), open_output(home):
        pass
    write_json("a.json", {"a": 1})
    assert sorted(os.listdir()) == ["a.json", "answers.jsonl", "corpus.jsonl"]


# --- synthesize --diagnose ---


class CountingLM(Model):
    """Counts what is scored, and refuses to answer more prompts than it may."""

    def __init__(self, may_answer: int = 10**9) -> None:
        super().__init__()
        self.scored, self.left = 0, may_answer

    def losses(self, requests: Any, alphas: Any) -> Any:
        self.scored += len(requests)
        return super().losses(requests, alphas)

    def generate(self, prompts: Any, max_new_tokens: int) -> list[str]:
        self.left -= len(prompts)
        if self.left < 0:
            raise ResourceError("the endpoint is gone")
        return OverlapLM.generate(self, prompts, max_new_tokens)


def test_labels_outlive_a_diagnosis_that_fails(
    home: Path, candidates: list[Retrieved], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("candidates.jsonl", candidates)
    argv = ["synthesize", "candidates.jsonl", "--llm", "overlap", "--alpha", "0", "--diagnose", "5", "-o", "g.jsonl"]
    weak = CountingLM(may_answer=len(candidates) + 4)
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="overlap", dtype="float32", device="cpu": weak)
    assert cli.main(argv) == 1
    said = capsys.readouterr().err
    assert "diagnosis: 15 answers, to every candidate of 5 questions" in said
    assert said.index("40 questions, 100.0% kept") < said.index("diagnosis: 15") < said.index("endpoint is gone")
    labels = Path("g.jsonl").read_bytes()
    assert read_json("g.meta.json")["summary"]["diagnosis"] is None

    strong = CountingLM()
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="overlap", dtype="float32", device="cpu": strong)
    assert cli.main(argv) == 0
    assert strong.scored == 0
    assert "g.jsonl: reused" in capsys.readouterr().err
    assert Path("g.jsonl").read_bytes() == labels
    assert read_json("g.meta.json")["summary"]["diagnosis"]["sample"] == 5

    # The training takes the alpha that it recommends, unless it is told another one.
    own = ["train", "g.jsonl", "--kind", "features", "--keep-worse", "-o"]
    assert cli.main([*own, "s"]) == 0
    assert "alpha 0, which the labels' diagnosis recommends; --alpha sets another" in capsys.readouterr().err
    assert read_json("s.meta.json")["settings"]["alpha"] == 0.0
    assert cli.main([*own, "t", "--alpha", "0"]) == 0
    assert "recommends" not in capsys.readouterr().err

    # Of other candidates they are made anew.
    new = Retrieved(id="n", question="?", answers=["a"], ctxs=[Scored(id="1", text="a")])
    write("candidates.jsonl", [*candidates[:-1], new])
    assert cli.main(argv) == 0
    assert strong.scored == len(candidates)
    assert list(read("g.jsonl", GainRecord))[-1].id == "n"


def test_every_command_says_what_an_interruption_keeps() -> None:
    from gainrag.cli.commands import COMMANDS

    kept = {command.name for command in COMMANDS if "to continue" in command.kept}
    assert kept == {"ingest", "ask", "augment", "synthesize", "answer", "run", "demo", "probe"}
    assert all("run the same command again to" in command.kept for command in COMMANDS)
