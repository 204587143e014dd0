"""Where bfloat16 loses too much for scoring: the residual stream, and the logits.

A matrix product in bfloat16 sums in float32 and rounds once. The residual stream instead is rounded at every addition,
twice a layer, and a logit of 20 is rounded to an eighth. So while a bfloat16 model scores, its stream stays float32
(the normalisations round it for the products), and logits are float32 products, which are needed at few positions.
On 24 training questions (SmolLM2, 11 candidates) the mean rank correlation of gains with those of a float32 model went
from 0.980 to 0.991 at alpha 0 and from 0.982 to 0.996 at alpha 0.5, for a seventh of the speed. Generation stays as it
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from gainrag.models.patching import with_forward

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@contextmanager
def wider(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the residual stream and the logits of a bfloat16 model are float32; others stay as they are.

    The stream is widened where every normalisation is an RMSNorm, which takes any dtype (Llama, Qwen, Mistral, Gemma,
    ...), the logits where the head is a linear layer.
    """
    import torch

    if model.dtype != torch.bfloat16:
        yield
        return
    norms = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    head: Any = model.get_output_embeddings()
    with ExitStack() as stack:
        if norms and all(type(module).__name__.endswith("RMSNorm") for module in norms):
            embeddings = model.get_input_embeddings()
            stack.callback(embeddings.register_forward_hook(_to_float32).remove)
            for norm in norms:
                stack.callback(norm.register_forward_hook(_to_bfloat16).remove)
        if type(head) is torch.nn.Linear:
            weight, bias = _float32_head(head)
            stack.enter_context(
                with_forward(head, lambda hidden: torch.nn.functional.linear(hidden.float(), weight, bias))
            )
        yield


@contextmanager
def rounded_already(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, float32 products may round their factors to bfloat16: for the projection of a bfloat16 model.

    Hidden states and head were bfloat16 before they became float32, so nothing is lost: the sum is float32 all the
    same. Where the processor multiplies bfloat16 natively that takes 0.43 of the time (with the 151,936 tokens of
    Qwen), elsewhere it changes nothing. An NVIDIA GPU may round to TF32, which holds every bfloat16. The layers must
    not run meanwhile: rotary positions above 256 would be rounded.
    """
    import torch

    cuda = model.device.type == "cuda"
    products: Any = torch.backends.cuda.matmul if cuda else getattr(torch.backends.mkldnn, "matmul", None)
    if model.dtype != torch.bfloat16 or not hasattr(products, "fp32_precision"):  # torch before 2.9
        yield
        return
    before = products.fp32_precision
    products.fp32_precision = "tf32" if cuda else "bf16"
    try:
        yield
    finally:
        products.fp32_precision = before


# By the head it was made of; gone with it.
_heads: WeakKeyDictionary[torch.nn.Linear, tuple[torch.Tensor, torch.Tensor | None]] = WeakKeyDictionary()


def _float32_head(head: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias in float32, made once a model: with a large vocabulary the copy takes gigabytes."""
    if head not in _heads:
        _heads[head] = head.weight.detach().float(), None if head.bias is None else head.bias.detach().float()
    return _heads[head]


def _to_float32(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _to_bfloat16(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    import torch

    return output.to(torch.bfloat16)
