"""Rows of different lengths as one sequence without padding, and answers as a tree behind their prompt.

A *row* is a prompt and, behind it, the tree of all answers to be scored there: common prefixes of answers share their
nodes, and a token that ends every answer it is in needs no node, since nothing is predicted from it. So one pass over a
row serves every answer. A *pack* is several rows end to end; attention sees only a row at a time (see
gainrag.lms.attention), everything else in the model works token by token and never sees where rows meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


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

    @cached_property
    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[node, node]: whether a node sees another: itself and its ancestors. Of a tree that is built: made once for
        all rows that have it."""
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
    def positions(self) -> list[int]:
        """Of each token: a node stands as far behind the prompt as it is deep in the tree."""
        return [*range(len(self.prompt)), *(len(self.prompt) - 1 + depth for depth in self.tree.depth)]

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
