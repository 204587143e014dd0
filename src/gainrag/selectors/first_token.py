"""A cross-encoder's last layer, only where the score comes from: a pair's first token.

Encoders of BERT's family read a pair's score from the last layer's output at the first token, so the other tokens need
that layer's keys and values and nothing else of it: of six layers an eighth of all work goes. Scores stay what they
were, as do the names of the weights. The layer is put together from transformers' own parts, which a release may
change: it is tried on two short rows, and where it fails or differs the whole layer stays.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import device, nn

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# How far scores may differ from the whole layer's, as a share of the largest (of 1 at least).
SAME = {"float32": 1e-4, "bfloat16": 0.05}
# Heads that read the first token alone, over layers that are all built alike.
FAMILY = {f"{name}ForSequenceClassification" for name in ("Bert", "Roberta", "XLMRoberta", "Electra")}


def only_first_token(encoder: Any) -> bool:
    """Have the last layer compute its first token alone, in place, and say whether it does: another family's model
    stays as it is, and one whose scores would change (a line on standard error says that).

    Args:
        encoder: a transformers model with its head, a CrossEncoder's `model[0].auto_model`.
    """
    if type(encoder).__name__ not in FAMILY or encoder.config.is_decoder:
        return False
    whole = _tiny_scores(encoder)
    layers = None
    try:
        layers = encoder.base_model.encoder.layer
        last = layers[-1]
        layers[-1] = FirstTokenLayer(last)
        apart = float((_tiny_scores(encoder) - whole).abs().max() / whole.abs().max().clamp(min=1.0))
        if apart <= SAME.get(str(encoder.dtype).removeprefix("torch."), 0.05):
            return True
        why = f"scores differ by {apart:.2g}"
    except Exception as error:  # whatever a changed library raises
        why = (str(error).strip() or type(error).__name__).split("\n")[0][:120]
    if layers is not None:
        layers[-1] = last
    logger.warning("%s: the last layer computes all tokens, which is slower (%s)", type(encoder).__name__, why)
    return False


def _tiny_scores(encoder: Any) -> torch.Tensor:
    """The scores of two short rows, one of them padded."""
    import torch

    training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            rows = torch.arange(12, device=encoder.device).view(2, 6) * 7 % (encoder.config.vocab_size - 8) + 4
            mask = torch.ones_like(rows)
            mask[1, 4:] = 0
            scores: torch.Tensor = encoder(input_ids=rows, attention_mask=mask).logits.float()
            return scores
    finally:
        encoder.train(training)


class FirstTokenLayer(nn.Module):
    """A layer of transformers' BERT family, made of its parts: its output is [batch, 1, width]."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        with device("meta"):  # no weights of its own, and no random numbers drawn for them
            # transformers' own attention from some tokens to others.
            self.attention = type(layer.attention)(layer.attention.self.config, is_cross_attention=True)
        for name, part in layer.attention.self.named_children():
            setattr(self.attention.self, name, part)
        self.attention.output = layer.attention.output
        self.intermediate, self.output = layer.intermediate, layer.output
        self.train(layer.training)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **more: Any
    ) -> torch.Tensor:
        """[batch, tokens, width] -> [batch, 1, width]."""
        if attention_mask is not None and attention_mask.ndim == 4:  # [batch, heads, query, key]
            attention_mask = attention_mask[:, :, :1]
        more.pop("encoder_attention_mask", None)
        attended, _weights = self.attention(
            hidden_states[:, :1],
            encoder_hidden_states=hidden_states,
            encoder_attention_mask=attention_mask,
            **more,
        )
        out: torch.Tensor = self.output(self.intermediate(attended), attended)
        return out
