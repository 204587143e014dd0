"""Rows of different lengths as one sequence without padding, and answers as a tree behind their prompt.

A *row* is a prompt and, behind it, the tree of all answers to be scored there: common prefixes of answers share their
nodes, and a token that ends every answer it is in needs no node, since nothing is predicted from it. So one pass over a
row serves every answer. A *pack* is several rows end to end; attention sees only a row at a time, everything else
in the model works token by token and never sees where rows meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

ATTENTION = "gainrag_packed"


@dataclass
class AnswerTree:
    """The answers of a question as a tree of tokens.

    tokens, depth, parent: of every node that predicts a further token (depth counts from 1; parent -1 is the prompt).
    steps: for each answer, its (position, token) pairs: the position (0 the prompt's last token, 1 + n node n)
        whose logits predict the token. As many as the answer has tokens.
    """

    tokens: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)
    steps: list[list[tuple[int, int]]] = field(default_factory=list)

    @classmethod
    def build(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        """The tree of answers given as token ids, each of at least one token.

        >>> tree = AnswerTree.build([[5, 6, 7], [5, 6, 8], [9]])
        >>> tree.tokens, tree.parent, tree.steps[1], tree.steps[2]
        ([5, 6], [-1, 0], [(0, 5), (1, 6), (2, 8)], [(0, 9)])
        """
        tree = cls()
        children: dict[tuple[int, int], int] = {}
        for answer in answers:
            node, steps = -1, []
            for i, token in enumerate(answer):
                steps.append((node + 1, token))
                if i + 1 == len(answer):
                    break
                if (node, token) not in children:
                    children[node, token] = len(tree.tokens)
                    tree.tokens.append(token)
                    tree.depth.append(i + 1)
                    tree.parent.append(node)
                node = children[node, token]
            tree.steps.append(steps)
        return tree

    @property
    def outputs(self) -> int:
        """How many positions predict an answer's token: the prompt's last one and every node."""
        return 1 + len(self.tokens)

    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[node, node]: whether a node sees another: itself and its ancestors."""
        n = len(self.tokens)
        seen = np.eye(n, dtype=np.bool_)
        for i, parent in enumerate(self.parent):  # parents come before their children
            if parent >= 0:
                seen[i] |= seen[parent]
        return seen


@dataclass(frozen=True)
class Row:
    """A prompt's token ids with its tree, and whose they are: (request, prompt)."""

    prompt: Sequence[int]
    tree: AnswerTree
    owner: tuple[int, int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tree.tokens)

    @property
    def outputs(self) -> int:
        """How many positions are projected on the vocabulary."""
        return self.tree.outputs


def make_packs(rows: Sequence[Row], *, tokens: int) -> list[list[Row]]:
    """Cut rows, in their order, into packs of at most so many tokens; a larger row goes alone."""
    packs: list[list[Row]] = []
    size = 0
    for row in rows:
        if not packs or size + len(row) > tokens:
            packs.append([])
            size = 0
        packs[-1].append(row)
        size += len(row)
    return packs


def make_even_packs(rows: Sequence[Row], *, tokens: int, workers: int) -> list[list[Row]]:
    """Packs of like size, as many for each worker, so that none waits for another: of about so many tokens (over it by
    less than a row)."""
    total, longest = sum(map(len, rows)), max(map(len, rows))
    count = workers * -(-total // (workers * tokens))
    size = -(-total // count)
    while len(packs := make_packs(rows, tokens=size)) > count:
        size += max(1, longest // 16)
    return packs


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


def register_attention() -> None:
    """Make the packed attention known to transformers under `ATTENTION`; idempotent."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    segments: Sequence[Segment] = (),
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each segment of a pack: causal over its prompt, by the tree's mask behind it.

    Shapes: query [1, heads, tokens, dim], key and value [1, key-value heads, tokens, dim] -> [1, tokens, heads, dim].
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    # Positions may have been turned into query and key in float32; the product is in the model's dtype.
    query, key = query.to(value.dtype), key.to(value.dtype)
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
