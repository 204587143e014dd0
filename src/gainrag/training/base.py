"""The model that a training starts from: opened as a cross-encoder, with dropout and frozen layers as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gainrag.errors import ConfigError
from gainrag.models.folder import resolve
from gainrag.models.hub import check_reachable, loading_errors, quiet
from gainrag.prompts import RERANKER_TEMPLATE

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def open_base(
    base: str, *, device: str, max_length: int, seed: int, dropout: float | None = None, last_layers: int = 0
) -> CrossEncoder:
    """The base as `train` needs it.

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: it has fewer layers than `last_layers`.
    """
    model = open_cross_encoder(base, device=device, max_length=max_length, seed=seed)
    if dropout is not None:
        set_dropout(model, dropout)
    if last_layers:
        freeze_below(model, last_layers)
    return model


def open_cross_encoder(base: str, *, device: str, max_length: int, seed: int) -> CrossEncoder:
    """The base as a cross-encoder with one output; an encoder without a head gets a fresh one, the same for each seed.

    A causal language model needs no head: its score is the log-odds of "yes" against "no" (see RERANKER_TEMPLATE).

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    from gainrag.selectors.first_token import only_first_token

    path = resolve(base)
    torch.manual_seed(seed)
    with loading_errors(base), quiet():
        check_reachable(path)
        architectures = AutoConfig.from_pretrained(path, trust_remote_code=False).architectures or [""]
        causal = architectures[0].endswith("ForCausalLM") and not Path(path, "modules.json").exists()
        form = {"processor_kwargs": {"chat_template": RERANKER_TEMPLATE}} if causal else {"num_labels": 1}
        model = CrossEncoder(
            path,
            **form,
            max_length=max_length,
            device=device,
            activation_fn=torch.nn.Identity(),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    only_first_token(model[0].auto_model)
    if device == "cpu" or causal:
        # On a CPU the fused attention in bfloat16 costs more than the plain one: 13 pairs a second against 16. On a
        # GPU it gave NaN, seen with a causal model, whose rows are padded at their beginning.
        model[0].auto_model.set_attn_implementation("eager")
    return model


def freeze_below(model: CrossEncoder, layers: int) -> None:
    """Leave the embeddings and all layers but the last ones as they are.

    Raises:
        ConfigError: the model has no list of layers, or fewer.
    """
    import torch

    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    stack = max(stacks, key=len, default=torch.nn.ModuleList())
    if len(stack) < layers:
        raise ConfigError(
            f"last_layers is {layers} of {len(stack)}", where="train", hint="give at most as many; 0 is all"
        )
    encoder = model[0].auto_model
    for part in (encoder.get_input_embeddings(), *list(stack)[: len(stack) - layers]):
        part.requires_grad_(False)


def set_dropout(model: CrossEncoder, p: float) -> None:
    """Set the chance of every dropout layer."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = p
