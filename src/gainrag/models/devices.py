"""What a model runs on, and in which dtype."""

from __future__ import annotations

from typing import Literal

from gainrag.errors import ConfigError, unknown

Dtype = Literal["auto", "float32", "bfloat16"]


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
