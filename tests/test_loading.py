from __future__ import annotations

from pathlib import Path

import pytest

from gainrag.errors import ConfigError, ModelError
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.models.folder import resolve
from gainrag.models.loading import load_model, load_tokenizer
from gainrag.models.registry import Embedded


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="pickled"):
        load_model(str(file), "float32")


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json and 0 \.gguf files"):
        load_tokenizer(str(tmp_path))


def test_a_hub_model_without_a_network_is_one_line_and_names_what_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match="cannot be reached") as error:
        load_model("somebody/some-model", "float32")
    assert "embedded:smollm2-135m-instruct" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_forgotten_prefix_is_suggested() -> None:
    with pytest.raises(ModelError, match="did you mean embedded:smollm2-135m-instruct"):
        load_model("smollm2-135m-instruct", "float32")


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Embedded(
        module="no_such_package_of_models", requirement="models-of-no-one==1.0", find=lambda folder: folder
    )
    monkeypatch.setitem(resolve.__globals__["EMBEDDED"], "ghost", entry)
    with pytest.raises(ModelError, match=r"pip install models-of-no-one==1\.0"):
        resolve("embedded:ghost")


def test_other_names_are_left_alone() -> None:
    assert resolve("meta-llama/Meta-Llama-3-8B-Instruct") == "meta-llama/Meta-Llama-3-8B-Instruct"


def test_dtype_and_device() -> None:
    assert choose_dtype("float32", "cpu") == "float32"
    assert choose_dtype("auto", "cpu") in ("float32", "bfloat16")
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="did you mean 'float32'"):
        choose_dtype("float23", "cpu")
