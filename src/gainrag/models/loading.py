"""Loading causal language models and tokenizers: hub ids, folders, GGUF files. Never remote code, never pickles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gainrag.errors import ModelError
from gainrag.models.hub import check_reachable, loading_errors, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **extra)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """The plain (never packed) weights of a causal model, in evaluation mode.

    Raises:
        ModelError: there is no such model, its weights are pickled, or it needs remote code.
    """
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with loading_errors(model), quiet():
        check_reachable(model)
        folder, extra = _source(model)
        # A GGUF file is de-quantized while loading: packed weights multiply slowly, and not in the dtype asked for.
        extra = {**extra, "quantization_config": GgufConfig(dequantize=True)} if extra else {"use_safetensors": True}
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=False, **extra
        )
    return loaded.to(device).eval()
