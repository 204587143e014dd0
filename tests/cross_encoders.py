"""Training as it is for kind = "cross-encoder", for the tests that are about cross-encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gainrag import training
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors import CrossEncoderSelector


def train(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    out: str | Path,
    facts: Mapping[str, Any] | None = None,
    **settings: Any,
) -> CrossEncoderSelector:
    """`gainrag.training.train` of a cross-encoder."""
    made = training.train(records, out, facts, kind="cross-encoder", **settings)
    assert isinstance(made, CrossEncoderSelector)
    return made
