"""llama.cpp's own server, with the embedded model: exact losses, as far as its arithmetic goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gainrag.errors import ConfigError, ModelError
from gainrag.lms import examine, open_lm
from gainrag.lms.remote.scorer import RemoteScorer
from gainrag.protocols import ScoringRequest

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

QUESTION = "\n\nQuestion: What is the capital of France?\nAnswer:"
REQUEST = ScoringRequest(
    with_prompts=["Paris is the capital of France." + QUESTION, "Mice eat cheese." + QUESTION],
    without_prompt=QUESTION.strip(),
    answers=[" Paris", " Paris, France"],
)


@pytest.fixture(scope="module")
def lm(llama_server: str) -> RemoteScorer:
    found = open_lm(model=f"{llama_server}#smollm2", concurrency=2, timeout=600.0)
    assert isinstance(found, RemoteScorer)
    return found


def test_losses_are_those_of_the_same_weights_here(lm: RemoteScorer, smollm: LocalLM) -> None:
    alphas = [0.0, 0.5]
    theirs, ours = lm.losses([REQUEST], alphas)[0], smollm.losses([REQUEST], alphas)[0]
    assert lm.level == "exact"
    # It multiplies the 4-bit weights with activations of 8 bits.
    np.testing.assert_allclose(theirs, ours, atol=0.3)


def test_at_alpha_0_the_few_most_likely_tokens_say_the_same(lm: RemoteScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = ScoringRequest(REQUEST.with_prompts[1:], REQUEST.without_prompt, [" Paris"])
    few = lm.losses([rare], [0.0])[0]
    monkeypatch.setattr("gainrag.lms.remote.llama_cpp.FEW", 1)  # then the whole vocabulary is sent
    np.testing.assert_allclose(lm.losses([rare], [0.0])[0], few, atol=1e-3)


def test_it_tokenizes_as_the_model_does_here(lm: RemoteScorer, smollm: LocalLM) -> None:
    prompt = REQUEST.with_prompts[0]
    assert lm.engine.tokens is not None
    assert lm.engine.tokens.prompts([prompt])[0] == smollm.prompt_ids(prompt)
    assert lm.engine.tokens.answers([" Paris, France"])[0] == smollm.answer_ids(" Paris, France")
    message = lm.render_chat("Who wrote Emma?")
    assert lm.engine.tokens.chats([message])[0] == smollm.prompt_ids(smollm.render_chat("Who wrote Emma?"))
    assert lm.truncate("Paris is the capital", 2) == "Paris is"


def test_its_completions_ignore_echo(llama_server: str) -> None:
    lm = open_lm(model=f"{llama_server}#smollm2", engine="echo", retries=0, timeout=600.0)
    assert isinstance(lm, RemoteScorer)
    with pytest.raises(ModelError, match="echo"):
        lm.losses([REQUEST], [0.0])


def test_it_takes_no_settings_of_bounds(llama_server: str) -> None:
    with pytest.raises(ConfigError, match="top_logprobs"):
        open_lm(model=f"{llama_server}#smollm2", top_logprobs=20)


def test_engines_says_what_it_can_do(llama_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainrag.lms.remote.examining.PASSAGES", 1)
    monkeypatch.setattr("gainrag.lms.remote.examining.SENTENCE", "It was built in the spring. ")
    lines = list(examine(llama_server, timeout=600.0))
    assert "llama.cpp" in lines[0]
    assert "2,048 tokens" in lines[1]
    assert "exact, at every alpha" in lines[2]
