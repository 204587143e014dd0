"""Passes through a model's layers that start at once: compiled, and captured as CUDA graphs.

A small model's layer is some forty kernels, each of which a GPU finishes sooner than Python starts the next one.
`compiled_layers` makes few of them: a layer is compiled once for all layers and all shapes. `Graphs` captures a pass
through all layers and replays it. Neither changes what is computed, only its rounding: see gainrag.lms.ways.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Call = Callable[..., "torch.Tensor"]

BACKEND = "inductor"
# By the model, each layer's compiled call; gone with it.
_compiled: WeakKeyDictionary[Any, list[tuple[Any, Any]]] = WeakKeyDictionary()


@contextmanager
def compiled_layers(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, each layer of a model runs compiled; generation, which runs outside of it, stays as it is."""
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    if model not in _compiled:
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        _compiled[model] = [(layer, torch.compile(layer._call_impl, backend=BACKEND, dynamic=True)) for layer in layers]
    for layer, call in _compiled[model]:
        layer._compiled_call_impl = call
    try:
        yield
    finally:
        for layer, _ in _compiled[model]:
            layer._compiled_call_impl = None


class Graphs:
    """Calls on tensors, captured by their shapes, and replayed when a shape comes again.

    A shape is captured when it comes for the second time, as capturing waits for the GPU. All graphs share memory: what
    a replay returns is overwritten by the next one. Where a call cannot be captured, a line says so, and all calls run
    as they are.
    """

    def __init__(self) -> None:
        self._met: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[Callable[[], None], Sequence[torch.Tensor], torch.Tensor]] = {}
        self._pool: Any = None
        self.possible = True

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, key: Hashable, call: Call, given: Sequence[torch.Tensor]) -> torch.Tensor:
        """call(*given). The key says what call does and of which shapes the given are."""
        import torch

        if key in self._captured:
            replay, own, out = self._captured[key]
            for mine, new in zip(own, given, strict=True):
                mine.copy_(new, non_blocking=True)
            replay()
            return out
        if self.possible and key in self._met:
            own = [tensor.clone() for tensor in given]
            try:
                replay, out = self._capture(lambda: call(*own))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever in a model cannot be captured
                self.possible = False
                first = (str(error).strip() or type(error).__name__).split("\n")[0]
                logger.warning("scored without CUDA graphs (%s)", first[:120])
            else:
                self._captured[key] = (replay, own, out)
                replay()
                return out
        self._met.add(key)
        return call(*given)

    def clear(self) -> None:
        """Give all graphs and their memory back."""
        self._met.clear()
        self._captured.clear()
        self._pool = None

    def _capture(self, call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """What replays the call, and where its result stands then. It ran before, so what is set up at its first time
        does not become part of the graph."""
        import torch

        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Another thread lays out the next batches meanwhile, in memory that it pins.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = call()
        return graph.replay, out
