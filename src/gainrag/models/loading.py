"""Loading weights and tokenizers: hub ids, folders, GGUF files. All weights or none; no remote code, no pickles."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gainrag.errors import ModelError
from gainrag.models.hub import check_reachable, loading_errors, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Model files that are read as JSON, and what must be in them.
_JSON: dict[str, type] = {
    "config.json": dict,
    "generation_config.json": dict,
    "tokenizer_config.json": dict,
    "modules.json": list,
    "config_sentence_transformers.json": dict,
    "sentence_bert_config.json": dict,
}
# Activations that a model's configuration may name. sentence-transformers would call whatever it finds under `torch.`.
_ACTIVATION = re.compile(
    r"torch\.nn\.(modules\.(activation|linear)\.)?(Identity|Sigmoid|LogSigmoid|Softmax|Tanh|ReLU|GELU|SiLU|Softplus)"
)
_LAYER = re.compile(r"\blayers?\.(\d+)\.")
# A tokenizer knows one of these at least, whatever its language.
_WORDS = "the 1 a . de 的 и ال"


def _source(model: str) -> tuple[str, dict[str, Any]]:
    """Where from_pretrained should look, and the file argument for GGUF."""
    path = Path(model)
    if path.is_file() and path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return str(path), {"gguf_file": files[0].name}
        raise ModelError(
            f"the folder has no config.json and {len(files)} .gguf files", where=model, hint="name one .gguf file"
        )
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise ModelError("pickled weights are never loaded", where=model, hint="use safetensors or GGUF")
    return model, {}


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        ModelError: there is none, or it needs remote code.
    """
    from transformers import AutoTokenizer

    with loading_errors(model), quiet():
        check_reachable(model)
        folder, extra = _source(model)
        check_configs(folder)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **extra)
        check_tokenizer(tokenizer, model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """The plain (never packed) weights of a causal model, in evaluation mode.

    Raises:
        ModelError: there is no such model, its files lack weights, these are pickled, or it needs remote code.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    with loading_errors(model), quiet():
        check_reachable(model)
        folder, extra = _source(model)
        check_configs(folder)
        # A GGUF file is de-quantized while loading: packed weights multiply slowly, and not in the dtype asked for.
        # Before there was a config for it, transformers always did so.
        if not extra:
            extra = {"use_safetensors": True}
        elif hasattr(transformers, "GgufConfig"):
            extra = {**extra, "quantization_config": transformers.GgufConfig(dequantize=True)}
        loaded: PreTrainedModel
        loaded, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True, **extra
        )
        check_whole(report, model)
        return loaded.to(device).eval()


@contextmanager
def careful_loading(model: str, folder: str, *, spare: Sequence[str] = ()) -> Iterator[None]:
    """While it lasts, sentence-transformers loads a model with all its weights and without pickles, or not at all.

    Args:
        model: what errors call it.
        folder: where its files are: a folder, or an id of the hub.
        spare: beginnings of the names of weights that are never used, and may be missing.

    Raises:
        ModelError: it cannot be loaded, weights are missing or pickled, or its configuration names an activation that
            is none.
    """
    import torch
    from transformers import PreTrainedModel

    reports: list[Mapping[str, Any]] = []
    load, from_pretrained = torch.load, vars(PreTrainedModel)["from_pretrained"]

    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelError("pickled weights are never loaded", where=model, hint="use a model with safetensors")

    def reporting(cls: type[PreTrainedModel], *names: Any, **more: Any) -> Any:
        wanted = more.pop("output_loading_info", False)
        loaded, report = from_pretrained.__func__(cls, *names, output_loading_info=True, **more)
        reports.append(report)
        return (loaded, report) if wanted else loaded

    with loading_errors(model), quiet():
        check_reachable(folder)
        check_configs(folder)
        # sentence-transformers has no way to ask for the report, nor one to leave its own pickles alone.
        torch.load, PreTrainedModel.from_pretrained = refuse, classmethod(reporting)
        try:
            yield
        finally:
            torch.load, PreTrainedModel.from_pretrained = load, from_pretrained
        for report in reports:
            check_whole(report, model, spare=spare)


def check_whole(report: Mapping[str, Any], model: str, *, spare: Sequence[str] = ()) -> None:
    """Whether all weights came from the files: transformers starts those that are missing at random. Weights that are
    tied to others are not missing.

    Args:
        report: transformers' own, asked for with `output_loading_info`.

    Raises:
        ModelError: some are missing.
    """
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(tuple(spare)))
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(
            f"its files lack {len(missing)} weights ({some}), which would be random",
            where=model,
            hint="get the whole model; an encoder without a head becomes a selector by `gainrag train`",
        )
    # Heads and buffers that are not used are usual. Of a list of layers all are used, or the config is another's.
    beyond = [int(layer[1]) for name in report["unexpected_keys"] if (layer := _LAYER.search(name))]
    if beyond:
        raise ModelError(
            f"its files have layers that its config leaves out (number {min(beyond)} and more)",
            where=model,
            hint="get the config.json that belongs to the weights",
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Whether a tokenizer knows any words: transformers makes an empty one where the files are missing.

    Raises:
        ModelError: it does not.
    """
    ids = tokenizer(_WORDS, add_special_tokens=False)["input_ids"]
    if all(i == tokenizer.unk_token_id for i in ids):
        raise ModelError(
            "its tokenizer is missing, or knows no words", where=model, hint="put tokenizer.json beside the weights"
        )


def check_fitting(tokenizer: PreTrainedTokenizerBase, weights: Any, model: str) -> None:
    """Whether the tokenizer's special tokens, which are in every input, have embeddings.

    Args:
        weights: the PyTorch model, or a runtime's, which does not tell its embeddings.

    Raises:
        ModelError: one has none.
    """
    import torch

    if not isinstance(weights, torch.nn.Module):
        return
    embeddings: Any = weights.get_input_embeddings()  # type: ignore[operator]
    rows = embeddings.weight.shape[0]
    for token, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        if number >= rows:
            raise ModelError(
                f"its tokenizer's {token[:40]!r} has number {number}, its weights have embeddings of {rows} tokens",
                where=model,
                hint="get the tokenizer and the weights of one model",
            )


def check_configs(model: str) -> None:
    """Whether the JSON files of a model are what they should be, and name no function that is no activation.

    Raises:
        ModelError: they are not.
    """
    for name, kind in _JSON.items():
        content = _read_json(model, name)
        if content is not None and not isinstance(content[0], kind):
            wanted = "an object" if kind is dict else "a list"
            raise ModelError(f"{name} does not hold {wanted}", where=model, hint=_AGAIN)
        if name == "modules.json" and content is not None:
            _check_modules(model, content[0])
        elif content is not None:
            _check_activation(model, name, content[0])


_AGAIN = "its files are damaged: get or make it again"


def _check_modules(model: str, modules: list[Any]) -> None:
    """The parts that sentence-transformers puts a model together from, each with a configuration of its own."""
    for module in modules:
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise ModelError("modules.json lists what is no module", where=model, hint=_AGAIN)
        name = f"{module['path']}/config.json"
        if module["path"] and (content := _read_json(model, name)) is not None:
            _check_activation(model, name, content[0])


def _check_activation(model: str, name: str, config: Any) -> None:
    if not isinstance(config, dict):
        raise ModelError(f"{name} is no JSON object", where=model, hint=_AGAIN)
    nested = config.get("sentence_transformers")
    for part in (config, nested if isinstance(nested, dict) else {}):
        for key in ("activation_fn", "activation_function", "sbert_ce_default_activation_function"):
            value = part.get(key)
            # A name without a dot is one of transformers' own, such as gelu.
            if value is not None and not (
                isinstance(value, str) and ("." not in value or _ACTIVATION.fullmatch(value))
            ):
                raise ModelError(
                    f"{name} names {value!r:.80} as {key}, which is no known activation",
                    where=model,
                    hint="use torch.nn.modules.linear.Identity or torch.nn.modules.activation.Sigmoid",
                )


def _read_json(model: str, name: str) -> tuple[Any] | None:
    """What a file of a model, in a folder or on the hub, holds; None where there is no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    path = Path(model, name)
    if not Path(model).exists():
        if model.startswith(("/", ".", "~")) or model.count("/") > 1:
            raise OSError("there is no such folder")
        try:
            path = Path(hf_hub_download(model, name))
        except EntryNotFoundError:
            return None
    elif not path.exists():
        return None
    try:
        return (json.loads(path.read_text(encoding="utf-8")),)
    except (ValueError, RecursionError):
        raise ModelError(f"{name} is no JSON", where=model, hint=_AGAIN) from None
