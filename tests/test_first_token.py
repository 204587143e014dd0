from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from gainrag.selectors.first_token import FirstTokenLayer, only_first_token

FAMILY = ["bert", "roberta", "xlm-roberta", "electra"]


def tiny(kind: str) -> Any:
    """An untrained encoder with one output, whose weights are large enough for its inputs to matter."""
    config = AutoConfig.for_model(
        kind,
        vocab_size=50,
        hidden_size=32,
        embedding_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=1,
        pad_token_id=0,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three rows of different length, padded."""
    mask = torch.tensor([[1] * n + [0] * (12 - n) for n in (12, 7, 3)])
    return {"input_ids": torch.randint(3, 50, (3, 12), generator=torch.Generator().manual_seed(1)) * mask} | {
        "attention_mask": mask
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", FAMILY)
def test_scores_and_gradients_stay(kind: str, attention: str, batch: dict[str, torch.Tensor]) -> None:
    whole, first = tiny(kind), tiny(kind)
    assert only_first_token(first)
    found = []
    for model in (whole, first):
        model.set_attn_implementation(attention)  # after the layer was changed: it must follow
        for inputs in (batch, {"input_ids": batch["input_ids"][:1]}):  # padded; and without a mask
            logits = model(**inputs).logits
            logits.sum().backward()
            found.append(logits.detach())
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-4, atol=1e-5)
    assert found[0].std() > 0.01
    assert list(whole.state_dict()) == list(first.state_dict())
    theirs, ours = dict(whole.named_parameters()), dict(first.named_parameters())
    # A head that pools nothing leaves the pooler without a gradient, in both alike.
    assert {name for name, p in theirs.items() if p.grad is None} == {n for n, p in ours.items() if p.grad is None}
    for name, p in theirs.items():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, ours[name].grad, rtol=1e-3, atol=1e-4)


def test_the_last_layer_gives_one_token(batch: dict[str, torch.Tensor]) -> None:
    model = tiny("bert")
    state = torch.random.get_rng_state()
    only_first_token(model)
    assert torch.equal(torch.random.get_rng_state(), state)  # or a training would draw other groups
    assert model.bert(**batch).last_hidden_state.shape == (3, 1, 32)
    assert not any(p.is_meta for p in model.parameters())


def test_another_family_stays_as_it_is() -> None:
    model = tiny("distilbert")
    assert not only_first_token(model)
    assert not any(isinstance(module, FirstTokenLayer) for module in model.modules())


def test_a_selector_computes_the_first_token_alone(cross_encoder: Path) -> None:
    from gainrag.selectors import CrossEncoderSelector

    encoder = CrossEncoderSelector(cross_encoder, device="cpu").model[0].auto_model
    assert isinstance(encoder.base_model.encoder.layer[-1], FirstTokenLayer)


def broken(*_: Any, **__: Any) -> Any:
    raise TypeError("forward() got an unexpected argument\nand a second line")


def nothing_attended(self: Any, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states[:, :1]


@pytest.mark.parametrize("forward", [broken, nothing_attended])
def test_where_the_layer_differs_the_whole_one_stays_and_a_line_says_so(
    forward: Any, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FirstTokenLayer, "forward", forward)
    whole, tried = tiny("bert"), tiny("bert").train()
    assert not only_first_token(tried)
    assert tried.training
    assert torch.equal(whole(**batch).logits, tried.eval()(**batch).logits)
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
