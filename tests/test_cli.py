"""The command line from outside: exit statuses, one-line errors, nothing left half-done."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gainrag import cli
from gainrag.cli import commands

CORPUS: list[dict[str, object]] = [
    {"id": "1", "title": "Seine", "text": "The Seine flows through Paris.", "source": "atlas"},
    {"id": "2", "title": "Spree", "text": "The Spree flows through Berlin."},
    {"id": "3", "title": "Rain", "text": "Water falls from clouds."},
]
QUESTIONS: list[dict[str, object]] = [
    {"id": "a", "question": "Which river flows through Paris?", "answers": ["Seine", "the Seine"], "level": "easy"},
    {"id": "b", "question": "Which river flows through Berlin?", "answers": ["Spree"]},
]


def write(path: Path, records: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "corpus": write(tmp_path / "corpus.jsonl", CORPUS),
        "questions": write(tmp_path / "questions.jsonl", QUESTIONS),
        "index": str(tmp_path / "idx"),
        "retrieved": str(tmp_path / "retrieved.jsonl"),
    }


def failure(capsys: pytest.CaptureFixture[str], status: int, *argv: str) -> str:
    """Run a command that must fail, and return its one line."""
    assert cli.main(argv) == status
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert captured.out == ""
    assert lines
    assert lines[-1].startswith("gainrag: ")
    assert "Traceback" not in captured.err
    return lines[-1]


def test_index_and_retrieve(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", files["corpus"], "--retriever", "bm25", "-o", files["index"]]) == 0
    assert (
        cli.main(["retrieve", files["questions"], "--index", files["index"], "-k", "2", "-o", files["retrieved"]]) == 0
    )
    found = [json.loads(line) for line in Path(files["retrieved"]).read_text().splitlines()]
    assert [r["ctxs"][0]["id"] for r in found] == ["1", "2"]
    assert found[0]["ctxs"][0]["hasanswer"] is True
    assert found[0]["level"] == "easy"
    assert found[0]["ctxs"][0]["source"] == "atlas"
    meta = json.loads(Path(files["retrieved"]).with_name("retrieved.meta.json").read_text())
    assert meta["settings"] == {"k": 2}
    assert set(meta["inputs"]) == {"questions", "index"}
    assert "torch" in meta["versions"]
    assert cli.main(["retrieve", files["questions"], "--index", files["index"], "-k", "2", "-o", "-"]) == 0
    out = capsys.readouterr().out
    assert [json.loads(line) for line in out.splitlines()] == found


def test_a_changed_corpus_is_said(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["index", files["corpus"], "--retriever", "bm25", "-o", files["index"]])
    write(Path(files["corpus"]), CORPUS[:2])
    line = failure(capsys, 1, "retrieve", files["questions"], "--index", files["index"], "-o", files["retrieved"])
    assert "run `gainrag index` again" in line


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["indx"], "invalid choice"),
        (["index", "corpus.jsonl"], "-o/--out"),
        (["index", "corpus.jsonl", "-o", "x", "--retriever"], "expected one argument"),
        (["retrieve", "q.jsonl", "--index", "i", "-o", "x", "-k", "many"], "invalid int value"),
        (["augment", "r.jsonl", "--llm", "m", "-o", "x", "--prompt", "poem"], "completion"),
    ],
)
def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert says in failure(capsys, 2, *argv)


def test_every_bad_input_is_one_line(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none, empty = str(tmp_path / "none.jsonl"), write(tmp_path / "empty.jsonl", [])
    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"id": "1", "text": "ok"}\n{"id": "2", "text": 7}\n')
    twice = write(tmp_path / "twice.jsonl", [CORPUS[0], CORPUS[0]])
    out = str(tmp_path / "out")
    assert "none.jsonl: no such file" in failure(capsys, 1, "index", none, "--retriever", "bm25", "-o", out)
    assert "empty" in failure(capsys, 1, "index", empty, "--retriever", "bm25", "-o", out)
    line = failure(capsys, 1, "index", str(torn), "--retriever", "bm25", "-o", out)
    assert "torn.jsonl:2" in line
    assert "$.text" in line
    assert "twice.jsonl:2" in failure(capsys, 1, "index", twice, "--retriever", "bm25", "-o", out)
    line = failure(capsys, 2, "index", files["corpus"], "--retriever", "bm26", "-o", out)
    assert "choose from" in line
    assert "bm25" in line
    line = failure(capsys, 2, "index", files["corpus"], "--batch-size", "0", "-o", out)
    assert "--batch-size is 0, not a whole number from 1 to 100000" in line
    assert not Path(out).exists()

    unanswered = write(
        tmp_path / "unanswered.jsonl", [{**QUESTIONS[0], "ctxs": CORPUS}, {**QUESTIONS[1], "answers": []}]
    )
    line = failure(capsys, 1, "synthesize", unanswered, "--llm", "embedded:smollm2-135m-instruct", "-o", out)
    assert "unanswered.jsonl:2" in line
    bare = write(tmp_path / "bare.jsonl", [{**QUESTIONS[0], "ctxs": []}])
    assert "bare.jsonl:1" in failure(capsys, 1, "synthesize", bare, "--llm", "embedded:x", "-o", out)
    good = write(tmp_path / "good.jsonl", [{**QUESTIONS[0], "ctxs": CORPUS}])
    assert "unknown embedded model" in failure(capsys, 1, "synthesize", good, "--llm", "embedded:x", "-o", out)
    assert "cannot be loaded" in failure(capsys, 1, "answer", good, "--llm", "nobody/nothing", "-o", out)
    assert "cannot be loaded" in failure(capsys, 1, "select", good, "--selector", str(tmp_path / "no"), "-o", out)
    line = failure(capsys, 1, "train", good, "-o", out)
    assert "good.jsonl:1" in line
    assert "`loss`" in line


def test_a_full_disk_leaves_what_was_there(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["index", files["corpus"], "--retriever", "bm25", "-o", files["index"]])
    capsys.readouterr()
    if Path("/dev/full").exists():
        line = failure(capsys, 1, "retrieve", files["questions"], "--index", files["index"], "-o", "/dev/full/x.jsonl")
        assert "cannot be written" in line


def gainrag(log: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own with standard error in a file, as a batch job does."""
    with log.open("ab") as stream:
        return subprocess.run(
            [sys.executable, "-m", "gainrag", *argv],
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
            timeout=300,
        )


def test_a_log_file_has_no_other_librarys_lines_and_no_control_characters(
    files: dict[str, str], tmp_path: Path
) -> None:
    log, out = tmp_path / "log", str(tmp_path / "selector")
    flags = ["--kind", "cross-encoder"]
    flags += ["--labels", "relevance", "--epochs", "1", "--group-size", "3", "--base", "embedded:all-minilm-l6-v2"]
    for argv in (
        ["index", files["corpus"], "--retriever", "bm25", "-o", files["index"]],
        ["retrieve", files["questions"], "--index", files["index"], "-k", "3", "-o", files["retrieved"]],
        # The base has no head: transformers reports that at length.
        ["train", files["retrieved"], *flags, "--device", "cpu", "-o", out],
    ):
        assert gainrag(log, *argv).returncode == 0, log.read_text()
    shown = log.read_bytes().decode()
    assert "DEBUG" not in shown
    assert "LOAD REPORT" not in shown
    assert all(char == "\n" or char.isprintable() for char in shown)


def test_only_our_warnings_and_others_errors_are_shown() -> None:
    """Libraries set their loggers' levels when they are imported, after the command line has set them."""
    code = (
        "import logging, warnings; from gainrag.cli.main import quiet_libraries; quiet_libraries(); "
        "logging.getLogger('bm25s').setLevel(logging.DEBUG); "
        "[logging.getLogger(name).log(level, f'{name} {level}') for name in ('bm25s', 'gainrag.x', 'gainrags') "
        "for level in (10, 20, 30, 40)]; warnings.warn('of Python')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "ERROR bm25s: bm25s 40", "WARNING gainrag.x: gainrag.x 30", "ERROR gainrag.x: gainrag.x 40",
        "ERROR gainrags: gainrags 40",
    ]  # fmt: skip


def test_a_terminal_that_cannot_show_a_character_shows_its_escape(tmp_path: Path) -> None:
    code = "import sys; from gainrag import cli; cli.main(['validate', 'none.toml']); print('Zürich 北京')"
    for encoding, shown in (("ascii", b"Z\\xfcrich \\u5317\\u4eac"), ("utf-8", "Zürich 北京".encode())):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
        assert done.stdout.strip() == shown


def test_an_interruption_says_what_is_kept(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(arguments: object) -> None:
        raise KeyboardInterrupt

    command = next(command for command in commands.COMMANDS if command.name == "index")
    stopped = dataclasses.replace(command, action=stop, kept="The old index is kept.")
    monkeypatch.setattr(commands, "COMMANDS", (stopped,))
    argv = ("index", files["corpus"], "-o", files["index"])
    assert failure(capsys, 130, *argv) == "gainrag: stopped. The old index is kept."


def test_a_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    def fail(arguments: object) -> None:
        raise ZeroDivisionError

    index = next(command for command in commands.COMMANDS if command.name == "index")
    command = dataclasses.replace(index, action=fail)
    monkeypatch.setattr(commands, "COMMANDS", (command,))
    with pytest.raises(ZeroDivisionError):
        cli.main([command.name, files["corpus"], "-o", files["index"]])


def test_help_of_every_command_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from gainrag.settings import parameters

    for command in commands.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([command.name, "--help"])
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        for stage in command.stages:
            for name in parameters(stage):
                assert name in command.skip or f"-{name.replace('_', '-')}" in shown


def test_importing_is_cheap_and_the_public_names_are_these() -> None:
    code = (
        "import sys, gainrag; "
        "assert not {'torch', 'transformers', 'faiss', 'bm25s', 'numpy'} & set(sys.modules), sorted(sys.modules); "
        "print(*gainrag.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "BM25", "Answer", "CrossEncoderSelector", "Dense", "Evaluation", "FeatureSelector", "GainRAG", "GainRecord",
        "Gained", "GainragError", "Generator", "Hybrid", "Passage", "Question", "Result", "Retrieved", "Retriever",
        "Scored", "Scorer", "ScoringRequest", "Selector", "answer", "augment", "evaluate", "export", "index", "ingest",
        "open_index", "open_lm", "open_selector", "read_passages", "read_questions", "read_retrieved", "retrieve",
        "select", "synthesize", "train",
    ]  # fmt: skip
    import gainrag

    for name in gainrag.__all__:
        assert getattr(gainrag, name) is not None


def test_the_command_line_starts_without_loading_models() -> None:
    code = (
        "import sys; from gainrag import cli; cli.build_parser(); "
        "print(*sorted({'torch', 'transformers', 'sentence_transformers', 'faiss', 'bm25s'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
