from __future__ import annotations

import numpy as np
import pytest

from gainrag.lms.packing import AnswerTree, Row, make_even_packs, make_packs

TREE = AnswerTree.build([[1, 2, 3], [1, 4]])


def rows(lengths: list[int]) -> list[Row]:
    return [Row([0] * n, TREE, (0, i)) for i, n in enumerate(lengths)]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_even_packs_hold_every_row_once_within_bounds(workers: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(5, 400, 60).tolist()
    given = rows(lengths)
    packs = make_even_packs(given, tokens=1000, workers=workers)
    assert [row.owner for pack in packs for row in pack] == [row.owner for row in given]
    assert all(sum(map(len, pack)) < 1000 + 402 for pack in packs)


def test_no_worker_waits_long_for_another() -> None:
    """21 passages of one question, two cores: packs of the full size would be two and a rest."""
    given = rows([190] * 21)
    plain = [sum(map(len, pack)) for pack in make_packs(given, tokens=2048)]
    even = [sum(map(len, pack)) for pack in make_even_packs(given, tokens=2048, workers=2)]
    assert plain == [10 * 192, 10 * 192, 192]
    assert even == [11 * 192, 10 * 192]


def test_one_row_larger_than_a_pack_goes_alone() -> None:
    packs = make_even_packs(rows([50, 5000, 50]), tokens=1000, workers=2)
    assert [len(pack) for pack in packs] == [1, 1, 1]
