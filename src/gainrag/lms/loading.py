"""Loading causal language models and tokenizers: hub ids, folders, GGUF files. Never remote code, never pickles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gainrag.errors import ConfigError, ModelError, unknown
from gainrag.lms.embedded import EMBEDDED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16"]


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


@contextmanager
def loading_errors(model: str) -> Iterator[None]:
    """Turn whatever a library raises while loading a model into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        name = next((n for n in EMBEDDED if n == model), None)
        hint = (
            f"did you mean embedded:{name}?"
            if name
            else "check the name and the network; without one use a local folder or "
            + ", ".join(f"embedded:{n}" for n in EMBEDDED)
        )
        what = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"the model cannot be loaded ({what})", where=model, hint=hint) from error


def check_reachable(model: str) -> None:
    """Whether a model that is not on this machine can be fetched at all: without a network the hub's client would try
    again and again for a minute before it says so.

    Raises:
        OSError: the model is neither a folder nor in the hub's cache, and the hub's host is not found.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(model).exists() or (model.count("/") <= 1 and try_to_load_from_cache(model, "config.json")):
        return
    if host := unreachable_hub():
        raise OSError(f"it is no local folder, and {host} cannot be reached")


def unreachable_hub() -> str | None:
    """The hub's host when its name is not found; None when it is, or when only a try can tell (proxies, caches)."""
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    if getproxies() or constants.HF_HUB_OFFLINE:
        return None
    host = urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return host
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries' own progress bars would tear ours apart."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


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


def choose_device(device: str) -> str:
    """`auto` is the first of CUDA and CPU that is there."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def kind_of(device: str) -> str:
    """What sizes of work are chosen by: cpu, or cuda for any card."""
    return "cpu" if device == "cpu" else "cuda"


def choose_dtype(dtype: str, device: str) -> str:
    """`auto` is bfloat16 where the processor multiplies it natively, else float32.

    Raises:
        ConfigError: no such dtype.
    """
    import torch

    if dtype in ("float32", "bfloat16"):
        return dtype
    if dtype != "auto":
        raise ConfigError(unknown("dtype", dtype, ("auto", "float32", "bfloat16")), where="dtype")
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"
