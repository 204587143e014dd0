"""Rows beside one another, as a GPU takes them: of like length, padded to one of a few shapes.

What a GPU is started for should be large and come again in the same shape: then its kernels are compiled once, and a
whole pass can be replayed (see gainrag.lms.graphs). So rows are sorted by length and padded at their ends, where none
of their tokens sees what is behind it, and a batch that is not full is padded with empty rows. Where all prompts begin
alike, the beginning is a row of its own, the first, and is left out of the others, which see it.

Nothing here needs the GPU: a batch is laid out in NumPy, in a thread, and travels in one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.lms.packing import AnswerTree, Row

if TYPE_CHECKING:
    import torch

Integers = np.ndarray[Any, np.dtype[np.int64]]

# Lengths are multiples of this at least, as a GPU's kernels ask of a mask.
MULTIPLE = 8
# Rows share a batch that have at least this share of the longest one's length: the rest of each would be padding.
LIKE = 0.75
# A common beginning that is shorter than this is not worth a row of its own.
SHORTEST_SHARED = 16


@dataclass(frozen=True)
class Shape:
    """rows, length: of a batch. shared: tokens of the beginning that its first row holds for all; 0: there is none."""

    rows: int
    length: int
    shared: int


@dataclass(frozen=True)
class Batch:
    """Some rows, laid out.

    rows: in their order; behind the row of the common beginning, where there is one.
    tokens: how many are run that are no padding.
    numbers: ids [row, length], positions [row, length], unseen [n], outputs [n] and targets [n], flat and end to end.
        unseen: cells of the mask [row, length, shared + length] that the causal mask would show: a tree's other
        branches. outputs: cells [row, length] whose hidden states are wanted; targets: where these go in the window's.
    sizes: of these five.
    """

    shape: Shape
    rows: Sequence[Row]
    tokens: int
    numbers: torch.Tensor
    sizes: tuple[int, ...]

    def on(self, device: str) -> tuple[torch.Tensor, ...]:
        """The five on a device. The copy is not waited for."""
        import torch

        flat = torch.split(self.numbers.to(device, non_blocking=True), list(self.sizes))
        cells = (self.shape.rows, self.shape.length)
        return flat[0].view(cells), flat[1].view(cells), *flat[2:]


def rounded(size: int, least: int) -> int:
    """The next of a few sizes, multiples of the least one: eight between a power of two and the next, so that at most
    an eighth is padding.

    >>> [rounded(n, 8) for n in (1, 60, 130, 200, 1000, 1025)]
    [8, 64, 144, 208, 1024, 1152]
    """
    step = max(least, 2 ** ((size - 1).bit_length() - 4)) if size > 1 else least
    return -(-size // step) * step


def common_beginning(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, in full MULTIPLEs; each keeps a token of its own. 0 where it is not
    worth it."""
    # Of the first and the last in order: what these share, all share.
    pairs = zip(min(prompts), max(prompts), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    same = min(same, min(map(len, prompts)) - 1) // MULTIPLE * MULTIPLE
    return same if same >= SHORTEST_SHARED and len(prompts) > 1 else 0


def make_batches(
    rows: Sequence[Row], targets: Callable[[Row], Integers], *, tokens: Callable[[], int], shared: int, pinned: bool
) -> Iterator[Batch]:
    """Rows, longest first, in batches of at most so many tokens with their padding; a larger row goes alone.

    Args:
        targets: where the hidden states of a row's outputs go.
        tokens: asked before each batch: memory may turn out to be less than it seemed.
        shared: how many tokens all prompts begin with.
        pinned: in memory from which a GPU copies by itself.
    """
    ordered = sorted(rows, key=lambda row: (-len(row), row.owner))
    while ordered:
        first = int(bool(shared))
        length = rounded(max(len(ordered[0]) - shared, shared), MULTIPLE)
        most = max(1 + first, tokens() // length)
        enough = shared + LIKE * (len(ordered[0]) - shared)
        some = [row for row in ordered[: most - first] if len(row) >= enough]
        ordered = ordered[len(some) :]
        height = min(most, rounded(len(some) + first, 1))  # of a rest, too, one of few
        yield lay_out(some, targets, Shape(height, length, shared), pinned=pinned)


def halves(batch: Batch, targets: Callable[[Row], Integers]) -> list[Batch]:
    """The same rows in two batches; none where there is a single row."""
    if len(batch.rows) < 2:
        return []
    middle = -(-len(batch.rows) // 2)
    shape, pinned = batch.shape, batch.numbers.is_pinned()
    smaller = Shape(rounded(middle + bool(shape.shared), 1), shape.length, shape.shared)
    return [lay_out(rows, targets, smaller, pinned=pinned) for rows in (batch.rows[:middle], batch.rows[middle:])]


def lay_out(rows: Sequence[Row], targets: Callable[[Row], Integers], shape: Shape, *, pinned: bool) -> Batch:
    """A batch of a shape that holds the rows."""
    import torch

    shared, wide = shape.shared, shape.shared + shape.length
    ids = np.zeros((shape.rows, shape.length), dtype=np.int64)
    positions = np.zeros_like(ids)
    unseen, outputs = [np.empty(0, np.int64)], []
    if shared:
        ids[0, :shared] = rows[0].prompt[:shared]
        positions[0, :shared] = np.arange(shared)
    for i, row in enumerate(rows, start=int(bool(shared))):
        own, end = len(row.prompt) - shared, len(row) - shared
        ids[i, :own], ids[i, own:end] = row.prompt[shared:], row.tree.tokens
        positions[i, :end] = row.positions[shared:]
        node, other = _other_branches(row.tree)
        unseen.append((i * shape.length + own + node) * wide + shared + own + other)
        outputs.append(np.arange(i * shape.length + own - 1, i * shape.length + end))
    parts = [
        ids.ravel(),
        positions.ravel(),
        np.concatenate(unseen),
        np.concatenate(outputs),
        np.concatenate([targets(row) for row in rows]),
    ]
    numbers = torch.from_numpy(np.concatenate(parts))
    tokens = shared + sum(len(row) - shared for row in rows)
    return Batch(shape, rows, tokens, numbers.pin_memory() if pinned else numbers, tuple(map(len, parts)))


def _other_branches(tree: AnswerTree) -> tuple[Integers, Integers]:
    """Pairs of a node and an earlier one that it does not see."""
    earlier = np.tri(len(tree.tokens), k=-1, dtype=np.bool_)
    node, other = np.nonzero(earlier & ~tree.mask)
    return node, other


def bias_of(unseen: torch.Tensor, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    """[row, 1, length, shared + length], what is added to attention's scores: 0 where a token sees another, else -inf.
    Every token sees itself, padding too: a softmax over nothing would be NaN."""
    import torch

    shared, length = shape.shared, shape.length
    causal = torch.ones(length, shared + length, dtype=torch.bool, device=unseen.device).tril(shared)
    once = torch.zeros(causal.shape, dtype=dtype, device=unseen.device).masked_fill_(~causal, float("-inf"))
    bias = once.repeat(shape.rows, 1, 1, 1)
    if shared:  # the first row is the beginning itself
        bias[0, :, :, :shared] = float("-inf")
    bias.view(-1).index_fill_(0, unseen, float("-inf"))
    return bias
