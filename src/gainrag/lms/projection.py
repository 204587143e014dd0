"""From hidden states to losses: projected on the vocabulary and reduced a few at a time, so that the memory it takes
does not grow with answers, passages or the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gainrag.lms.packing import AnswerTree
from gainrag.models.patching import with_forward

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from gainrag.lms.loaded import LoadedModel

# Logits of one product with the vocabulary: enough rows that it is worth reading the weights for.
LOGITS = {"cpu": 2**23, "cuda": 2**28}
# Logits that are reduced at a time: few enough to stay in a core's cache.
CHUNK = {"cpu": 2**18, "cuda": 2**26}


@dataclass(frozen=True)
class Asked:
    """A request in tokens.

    prompts: the different ones; where a contrast is asked for, the first is the prompt without a passage.
    passages: for each passage, which prompt is its own.
    """

    tree: AnswerTree
    prompts: list[list[int]]
    passages: list[int]
    contrast: bool


@dataclass
class Job:
    """A request under way.

    tree, prompts, passages, contrast: what is asked.
    answer, position, token: of every token of every answer, by position: whose it is, the output that predicts it, and
        its id.
    starts: where each output's tokens begin among these, and the end.
    lengths: [answer, 1], tokens.
    losses: [passage, answer, alpha], nats per token, filled part by part.
    hidden: by prompt, [output, width] of the layers' last output; there between the two.
    """

    tree: AnswerTree
    prompts: list[list[int]]
    passages: list[int]
    contrast: bool
    answer: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor
    starts: list[int]
    lengths: torch.Tensor
    losses: torch.Tensor
    hidden: dict[int, torch.Tensor] = field(default_factory=dict, repr=False)

    @property
    def outputs(self) -> int:
        """How many positions of a row predict an answer's token."""
        return self.tree.outputs

    @classmethod
    def of(cls, asked: Asked, *, alphas: int, device: str) -> Job:
        """A job with all that can be worked out before the model runs."""
        import torch

        tree = asked.tree
        steps = sorted((position, a, token) for a, path in enumerate(tree.steps) for position, token in path)
        position, answer, token = (on_device(device, torch.tensor(column)) for column in zip(*steps, strict=True))
        counts = torch.tensor([step[0] for step in steps]).bincount(minlength=tree.outputs)
        lengths = torch.tensor([[len(path)] for path in tree.steps], dtype=torch.float64)
        return cls(
            tree=tree,
            prompts=asked.prompts,
            passages=asked.passages,
            contrast=asked.contrast,
            answer=answer,
            position=position,
            token=token,
            starts=[0, *counts.cumsum(0).tolist()],
            lengths=on_device(device, lengths),
            losses=torch.empty(len(asked.passages), len(tree.steps), alphas, dtype=torch.float64, device=device),
        )


def parts_of(lm: LoadedModel, job: Job, parts: int) -> list[range]:
    """A job's passages in so many parts, or more where one output of each would be too many logits."""
    most = max(1, LOGITS[lm.kind] // lm.vocabulary - 1)
    size = min(most, -(-len(job.passages) // parts))
    return [range(start, min(start + size, len(job.passages))) for start in range(0, len(job.passages), size)]


@contextmanager
def layers_skipped(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the model takes hidden states as `inputs_embeds` and does what it does behind its layers alone:
    the projection, and whatever scaling or capping its logits have."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    def forward(*_: Any, inputs_embeds: torch.Tensor, **__: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)

    with with_forward(model.base_model, forward):
        yield


def reduce_hidden(lm: LoadedModel, job: Job, passages: range, alphas: Sequence[float]) -> None:
    """Fill in the losses of some passages of a job, from their hidden states; within `layers_skipped`."""
    import torch

    with torch.inference_mode():
        job.losses[passages.start : passages.stop] = _losses(lm, job, passages, alphas)


def _losses(lm: LoadedModel, job: Job, passages: range, alphas: Sequence[float]) -> torch.Tensor:
    """[passage, answer, alpha] of some passages.

    The loss of a token is log sum exp(z) - z[token] at the output that predicts it; of an answer, the mean over its
    tokens. z = with + alpha * (with - without) is only ever made for a few outputs at a time.
    """
    import torch

    wanted = [job.passages[p] for p in passages]
    first = 1 if job.contrast else 0  # the row without a passage comes first
    hidden = torch.stack([job.hidden[prompt] for prompt in [0] * first + wanted])
    normalisers = torch.empty(len(passages), job.outputs, len(alphas), device=hidden.device)
    chosen = torch.empty(len(hidden), len(job.token), device=hidden.device)
    at_once = max(1, LOGITS[lm.kind] // (lm.vocabulary * len(hidden)))
    for start in range(0, job.outputs, at_once):
        end = min(start + at_once, job.outputs)
        few = hidden[:, start:end]
        logits = lm.model(inputs_embeds=few.reshape(1, -1, few.shape[-1]), use_cache=False).logits[0]
        logits = logits.view(len(hidden), end - start, -1)
        steps = slice(job.starts[start], job.starts[end])
        chosen[:, steps] = logits[:, job.position[steps] - start, job.token[steps]].float()
        base = logits[0].float() if job.contrast else None
        normalisers[:, start:end] = _normalisers(logits[first:], base, alphas, CHUNK[lm.kind])
    own = chosen[first:, :, None]
    apart = own - chosen[0, :, None] if job.contrast else torch.zeros_like(own)
    z_token = own + apart * on_device(lm.device, torch.tensor(alphas))
    found = torch.zeros_like(job.losses[passages.start : passages.stop])
    found.index_add_(1, job.answer, (normalisers[:, job.position] - z_token).double())
    lm.throughput.count(0, len(hidden) * job.outputs)
    return found / job.lengths


def _normalisers(logits: torch.Tensor, base: torch.Tensor | None, alphas: Sequence[float], chunk: int) -> torch.Tensor:
    """log sum exp [passage, output, alpha] of contrasted logits, from [passage, output, vocabulary] and without a
    passage [output, vocabulary]."""
    import torch

    passages, outputs, vocabulary = logits.shape
    some = min(outputs, max(1, chunk // vocabulary))
    several = max(1, chunk // (some * vocabulary))
    found = torch.empty(passages, outputs, len(alphas), device=logits.device)
    for p in range(0, passages, several):
        for o in range(0, outputs, some):
            z = logits[p : p + several, o : o + some].float()
            for a, alpha in enumerate(alphas):
                without = None if alpha == 0 or base is None else base[o : o + some]
                found[p : p + several, o : o + some, a] = log_sum_exp(z, without, alpha)
    return found


def log_sum_exp(z: torch.Tensor, base: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """log sum exp over the last axis of z + alpha * (z - base), or of z; with one temporary, and z left as it is."""
    import torch

    scaled = z.clone() if base is None else torch.lerp(base.expand_as(z), z, 1 + alpha)
    highest = scaled.amax(dim=-1, keepdim=True)
    return scaled.sub_(highest).exp_().sum(dim=-1).log_() + highest[..., 0]


def on_device(device: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the model's device. It goes to a GPU from pinned memory, so that nothing waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)
