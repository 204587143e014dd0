from __future__ import annotations

import io
import sys

import pytest

from gainrag.files import progress as module
from gainrag.files.progress import progress, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update is shown, and from the start."""
    import tqdm

    plain = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda *args, **given: plain(*args, **{**given, "delay": 0.0, "miniters": 1}))
    monkeypatch.setattr(module, "_IN_LOG", 0.0)
    monkeypatch.setattr(module, "_ON_TERMINAL", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_log_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress(range(3), "reading", unit="pages")) == [0, 1, 2]
    with progress_bar("outer", unit="steps", total=2) as outer, progress_bar("inner", unit="steps", done=1) as inner:
        outer.update(1)
        inner.update(1)
    shown = log.getvalue()
    assert all(char == "\n" or char.isprintable() for char in shown)
    assert shown.endswith("\n")
    lines = shown.splitlines()
    assert len(lines) == len(set(lines))
    assert [line.partition(" [")[0] for line in lines if line.startswith("reading")][-1] == "reading: 100% 3/3"
    assert any(line.startswith("outer:  50% 1/2 [") for line in lines)
    assert any(line.startswith("inner: 2 steps [") for line in lines)


@pytest.mark.usefixtures("at_once")
def test_a_terminal_gets_one_line_that_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress(range(3), "reading", unit="pages")) == [0, 1, 2]
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().count("\r") >= 3


def test_what_is_done_in_a_second_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress(range(3), "reading", unit="pages")) == [0, 1, 2]
    assert log.getvalue() == ""
