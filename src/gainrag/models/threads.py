"""Work on several cores, each part on one: short computations waste less that way than with all cores on each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# By how many they are. They stay: the allocator keeps what it has set aside for a thread.
_pools: dict[int, ThreadPoolExecutor] = {}
_starting = threading.Lock()


def how_many(device: str) -> int:
    """How many parts are worked on at a time: as many as torch has threads on a CPU, one on a GPU."""
    import torch

    if device != "cpu":
        return 1
    with _starting:
        return torch.get_num_threads()


def each(parts: Sequence[T], work: Callable[[T], None], *, device: str) -> None:
    """Do all parts of the work, `how_many` at a time; several threads may ask for theirs.

    A part that is alone has all cores. What torch keeps by thread (inference mode, autocast) is for `work` to set.
    """
    workers = how_many(device)
    if workers == 1 or len(parts) == 1:
        for part in parts:
            work(part)
        return
    list(_pool(workers).map(work, parts))


def _take_one_core() -> None:
    import torch

    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread that asks for the first time takes what was set last, by whichever thread


def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute on one core each, all of them started."""
    import torch

    with _starting:
        if workers not in _pools:
            pool = ThreadPoolExecutor(workers, "gainrag", initializer=_take_one_core)
            together = threading.Barrier(workers)
            list(pool.map(lambda _: together.wait(), range(workers)))
            # What they set for themselves is what threads of others would begin with, too.
            torch.set_num_threads(workers)
            _pools[workers] = pool
        return _pools[workers]
