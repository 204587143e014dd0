"""How a GPU is kept busy changes no loss: all of it runs on a CPU here, but for the capture of graphs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gainrag.errors import DataError, ResourceError
from gainrag.lms import gpu, graphs, memory
from gainrag.lms.batches import common_beginning, make_batches
from gainrag.lms.graphs import Graphs
from gainrag.lms.local import LocalLM
from gainrag.lms.means import Means
from gainrag.lms.packing import AnswerTree, Row
from gainrag.lms.reduction import Outputs
from gainrag.models.ahead import ahead
from gainrag.protocols import FloatArray, ScoringRequest
from tests.test_ways import make

ALPHAS = [0.0, 0.5]
FIXED = "Answer the question in a few words, and only from what the passage says of it, as in the example.\n\n"


def requests_of(n: int) -> list[ScoringRequest]:
    """Questions whose prompts begin alike, with passages of many lengths, one of them twice, and several answers."""
    passages = [f"Passage: river {i}. " + "It flows through many towns. " * (i % 5) for i in range(6)]
    return [
        ScoringRequest(
            with_prompts=[f"{FIXED}{text}Which river is {q}?" for text in [*passages[q % 3 :], passages[-1]]],
            without_prompt=f"{FIXED}Which river is {q}?",
            answers=[" the Seine", " the Seine river", " Rhine", f" the {q}th of them"][: 1 + q % 4],
        )
        for q in range(n)
    ]


@pytest.fixture(scope="module")
def tiny_lm(smollm: LocalLM, tmp_path_factory: pytest.TempPathFactory) -> LocalLM:
    return make(tmp_path_factory.mktemp("tiny_lm"), smollm, "llama", num_key_value_heads=2)


@pytest.fixture
def lm(tiny_lm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> LocalLM:
    """A small model that scores as on a GPU, with all means that a CPU has, too."""
    for name, value in (
        ("means", Means(beside=True, ahead=True, shared=True)),
        ("way", None),
        ("graphs", Graphs()),
        ("batch_tokens", None),
        ("short_of_memory", False),
    ):
        monkeypatch.setattr(tiny_lm, name, value)
    return tiny_lm


@pytest.fixture(scope="module")
def expected(tiny_lm: LocalLM) -> list[FloatArray]:
    """What the CPU's own way says."""
    return tiny_lm.losses(requests_of(9), ALPHAS)


def check(lm: LocalLM, expected: Sequence[FloatArray]) -> None:
    for found, own in zip(lm.losses(requests_of(9), ALPHAS), expected, strict=True):
        assert np.abs(found - own).max() < 1e-4


@pytest.mark.parametrize("tokens", [64, 500, 2**14])
@pytest.mark.parametrize("shared", [False, True])
def test_padding_and_a_shared_beginning_change_nothing(
    lm: LocalLM, expected: list[FloatArray], tokens: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "BATCH_TOKENS", tokens)
    monkeypatch.setattr(gpu, "FIRST_WINDOW", 2)
    lm.means = Means(beside=True, shared=shared)
    before = lm.throughput.tokens
    check(lm, expected)
    run = lm.throughput.tokens - before
    before = lm.throughput.tokens
    lm.means = Means()
    lm.losses(requests_of(9), ALPHAS)
    whole = lm.throughput.tokens - before
    assert run < 0.8 * whole if shared and tokens > 64 else run >= whole


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_a_sliding_window_reaches_into_the_shared_beginning(smollm: LocalLM, tmp_path: Path, kind: str) -> None:
    lm = make(tmp_path, smollm, kind, sliding_window=24, num_key_value_heads=2, head_dim=8)
    own = lm.losses(requests_of(3), ALPHAS)
    lm.means = Means(beside=True, shared=True)
    for found, other in zip(lm.losses(requests_of(3), ALPHAS), own, strict=True):
        assert np.abs(found - other).max() < 1e-4


def test_several_alphas_without_a_contrast_and_errors_of_the_thread(lm: LocalLM, expected: list[FloatArray]) -> None:
    for found, own in zip(lm.losses(requests_of(9), [0.0]), expected, strict=True):
        assert np.abs(found - own[:, :, :1]).max() < 1e-4
    with pytest.raises(DataError, match="no tokens"):
        lm.losses([*requests_of(9), ScoringRequest(["a"], "b", [" "])], ALPHAS)
    assert not [thread for thread in threading.enumerate() if thread.name == "gainrag-ahead"]


def without_memory_above(tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on a batch of more tokens does not fit; the sizes of those that did."""
    import torch

    as_it_is, fitted = gpu._layers, list[int]()

    def layers(lm: Any, ids: torch.Tensor, *more: Any) -> torch.Tensor:
        if ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        fitted.append(ids.numel())
        return as_it_is(lm, ids, *more)

    monkeypatch.setattr(gpu, "_layers", layers)
    return fitted


def test_out_of_memory_halves_the_batches_and_loses_nothing(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lm.losses(requests_of(1), ALPHAS)
    monkeypatch.setattr(memory, "SMALLEST", 64)
    monkeypatch.setattr(gpu, "SMALLEST", 64)
    fitted = without_memory_above(700, monkeypatch)
    check(lm, expected)
    assert max(fitted) <= 700
    assert lm.batch_tokens is not None
    assert lm.batch_tokens <= 700
    check(lm, expected)
    assert [record.getMessage() for record in caplog.records] == [
        f"{lm.name}: out of memory on the GPU; from here on with smaller batches"
    ]


def test_out_of_memory_with_a_single_prompt_is_an_error(lm: LocalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    lm.losses(requests_of(1), ALPHAS)
    without_memory_above(20, monkeypatch)
    with pytest.raises(ResourceError, match="out of memory"):
        lm.losses(requests_of(1), ALPHAS)


def test_out_of_memory_for_logits(lm: LocalLM, expected: list[FloatArray]) -> None:
    import torch

    def head(_: Any, given: tuple[torch.Tensor]) -> None:
        if given[0].shape[-2] > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")

    lm.losses(requests_of(1), ALPHAS)
    hook = lm.model.get_output_embeddings().register_forward_pre_hook(head)
    try:
        check(lm, expected)
    finally:
        hook.remove()


def test_the_size_of_a_batch_is_measured(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    peak = [0]
    for name, value in (
        ("synchronize", None),
        ("reset_peak_memory_stats", None),
        ("memory_allocated", 2**30),
        ("memory_reserved", 2**31),
        ("mem_get_info", (7 * 2**30, 2**34)),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 2**30 + peak[0])
    # 8 GB are free, of which batches may take 30%.
    peak[0] = 2**28
    assert memory.measure_batch(lm, lambda: None, 2**12) == 2**15
    lm.means = Means(beside=True, measured=True)
    check(lm, expected)
    assert lm.batch_tokens == 2**15
    peak[0] = 2**40
    assert memory.measure_batch(lm, lambda: None, 2**12) == memory.SMALLEST
    peak[0] = 1
    assert memory.measure_batch(lm, lambda: None, 2**12) == memory.LARGEST


class Replayed(Graphs):
    """Graphs whose capture is the call itself, on the tensors that were there when it was captured."""

    def __init__(self) -> None:
        super().__init__()
        self.captures, self.replays = 0, 0

    def _capture(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        self.captures += 1
        out = call().clone().fill_(float("nan"))

        def replay() -> None:
            self.replays += 1
            out.copy_(call())

        return replay, out


def test_a_shape_that_comes_again_is_replayed(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "BATCH_TOKENS", 256)
    lm.means, lm.graphs = Means(beside=True, graphs=True, shared=True), Replayed()
    check(lm, expected)
    assert lm.way is not None
    assert lm.way.swift
    check(lm, expected)
    captures, replays = lm.graphs.captures, lm.graphs.replays
    check(lm, expected)
    assert lm.graphs.captures == captures
    assert lm.graphs.replays > replays > captures > 2


def test_what_cannot_be_captured_runs_as_it_is(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Graphs, "_capture", lambda self, call: 1 / 0)
    lm.means = Means(beside=True, graphs=True)
    for _ in range(3):
        check(lm, expected)
    assert ["without CUDA graphs" in record.getMessage() for record in caplog.records] == [True]


def test_rows_that_cannot_stand_beside_one_another_are_packed_as_on_a_cpu(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "bias_of", lambda *_: 1 / 0)
    check(lm, expected)
    assert lm.way is not None
    assert (lm.way.packed, lm.means) == (True, Means())


def test_replays_that_differ_are_not_used(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stale(self: Graphs, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        return lambda: None, call() + 1

    monkeypatch.setattr(Graphs, "_capture", stale)
    lm.means = Means(beside=True, graphs=True)
    check(lm, expected)
    assert lm.way is not None
    assert not lm.way.swift
    assert "without compiled layers and CUDA graphs" in caplog.text


def test_compiled_layers_give_the_same_and_are_compiled_once(
    lm: LocalLM, expected: list[FloatArray], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    monkeypatch.setattr(graphs, "BACKEND", "eager")
    lm.means = Means(beside=True, compiled=True)
    with caplog.at_level(logging.WARNING):
        check(lm, expected)
        assert lm.way is not None
        assert lm.way.swift
        made = torch._dynamo.utils.counters["frames"]["ok"]
        monkeypatch.setattr(gpu, "BATCH_TOKENS", 300)
        check(lm, expected)
    assert torch._dynamo.utils.counters["frames"]["ok"] <= made + 1
    assert not caplog.records
    assert len(lm.generate(["Which river?"], 2)) == 1


@pytest.mark.parametrize("shared", [0, 16])
def test_batches_hold_every_row_once_in_few_shapes(shared: int) -> None:
    tree = AnswerTree.build([[1, 2, 3], [1, 4]])
    lengths = np.random.default_rng(0).integers(shared + 1, 300, 400).tolist()
    rows = [Row([0] * n, tree, (0, i)) for i, n in enumerate(lengths)]
    batches = list(
        make_batches(rows, lambda row: np.zeros(3, np.int64), tokens=lambda: 2048, shared=shared, pinned=False)
    )
    assert sorted(row.owner[1] for batch in batches for row in batch.rows) == list(range(400))
    cells = [batch.shape.rows * batch.shape.length for batch in batches]
    assert max(cells) <= 2048
    assert sum(batch.tokens for batch in batches) > 0.8 * sum(cells)
    assert len({batch.shape for batch in batches}) < len(batches) * 0.8


def test_a_common_beginning_leaves_each_prompt_a_token() -> None:
    long, short = list(range(40)), list(range(33))
    assert common_beginning([long, short]) == 32
    assert common_beginning([long, short[:32]]) == 24
    assert common_beginning([long, [*range(20), 99]]) == 16
    assert common_beginning([long, [*range(15), 99]]) == common_beginning([long]) == 0


def test_outputs_of_a_row_stand_beside_those_of_the_other_prompts() -> None:
    from gainrag.lms.projection import Asked

    tree = AnswerTree.build([[1, 2, 3], [1, 4]])
    outputs = Outputs.of([Asked(tree, [[7], [8]], [1], True)] * 2)
    assert outputs.targets(Row([8], tree, (1, 1))).tolist() == [7, 9, 11]
    assert outputs.groups.tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert outputs.lengths.tolist() == [3, 2] * 4


def test_items_are_made_ahead_and_errors_come_in_their_turn() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(6):
            made.append(i)
            yield i
        raise ValueError("the sixth")

    with ahead(items(), 2) as taken:
        deadline = time.monotonic() + 5
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2]
        assert [next(taken) for _ in range(6)] == list(range(6))
        with pytest.raises(ValueError, match="the sixth"):
            next(taken)
    with pytest.raises(KeyError), ahead(iter(range(100)), 1) as taken:
        raise KeyError
    with ahead(iter([3, 4]), 9) as taken:
        assert list(taken) == [3, 4]
