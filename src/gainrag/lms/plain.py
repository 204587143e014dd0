"""The contrastive loss as gainrag.gain defines it: one pass a prompt and answer, of any causal model.

Many times slower than gainrag.lms.scoring, and what that is held against. It uses nothing of a model but its `forward`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gainrag.lms.projection import Job

if TYPE_CHECKING:
    import torch

    from gainrag.lms.loaded import LoadedModel


def fill_in(lm: LoadedModel, job: Job, alphas: Sequence[float]) -> None:
    """Fill in the losses of a job."""
    import torch

    where: dict[int, list[int]] = {}  # of each prompt, the passages whose own it is
    for passage, prompt in enumerate(job.passages):
        where.setdefault(prompt, []).append(passage)
    with torch.inference_mode():
        for a, path in enumerate(job.tree.steps):
            answer = [token for _, token in path]
            base = answer_logits(lm, job.prompts[0], answer) if job.contrast else None
            tokens = torch.tensor(answer, device=lm.device)
            for prompt, passages in where.items():
                z = answer_logits(lm, job.prompts[prompt], answer)
                for x, alpha in enumerate(alphas):
                    contrasted = z if base is None or alpha == 0 else (1 + alpha) * z - alpha * base
                    losses = torch.nn.functional.cross_entropy(contrasted, tokens)
                    job.losses[passages, a, x] = losses.double()


def answer_logits(lm: LoadedModel, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    """Logits [token of the answer, vocabulary] behind a prompt, in float32, from one pass over both."""
    import torch

    ids = [*prompt, *answer[:-1]]  # nothing is predicted from the last token
    fewer = "logits_to_keep" in inspect.signature(lm.model.forward).parameters
    out = lm.model(
        torch.tensor([ids], device=lm.device), use_cache=False, **{"logits_to_keep": len(answer)} if fewer else {}
    )
    lm.throughput.count(len(ids), len(answer))
    logits: torch.Tensor = out.logits[0, -len(answer) :].float()
    return logits
