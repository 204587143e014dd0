from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainrag.augmentation import augment
from gainrag.errors import ConfigError, DataError
from gainrag.lms.local import LocalLM
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Passage, Retrieved
from gainrag.runs.tuning import plain_regret, tune
from gainrag.selection import select
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.scoring import TOKENS, make_batches, score_pairs
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training import train
from gainrag.training.distillation import open_cross_encoder
from gainrag.training.labels import Labels, split


def test_list_net_on_gains_has_the_gradient_of_the_kl_distillation() -> None:
    import torch
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    class Scores(torch.nn.Module):
        """A stand-in for a cross-encoder whose parameters are the scores themselves."""

        num_labels = 1
        device = torch.device("cpu")

        def __init__(self, scores: torch.Tensor) -> None:
            super().__init__()
            self.scores = torch.nn.Parameter(scores)

        def preprocess(self, pairs: list[tuple[str, str]], **_: object) -> dict[str, torch.Tensor]:
            return {"at": torch.tensor([int(passage) for _, passage in pairs])}

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"scores": self.scores[features["at"]]}

    rng = np.random.default_rng(0)
    temperature = 0.5
    for size in (2, 5, 16):
        gains = torch.tensor(-np.log1p(np.exp(rng.normal(1, 2, size))), dtype=torch.float32)
        start = torch.tensor(rng.normal(0, 3, size), dtype=torch.float32)
        model = Scores(start.clone())
        loss = ListNetLoss(model)
        loss([["q"], [[str(i) for i in range(size)]]], [gains / temperature]).backward()

        scores = start.double().clone().requires_grad_()
        p = torch.softmax(gains.double() / temperature, 0)
        q = torch.log_softmax(scores, 0)
        (p * (p.log() - q)).sum().backward()  # type: ignore[no-untyped-call]
        assert model.scores.grad is not None
        assert scores.grad is not None
        assert (model.scores.grad.double() - scores.grad).abs().max() < 1e-6


@pytest.fixture
def gains(candidates: list[Retrieved]) -> list[GainRecord]:
    return synthesize(candidates, OverlapLM(), alpha=0.0)


def test_a_trained_selector_is_a_plain_cross_encoder_that_prefers_high_gain(
    gains: list[GainRecord], candidates: list[Retrieved], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import CrossEncoder

    out = tmp_path / "selector"
    facts = {"LLM": "overlap", "data": "cities"}
    trained = train(
        gains[:16], out, facts, temperature=0.5, epochs=6, learning_rate=3e-4, groups_per_step=4, validation=0.2
    )
    assert capfd.readouterr().out == ""  # standard output is for data
    chosen = select(candidates[16:20], trained, k=1)
    assert [record.ctxs[0].id[-1] for record in chosen] == ["c"] * 4

    question, passages = candidates[1].question, candidates[1].ctxs
    plain = CrossEncoder(str(out)).predict([(question, passage.text) for passage in passages])
    exact = CrossEncoderSelector(out, dtype="float32").score(question, passages)
    assert exact.tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    card = (out / "README.md").read_text()
    assert "| LLM | overlap |" in card
    assert "| temperature | 0.5 |" in card
    assert "held-out cross-entropy" in card
    assert not list(out.glob("*.bin"))


def test_a_causal_language_model_may_be_the_base(gains: list[GainRecord], tmp_path: Path) -> None:
    """Its score is the log-odds of yes against no; only the layers asked for learn; the folder loads by itself."""
    import torch
    from sentence_transformers import CrossEncoder

    base, out = "embedded:smollm2-135m-instruct", tmp_path / "selector"
    before = open_cross_encoder(base, device="cpu", max_length=64, seed=0)
    train(gains[:8], out, base=base, last_layers=1, epochs=1, learning_rate=1e-3, max_length=64)
    after = CrossEncoder(str(out), device="cpu")
    layers = [model[0].auto_model.model.layers for model in (before, after)]
    moved = [
        not all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
        for old, new in zip(*layers, strict=True)
    ]
    assert moved == [False] * 29 + [True]
    long = "word " * 200
    shown = after.tokenizer.decode(after.preprocess([("Who?", long)])["input_ids"][0])
    assert shown.startswith("Question: Who?")
    assert shown.endswith("yes or no? Answer:")  # what is cut is the passage
    question, passages = gains[9].question, gains[9].ctxs
    plain = after.predict([(question, passage.text) for passage in passages])
    exact = CrossEncoderSelector(out, dtype="float32").score(question, passages)
    assert exact.tolist() == pytest.approx(plain.tolist(), abs=1e-3)


def test_more_layers_than_there_are_cannot_be_trained(gains: list[GainRecord], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="last_layers is 99 of 6"):
        train(gains[:8], tmp_path / "selector", last_layers=99)


def test_the_same_seed_gives_the_same_selector(gains: list[GainRecord], tmp_path: Path) -> None:
    scores = [
        train(gains[:8], tmp_path / name, epochs=1, seed=3).score(gains[9].question, gains[9].ctxs)
        for name in ("one", "two")
    ]
    assert scores[0].tolist() == scores[1].tolist()


def test_relevance_labels_need_no_gains(candidates: list[Retrieved], tmp_path: Path) -> None:
    selector = train(candidates[:8], tmp_path / "relevance", labels="relevance", epochs=1)
    assert selector.score("Who?", candidates[0].ctxs).shape == (3,)
    with pytest.raises(DataError, match="no gains"):
        train(candidates, tmp_path / "gain", labels="gain")


@pytest.mark.parametrize("labels", ["likelihood", "information_gain"])
def test_rival_labels_teach_the_same_lesson_where_the_model_is_clear(
    gains: list[GainRecord], candidates: list[Retrieved], tmp_path: Path, labels: Labels
) -> None:
    trained = train(
        gains[:16],
        tmp_path / "selector",
        labels=labels,
        temperature=0.5,
        epochs=6,
        learning_rate=3e-4,
        groups_per_step=4,
        validation=0.2,
        retrieval_prior=True,
    )
    assert trained.calibration is not None
    assert [record.ctxs[0].id[-1] for record in select(candidates[16:20], trained, k=1)] == ["c"] * 4
    assert plain_regret(trained, gains[16:]) == 0.0
    card = (tmp_path / "selector" / "README.md").read_text()
    assert f"| labels | {labels} |" in card
    assert "| alpha |" not in card  # they have none
    assert "held-out regret (nats)" in card


@pytest.mark.parametrize("base", ["encoder", "causal"])
@pytest.mark.parametrize("labels", ["gain", "information_gain"])
def test_how_many_pairs_go_through_at_once_changes_no_step(
    gains: list[GainRecord], tmp_path: Path, labels: Labels, base: str, smollm: LocalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A causal base, here one with random weights, is padded at the rows' beginning."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if base == "causal":
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama",
            vocab_size=smollm.vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / base)
        smollm.tokenizer.save_pretrained(tmp_path / base)
    own: dict[str, Any] = {"base": str(tmp_path / base)} if base == "causal" else {}
    own |= {"labels": labels, "epochs": 1, "groups_per_step": 4, "dropout": 0.0, "dtype": "float32"}
    for n, record in enumerate(gains):
        record.ctxs[n % 3].text += " and so on" * 20  # of unlike length, so that there is padding to leave away
    batches: list[int] = []

    def count(lengths: Sequence[int], tokens: int) -> list[list[int]]:
        made = make_batches(lengths, tokens)
        batches.append(len(made))
        return made

    monkeypatch.setattr("gainrag.selectors.scoring.make_batches", count)
    found, most = [], []
    for size in (200, 10_000):
        monkeypatch.setitem(TOKENS, "cpu", size)
        batches.clear()
        selector = train(gains[:10], tmp_path / str(size), group_size=3, learning_rate=1e-3, **own)
        most.append(max(batches))
        found.append(np.concatenate([selector.score(r.question, r.ctxs) for r in gains[10:14]]))
    assert most[0] > most[1] == 1
    assert np.abs(found[0] - found[1]).max() < 1e-2 * np.abs(found[1]).max()


def test_every_held_out_question_is_scored_once(
    candidates: list[Retrieved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = synthesize(augment(candidates[:10], OverlapLM()), OverlapLM(), alpha=0.0)
    gains[0].kept = False  # left out by the filter, and still asked about the lazy threshold
    asked: list[str] = []

    def count(model: Any, requests: Sequence[tuple[str, Sequence[Passage]]], **how: Any) -> list[FloatArray]:
        asked.extend(question for question, _ in requests)
        return score_pairs(model, requests, **how)

    monkeypatch.setattr("gainrag.training.distillation.score_pairs", count)
    trained = train(gains, tmp_path / "selector", epochs=1, validation=0.5, retrieval_prior=True)
    assert len(asked) == len(set(asked)) >= 4
    assert trained.laziness is not None
    assert trained.laziness.held_out


def test_nothing_to_learn_from_is_said(gains: list[GainRecord], tmp_path: Path) -> None:
    for record in gains:
        record.kept = False
    with pytest.raises(DataError, match="only_kept"):
        train(gains, tmp_path / "selector")


@pytest.mark.parametrize(
    "setting", [{"temperature": 0.0}, {"group_size": 1}, {"epochs": 0}, {"validation": 1.0}, {"learning_rate": -1.0}]
)
def test_settings_out_of_range(gains: list[GainRecord], tmp_path: Path, setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        train(gains, tmp_path / "selector", **setting)  # type: ignore[arg-type]


def test_a_folder_that_is_no_selector_is_not_overwritten(gains: list[GainRecord], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="not overwritten"):
        train(gains[:4], tmp_path / "thesis", epochs=1)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_tuning_keeps_the_setting_that_serves_held_out_questions_best(gains: list[GainRecord], tmp_path: Path) -> None:
    out = tmp_path / "selector"
    settings = {"validation": 0.3, "only_kept": False, "epochs": 4, "groups_per_step": 4}
    trials = tune(gains, out, {"LLM": "overlap"}, settings, learning_rate=[1e-9, 3e-4], temperature=[1.0])
    assert [trial.settings for trial in trials] == [{}, {"learning_rate": 1e-9}, {"learning_rate": 3e-4}]
    best = min(trials, key=lambda trial: trial.regret)
    assert [trial.best for trial in trials] == [trial is best for trial in trials]
    assert trials[1].regret > best.regret  # what hardly moves learns nothing
    held = split(gains, "gain", False, 0.3, np.random.default_rng(0))[1]
    assert plain_regret(CrossEncoderSelector(out), held) == pytest.approx(best.regret, abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["selector"]
    assert "| LLM | overlap |" in (out / "README.md").read_text()


def test_tuning_needs_held_out_questions(gains: list[GainRecord], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="held-out"):
        tune(gains, tmp_path / "selector", None, {"validation": 0.0}, temperature=[0.5])
