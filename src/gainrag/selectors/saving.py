"""Selector folders on disk: a plain CrossEncoder with a model card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gainrag.files.places import check_replaceable
from gainrag.models.hub import quiet
from gainrag.selectors.calibration import Calibration
from gainrag.selectors.fetching import SELECTOR
from gainrag.selectors.lazy import Laziness
from gainrag.selectors.learned import facts_table, write_learned

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def check_target(out: str | Path) -> None:
    """Whether a selector may be written to `out`: nothing is there, an empty folder, or an earlier selector.

    Raises:
        DataError: `out` is a file, or a folder that is no selector.
    """
    check_replaceable(out, SELECTOR, "selector folder")


def write_selector(
    model: CrossEncoder,
    folder: Path,
    card: Mapping[str, Any],
    calibration: Calibration | None = None,
    laziness: Laziness | None = None,
) -> None:
    """Write a selector and its model card into an empty folder, see gainrag.files.folders.open_output_folder.

    Raises:
        OSError: the operating system refuses to write, such as on a full disk.
    """
    write_cross_encoder(model, folder)
    for learned in (calibration, laziness):
        if learned:
            write_learned(folder, learned)
    (folder / "README.md").write_text(model_card(card), encoding="utf-8")


def write_cross_encoder(model: CrossEncoder, folder: Path) -> None:
    """Write what `CrossEncoder(folder)` loads, and nothing else.

    Raises:
        OSError: the operating system refuses to write, such as on a full disk.
    """
    with quiet(), _as_os_errors():
        model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raise the operating system's error that safetensors reports in words: "... (os error 28)"."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), str(error)) from None
        raise


def model_card(facts: Mapping[str, Any]) -> str:
    """The selector's README: what it was trained for, on, and how."""
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: text-ranking\ntags: [cross-encoder, gainrag]\n---\n\n"
        "# A gainrag selector\n\nA cross-encoder that scores how much a passage helps one language model to the right "
        'answer. Score a pair (question, "title\\ntext"); the higher score is the better passage.\n\n'
        '```python\nfrom sentence_transformers import CrossEncoder\n\nmodel = CrossEncoder("path/to/this/folder")\n'
        'model.predict([("Who wrote Emma?", "Emma (novel)\\nEmma is a novel by Jane Austen.")])\n```\n\n'
        + facts_table(facts)
    )
