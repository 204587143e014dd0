"""The contrastive loss as gainrag.gain defines it: a forward pass a passage and alias, whole logits, float32."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM


@lru_cache(maxsize=128)
def answer_logits(lm: LocalLM, prompt: str, answer: str) -> torch.Tensor:
    """Logits [token of the answer, vocabulary] behind a prompt, from one whole forward pass."""
    prompt_ids, answer_ids = lm.prompt_ids(prompt), lm.answer_ids(answer)
    lm.model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = lm.model(torch.tensor([prompt_ids + answer_ids])).logits[0]
    behind: torch.Tensor = logits[len(prompt_ids) - 1 : -1].float()
    return behind


def plain_loss(lm: LocalLM, with_prompt: str, without_prompt: str, answer: str, alpha: float) -> float:
    """Nats per token."""
    z = (1 + alpha) * answer_logits(lm, with_prompt, answer)
    if alpha:
        z = z - alpha * answer_logits(lm, without_prompt, answer)
    ids = lm.answer_ids(answer)
    return float(-torch.log_softmax(z, dim=-1)[torch.arange(len(ids)), torch.tensor(ids)].mean())
