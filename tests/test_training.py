from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gainrag import training
from gainrag.augmentation import augment
from gainrag.errors import ConfigError, DataError, ModelError, ResourceError
from gainrag.files.streams import write
from gainrag.lms.local import LocalLM
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Passage, Retrieved, Scored
from gainrag.runs.tuning import plain_regret, tune
from gainrag.selection import select
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.scoring import TOKENS, make_batches, score_pairs
from gainrag.settings import parameters, settings_of
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training.base import open_cross_encoder
from gainrag.training.epochs import Watch
from gainrag.training.finishing import compare_with_shipped
from gainrag.training.held_out import check_order
from gainrag.training.labels import Example, Labels, split
from gainrag.training.settings import Settings, check_training
from tests.cross_encoders import train
from tests.small_run import RIVERS


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


def test_the_same_seed_gives_the_same_selector(gains: list[GainRecord], tiny: str, tmp_path: Path) -> None:
    scores = [
        train(gains[:8], tmp_path / name, base=tiny, epochs=1, seed=3).score(gains[9].question, gains[9].ctxs)
        for name in ("one", "two")
    ]
    assert scores[0].tolist() == scores[1].tolist()


def test_relevance_labels_need_no_gains(candidates: list[Retrieved], tiny: str, tmp_path: Path) -> None:
    selector = train(candidates[:8], tmp_path / "relevance", base=tiny, labels="relevance", epochs=1)
    assert selector.score("Who?", candidates[0].ctxs).shape == (3,)
    with pytest.raises(DataError, match="no gains"):
        train(candidates, tmp_path / "gain", labels="gain")


@pytest.mark.parametrize("labels", ["likelihood", "information_gain"])
def test_rival_labels_teach_the_same_lesson_where_the_model_is_clear(
    gains: list[GainRecord], candidates: list[Retrieved], tiny: str, tmp_path: Path, labels: Labels
) -> None:
    trained = train(
        gains[:16],
        tmp_path / "selector",
        base=tiny,
        labels=labels,
        temperature=0.5,
        epochs=16,
        learning_rate=2e-2,
        groups_per_step=4,
        validation=0.2,
        retrieval_prior=True,
    )
    assert isinstance(trained, CrossEncoderSelector)
    assert trained.calibration is not None
    assert [record.ctxs[0].id[-1] for record in select(candidates[16:20], trained, k=1)] == ["c"] * 4
    assert plain_regret(trained, gains[16:]) == 0.0
    card = (tmp_path / "selector" / "README.md").read_text()
    assert f"| labels | {labels} |" in card
    assert "| alpha |" not in card  # they have none
    assert "held-out regret (nats)" in card


@pytest.mark.parametrize(("labels", "base"), [("gain", "encoder"), ("information_gain", "causal")])
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
    candidates: list[Retrieved], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = synthesize(augment(candidates[:10], OverlapLM()), OverlapLM(), alpha=0.0)
    gains[0].kept = False  # left out by the filter, and still asked about the lazy threshold
    asked: list[str] = []

    def count(model: Any, requests: Sequence[tuple[str, Sequence[Passage]]], **how: Any) -> list[FloatArray]:
        asked.extend(question for question, _ in requests)
        return score_pairs(model, requests, **how)

    for module in ("epochs", "finishing"):
        monkeypatch.setattr(f"gainrag.training.{module}.score_pairs", count)
    own: dict[str, Any] = {"validation": 0.5, "retrieval_prior": True, "keep_worse": True}
    trained = train(gains, tmp_path / "selector", base=tiny, epochs=1, **own)
    assert len(asked) == len(set(asked)) >= 4
    assert trained.laziness is not None
    assert trained.laziness.held_out


@pytest.fixture
def easy(gains: list[GainRecord]) -> list[GainRecord]:
    """The retriever's first passage is the best one, so that a selector is seldom better."""
    for record in gains:
        record.ctxs.reverse()
    return gains


def settings(**changed: Any) -> Settings:
    return Settings(**settings_of(training.train, {"kind": "cross-encoder", **changed}))


def test_the_record_of_settings_has_the_parameters_of_train() -> None:
    assert list(Settings.__struct_fields__) == list(parameters(training.train))


@pytest.mark.parametrize(
    ("rate", "words"),
    [(1.0, "the same score|NaN"), (1e30, "learning_rate is 1e"), (10.0, "learning_rate is 10")],
)
def test_a_learning_rate_that_destroys_the_model_is_noticed(
    gains: list[GainRecord], tmp_path: Path, rate: float, words: str
) -> None:
    with pytest.raises((ModelError, ConfigError), match=words):
        train(gains[:8], tmp_path / "s", epochs=2, groups_per_step=2, learning_rate=rate)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("validation", [0.0, 0.3])
@pytest.mark.parametrize(("score", "words"), [(np.nan, "NaN or inf"), (np.inf, "NaN or inf"), (2.5, "same score")])
def test_a_selector_of_no_use_is_never_saved(
    gains: list[GainRecord],
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    score: float,
    words: str,
    validation: float,
) -> None:
    def broken(_: Any, requests: Sequence[tuple[str, Sequence[Passage]]], **__: Any) -> list[FloatArray]:
        return [np.full(len(passages), score) for _, passages in requests]

    earlier = train(gains[:8], tmp_path / "s", base=tiny, epochs=1, validation=0.0)
    for module in ("epochs", "finishing"):
        monkeypatch.setattr(f"gainrag.training.{module}.score_pairs", broken)
    with pytest.raises(ModelError, match=words):
        train(gains, tmp_path / "s", base=tiny, epochs=1, validation=validation, keep_worse=True)
    again = CrossEncoderSelector(tmp_path / "s")
    assert again.score("Who?", gains[0].ctxs).tolist() == earlier.score("Who?", gains[0].ctxs).tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_equal_scores_that_the_retrievers_order_are_no_reason_to_refuse(
    easy: list[GainRecord], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is judged is the score that the selector will give, the retrievers' part included."""

    def equal(_: Any, requests: Sequence[tuple[str, Sequence[Passage]]], **__: Any) -> list[FloatArray]:
        return [np.zeros(len(passages)) for _, passages in requests]

    for record in easy:
        for place, ctx in enumerate(record.ctxs):
            ctx.score = -float(place)
    for module in ("epochs", "finishing"):
        monkeypatch.setattr(f"gainrag.training.{module}.score_pairs", equal)
    selector = train(easy, tmp_path / "s", base=tiny, epochs=1, validation=0.3, retrieval_prior=True)
    assert isinstance(selector, CrossEncoderSelector)
    assert selector.calibration is not None
    assert selector.calibration.weights["retrieval"] > 0


def test_a_selector_worse_than_retrieval_is_saved_only_on_demand(
    easy: list[GainRecord], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own: dict[str, Any] = {"base": tiny, "epochs": 1, "learning_rate": 1e-9, "validation": 0.3}
    with pytest.raises(ModelError, match=r"worse than the retriever's order \(regret \d.*against 0\.0.*--keep-worse"):
        train(easy, tmp_path / "s", **own)
    assert list(tmp_path.iterdir()) == []
    capfd.readouterr()
    train(easy, tmp_path / "s", keep_worse=True, **own)
    assert "warning: the selector is worse than the retriever's order" in capfd.readouterr().err
    assert "| worse than the retriever's order | yes" in (tmp_path / "s" / "README.md").read_text()


def test_a_selector_worse_than_the_one_that_ships_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    held = []
    for i, (city, river) in enumerate(RIVERS.items()):
        texts = (f"{river} is the river that flows through {city}.", f"Rain falls on {city} in winter.")
        ctxs = [Scored(id=f"{i}{n}", text=text, score=2.0 - n) for n, text in enumerate(texts)]
        question = Retrieved(id=city, question=f"Which river flows through {city}?", answers=[river], ctxs=ctxs)
        held.append(Example(question, [-1.0, -3.0]))
    wrong, right = ([np.array(scores)] * len(held) for scores in ([0.0, 1.0], [1.0, 0.0]))
    settings = Settings(**settings_of(training.train, {}))
    figures = compare_with_shipped(wrong, held, settings)
    assert list(figures) == ["held-out regret of the selector that ships (nats), which is better"]
    assert "warning: the selector is worse than embedded:gain-features, which ships" in capsys.readouterr().err
    assert compare_with_shipped(right, held, settings) == {}
    # Labels of relevance do not judge what learned from gains, and a handful of questions judges nothing.
    assert compare_with_shipped(wrong, held, replace(settings, labels="relevance")) == {}
    assert compare_with_shipped(wrong[:4], held[:4], settings) == {}
    assert capsys.readouterr().err == ""


def test_a_handful_of_held_out_questions_refuse_nothing(
    easy: list[GainRecord], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(easy[:12], tmp_path / "s", base=tiny, epochs=1, learning_rate=1e-9, validation=1e-9)
    assert "on 1 held-out questions, too few to compare" in capfd.readouterr().err


def test_equal_labels_are_refused_before_training(gains: list[GainRecord], tmp_path: Path) -> None:
    for record in gains:
        for ctx in record.ctxs:
            ctx.gain, ctx.loss = -1.0, {"0.0": 1.0}
    with pytest.raises(DataError, match=r"no question is left to learn from .8 records.*whose gains differ"):
        train(gains[:8], tmp_path / "s", base="no such model, and not looked for")


def test_the_output_is_checked_before_anything_else(gains: list[GainRecord], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, words in ((tmp_path / "file", "is no selector folder"), (tmp_path / "file" / "s", "cannot be written")):
        with pytest.raises(DataError, match=words):
            train(gains[:4], out, base="no such model, and not looked for")


def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    gains: list[GainRecord], tiny: str, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: the system refuses to write in the same way."""
    earlier = train(gains[:8], tmp_path / "s", base=tiny, epochs=1).score("Who?", gains[0].ctxs)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(ResourceError, match="disk is full"):
            train(gains[:8], tmp_path / "s", base=tiny, epochs=1, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert CrossEncoderSelector(tmp_path / "s").score("Who?", gains[0].ctxs).tolist() == earlier.tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_an_interrupted_training_leaves_nothing(
    gains: list[GainRecord], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(Watch, "on_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(gains[:8], tmp_path / "s", base=tiny, epochs=2)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_training_leaves_is_swept_by_the_next_one(
    gains: list[GainRecord], tiny: str, tmp_path: Path
) -> None:
    """It is killed in its first epoch; all that it left lies beside the output."""
    code = (
        "import os, sys; from gainrag.training import train, epochs; from gainrag.files.streams import read;"
        "from gainrag.records import GainRecord; epochs.Watch.on_epoch_end = lambda *_, **__: os._exit(9);"
        "train(list(read(sys.argv[1], GainRecord)), sys.argv[2], kind='cross-encoder', base=sys.argv[3], epochs=2)"
    )
    write(tmp_path / "gains.jsonl", gains[:8])
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "gains.jsonl"), str(home / "s"), tiny]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert list(temporary.iterdir()) == []
    assert not (home / "s").exists()
    train(gains[:8], home / "s", base=tiny, epochs=1)
    assert [p.name for p in home.iterdir()] == ["s"]


def test_settings_that_need_held_out_questions() -> None:
    check_training(settings(retrieval_prior=True))  # left out: it depends on the number of questions
    check_training(settings(validation=0.0))
    with pytest.raises(ConfigError, match="warm: retrieval_prior needs held-out questions"):
        check_training(settings(retrieval_prior=True, validation=0.0), where="warm")
    with pytest.raises(ConfigError, match="tuning needs held-out questions"):
        check_training(settings(validation=0.0), tuned=True)


def test_the_retrieval_prior_needs_enough_questions(gains: list[GainRecord], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of 18 questions none is held out"):
        train(gains[:18], tmp_path / "s", base="no such model, and not looked for", retrieval_prior=True)


def test_nothing_to_learn_from_is_said(gains: list[GainRecord], tmp_path: Path) -> None:
    for record in gains:
        record.kept = False
    with pytest.raises(DataError, match="only_kept"):
        train(gains, tmp_path / "selector")


@pytest.mark.parametrize(
    "setting", [{"temperature": 0.0}, {"group_size": 1}, {"epochs": 0}, {"validation": 1.0}, {"learning_rate": -1.0}]
)
def test_settings_out_of_range(gains: list[GainRecord], tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        train(gains, tmp_path / "selector", **setting)


def test_a_folder_that_is_no_selector_is_not_overwritten(gains: list[GainRecord], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="is no selector folder"):
        train(gains[:4], tmp_path / "thesis", epochs=1)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_tuning_keeps_the_setting_that_serves_held_out_questions_best(
    gains: list[GainRecord], tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "selector"
    settings = {"kind": "cross-encoder", "base": tiny, "validation": 0.3, "only_kept": False, "epochs": 4}
    settings |= {"groups_per_step": 4, "learning_rate": 1e-9}
    trials = tune(gains, out, {"LLM": "overlap"}, settings, learning_rate=[1e-9, 3e-2], temperature=[0.25], seeds=1)
    assert [trial.settings for trial in trials] == [{}, {"learning_rate": 3e-2}]
    best = min(trials, key=lambda trial: trial.regret)
    assert [trial.best for trial in trials] == [trial is best for trial in trials]
    assert trials[0].regret > best.regret  # what hardly moves learns nothing
    held = split(gains, "gain", False, 0.3, np.random.default_rng(0))[1]
    assert plain_regret(CrossEncoderSelector(out), held) == pytest.approx(best.regret, abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["selector"]
    assert "| LLM | overlap |" in (out / "README.md").read_text()


def test_tuning_compares_means_over_seeds_and_keeps_the_first(
    easy: list[GainRecord], tiny: str, tmp_path: Path
) -> None:
    shared = {"base": tiny, "validation": 0.3, "epochs": 1, "learning_rate": 1e-3, "seed": 5}
    trials = tune(easy, tmp_path / "s", None, {"kind": "cross-encoder", **shared}, temperature=[0.5], seeds=2)
    held = split(easy, "gain", True, 0.3, np.random.default_rng(5))[1]
    alone = []
    for seed in (5, 6):
        own: dict[str, Any] = {**shared, "seed": seed, "keep_worse": True}
        alone.append(plain_regret(train(easy, tmp_path / str(seed), None, **own), held))
    assert trials[0].regrets == pytest.approx(alone, abs=1e-6)
    assert [trial.regret for trial in trials] == [pytest.approx(np.mean(trial.regrets)) for trial in trials]
    assert trials[0].best == (trials[0].regret <= trials[1].regret)
    kept = plain_regret(CrossEncoderSelector(tmp_path / "s"), held)
    assert kept == pytest.approx(next(trial for trial in trials if trial.best).regrets[0], abs=1e-6)


def test_tuning_needs_held_out_questions(gains: list[GainRecord], tmp_path: Path) -> None:
    for records, validation in ((gains, 0.0), (gains[:18], None)):
        with pytest.raises(ConfigError, match="held-out"):
            tune(records, tmp_path / "selector", None, {"validation": validation}, temperature=[0.5])


def test_tuning_goes_on_where_a_value_destroys_the_model_and_keeps_nothing_of_it(
    easy: list[GainRecord],
    tiny: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """None is better than retrieval here; they are compared with one another all the same."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    shared = {"kind": "cross-encoder", "base": tiny, "validation": 0.3, "epochs": 1, "learning_rate": 1e-9}
    monkeypatch.setattr("gainrag.training.finishing.check_order", refuse_second(check_order))
    trials = tune(easy, tmp_path / "s", None, shared, temperature=[0.5, 2.0], seeds=1)
    assert [trial.settings for trial in trials] == [{}, {"temperature": 2.0}]
    assert "temperature 0.5 is left out: train: the trained selector gives" in capfd.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert not [p.name for p in (tmp_path / "s").iterdir() if p.name.startswith(".")]


def refuse_second(check: Callable[[Sequence[FloatArray]], None]) -> Callable[[Sequence[FloatArray]], None]:
    """`check`, which the second time is given scores that are all equal."""
    calls: list[int] = []

    def found(scores: Sequence[FloatArray]) -> None:
        calls.append(1)
        check([np.zeros(3)] if len(calls) == 2 else scores)

    return found
