"""Kills at any moment, followed by other settings and back: the final files are those of a run never stopped."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainrag.errors import DataError, StaleError
from gainrag.files.folders import open_output_folder
from gainrag.files.meta import is_current, write_meta
from gainrag.files.resuming import forget, write_resumable
from gainrag.files.streams import file_hash, read, write
from gainrag.records import Answer, Question
from gainrag.runs.config import Config
from gainrag.runs.folder import Run
from tests.killing import run_and_kill


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A kill does not lose what the system was given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


QUESTIONS = [Question(id=f"q{i}", question=f"What is {i}?") for i in range(7)]


def answers(part: Sequence[Question], word: str) -> list[Answer]:
    """Answers that show which others were in each question's batch, as a batch in bfloat16 may."""
    batch = "+".join(q.id for q in part)
    return [Answer(id=q.id, question=q.question, prediction=f"{word} in {batch}") for q in part]


def resumable(out: Path, word: str, memory: dict[str, Any] | None = None, *, chunk: int = 4) -> None:
    write_resumable(
        out, QUESTIONS, lambda part: answers(part, word), kind=Answer, chunk=chunk, settings=memory or {}, what="test"
    )


def whole(out: Path, word: str, memory: dict[str, Any]) -> None:
    write(out, answers(QUESTIONS, word))


def folder(out: Path, word: str, memory: dict[str, Any]) -> None:
    with open_output_folder(out) as made:
        (made / "deep").mkdir()
        (made / "config.json").write_text(json.dumps({"word": word}))
        (made / "deep" / "weights").write_text(word * 10)


@dataclass(frozen=True)
class Kind:
    name: str
    make: Callable[[Path, str, dict[str, Any]], None]


KINDS = [
    Kind("made.jsonl", resumable),
    Kind("made.jsonl.gz", resumable),
    Kind("made.jsonl", whole),
    Kind("made", folder),
]


def stage(home: Path, kind: Kind, word: str) -> None:
    """The stage as a run has it, with one setting; --update allows to leave what others began."""
    out = home / "run" / kind.name
    run = Run(home / "run", Config(()), update=True)
    run.stage(out, {"word": word}, {"questions": home / "questions.jsonl"}, lambda memory: kind.make(out, word, memory))


def finished(home: Path, kind: Kind, word: str) -> str:
    """Run the stage to its end; the hash of what it made."""
    stage(home, kind, word)
    return file_hash(home / "run" / kind.name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.make.__name__}-{kind.name}")
@pytest.mark.parametrize("before", ["nothing", "the same", "another"])
def test_a_kill_between_any_two_file_operations(kind: Kind, before: str, tmp_path: Path) -> None:
    """A stage dies before its n-th operation, for every n; then it is run with other settings, and back."""
    write(tmp_path / "questions.jsonl", QUESTIONS)
    expected = {}
    for word in ("sea", "land"):
        (tmp_path / word).mkdir()
        write(tmp_path / word / "questions.jsonl", QUESTIONS)
        expected[word] = finished(tmp_path / word, kind, word)
    assert expected["sea"] != expected["land"]

    n, killed = 0, True
    while killed:
        for then in (("sea",), ("land", "sea")):
            home = tmp_path / f"{n} {then[0]}"
            write(home / "questions.jsonl", QUESTIONS)
            if before != "nothing":
                stage(home, kind, "land" if before == "another" else "sea")
            if before == "the same":  # it is made again because its input is another
                write(home / "questions.jsonl", [*QUESTIONS, Question(id="new", question="?")])
                stage(home, kind, "sea")
                write(home / "questions.jsonl", QUESTIONS)
            killed = run_and_kill(lambda home=home: stage(home, kind, "sea"), home, n)  # type: ignore[misc]
            for word in then:
                assert finished(home, kind, word) == expected[word], (n, then)
        n += 1
    assert n > 5


STEP = st.tuples(
    st.sampled_from(["sea", "land"]),  # settings
    st.integers(1, 5),  # chunk size of this device
    st.integers(0, 25),  # the operation before which it dies
    st.just(1.0) | st.floats(0, 1),  # how much of its .part reached the disk
)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, max_size=5), last=st.integers(1, 5), name=st.sampled_from(["made.jsonl", "made.jsonl.gz"]))
def test_any_series_of_kills_cuts_settings_and_devices(
    steps: list[tuple[str, int, int, float]], last: int, name: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        out = home / "run" / name
        part = out.with_name(out.name + ".part")

        def expected(chunk: int) -> bytes:
            resumable(home / "expected" / name, "sea", chunk=chunk)
            return (home / "expected" / name).read_bytes()

        def go(word: str, chunk: int) -> None:
            try:
                resumable(out, word, {"word": word}, chunk=chunk)
            except StaleError:
                assert forget(out)
                resumable(out, word, {"word": word}, chunk=chunk)

        sizes = {last}
        for word, chunk, at, kept in steps:
            run_and_kill(lambda: go(word, chunk), home, at)  # noqa: B023
            if part.exists():
                content = part.read_bytes()
                part.write_bytes(content[: round(len(content) * kept)])
            sizes.add(chunk)
        go("sea", last)
        assert out.read_bytes() in [expected(size) for size in sizes]
        assert {path.name for path in out.parent.iterdir()} == {name}
        assert [r.id for r in read(out, Answer)] == [q.id for q in QUESTIONS]


def begin(out: Path, *, chunk: int, chunks: int, memory: dict[str, Any] | None = None) -> None:
    """Stop after so many chunks."""
    left = chunks

    def make(part: Sequence[Question]) -> list[Answer]:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return answers(part, "sea")

    with pytest.raises(KeyboardInterrupt):
        write_resumable(out, QUESTIONS, make, kind=Answer, chunk=chunk, settings=memory or {}, what="test")


def test_what_a_gpu_began_goes_on_on_a_cpu_in_the_same_chunks(tmp_path: Path) -> None:
    resumable(tmp_path / "expected.jsonl", "sea", chunk=3)
    begin(tmp_path / "made.jsonl", chunk=3, chunks=1)
    resumable(tmp_path / "made.jsonl", "sea", chunk=2)
    assert (tmp_path / "made.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()


def test_a_part_from_before_chunks_were_recorded_goes_on(tmp_path: Path) -> None:
    begin(tmp_path / "made.jsonl", chunk=2, chunks=2, memory={"word": "sea"})
    (tmp_path / "made.jsonl.part.meta.json").write_text('{"word": "sea"}')
    resumable(tmp_path / "made.jsonl", "sea", {"word": "sea"}, chunk=2)
    assert len(list(read(tmp_path / "made.jsonl", Answer))) == len(QUESTIONS)


def test_labels_of_a_gpu_are_reused_where_the_device_chooses_another_dtype(tmp_path: Path) -> None:
    """Only where the config leaves the dtype to the device."""
    out = tmp_path / "gains.jsonl"
    write(out, QUESTIONS)

    def made(dtype: str) -> dict[str, Any]:
        return {"llm": {"model": "m", "dtype": dtype}}

    write_meta(out, made("bfloat16"), {})
    for table, reused in (({}, True), ({"dtype": "auto"}, True), ({"dtype": "float32"}, False)):
        run = Run(tmp_path, Config((), {"llm": {"model": "m", **table}}), update=False)
        assert run.reuses(out, made("float32"), {}) == reused
        assert not run.reuses(out, {"llm": {"model": "other", "dtype": "float32"}}, {})


def test_what_was_begun_with_other_settings_says_in_which_they_differ(tmp_path: Path) -> None:
    begin(tmp_path / "a.jsonl", chunk=2, chunks=1, memory={"settings": {"llm": {"dtype": "bfloat16", "model": "m"}}})
    with pytest.raises(StaleError, match=r"\(settings\.llm\.dtype was 'bfloat16', is 'float32'\)"):
        resumable(tmp_path / "a.jsonl", "sea", {"settings": {"llm": {"dtype": "float32", "model": "m"}}})


def test_another_input_is_not_continued(tmp_path: Path) -> None:
    """From Python no settings need to name the input: the ids do."""
    begin(tmp_path / "made.jsonl", chunk=2, chunks=2)
    began = (tmp_path / "made.jsonl.part").read_bytes()
    others = [Question(id=f"other{i}", question="?") for i in range(7)]
    for wrong in (others, [QUESTIONS[0], *others], QUESTIONS[:3]):
        with pytest.raises(StaleError, match=r"another input.*remove it to start over"):
            write_resumable(
                tmp_path / "made.jsonl",
                wrong,
                lambda part: answers(part, "sea"),
                kind=Answer,
                chunk=2,
                settings={},
                what="test",
            )
    assert (tmp_path / "made.jsonl.part").read_bytes() == began


@pytest.mark.parametrize("damage", [b"\0" * 50 + b"\n", b'{"id": "q0"}\n', b"[]\n", b"\xff\n"])
def test_a_damaged_part_is_one_line(tmp_path: Path, damage: bytes) -> None:
    begin(tmp_path / "made.jsonl", chunk=2, chunks=1)
    part = tmp_path / "made.jsonl.part"
    part.write_bytes(damage + part.read_bytes())
    with pytest.raises(DataError, match=r"part:1: is no Answer record"):
        resumable(tmp_path / "made.jsonl", "sea", chunk=2)


def test_without_items_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no questions"):
        write_resumable(tmp_path / "a.jsonl", [], lambda part: [], kind=Answer, chunk=2, settings={}, what="test")
    assert not list(tmp_path.iterdir())


def test_what_was_changed_by_hand_is_not_current_and_old_metas_are(tmp_path: Path) -> None:
    write(tmp_path / "questions.jsonl", QUESTIONS)
    kind = KINDS[0]
    stage(tmp_path, kind, "sea")
    out, meta = tmp_path / "run" / "made.jsonl", tmp_path / "run" / "made.meta.json"
    now: dict[str, Any] = {"settings": {"word": "sea"}, "inputs": json.loads(meta.read_text())["inputs"]}
    assert is_current(out, **now)
    content = out.read_bytes()
    out.write_bytes(content.replace(b"sea", b"bay"))
    assert not is_current(out, **now)
    out.write_bytes(content)
    assert is_current(out, **now)
    old = json.loads(meta.read_text())
    del old["artefact"]  # as it was written before
    meta.write_text(json.dumps(old))
    assert is_current(out, **now)
    assert not is_current(out, {"word": "sea"}, {"questions": "-"})
