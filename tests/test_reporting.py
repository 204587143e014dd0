"""Where the figures of a training go: a tracker, here a stub of its package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gainrag.errors import ConfigError
from gainrag.records import GainRecord, Retrieved
from gainrag.settings import recorded
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training import train

# What transformers' callback calls of trackio.
STUB = """
from types import SimpleNamespace
__version__ = "0.43.0"
calls, config = [], SimpleNamespace(update=lambda *_, **__: None)
context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))
def init(**settings):
    print("a tracker's own words")
    calls.append(("init", settings))
def log(figures, **_):
    calls.append(("log", figures))
def finish():
    calls.append(("finish", None))
def freeze(**_):
    return None
"""


@pytest.fixture
def gains(candidates: list[Retrieved]) -> list[GainRecord]:
    return synthesize(candidates, OverlapLM(), alpha=0.0)


def test_every_epoch_goes_to_the_tracker_and_nothing_to_standard_output(
    gains: list[GainRecord],
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "trackio.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    own = {"kind": "cross-encoder", "base": tiny, "epochs": 2, "validation": 0.3, "keep_worse": True}
    train(gains, tmp_path / "selector", report_to="trackio", **own)  # type: ignore[arg-type]
    calls = sys.modules["trackio"].calls
    assert [what for what, _ in calls][:1] == ["init"]
    assert calls[0][1]["project"] == "gainrag"
    assert [what for what, _ in calls][-1] == "finish"
    logged = [figures for what, figures in calls if what == "log"]
    assert len([figures for figures in logged if "train/loss" in figures]) == 2
    held = [figures for figures in logged if "eval/cross_entropy" in figures]
    assert len(held) == 2
    assert all("eval/regret" in figures for figures in held)
    out, err = capsys.readouterr()
    assert out == ""
    assert "a tracker's own words" in err


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    gains: list[GainRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gainrag.training.settings.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"the package wandb is not installed. Hint: pip install wandb"):
        train(gains, tmp_path / "selector", report_to="wandb")
    assert not (tmp_path / "selector").exists()
    with pytest.raises(ConfigError, match="kind 'features' does not read report_to"):
        train(gains, tmp_path / "selector", kind="features", report_to="wandb")


def test_what_was_trained_before_there_were_trackers_stays_current() -> None:
    assert "report_to" not in recorded(train, {})
    assert recorded(train, {"report_to": "mlflow"})["report_to"] == "mlflow"
