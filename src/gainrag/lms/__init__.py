"""Language models. `open_lm` gives the one that a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

DEFAULT = "embedded:smollm2-135m-instruct"


def open_lm(
    *, model: str = DEFAULT, dtype: Literal["auto", "float32", "bfloat16"] = "auto", device: str = "auto"
) -> LocalLM:
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
