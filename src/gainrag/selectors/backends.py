"""What a selector runs on: PyTorch, or a copy of it exported for ONNX Runtime or OpenVINO that lies in its folder.

The runtimes are sentence-transformers' own; this module only chooses, and says in one line what is missing.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gainrag.errors import ConfigError, ModelError, unknown
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.models.loading import careful_loading, check_fitting, check_tokenizer
from gainrag.selectors.internals import encoder_of, keep_head_float32

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "onnx", "openvino"]
Exported = Literal["onnx", "openvino"]

# The modules a runtime needs, how to get them, and what its files are called. The fastest first.
RUNTIMES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "openvino": (
        ("openvino", "optimum.intel"),
        "pip install -c constraints-openvino.txt 'gainrag[openvino]' in an environment of its own, or use torch",
        "*.xml",
    ),
    "onnx": (
        ("onnxruntime", "optimum.onnxruntime"),
        "pip install 'optimum-onnx[onnxruntime]' once it takes transformers 5 (0.1.0 does not); "
        "until then use openvino or torch",
        "*.onnx",
    ),
}


def is_installed(backend: str) -> bool:
    """Whether a runtime's modules are there."""
    try:
        return all(find_spec(module) for module in RUNTIMES[backend][0])
    except ModuleNotFoundError:  # not even the package around it
        return False


def need_installed(backend: str, *, where: str) -> None:
    """Stop where a runtime is missing.

    Raises:
        ModelError: it is.
    """
    if not is_installed(backend):
        modules, hint, _ = RUNTIMES[backend]
        raise ModelError(f"the {backend} backend needs {' and '.join(modules)}", where=where, hint=hint)


def exported_file(folder: str | Path, backend: str) -> str | None:
    """The exported model in a selector folder, as a path inside it; a quantized one before others."""
    files = (Path(folder) / backend).glob(RUNTIMES[backend][2])
    found = sorted(files, key=lambda file: ("int8" not in file.name, file.name))
    return f"{backend}/{found[0].name}" if found else None


def choose_backend(folder: str | Path, backend: str, dtype: str, device: str) -> str:
    """The backend that runs: for `auto` the first whose exported model and runtime are both there, else torch.

    A dtype or a GPU that is asked for means torch.

    Raises:
        ConfigError: there is no such backend, or it does not go with the dtype or device.
    """
    if backend not in ("auto", "torch", *RUNTIMES):
        raise ConfigError(unknown("backend", backend, ("auto", "torch", *RUNTIMES)), where="backend")
    plain = dtype == "auto" and (choose_device(device) if backend == "auto" else device) in ("auto", "cpu")
    if backend in RUNTIMES and not plain:
        raise ConfigError(
            f"dtype is {dtype} and device is {device} with an exported model",
            where=f"backend {backend}",
            hint="leave both out: it has the dtype it was exported with and runs on the CPU; or use the torch backend",
        )
    if backend == "auto":
        there = [name for name in RUNTIMES if plain and exported_file(folder, name) and is_installed(name)]
        return there[0] if there else "torch"
    return backend


def open_model(name: str, folder: str, backend: str, dtype: str, device: str) -> tuple[CrossEncoder, str]:
    """The cross-encoder on its backend, and the dtype of its products: float32, bfloat16 or int8.

    Args:
        name: what errors call it.
        backend: torch, onnx or openvino, as `choose_backend` says.

    Raises:
        ModelError: it cannot be loaded, its runtime is missing, or it was not exported for it.
    """
    if backend == "torch":
        device = choose_device(device)
        dtype = choose_dtype(dtype, device)
        return _open_torch(name, folder, dtype, device)
    need_installed(backend, where=name)
    file = exported_file(folder, backend)
    if file is None:
        raise ModelError(
            f"it holds no model exported for {backend}",
            where=name,
            hint=f"run `gainrag export {name} --backend {backend}` first",
        )
    more: dict[str, Any] = {"provider": "CPUExecutionProvider"} if backend == "onnx" else {}
    model = _cross_encoder(name, folder, "cpu", backend=backend, model_kwargs={"file_name": file, **more})
    if "int8" in file:
        return model, "int8"
    # OpenVINO multiplies float32 weights in bfloat16 where the processor does that natively.
    return model, choose_dtype("auto", "cpu") if backend == "openvino" else "float32"


def _cross_encoder(name: str, folder: str, device: str, **more: Any) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    with careful_loading(name, folder):
        model = CrossEncoder(folder, device=device, trust_remote_code=False, **more)
        check_tokenizer(model.tokenizer, name)
        check_fitting(model.tokenizer, model[0].auto_model, name)
        model.predict([("a question", "a passage")], show_progress_bar=False)  # its parts may not fit one another
        return model


def _open_torch(name: str, folder: str, dtype: str, device: str) -> tuple[CrossEncoder, str]:
    """The cross-encoder in PyTorch, and the dtype of its products."""
    import torch

    from gainrag.selectors.first_token import only_first_token

    model = _cross_encoder(name, folder, device, model_kwargs={"use_safetensors": True, "dtype": getattr(torch, dtype)})
    if dtype != "float32" and not keep_head_float32(model):
        logger.warning("%s: opened in float32, as its head alone cannot be", name)
        return _open_torch(name, folder, "float32", device)
    only_first_token(encoder_of(model))
    return model, dtype
