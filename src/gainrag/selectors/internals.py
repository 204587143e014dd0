"""What is taken from inside sentence-transformers, each in one function.

The fast way of gainrag.selectors.scoring puts a model's input together itself. It is tried on two pairs before it is
used, and where it fails or differs `CrossEncoder.predict` scores instead: a new release may cost speed, not exactness.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from gainrag.protocols import FloatArray

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

# How far scores may differ from `predict`, as a share of the largest (of 1 at least): float32, bfloat16, and a runtime,
# whose eight bits may round by what else is in a batch.
_SAME = {4: 1e-3, 2: 0.05, 1: 0.5}
_PAIRS = [("Which river flows through Paris?", "Seine\nA river."), ("Who?", "Nobody knows who wrote the longer text.")]

# By model; gone with it.
_agreeing: WeakKeyDictionary[CrossEncoder, bool] = WeakKeyDictionary()


def encoder_of(model: CrossEncoder) -> Any:
    """The transformers model inside, with its head; or that of a runtime."""
    return model[0].auto_model


def is_plain(model: CrossEncoder) -> bool:
    """Whether its input is the tokens of question and passage and nothing else."""
    try:
        first = model[0]
        return bool(
            set(first.modality_config) == {"text"}
            and model.tokenizer.is_fast
            and model.tokenizer.padding_side == "right"
            and not first.processing_kwargs
            and model._resolve_prompt(None, None) is None
        )
    except AttributeError as error:  # another release
        _say_slower(str(error))
        return False


def agrees(model: CrossEncoder, score: Callable[[list[tuple[str, str]]], FloatArray]) -> bool:
    """Whether a way to score pairs gives what `predict` does; found out once a model, and said where it does not."""
    if model not in _agreeing:
        why = ""
        plain = np.asarray(model.predict(_PAIRS, show_progress_bar=False), dtype=np.float64)
        try:
            apart = float(np.abs(score(_PAIRS) - plain).max() / max(1.0, np.abs(plain).max()))
            if not apart <= _SAME[_bytes(model)]:
                why = f"scores differ by {apart:.2g}"
        except Exception as error:  # whatever a changed library raises
            why = (str(error).strip() or type(error).__name__).split("\n")[0][:120]
        if why:
            _say_slower(why)
        _agreeing[model] = not why
    return _agreeing[model]


@cache
def _say_slower(why: str) -> None:
    """Say it once for each reason."""
    logger.warning("the selector's pairs are batched by sentence-transformers, which is slower (%s)", why)


def _bytes(model: CrossEncoder) -> int:
    """Of a number of its weights; one for a runtime, which does not say."""
    return next((p.element_size() for p in model.parameters()), 1)


def keep_head_float32(model: CrossEncoder) -> bool:
    """Have a bfloat16 model's head compute in float32, and say whether it does: in bfloat16 a score has eight bits, and
    of a hundred passages some would tie. A model without a head of its own (a causal one) stays as it is."""
    import torch

    heads = [(n, m) for n, m in model.named_modules() if type(m) is torch.nn.Linear and m.out_features == 1]
    if not heads:
        return True
    name, head = heads[-1]
    try:
        model.set_keep_in_fp32_modules([name])
        with torch.inference_mode():
            tried = torch.linspace(-1, 1, head.in_features, device=head.weight.device).to(head.weight.dtype)
            bias = None if head.bias is None else head.bias.float()
            plain = torch.nn.functional.linear(tried.float(), head.weight.float(), bias)
            found = head(tried)
        return found.dtype == torch.float32 and bool(torch.allclose(found, plain, rtol=1e-3, atol=1e-4))
    except Exception:  # whatever a changed library raises
        return False
