"""A selector goes to the hub and comes back from it whole; the hub is a folder here."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest

from gainrag.cli import main
from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.models.folder import resolve
from gainrag.records import Scored
from gainrag.selectors import PRIOR, CrossEncoderSelector, FeatureSelector, open_selector
from gainrag.selectors.calibration import Calibration
from gainrag.selectors.learned import write_learned
from gainrag.selectors.pushing import push

QUESTION = "Which river flows through Paris?"
PASSAGES = [Scored(id="0", text="Rain.", score=2.0), Scored(id="1", text="The Seine flows through Paris.", score=1.0)]


class Hub:
    """What is asked of HfApi and of snapshot_download."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, dict[str, bool]()
        self.failure: Exception | None = None

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        if self.failure:
            raise self.failure
        assert exist_ok
        self.made.setdefault(repo, private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> SimpleNamespace:
        assert commit_message
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")

    def snapshot_download(self, repo: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        if not (self.folder / repo).exists():
            raise OSError(f"404: {repo} is not there")
        out = self.folder / "cache" / repo
        for file in (file for file in (self.folder / repo).rglob("*") if file.is_file()):
            name = file.relative_to(self.folder / repo).as_posix()
            if any(fnmatch.fnmatch(name, p) for p in allow_patterns) and not any(
                fnmatch.fnmatch(name, p) for p in ignore_patterns
            ):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, out / name)
        return str(out)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: found)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    for module in ("gainrag.models.hub", "gainrag.selectors.pushing"):
        monkeypatch.setattr(f"{module}.unreachable_hub", lambda: None)
    return found


def test_a_cross_encoder_takes_its_calibration_with_it(hub: Hub, tiny: str, tmp_path: Path) -> None:
    own = tmp_path / "selector"
    shutil.copytree(tiny, own)
    write_learned(own, Calibration(scale=0.5, weights={"retrieval": 3.0}))
    (own / "README.md").write_text('CrossEncoder("path/to/this/folder")')
    (own / "openvino").mkdir()
    (own / "openvino" / "openvino_model.xml").write_text("an exported copy")
    assert push(own, "me/selector").endswith("/me/selector/commit/1")
    assert hub.made == {"me/selector": True}
    assert (hub.folder / "me/selector/openvino/openvino_model.xml").exists()
    assert 'CrossEncoder("me/selector")' in (hub.folder / "me/selector/README.md").read_text()
    assert "path/to" in (own / "README.md").read_text()
    there, here = open_selector("me/selector", dtype="float32"), open_selector(own, dtype="float32")
    assert isinstance(there, CrossEncoderSelector)
    assert there.calibration == Calibration(scale=0.5, weights={"retrieval": 3.0})
    assert there.settings["model"] == "me/selector"
    assert np.array_equal(there.score(QUESTION, PASSAGES), here.score(QUESTION, PASSAGES))
    assert not (hub.folder / "cache/me/selector/openvino").exists()
    assert isinstance(CrossEncoderSelector("me/selector", dtype="float32").calibration, Calibration)


def test_trees_travel_by_the_command_line(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "trees"
    shutil.copytree(resolve(PRIOR), own)
    assert main(["push", str(own), "me/trees", "--no-private"]) == 0
    assert "pushed: https://hub.example/me/trees/commit/1; name it as --selector me/trees" in capsys.readouterr().err
    assert hub.made == {"me/trees": False}
    found = open_selector("me/trees")
    assert isinstance(found, FeatureSelector)
    assert np.array_equal(found.score(QUESTION, PASSAGES), open_selector(PRIOR).score(QUESTION, PASSAGES))


def test_what_cannot_be_pushed_is_one_line(hub: Hub, tiny: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no selector folder"):
        push(tmp_path, "me/selector")
    for repo in ("selector", "me/", "/selector", "a/b/c"):
        with pytest.raises(ConfigError, match=r"is no name of a repository\. Hint: give OWNER/NAME"):
            push(tiny, repo)
    hub.failure = OSError("the disk there is full\nand more")
    with pytest.raises(ModelError, match=r"me/selector: the selector was not pushed \(the disk there is full\)"):
        push(tiny, "me/selector")


def test_without_a_hub_it_is_said_at_once(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gainrag.models.hub", "gainrag.selectors.pushing"):
        monkeypatch.setattr(f"{module}.unreachable_hub", lambda: "hub.example")
    with pytest.raises(ModelError, match=r"me/none: .*it is no local folder, and hub.example cannot be reached"):
        open_selector("me/none")
    with pytest.raises(ModelError, match=r"me/selector: hub.example cannot be reached"):
        push(tiny, "me/selector")
