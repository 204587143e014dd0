"""How a model is scored: fast where that is proven to give the same, else the plain way.

Scoring touches what other libraries may change with any release: the attention that transformers lets one register
(gainrag.lms.attention), what a model does behind its layers (gainrag.lms.projection), the modules between which a
bfloat16 model's numbers pass (gainrag.lms.precision). So each model is first scored on a few tokens both ways. Where
the fast one fails or differs, the plain one is taken, and a line says so: a new release may cost speed, not exactness.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gainrag.protocols import FloatArray

logger = logging.getLogger(__name__)

# How far losses may differ from the plain way's, as a share of them (of 1 nat at least). Float32: the order of sums. In
# bfloat16 the model itself rounds, and a wider stream is meant to differ.
SAME = {"float32": 1e-4, "bfloat16": 0.02}
WIDER = 0.05


@dataclass(frozen=True)
class Way:
    """packed: prompts and answers share passes; else one pass a prompt and answer.
    wide: in a pack, the residual stream and the logits of a bfloat16 model are float32.
    swift: on a GPU, layers run compiled and as CUDA graphs, see gainrag.lms.graphs.
    """

    packed: bool
    wide: bool
    swift: bool = False


PLAIN = Way(packed=False, wide=False)


def choose_way(name: str, dtype: str, score: Callable[[Way], FloatArray], swift: bool = False) -> Way:
    """The fastest way that gives what the plain one does.

    Args:
        name: what the line on standard error calls the model.
        dtype: of its weights.
        score: the losses of a small request, scored in a way.
        swift: whether the swift way may be taken.
    """
    expected = score(PLAIN)
    fast, wide = Way(packed=True, wide=False), Way(packed=True, wide=True)
    if not _agrees(score, fast, expected, SAME[dtype], f"{name}: scored one answer at a time, which is slower"):
        return PLAIN
    best = fast
    if dtype == "bfloat16" and _agrees(
        score, wide, expected, WIDER, f"{name}: scored without a float32 residual stream"
    ):
        best = wide
    if swift:
        swiftest, otherwise = replace(best, swift=True), f"{name}: scored without compiled layers and CUDA graphs"
        if _agrees(score, swiftest, expected, WIDER if best == wide else SAME[dtype], otherwise):
            return swiftest
    return best


def _agrees(
    score: Callable[[Way], FloatArray], way: Way, expected: FloatArray, tolerance: float, otherwise: str
) -> bool:
    """Whether a way gives what is expected; else a line says what happens instead."""
    try:
        found = score(way)
    except Exception as error:  # whatever a changed library raises
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        logger.warning("%s (%s)", otherwise, first[:120])
        return False
    apart = float(np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))))
    if not apart <= tolerance:  # NaN is none
        logger.warning("%s (the fast way differs by %.2g)", otherwise, apart)
        return False
    return True
