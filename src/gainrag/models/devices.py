"""What a model runs on, and in which dtype."""

from __future__ import annotations

from typing import Literal

from gainrag.errors import ConfigError, unknown

Dtype = Literal["auto", "float32", "bfloat16"]


def choose_device(device: str) -> str:
    """`auto` is the first of CUDA and CPU that is there; any other device must be.

    Raises:
        ConfigError: no such device, or this machine has none.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "xpu", "mps") or not (number or "0").isdecimal():
        raise ConfigError(unknown("device", device, ("auto", "cpu", "cuda", "cuda:N", "xpu", "mps")), where="device")
    there = int(torch.backends.mps.is_available()) if kind == "mps" else getattr(torch, kind).device_count()
    if int(number or 0) >= there:
        raise ConfigError(
            f"the device {device} is not there: this machine has {there} of {kind}",
            where="device",
            hint="use auto or cpu",
        )
    return device


def kind_of(device: str) -> str:
    """What sizes of work are chosen by: cpu, or cuda for any GPU."""
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
