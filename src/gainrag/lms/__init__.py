"""Language models. `open_lm` gives the one that a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gainrag.settings import Device, Dtype, Name, checked

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

DEFAULT = "embedded:smollm2-135m-instruct"


@checked
def open_lm(*, model: Name = DEFAULT, dtype: Dtype = "auto", device: Device = "auto") -> LocalLM:
    """A language model on this machine.

    Args:
        model: embedded:NAME, a Hugging Face id, or a local folder or GGUF file.
        dtype: auto is bfloat16 where the machine multiplies it natively, else float32.
        device: auto, cpu, cuda, ...

    Raises:
        ModelError: it cannot be loaded.
    """
    from gainrag.lms.local import LocalLM

    return LocalLM(model, dtype=dtype, device=device)
