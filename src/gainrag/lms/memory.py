"""How large a batch the GPU's memory allows: by a measurement, and by halving where that was wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from gainrag.errors import ResourceError

if TYPE_CHECKING:
    from gainrag.lms.loaded import LoadedModel

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Tokens of a batch: below the first a large GPU is not filled by a small model; above the last nothing is gained.
SMALLEST, LARGEST = 2**11, 2**16
# Of the memory that is free, what batches may take: graphs keep what they use, and logits need some, too.
SHARE = 0.3


def tokens_that_fit(free: int, took: int, tokens: int) -> int:
    """Tokens of a batch, a power of two: by bytes that are free, and what a batch of so many tokens took.

    A power of two, so that a GPU that is a little fuller than the day before makes the same batches: in bfloat16 the
    last digits may depend on them.

    >>> tokens_that_fit(free=60 * 2**30, took=2**29, tokens=2**12), tokens_that_fit(2**30, 2**29, 2**12)
    (65536, 2048)
    """
    fit = int(SHARE * free * tokens / max(1, took))
    return min(LARGEST, max(SMALLEST, 1 << max(0, fit.bit_length() - 1)))


def measure_batch(lm: LoadedModel, run: Callable[[], object], tokens: int) -> int:
    """Run a batch of so many tokens once, and say how many tokens, with padding, a batch may have."""
    import torch

    device = torch.device(lm.device)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        run()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return SMALLEST
    took = torch.cuda.max_memory_allocated(device) - before
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - before
    return tokens_that_fit(free, took, tokens)


def within_memory(lm: LoadedModel, work: Callable[[T], None], part: T, halves: Callable[[T], list[T]]) -> None:
    """Do a part of the work; where memory is out, in halves, and so on. Later batches are smaller then, too.

    Raises:
        ResourceError: a part that cannot be halved does not fit.
    """
    import torch

    waiting = [part]
    while waiting:
        part = waiting.pop()
        try:
            work(part)
            continue
        except torch.OutOfMemoryError:
            smaller = halves(part)
        # Outside of the handler: what the error holds is gone, and with it the memory.
        if len(smaller) < 2:
            raise ResourceError(
                "out of memory on the GPU with the smallest batch",
                where=lm.name,
                hint="use --dtype bfloat16, a smaller model, or a GPU with more memory",
            )
        lm.graphs.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not lm.short_of_memory:
            logger.warning("%s: out of memory on the GPU; from here on with smaller batches", lm.name)
        lm.short_of_memory = True
        waiting += reversed(smaller)
