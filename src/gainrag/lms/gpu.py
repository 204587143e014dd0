"""Scoring on a GPU: what keeps it busy.

    requests -> windows of tokenized questions -> batches of rows of like length -> hidden states -> losses
                (in a thread, ahead)              (in a thread, ahead)

The GPU is never waited for until all is started: losses come back in the end. gainrag.lms.means says what may be left
out. All of it runs on a CPU, too, where it is tested, and where it would be slower than gainrag.lms.scoring's own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gainrag.lms.attention import Beside, packed
from gainrag.lms.batches import Batch, Shape, bias_of, common_beginning, halves, make_batches
from gainrag.lms.graphs import compiled_layers
from gainrag.lms.memory import SMALLEST, measure_batch, within_memory
from gainrag.lms.packing import Row
from gainrag.lms.precision import rounded_already, wider
from gainrag.lms.projection import Asked, layers_skipped
from gainrag.lms.reduction import Outputs, reduce_together
from gainrag.lms.ways import Way
from gainrag.models.ahead import ahead
from gainrag.protocols import FloatArray

if TYPE_CHECKING:
    import torch

    from gainrag.lms.loaded import LoadedModel

T = TypeVar("T")

# Tokens of a batch, with padding, where memory is not measured.
BATCH_TOKENS = 2**14
# Rows and tokens of each in the batch that memory is measured by.
PROBED = (16, 256)
# Numbers in the hidden states that are held until they are projected.
HIDDEN = 2**26
# Questions of the first window, for which the GPU waits. Each further window has twice as many.
FIRST_WINDOW = 32


@dataclass(frozen=True)
class Window:
    """Questions whose rows share batches, and whose outputs are projected together."""

    asked: Sequence[Asked]
    rows: Sequence[Row]
    outputs: Outputs
    shared: int

    @classmethod
    def of(cls, asked: Sequence[Asked], shared: bool) -> Window:
        """The window of some questions. shared: whether a common beginning of their prompts is run once."""
        rows = [Row(prompt, one.tree, (q, i)) for q, one in enumerate(asked) for i, prompt in enumerate(one.prompts)]
        prompts = [prompt for one in asked for prompt in one.prompts]
        return cls(asked, rows, Outputs.of(asked), common_beginning(prompts) if shared else 0)


def score_on_gpu(lm: LoadedModel, asked: Iterable[Asked], alphas: Sequence[float], way: Way) -> list[FloatArray]:
    """The losses of each question [passage, answer, alpha], in a packed way."""
    import torch

    found: list[tuple[Window, torch.Tensor]] = []
    wide = wider(lm.model) if way.wide else nullcontext()
    # Streams and graphs are made on the device that is the current one.
    here = torch.cuda.device(lm.device) if lm.device.startswith("cuda:") else nullcontext()
    with torch.inference_mode(), here, wide, _made_ahead(lm, _windows(asked, lm), 1) as windows:
        for window in windows:
            found.append((window, _score_window(lm, window, alphas, way)))
    return [
        window.outputs.losses_of(q, losses, one)
        for window, losses in ((window, np.asarray(losses.cpu().numpy(), np.float64)) for window, losses in found)
        for q, one in enumerate(window.asked)
    ]


def _made_ahead(lm: LoadedModel, items: Iterator[T], most: int) -> AbstractContextManager[Iterator[T]]:
    return ahead(items, most) if lm.means.ahead else nullcontext(items)


def _windows(asked: Iterable[Asked], lm: LoadedModel) -> Iterator[Window]:
    """Consecutive questions whose hidden states may be held together; few at first, so that the GPU can begin."""
    width, most = lm.model.config.get_text_config().hidden_size, FIRST_WINDOW
    some: list[Asked] = []
    held = 0
    for one in asked:
        size = len(one.prompts) * one.tree.outputs * width
        if some and (held + size > HIDDEN or len(some) == most):
            yield Window.of(some, lm.means.shared)
            some, held, most = [], 0, 2 * most
        some.append(one)
        held += size
    if some:
        yield Window.of(some, lm.means.shared)


def _score_window(lm: LoadedModel, window: Window, alphas: Sequence[float], way: Way) -> torch.Tensor:
    """[cell, alpha] of a window, on the device, perhaps not yet computed."""
    import torch

    outputs, hidden = window.outputs, list[torch.Tensor]()  # one tensor, made when its width is known

    def run(batch: Batch) -> None:
        *given, wanted, targets = _on_device(lm, batch)
        out = _pass(lm, batch, way, given)
        out = out.reshape(-1, out.shape[-1])[wanted]
        if not hidden:
            hidden.append(out.new_empty(int(outputs.starts[-1]), out.shape[-1]))
        hidden[0].index_copy_(0, targets, out)
        lm.throughput.count(batch.tokens, 0)

    def split(batch: Batch) -> list[Batch]:
        lm.batch_tokens = max(SMALLEST, min(_batch_tokens(lm), batch.shape.rows * batch.shape.length) // 2)
        return halves(batch, outputs.targets)

    with packed(lm.model), compiled_layers(lm.model) if way.swift and lm.means.compiled else nullcontext():
        if lm.means.measured and lm.batch_tokens is None and lm.way is not None:
            lm.batch_tokens = _measured_tokens(lm)
        batches_to_be = make_batches(
            window.rows,
            outputs.targets,
            tokens=partial(_batch_tokens, lm),
            shared=window.shared,
            pinned=lm.device.startswith("cuda"),
        )
        with _made_ahead(lm, batches_to_be, 2) as batches:
            for batch in batches:
                within_memory(lm, run, batch, split)
    with layers_skipped(lm.model), rounded_already(lm.model):
        contrast = any(alpha != 0 for alpha in alphas)
        return reduce_together(lm, outputs, hidden[0], alphas, contrast)


def _batch_tokens(lm: LoadedModel) -> int:
    return lm.batch_tokens or BATCH_TOKENS


def _measured_tokens(lm: LoadedModel) -> int:
    """Tokens of a batch, by a pass over a batch that is always the same: so it is the memory alone that decides."""
    import torch

    shape = Shape(PROBED[0], min(PROBED[1], lm.context), shared=0)
    ids = torch.zeros(shape.rows, shape.length, dtype=torch.int64, device=lm.device)
    bias = bias_of(ids.new_empty(0), shape, lm.model.dtype)
    positions = torch.arange(shape.length, device=lm.device).expand(shape.rows, -1)
    return measure_batch(lm, lambda: _layers(lm, ids, positions, bias), ids.numel())


def _on_device(lm: LoadedModel, batch: Batch) -> tuple[torch.Tensor, ...]:
    """A batch's ids, positions, bias, wanted outputs and their targets."""
    ids, positions, unseen, wanted, targets = batch.on(lm.device)
    return ids, positions, bias_of(unseen, batch.shape, lm.model.dtype), wanted, targets


def _pass(lm: LoadedModel, batch: Batch, way: Way, given: Sequence[torch.Tensor]) -> torch.Tensor:
    """The layers' output [row, length, width]; to be read before the next pass."""
    call = partial(_layers, lm)
    if way.swift and lm.means.graphs:
        return lm.graphs.run((batch.shape, way, lm.means.compiled), call, given)
    return call(*given)


def _layers(lm: LoadedModel, ids: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    beside = Beside(bias, positions)
    out = lm.model.base_model(input_ids=ids, position_ids=positions, beside=beside, use_cache=False)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden
