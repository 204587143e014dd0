"""How fast scoring goes, and what share of the machine's own matrix-product speed that is.

Counted is the arithmetic that cannot be left out: the products with the model's weights, for every token of the prompts
and answers, and with the vocabulary for every position that predicts an answer's token. Attention and element-wise work
take time but are not counted, so the share is what is left when they, and all overhead, are paid for.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gainrag.models.devices import kind_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Side of the square matrices whose product is the yardstick, and how long it is measured for, in seconds.
_SIDE = {"cpu": 2048, "cuda": 8192}
_MEASURE = 0.4


@dataclass
class Throughput:
    """Tokens and weight products of scoring so far.

    flop_per_token, flop_per_output: floating-point operations of the products with the layers' weights, and with the
        vocabulary.
    seconds: the time that scoring took, its own overhead included.
    """

    flop_per_token: float
    flop_per_output: float
    tokens: int = 0
    flop: float = 0.0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Throughput:
        """The meter of a model: two operations a weight of every linear layer."""
        import torch

        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        per_output = 2 * head.weight.numel() if head is not None else 0
        return cls(2.0 * sum(m.weight.numel() for m in linear), float(per_output))

    def count(self, tokens: int, outputs: int) -> None:
        """Add a pack's work. Packs of several threads may be counted at a time."""
        with self._lock:
            self.tokens += tokens
            self.flop += tokens * self.flop_per_token + outputs * self.flop_per_output

    def rate(self, peak: float) -> str:
        """What a progress line says of all so far, beside a peak in operations a second.

        >>> Throughput(2e8, 1e8, tokens=4000, flop=8e11, seconds=2.0).rate(peak=1e12)
        '2,000 tokens/s, 40% of peak'
        """
        seconds = max(self.seconds, 1e-9)
        return f"{self.tokens / seconds:,.0f} tokens/s, {self.flop / seconds / peak:.0%} of peak"


def measured_peak(dtype: str, device: str = "cpu") -> float:
    """Floating-point operations a second of square matrix products in this dtype, the best seen in under a second."""
    import torch

    kind = kind_of(device)
    side = _SIDE[kind]
    a, b = (torch.ones(side, side, dtype=getattr(torch, dtype), device=device) for _ in range(2))
    best, until = 0.0, time.perf_counter() + _MEASURE
    while time.perf_counter() < until or not best:
        began = time.perf_counter()
        torch.mm(a, b)
        if kind == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best
