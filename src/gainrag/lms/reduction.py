"""From the hidden states of many questions to their losses at once, as a GPU wants it.

The same sums as in gainrag.lms.projection, which takes a question after another: that is some fifty small kernels a
question, and a GPU waits for each to be started. Here all outputs of a window's questions stand in one list, where
those that differ only in the passage are neighbours, the one without a passage first. All that says which is whose is
worked out before in NumPy, and copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gainrag.lms.batches import Integers
from gainrag.lms.memory import within_memory
from gainrag.lms.packing import Row
from gainrag.lms.projection import CHUNK, LOGITS, Asked, log_sum_exp, on_device
from gainrag.protocols import FloatArray

if TYPE_CHECKING:
    import torch

    from gainrag.lms.loaded import LoadedModel


@dataclass(frozen=True)
class Outputs:
    """Where the outputs of a window's questions stand, and what they predict.

    starts: by question, its first output; and the end.
    groups: where each group of neighbours begins, and the end: outputs of one question at one position, by prompt.
    entries: where each group's predicted tokens begin, and the end.
    first: [output], the first of its group: that without a passage, where a contrast is asked for.
    output, token, base, cell: of every token of every answer of every prompt: the output that predicts it, its id, the
        same token's place for the group's first output, and the loss that it is part of.
    cells: by question, its first loss; and the end: [prompt, answer] each.
    lengths: [cell], tokens of the answer.
    """

    starts: Integers
    groups: Integers
    entries: Integers
    first: Integers
    output: Integers
    token: Integers
    base: Integers
    cell: Integers
    cells: Integers
    lengths: Integers

    @classmethod
    def of(cls, asked: Sequence[Asked]) -> Outputs:
        """Those of some questions."""
        starts, cells, groups, entries = [0], [0], [0], [0]
        parts: dict[str, list[Integers]] = {
            name: [] for name in ("first", "output", "token", "base", "cell", "lengths")
        }
        for one in asked:
            prompts, answers, places = len(one.prompts), len(one.tree.steps), np.arange(len(one.prompts))
            steps = sorted((at, a, token) for a, path in enumerate(one.tree.steps) for at, token in path)
            position, answer, token = (np.array(column, dtype=np.int64) for column in zip(*steps, strict=True))
            before = entries[-1] + np.arange(len(steps)) * prompts
            parts["first"].append(np.repeat(starts[-1] + np.arange(one.tree.outputs) * prompts, prompts))
            parts["output"].append((starts[-1] + position[:, None] * prompts + places).ravel())
            parts["token"].append(np.repeat(token, prompts))
            parts["base"].append(np.repeat(before, prompts))
            parts["cell"].append((cells[-1] + places * answers + answer[:, None]).ravel())
            parts["lengths"].append(np.tile([len(path) for path in one.tree.steps], prompts))
            counts = np.bincount(position, minlength=one.tree.outputs) * prompts
            entries += (entries[-1] + np.cumsum(counts)).tolist()
            groups += (groups[-1] + np.arange(1, one.tree.outputs + 1) * prompts).tolist()
            starts.append(groups[-1])
            cells.append(cells[-1] + prompts * answers)
        whole = {name: np.concatenate(column) for name, column in parts.items()}
        own = {name: np.array(column) for name, column in (("starts", starts), ("cells", cells))}
        return cls(groups=np.array(groups), entries=np.array(entries), **own, **whole)

    def targets(self, row: Row) -> Integers:
        """Where the outputs of a row stand."""
        question, prompt = row.owner
        start, end = self.starts[question], self.starts[question + 1]
        prompts = (end - start) // row.outputs
        found: Integers = start + np.arange(row.outputs) * prompts + prompt
        return found

    def losses_of(self, question: int, losses: FloatArray, asked: Asked) -> FloatArray:
        """[passage, answer, alpha] of a question, out of all losses [cell, alpha]."""
        own = losses[self.cells[question] : self.cells[question + 1]]
        return own.reshape(len(asked.prompts), len(asked.tree.steps), -1)[asked.passages]


def reduce_together(
    lm: LoadedModel, outputs: Outputs, hidden: torch.Tensor, alphas: Sequence[float], contrast: bool
) -> torch.Tensor:
    """[cell, alpha] nats per token, from hidden states [output, width]; within `layers_skipped`."""
    import torch

    device = hidden.device
    columns = [outputs.first, outputs.output, outputs.token, outputs.base, outputs.cell, outputs.lengths]
    numbers = on_device(lm.device, torch.from_numpy(np.concatenate(columns)))
    first, output, token, base, cell, lengths = torch.split(numbers, list(map(len, columns)))
    normalisers = torch.empty(len(hidden), len(alphas), device=device)
    chosen = torch.empty(len(output), device=device)
    some = max(1, CHUNK[lm.kind] // lm.vocabulary)

    def reduce(groups: tuple[int, int]) -> None:
        begin, end = groups
        start, stop = int(outputs.groups[begin]), int(outputs.groups[end])
        logits = lm.model(inputs_embeds=hidden[None, start:stop], use_cache=False).logits[0]
        own = slice(int(outputs.entries[begin]), int(outputs.entries[end]))
        chosen[own] = logits[output[own] - start, token[own]].float()
        for at in range(start, stop, some):
            to = min(at + some, stop)
            z = logits[at - start : to - start].float()
            without = logits[first[at:to] - start].float() if contrast else None
            for a, alpha in enumerate(alphas):
                normalisers[at:to, a] = log_sum_exp(z, without if alpha else None, alpha)

    for groups in groups_at_once(outputs.groups, max(1, LOGITS[lm.kind] // lm.vocabulary)):
        within_memory(lm, reduce, groups, _in_halves)
    apart = chosen - chosen[base]
    z_token = chosen[:, None] + apart[:, None] * on_device(lm.device, torch.tensor(alphas))
    found: torch.Tensor = torch.zeros(len(lengths), len(alphas), dtype=torch.float64, device=device)
    found.index_add_(0, cell, (normalisers[output] - z_token).double())
    lm.throughput.count(0, len(hidden))
    return found.div_(lengths[:, None])


def _in_halves(groups: tuple[int, int]) -> list[tuple[int, int]]:
    begin, end = groups
    middle = (begin + end) // 2
    return [(begin, middle), (middle, end)] if end - begin > 1 else []


def groups_at_once(groups: Integers, rows: int) -> list[tuple[int, int]]:
    """Consecutive groups, from where to where, of at most so many outputs together; a larger one goes alone.

    >>> groups_at_once(np.array([0, 3, 6, 20, 21]), 6)
    [(0, 2), (2, 3), (3, 4)]
    """
    found, begin = [], 0
    while begin < len(groups) - 1:
        end = max(begin + 1, int(np.searchsorted(groups, groups[begin] + rows, side="right")) - 1)
        found.append((begin, end))
        begin = end
    return found
