"""A short run of the fuzz; the long one is `python -m tests.fuzz_inputs`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz_inputs import KINDS, Outcome, fuzz, judge, table
from tests.fuzz_world import Case


@pytest.mark.parametrize("kind", KINDS)
def test_no_traceback_no_bad_value_and_every_message_names_its_file(tmp_path: Path, kind: str) -> None:
    counts, faults = fuzz(15, 0, tmp_path, kind)
    assert not faults, "\n".join(faults)
    assert sum(counts.values()) == 15


def test_what_the_fuzz_calls_wrong() -> None:
    bad = Case("x", "y", [], bad=True, names=["in.jsonl"])
    assert judge(bad, Outcome(0, "")) == "accepted"
    assert judge(bad, Outcome(1, "gainrag: /nowhere/model: no such folder")) == "accepted"
    assert judge(bad, Outcome(1, "gainrag: no JSON")) == "unnamed"
    assert judge(bad, Outcome(1, "said before\ngainrag: in.jsonl:1: no JSON\n")) is None
    assert judge(bad, Outcome(-1, "", "KeyError at x.py:1")) == "traceback"
    assert judge(Case("x", "y", []), Outcome(0, "")) is None
    counts = Counter({("x", "fine"): 2, ("x", "accepted"): 1})
    assert list(table(counts))[-1].split() == ["all", "2", "0", "1", "0"]
