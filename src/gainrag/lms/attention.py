"""Attention within each row of a pack: causal over its prompt, by the tree's mask behind it.

Three ways to the same numbers. On a CPU row after row, as *segments*: nothing is padded, and a row's keys fit a core's
cache. A GPU would spend its time on starting so many small products, so there a pack's rows are *stacked*: padded to
the longest at their ends, with one product for all of them. Or they are *beside* one another through all layers, see
gainrag.lms.batches, which takes no copies into and out of the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.lms.packing import Row
from gainrag.lms.projection import on_device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ATTENTION = "gainrag_packed"
# A stack's rows are padded to a multiple of this, which a GPU's kernels ask of a mask.
MULTIPLE = 8


@dataclass(frozen=True)
class Segment:
    """Where a row lies in its pack: `start`, prompt length, and for its nodes the mask [node, prompt + node]."""

    start: int
    prompt: int
    positions: torch.Tensor  # [prompt + node], of each token in its row
    mask: torch.Tensor | None

    @property
    def end(self) -> int:
        """Behind its last token."""
        return self.start + len(self.positions)


@dataclass(frozen=True)
class Stack:
    """A pack's rows one above another.

    tokens: [row * length], where in the pack each cell's token lies; that of padding is its first.
    cells: [token], in which cell each token of the pack lies.
    positions: [row, length], of each token in its row.
    seen: [row, 1, length, length], what each token sees. Padding stands behind its row, so that none is seen.
    """

    tokens: torch.Tensor
    cells: torch.Tensor
    positions: torch.Tensor
    seen: torch.Tensor


@dataclass(frozen=True)
class Beside:
    """A batch of rows beside one another, see gainrag.lms.batches.

    bias: [row, 1, length, shared + length], added to the scores: -inf where a token does not see another. `shared`
        tokens stand in the first row, and all others begin with them.
    positions: [row, length], of each token in its row.
    """

    bias: torch.Tensor
    positions: torch.Tensor


def segments_of(rows: Sequence[Row], positions: torch.Tensor) -> list[Segment]:
    """The rows of a pack, each where it lies; positions [token] are the pack's, on the model's device."""
    import torch

    segments: list[Segment] = []
    start = 0
    for row in rows:
        mask = None
        if row.tree.tokens:
            prompt_seen = torch.ones(len(row.tree.tokens), len(row.prompt), dtype=torch.bool)
            mask = torch.cat([prompt_seen, torch.from_numpy(row.tree.mask)], dim=1).to(positions.device)
        segments.append(Segment(start, len(row.prompt), positions[start : start + len(row)], mask))
        start += len(row)
    return segments


def stack_of(rows: Sequence[Row], positions: torch.Tensor) -> Stack:
    """The rows of a pack, stacked; positions [token] are the pack's, on the model's device."""
    import torch

    length = -(-max(map(len, rows)) // MULTIPLE) * MULTIPLE
    places = np.zeros((len(rows), length), dtype=np.int64)
    seen = np.tile(np.tri(length, dtype=np.bool_), (len(rows), 1, 1))
    in_cells = []
    start = 0
    for i, row in enumerate(rows):
        prompt, end = len(row.prompt), len(row)
        places[i, :end] = np.arange(start, start + end)
        in_cells.append(np.arange(i * length, i * length + end))
        seen[i, prompt:end, prompt:end] = row.tree.mask
        start += end
    device = str(positions.device)
    tokens, cells, sees = (
        on_device(device, torch.from_numpy(x)) for x in (places.ravel(), np.concatenate(in_cells), seen[:, None])
    )
    return Stack(tokens, cells, positions[tokens].view(len(rows), length), sees)


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, a model attends within the rows of a pack; afterwards as before.

    Whether a model's attention can be exchanged at all, and keeps to what transformers' interface says, is found out by
    trying: see gainrag.lms.ways.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    if model.config._attn_implementation != ATTENTION:  # it says so in a warning alone
        raise RuntimeError(f"the attention of {type(model).__name__} cannot be exchanged")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    segments: Sequence[Segment] = (),
    stack: Stack | None = None,
    beside: Beside | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each row of a pack, given as segments or as a stack, or of a batch of rows beside one another.

    Shapes: query [1, heads, tokens, dim], key and value [1, key-value heads, tokens, dim] -> [1, tokens, heads, dim].
    Beside one another there are rows instead of 1, and as many tokens as a row has.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    # Positions may have been turned into query and key in float32; the product is in the model's dtype.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if beside is not None:
        return _beside(query, key, value, beside, scaling, sliding_window, softcap), None
    if stack is not None:
        return _stacked(query, key, value, stack, scaling, sliding_window, softcap), None
    groups = query.shape[1] // key.shape[1]
    written_out = softcap is not None or (
        sliding_window is not None and any(len(s.positions) > sliding_window for s in segments)
    )
    if written_out and groups > 1:
        key = key.repeat_interleave(groups, dim=1)
        value = value.repeat_interleave(groups, dim=1)
    out = torch.empty_like(query)
    for segment in segments:
        middle = segment.start + segment.prompt
        for begin, end in ((segment.start, middle), (middle, segment.end)):
            if begin == end:
                continue
            q, k, v = query[:, :, begin:end], key[:, :, segment.start : end], value[:, :, segment.start : end]
            in_prompt = end == middle
            if written_out:
                seen = _seen(segment, begin - segment.start, end - segment.start, sliding_window)
                out[:, :, begin:end] = _attention(q, k, v, seen, scaling, softcap)
            else:
                out[:, :, begin:end] = scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    attn_mask=None if in_prompt else segment.mask,
                    is_causal=in_prompt,
                    scale=scaling,
                    enable_gqa=groups > 1,
                )
    return out.transpose(1, 2), None


def _beside(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    batch: Beside,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """[row, length, heads, dim]: what all rows begin with is seen in the first of them."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    rows, heads, length, _ = query.shape
    # By the shape: a number of the batch's own would be compiled in, and each other number anew.
    shared, groups = batch.bias.shape[-1] - length, heads // key.shape[1]
    if shared:
        key, value = (torch.cat([x[:1, :, :shared].expand(rows, -1, -1, -1), x], dim=2) for x in (key, value))
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    bias = batch.bias
    if window is not None and shared + length > window:
        beginning = torch.arange(shared, device=query.device).expand(rows, -1)
        keys = torch.cat([beginning, batch.positions], dim=1)
        too_far = batch.positions[:, None, :, None] - keys[:, None, None, :] >= window
        bias = bias.masked_fill(too_far, float("-inf"))
    if softcap is not None:
        out = _attention(query, key, value, bias == 0, scaling, softcap)
    else:
        out = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)
    return out.transpose(1, 2)


def _stacked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    stack: Stack,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """[1, tokens, heads, dim], from one product over all rows of a stack."""
    from torch.nn.functional import scaled_dot_product_attention

    rows, length = stack.positions.shape
    heads = query.shape[1]

    def spread(part: torch.Tensor) -> torch.Tensor:
        cells = part[0].repeat_interleave(heads // part.shape[1], dim=0)[:, stack.tokens]
        return cells.view(heads, rows, length, -1).transpose(0, 1)

    q, k, v = spread(query), spread(key), spread(value)
    seen = stack.seen
    if window is not None and length > window:
        seen = seen & (stack.positions[:, None, :, None] - stack.positions[:, None, None, :] < window)
    if softcap is not None:
        out = _attention(q, k, v, seen, scaling, softcap)
    else:
        out = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scaling)
    return out.transpose(1, 2).reshape(1, rows * length, heads, -1)[:, stack.cells]


def _seen(segment: Segment, begin: int, end: int, window: int | None) -> torch.Tensor:
    """[query, key]: what tokens begin..end of a segment see: the tree's or causal mask, within the sliding window."""
    import torch

    positions = segment.positions
    if begin < segment.prompt:
        seen = torch.ones(end - begin, end, dtype=torch.bool, device=positions.device).tril(begin)
    else:
        assert segment.mask is not None
        seen = segment.mask
    if window is not None:
        seen = seen & (positions[begin:end, None] - positions[None, :end] < window)
    return seen


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor, scaling: float | None, softcap: float | None
) -> torch.Tensor:
    """Attention written out, for models that cap their scores, or where a window cuts a row."""
    import torch

    scores = q @ k.transpose(-1, -2) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype) @ v
