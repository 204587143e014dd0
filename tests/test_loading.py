from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gainrag.errors import ConfigError, ModelError
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.models.folder import resolve
from gainrag.models.loading import load_model, load_tokenizer
from gainrag.models.registry import Embedded
from gainrag.retrievers.dense import load_encoder
from gainrag.selectors import CrossEncoderSelector


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


@pytest.mark.parametrize("device", ["cuda:63", "xpu:63", "mps:63", "tpu", "", "cuda:x"])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    with pytest.raises(ConfigError, match="device") as error:
        choose_device(device)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model with random weights and its own head, and the embedded one's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(resolve("embedded:smollm2-135m-instruct"))
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), tie_word_embeddings=False, **size)
    folder = tmp_path_factory.mktemp("models") / "llama"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def without_weights(folder: Path, part: str) -> None:
    """Take those weights out of a folder whose names contain a word."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if part not in k}, folder / "model.safetensors", {"format": "pt"})


def open_language_model(folder: Path) -> None:
    load_tokenizer(str(folder))
    load_model(str(folder), "float32")


@pytest.mark.parametrize("part", ["layers.1", "lm_head"])
def test_a_language_model_that_lacks_weights(language_model: Path, tmp_path: Path, part: str) -> None:
    folder = shutil.copytree(language_model, tmp_path / "model")
    open_language_model(folder)
    without_weights(folder, part)
    with pytest.raises(ModelError, match=rf"lack \d+ weights \(.*{part}"):
        load_model(str(folder), "float32")


def test_tied_weights_are_not_missing() -> None:
    model = load_model(resolve("embedded:smollm2-135m-instruct"), "bfloat16")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("part", ["layer.3", "classifier", "pooler"])
def test_a_selector_that_lacks_weights(
    cross_encoder: Path, tmp_path: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "selector")
    without_weights(folder, part)
    with pytest.raises(ModelError, match=rf"lack \d+ weights \(.*{part}.*gainrag train"):
        CrossEncoderSelector(folder)
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_an_encoder_is_no_selector_and_needs_no_pooler(tmp_path: Path) -> None:
    encoder = Path(resolve("embedded:all-minilm-l6-v2"))
    with pytest.raises(ModelError, match=r"classifier.*gainrag train"):
        CrossEncoderSelector(encoder)
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    without_weights(folder, "pooler")
    assert load_encoder(str(folder)).get_embedding_dimension() == 384
    without_weights(folder, "layer.3")
    with pytest.raises(ModelError, match=r"lack \d+ weights"):
        load_encoder(str(folder))


@pytest.mark.parametrize("kind", ["selector", "language model"])
def test_without_a_tokenizer(cross_encoder: Path, language_model: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(cross_encoder if kind == "selector" else language_model, tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        (CrossEncoderSelector if kind == "selector" else open_language_model)(folder)


def test_a_special_token_without_an_embedding(cross_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "model")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cls_token": "[NEW]"}))
    with pytest.raises(ModelError, match=r"'\[NEW\]' has number 30522, its weights have embeddings of 30522"):
        CrossEncoderSelector(folder)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": cut,
    "garbage": lambda content: b"\x93garbage" * 99,
    "null": lambda _: b"null",
    "a list": lambda _: b"[1, 2]",
    "a number": lambda _: b"7",
    "not UTF-8": lambda _: b"{\xff\xfe}",
    "deep": lambda _: b"[" * 100_000,
    "wrong types": lambda content: (
        json.dumps({key: [1] for key in json.loads(content)}).encode()
        if content.startswith(b"{")
        else b'[{"type": 1, "path": null}]'
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "config.json", "modules.json", "tokenizer_config.json", "config_sentence_transformers.json"],
)
def test_damaged_files_are_one_line(
    cross_encoder: Path, language_model: Path, tmp_path: Path, file: str, damage: str
) -> None:
    for number, (whole, load) in enumerate(
        ((cross_encoder, CrossEncoderSelector), (language_model, open_language_model))
    ):
        if not (whole / file).exists() or (file == "model.safetensors" and damage == "wrong types"):
            continue
        folder = shutil.copytree(whole, tmp_path / str(number))
        (folder / file).write_bytes(DAMAGE[damage]((folder / file).read_bytes()))
        with pytest.raises(ModelError) as error:
            load(folder)  # type: ignore[operator]
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["torch.seed", "torch.cuda.empty_cache", "torch.nn.modules.module.Module", "os.getcwd", 7, ["x.y"]]
)
@pytest.mark.parametrize("file", ["config_sentence_transformers.json", "config.json", "old", "part"])
def test_only_activations_are_called(cross_encoder: Path, tmp_path: Path, name: object, file: str) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "selector")

    def change(file: str, content: dict[str, object]) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        was = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(was | content))

    if file == "part":
        modules = json.loads((folder / "modules.json").read_text())
        kind = "sentence_transformers.base.modules.dense.Dense"
        modules.append({"idx": 1, "name": "1", "path": "1_Dense", "type": kind})
        (folder / "modules.json").write_text(json.dumps(modules))
        change("1_Dense/config.json", {"activation_function": name})
    elif file == "old":
        change("config.json", {"sbert_ce_default_activation_function": name})
    else:
        change(file, {"sentence_transformers": {"activation_fn": name}, "activation_fn": name})
    with pytest.raises(ModelError, match="no known activation"):
        CrossEncoderSelector(folder)


def test_a_known_activation_is_used(cross_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "selector")
    file = folder / "config_sentence_transformers.json"
    content = json.loads(file.read_text()) | {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    file.write_text(json.dumps(content))
    assert type(CrossEncoderSelector(folder).model.activation_fn).__name__ == "Sigmoid"


def test_pickles_inside_a_folder_are_not_loaded(tmp_path: Path) -> None:
    import torch

    encoder = Path(resolve("embedded:all-minilm-l6-v2"))
    folder = shutil.copytree(encoder, tmp_path / "encoder")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "9_Dense").mkdir()
    config = {"in_features": 384, "out_features": 2, "activation_function": "torch.nn.modules.linear.Identity"}
    (folder / "9_Dense" / "config.json").write_text(json.dumps(config))
    weights = {"linear.weight": torch.zeros(2, 384), "linear.bias": torch.zeros(2)}
    torch.save(weights, folder / "9_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_encoder(str(folder))
    assert torch.load(folder / "9_Dense" / "pytorch_model.bin")["linear.bias"].tolist() == [0, 0]
