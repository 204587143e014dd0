"""A model is scored the fast way only where that gives what the plain way does; a changed library costs speed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainrag.lms import attention, plain, precision, scoring
from gainrag.lms.local import LocalLM
from gainrag.lms.ways import PLAIN, Way
from gainrag.protocols import FloatArray, ScoringRequest

REQUESTS = [
    ScoringRequest(["Passage: The Seine.\n\nWhich river?", "Two", "Two"], "Which river?", [" the Seine", " the Rhine"]),
    ScoringRequest(["One"], "Two", [" three four", " five"]),
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def make(folder: Path, smollm: LocalLM, kind: str, dtype: str = "float32", **own: Any) -> LocalLM:
    """A small model of an architecture, with random weights that make its logits differ."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=smollm.vocabulary, **SIZES, **own))
    for weights in model.parameters():
        if weights.ndim == 2:  # so large that what a token attends to matters
            torch.nn.init.normal_(weights, std=0.4)
    model.save_pretrained(folder)
    smollm.tokenizer.save_pretrained(folder)
    return LocalLM(str(folder), dtype=dtype)


def written_out(lm: LocalLM, alphas: list[float]) -> list[FloatArray]:
    """The losses as gainrag.gain defines them, from whole forward passes."""
    import torch

    def logits(prompt: str, answer: str) -> torch.Tensor:
        ids, own = lm.prompt_ids(prompt), lm.answer_ids(answer)
        with torch.inference_mode():
            out: torch.Tensor = lm.model(torch.tensor([ids + own])).logits[0, len(ids) - 1 : -1].float()
        return out

    def loss(request: ScoringRequest, prompt: str, answer: str, alpha: float) -> float:
        z = (1 + alpha) * logits(prompt, answer) - alpha * logits(request.without_prompt, answer)
        tokens = torch.tensor(lm.answer_ids(answer))
        return float(-z.log_softmax(-1)[torch.arange(len(tokens)), tokens].mean())

    return [
        np.array([[[loss(r, p, a, x) for x in alphas] for a in r.answers] for p in r.with_prompts]) for r in REQUESTS
    ]


def check(lm: LocalLM, tolerance: float = 5e-4) -> None:
    for found, expected in zip(lm.losses(REQUESTS, [0.0, 0.5]), written_out(lm, [0.0, 0.5]), strict=True):
        assert np.abs(found - expected).max() < tolerance


def test_where_nothing_changed_nothing_is_said(
    smollm: LocalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm = make(tmp_path, smollm, "llama")
    check(lm)
    assert lm.way == Way(packed=True, wide=False)
    narrow = LocalLM(str(tmp_path), dtype="bfloat16")
    narrow.losses(REQUESTS, [0.5])
    assert narrow.way == Way(packed=True, wide=True)
    assert not caplog.records


def test_a_projection_that_may_round_loses_nothing_that_bfloat16_has(
    smollm: LocalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    make(tmp_path, smollm, "llama")
    mkldnn: Any = torch.backends.mkldnn
    lm, before = LocalLM(str(tmp_path), dtype="bfloat16"), mkldnn.matmul.fp32_precision
    rounded = lm.losses(REQUESTS, [0.0, 0.5])
    assert mkldnn.matmul.fp32_precision == before
    monkeypatch.setattr(scoring, "rounded_already", lambda model: nullcontext())
    for found, expected in zip(rounded, lm.losses(REQUESTS, [0.0, 0.5]), strict=True):
        assert np.abs(found - expected).max() < 1e-5


def garbled(*_: Any, **__: Any) -> Any:
    raise TypeError("forward() got an unexpected argument\nand a second line")


def of_no_effect(self: Any, name: str) -> None:
    """As transformers does for models whose attention cannot be exchanged."""


@contextmanager
def nothing_skipped(model: Any) -> Iterator[None]:
    yield


def half_the_scale(*given: Any, **more: Any) -> Any:
    return attention_as_it_is(*given, **(more | {"scaling": 0.5 * more["scaling"]}))


attention_as_it_is = attention.packed_attention
CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "attention fails": lambda m: m.setattr(attention, "packed_attention", garbled),
    "attention differs": lambda m: m.setattr(attention, "packed_attention", half_the_scale),
    "no attention can be registered": lambda m: m.setattr("transformers.AttentionInterface.register", garbled),
    "it cannot be set": lambda m: m.delattr("transformers.PreTrainedModel.set_attn_implementation"),
    "setting it does nothing": lambda m: m.setattr(
        "transformers.PreTrainedModel.set_attn_implementation", of_no_effect
    ),
    "layers are not skipped": lambda m: m.setattr(scoring, "layers_skipped", nothing_skipped),
    "there is no base model": lambda m: m.setattr("transformers.PreTrainedModel.base_model", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_library_costs_speed_and_a_line(
    smollm: LocalLM, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = make(tmp_path, smollm, "llama")
    CHANGES[change](monkeypatch)
    check(lm)
    assert lm.way == PLAIN
    check(lm)  # and is not said again
    said = [record.getMessage() for record in caplog.records if record.name.startswith("gainrag")]
    assert len(said) == 1
    assert "\n" not in said[0]
    assert "one answer at a time" in said[0]
    texts = lm.generate(["Which river?"], 3)
    monkeypatch.undo()
    assert texts == lm.generate(["Which river?"], 3)


def test_a_wider_stream_that_differs_is_not_used(
    smollm: LocalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm = make(tmp_path, smollm, "llama", "bfloat16")
    monkeypatch.setattr(precision, "_to_bfloat16", lambda module, inputs, output: output.bfloat16() * 3)
    found = lm.losses(REQUESTS, [0.0, 0.5])
    assert lm.way == Way(packed=True, wide=False)
    assert "without a float32 residual stream" in caplog.text
    monkeypatch.setattr(lm, "way", PLAIN)
    for fast, slow in zip(found, lm.losses(REQUESTS, [0.0, 0.5]), strict=True):
        assert np.abs(fast - slow).max() < 0.5


@pytest.mark.parametrize("kind", ["mamba", "gpt2", "gpt_neo", "bloom", "opt", "phi"])
def test_any_causal_model_can_be_scored(smollm: LocalLM, tmp_path: Path, kind: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4},
        "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
        "bloom": {"n_layer": 2, "n_head": 4},
        "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "mamba": {"state_size": 4},
    }
    lm = make(tmp_path, smollm, kind, **settings.get(kind, {}))
    check(lm)
    assert len(lm.generate(["Which river?"], 2)) == 1


def test_the_plain_way_is_the_fast_way(smollm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = smollm.losses(REQUESTS, [0.0, 0.5])
    monkeypatch.setattr(smollm, "way", PLAIN)
    for one, other in zip(fast, smollm.losses(REQUESTS, [0.0, 0.5]), strict=True):
        assert np.abs(one - other).max() < 1e-4


def test_plain_passes_are_as_many_as_prompts_and_answers(smollm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    as_it_is = plain.answer_logits

    def counted(lm: LocalLM, prompt: list[int], answer: list[int]) -> Any:
        passes.append(len(prompt))
        return as_it_is(lm, prompt, answer)

    monkeypatch.setattr(plain, "answer_logits", counted)
    monkeypatch.setattr(smollm, "way", PLAIN)
    smollm.losses(REQUESTS[:1], [0.0, 0.5])
    assert len(passes) == 2 * 3  # two answers; two different prompts and the one without a passage
