"""What happens in the epochs of a training: what is shown, how fast is learned, which epoch is kept, what is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gainrag.records import GainRecord, Retrieved
from gainrag.selectors.scoring import score_pairs
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training.epochs import Groups, Watch
from tests.cross_encoders import train


@pytest.fixture
def gains(candidates: list[Retrieved]) -> list[GainRecord]:
    return synthesize(candidates, OverlapLM(), alpha=0.0)


def test_each_epoch_shows_every_question_once_in_another_order_with_other_passages(
    gains: list[GainRecord], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for record in gains:
        record.ctxs = [record.ctxs[2], *(msgspec.structs.replace(record.ctxs[0], text=f"Rain {i}") for i in range(9))]
    own: dict[str, Any] = {"base": tiny, "epochs": 3, "group_size": 4, "groups_per_step": 4, "validation": 0.0}
    shown: list[tuple[int, int, tuple[str, ...]]] = []
    rows = Groups.rows

    def note(groups: Groups, number: int) -> list[dict[str, Any]]:
        found = rows(groups, number)
        shown.append((groups.epoch, number, tuple(found[0]["passages"])))
        return found

    monkeypatch.setattr(Groups, "rows", note)
    train(gains[:10], tmp_path / "one", **own)
    first = list(shown)
    assert [epoch for epoch, _, _ in first] == [1] * 10 + [2] * 10 + [3] * 10
    orders = [tuple(n for e, n, _ in first if e == epoch) for epoch in (1, 2, 3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == 3
    for number in range(10):
        visits = [passages for _, n, passages in first if n == number]
        assert all(len(set(visit)) == 4 for visit in visits)
        assert len({visit[0] for visit in visits}) == 1  # the best passage
        assert len({frozenset(visit) for visit in visits}) > 1

    shown.clear()
    train(gains[:10], tmp_path / "again", **own)
    assert shown == first
    shown.clear()
    train(gains[:10], tmp_path / "other", seed=1, **own)
    assert shown != first


def test_the_learning_rate_rises_and_falls_once_over_all_epochs(
    gains: list[GainRecord], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def note(_: Watch, *__: Any, lr_scheduler: Any, **___: Any) -> None:
        rates.append(lr_scheduler.get_last_lr()[0])

    monkeypatch.setattr(Watch, "on_step_end", note)
    train(gains[:10], tmp_path / "s", base=tiny, epochs=5, groups_per_step=5, learning_rate=0.1, warmup=0.2)
    assert rates == pytest.approx([0.05, 0.1, *(0.1 * left / 8 for left in range(7, -1, -1))])


def test_the_epoch_with_the_best_held_out_figure_is_kept(
    gains: list[GainRecord], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the second of four: the others are told to be worse."""
    import torch
    from sentence_transformers import CrossEncoder

    from gainrag.training import epochs
    from gainrag.training.held_out import judge

    figures = iter([3.0, 1.0, 2.0, 1.5])
    weights: list[dict[str, Any]] = []

    def score(model: Any, *given: Any, **how: Any) -> Any:
        weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return score_pairs(model, *given, **how)

    monkeypatch.setattr(epochs, "score_pairs", score)
    monkeypatch.setattr(epochs, "judge", lambda *given: judge(*given)._replace(cross_entropy=next(figures)))
    own: dict[str, Any] = {"base": tiny, "learning_rate": 0.01, "validation": 0.3, "keep_worse": True}
    train(gains, tmp_path / "s", epochs=4, **own)
    assert len(weights) == 4
    saved = dict(CrossEncoder(str(tmp_path / "s"), device="cpu").named_parameters())
    same = [all(torch.equal(p, saved[name]) for name, p in epoch.items()) for epoch in weights]
    assert same == [False, True, False, False]
    assert "| best epoch | 2 |" in (tmp_path / "s" / "README.md").read_text()


def test_loss_and_held_out_figures_are_printed_for_each_epoch(
    gains: list[GainRecord], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(gains, tmp_path / "s", base=tiny, epochs=2, keep_worse=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "\r" not in shown.err
    lines = [line for line in shown.err.splitlines() if line.startswith("epoch")]
    figure = r"\d+\.\d{4}"
    for n, line in enumerate(lines, 1):
        assert re.fullmatch(
            rf"epoch {n} of 2: training loss {figure}; \d+ held-out questions: cross-entropy {figure}, regret {figure}",
            line,
        )
    assert len(lines) == 2
    assert "held-out regret of the retriever's order" in (tmp_path / "s" / "README.md").read_text()


def test_with_few_questions_the_missing_figure_and_the_small_hope_are_said(
    gains: list[GainRecord], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(gains[:18], tmp_path / "s", base=tiny, epochs=1, groups_per_step=4)
    shown = capfd.readouterr().err
    assert "training on 18 questions, 0 held out" in shown
    assert "are not used" not in shown
    assert "no held-out figure, and no comparison with the retriever's order: fewer than 40 questions" in shown
    assert "seldom better than the retriever's order; 400 were enough" in shown
    assert re.search(r"epoch 1 of 1: training loss \d+\.\d{4}\n", shown)


def test_questions_that_are_not_used_are_counted(
    gains: list[GainRecord], tiny: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = [msgspec.structs.replace(record, kept=False) for record in gains[:3]]
    right = [msgspec.structs.replace(record, kept=True) for record in gains[3:18]]
    train([*wrong, *right], tmp_path / "s", base=tiny, epochs=1, groups_per_step=4)
    assert "3 of 18 questions are not used: the keep-filter left them out" in capfd.readouterr().err
