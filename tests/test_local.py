from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.lms import scoring
from gainrag.lms.local import LocalLM
from gainrag.lms.means import Means
from gainrag.lms.scoring import hidden_states
from gainrag.prompts import PromptForm, for_model
from gainrag.protocols import FloatArray, ScoringRequest
from gainrag.records import Passage
from tests.plain_loss import plain_loss

PASSAGES = [
    Passage(
        id="1",
        title="Seine",
        text="The Seine is a river in northern France. It flows through Paris and Rouen to the sea.",
    ),
    Passage(id="2", title="", text="Berlin lies on the Spree."),
    Passage(id="3", title="Rivers", text="Long rivers carry water. " * 30),
]
QUESTION = "Which river flows through Paris?"
# Aliases with common prefixes, one the beginning of another, a single token, a repeat, and letters beyond ASCII.
ANSWERS = ["the Seine", "the Seine river", "the", "Seine", "Seine", "la Séine (Sequana)", "the Seine River in France"]


def request(lm: LocalLM, form: str = "completion") -> ScoringRequest:
    prompts = for_model(form, lm)
    return ScoringRequest(
        [prompts.with_passages(QUESTION, [p], reserve=64) for p in PASSAGES],
        prompts.without(QUESTION),
        [prompts.scored_answer(a) for a in ANSWERS],
    )


def losses_both_ways(lm: LocalLM, asked: ScoringRequest, alphas: list[float]) -> FloatArray:
    """[way, passage, answer, alpha]. What is done at once, and whether a pack's rows are stacked or stand beside one
    another, depends on settings alone: the GPU's ways run on a CPU, too."""
    kind, means, found = lm.kind, lm.means, []
    try:
        for lm.kind, lm.means in (("cpu", Means()), ("cuda", Means()), ("cuda", Means(beside=True, shared=True))):
            found.append(lm.losses([asked], alphas)[0])
    finally:
        lm.kind, lm.means = kind, means
    return np.stack(found)


@pytest.mark.parametrize("form", get_args(PromptForm))
def test_losses_are_those_of_one_pass_a_passage_and_alias(smollm: LocalLM, form: str) -> None:
    asked = request(smollm, form)
    alphas = [0.0, 0.5, 2.0]
    found = losses_both_ways(smollm, asked, alphas)
    for p, prompt in enumerate(asked.with_prompts):
        for a, answer in enumerate(asked.answers):
            for x, alpha in enumerate(alphas):
                plain = plain_loss(smollm, prompt, asked.without_prompt, answer, alpha)
                assert found[:, p, a, x] == pytest.approx(plain, abs=1e-4), (p, answer, alpha)


TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("gemma2", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "sliding_window": 16}),
        ("gemma3_text", {"sliding_window": 16, "query_pre_attn_scalar": 8}),
        ("granite", {"logits_scaling": 0.25, "residual_multiplier": 0.5}),
        ("cohere", {"logit_scale": 4.0}),
        ("qwen3", {}),
    ],
)
def test_what_a_model_does_to_its_logits_is_kept(
    smollm: LocalLM, kind: str, own: dict[str, float], tmp_path: Path
) -> None:
    """Small models with random weights, of architectures that cap or scale their logits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=smollm.vocabulary, **TINY, **own)
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1.0)  # so that logits differ and are capped
    model.save_pretrained(tmp_path)
    smollm.tokenizer.save_pretrained(tmp_path)
    lm = LocalLM(str(tmp_path), dtype="float32")
    asked = request(smollm)
    found = losses_both_ways(lm, asked, [0.0, 0.5])
    for p, prompt in enumerate(asked.with_prompts):
        for a in (0, 5):
            plain = plain_loss(lm, prompt, asked.without_prompt, asked.answers[a], 0.5)
            assert found[:, p, a, 1] == pytest.approx(plain, abs=1e-4)


def test_alpha_zero_is_the_plain_loss_whatever_the_question_says(smollm: LocalLM) -> None:
    asked = request(smollm)
    other = ScoringRequest(asked.with_prompts, "Something else:", asked.answers)
    assert np.array_equal(smollm.losses([asked], [0.0])[0], smollm.losses([other], [0.0])[0])


def test_equal_prompts_cancel(smollm: LocalLM) -> None:
    same = ScoringRequest(["Question: who?\nAnswer:"], "Question: who?\nAnswer:", [" Ann", " Bo Li"])
    found = smollm.losses([same], [0.0, 0.5, 4.0])[0]
    assert found[0, :, 1] == pytest.approx(found[0, :, 0], abs=1e-4)
    assert found[0, :, 2] == pytest.approx(found[0, :, 0], abs=1e-4)


def test_a_question_scores_the_same_alone_and_in_a_batch(smollm: LocalLM) -> None:
    asked = request(smollm)
    alone = [
        smollm.losses([ScoringRequest([p], asked.without_prompt, asked.answers)], [0.5])[0] for p in asked.with_prompts
    ]
    together = smollm.losses([asked, asked], [0.5])
    assert np.abs(together[0] - np.concatenate(alone)).max() < 1e-4
    assert np.abs(together[0] - together[1]).max() < 1e-4


@pytest.mark.parametrize(
    ("bound", "size"),
    [
        ("scoring.PACK_TOKENS", {"cpu": 64}),
        ("scoring.HIDDEN", 1),
        ("projection.LOGITS", {"cpu": 1}),
        ("projection.LOGITS", {"cpu": 7 * 49152}),
        ("projection.CHUNK", {"cpu": 1}),
        ("projection.CHUNK", {"cpu": 2 * 49152}),
    ],
)
def test_how_much_is_done_at_once_changes_nothing(
    smollm: LocalLM, bound: str, size: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(smollm), ScoringRequest(["One"], "Two", [" three four", " five"])]
    whole = smollm.losses(asked, [0.0, 0.5])
    monkeypatch.setattr(f"gainrag.lms.{bound}", size)
    for expected, found in zip(whole, smollm.losses(asked, [0.0, 0.5]), strict=True):
        assert np.abs(found - expected).max() < 1e-4


def test_more_answers_are_no_more_logits_at_a_time(smollm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainrag.lms.projection.LOGITS", {"cpu": 16 * smollm.vocabulary})
    asked = request(smollm)
    many = replace(asked, answers=[f" {i} {n} of them" for i in range(8) for n in range(8)])
    held: list[int] = []
    seen = smollm.model.get_output_embeddings().register_forward_hook(lambda *call: held.append(call[2].numel()))
    try:
        smollm.losses([asked, many], [0.5])
    finally:
        seen.remove()
    assert max(held) <= 16 * smollm.vocabulary


def test_a_prompt_runs_once_however_often_it_stands_there(smollm: LocalLM) -> None:
    asked = request(smollm)
    twice = replace(asked, with_prompts=[*asked.with_prompts, asked.without_prompt, *asked.with_prompts])
    before = smollm.throughput.tokens
    whole = smollm.losses([asked], [0.5])[0]
    once = smollm.throughput.tokens - before
    found = smollm.losses([twice], [0.5])[0]
    assert smollm.throughput.tokens - before == 2 * once
    assert np.abs(found[:3] - whole).max() < 1e-4
    assert np.array_equal(found[:3], found[4:])


def test_generation_is_greedy_and_the_same_in_any_batch(smollm: LocalLM) -> None:
    import torch

    prompts = ["The capital of France is", "Question: What is two plus two?\nAnswer:", "One, two, three,"]
    together = smollm.generate(prompts, 8)
    assert together == [smollm.generate([prompt], 8)[0] for prompt in prompts]
    smollm.model.set_attn_implementation("sdpa")
    ids = smollm.prompt_ids(prompts[0])
    for _ in range(8):
        with torch.inference_mode():
            ids.append(int(smollm.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert together[0] == smollm.tokenizer.decode(ids[-8:], skip_special_tokens=True)


@pytest.mark.parametrize("bound", ["GENERATION_CACHE", "GENERATION_TOKENS"])
def test_rows_generated_together_are_bounded(smollm: LocalLM, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smollm.model.config
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4  # float32
    most = {"GENERATION_CACHE": 10 * 100 * a_token, "GENERATION_TOKENS": {"cpu": 10 * 100}}[bound]
    monkeypatch.setattr(f"gainrag.lms.local.{bound}", most)
    lengths = [100] * 23 + [400, 5000]
    batches = list(smollm._batches(range(len(lengths)), lengths))
    assert [len(batch) for batch in batches] == [10, 10, 3, 1, 1]
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))


def test_stopping_saves_what_is_behind_the_stop(smollm: LocalLM) -> None:
    prompt = ["Answer the question below concisely in a few words.\nQuestion: What is the capital of France?\nAnswer:"]
    whole = smollm.generate(prompt, 24)[0].lstrip(" ").split("\n")[0]
    stopped = smollm.generate_until(prompt, 24, "\n")[0].lstrip(" ").split("\n")[0]
    assert stopped == whole


def test_a_long_passage_is_cut_at_its_end_and_the_question_never(
    smollm: LocalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm, "context", 120)
    prompts = for_model("completion", smollm)
    long = Passage(id="l", title="Long", text="First words stay. " + "Later words may go. " * 200)
    prompt = prompts.with_passages(QUESTION, [long], reserve=16)
    assert smollm.count_tokens(prompt) + 16 <= 120
    assert "First words stay." in prompt
    assert prompt.endswith(prompts.without(QUESTION))
    with pytest.raises(DataError, match="the question has 201 tokens"):
        prompts.with_passages("why " * 200, [long], reserve=16)


def test_a_stop_of_one_character_is_found_in_any_token(smollm: LocalLM) -> None:
    prompts = ["Question: Who?\nAnswer: Ann\nQuestion: Who?\nAnswer:", "1\n2\n3\n", "The end of the story is"]
    whole = smollm.generate(prompts, 12)
    for stop in ("\n", "e", "\nQ"):
        stopped = smollm.generate_until(prompts, 12, stop)
        assert [text.split(stop)[0] for text in stopped] == [text.split(stop)[0] for text in whole]
    assert sum(map(len, smollm.generate_until(prompts, 12, "e"))) < sum(map(len, whole))


@pytest.mark.parametrize(("answers", "what"), [([], "no answers"), (["  "], "no tokens"), ([" x", ""], "no tokens")])
def test_answers_that_cannot_be_scored(smollm: LocalLM, answers: list[str], what: str) -> None:
    with pytest.raises(DataError, match=what):
        smollm.losses([ScoringRequest(["a"], "b", answers)], [0.0])


def test_nan_from_the_model_is_an_error(smollm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(smollm)
    monkeypatch.setattr(scoring, "hidden_states", lambda lm, rows: hidden_states(lm, rows) * float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        smollm.losses([asked], [0.0])


def test_unknown_models_and_forms_are_one_line(smollm: LocalLM) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        LocalLM("embedded:smollm2-135m-instuct")
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        LocalLM("nobody/no-such-model")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="completion, chat or instruction_first"):
        for_model("chit-chat", smollm)


def test_real_triples(smollm: LocalLM) -> None:
    """(question, passage, alias) of the demo's data, against the plain way; benchmarks/exactness.py takes more."""
    from gainrag.demo import load

    questions, _, corpus = load()
    passages = {p.id: p for p in corpus}
    prompts, worst = for_model("completion", smollm), 0.0
    triples = [(q, passages[key], alias) for q in questions for key in q.extra["outright"] for alias in q.answers][::4][
        :25
    ]
    assert len(triples) == 25
    for question, passage, alias in triples:
        with_prompt, without = (
            prompts.with_passages(question.question, [passage], reserve=64),
            prompts.without(question.question),
        )
        answer = prompts.scored_answer(alias)
        found = smollm.losses([ScoringRequest([with_prompt], without, [answer])], [0.0, 0.5])[0][0, 0]
        for alpha, loss in zip((0.0, 0.5), found, strict=True):
            worst = max(worst, abs(loss - plain_loss(smollm, with_prompt, without, answer, alpha)))
    assert worst < 1e-4
