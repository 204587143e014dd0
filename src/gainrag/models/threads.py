"""Work on several cores, each part on one: short computations waste less that way than with all cores on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")


def how_many(device: str) -> int:
    """How many parts are worked on at a time: as many as torch has threads on a CPU, one on a card."""
    import torch

    return torch.get_num_threads() if device == "cpu" else 1


def each(parts: Sequence[T], work: Callable[[T], None], *, device: str) -> None:
    """Do all parts of the work, `how_many` at a time.

    A part that is alone has all cores. What torch keeps by thread (inference mode, autocast) is for `work` to set.
    """
    import torch

    workers = how_many(device)
    if workers == 1 or len(parts) == 1:
        for part in parts:
            work(part)
        return
    try:
        list(_pool(workers).map(work, parts))
    finally:
        torch.set_num_threads(workers)  # the pool's threads set what new threads begin with, too


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute on one core each. They stay: the allocator keeps what it has set aside for a thread."""
    import torch

    return ThreadPoolExecutor(workers, "gainrag", initializer=torch.set_num_threads, initargs=(1,))
