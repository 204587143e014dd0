"""Selectors: what scores candidate passages by how much they would help the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gainrag.selectors.boosted import FeatureSelector, is_feature_selector
from gainrag.selectors.cross_encoder import CrossEncoderSelector
from gainrag.selectors.fetching import selector_folder
from gainrag.selectors.stacked import StackedSelector, is_stack

__all__ = ["PRIOR", "CrossEncoderSelector", "FeatureSelector", "StackedSelector", "open_selector"]

# The feature selector that ships with the package: what serves until one is trained, and what few labels start from.
PRIOR = "embedded:gain-features"


def open_selector(path: str | Path, **settings: Any) -> CrossEncoderSelector | FeatureSelector | StackedSelector:
    """The selector of a folder or name, by what is in the folder: a stack, a feature selector, else a cross-encoder.

    Args:
        path: a selector folder, embedded:NAME or a Hugging Face id.
        settings: of `CrossEncoderSelector`: backend, dtype, device, batch_tokens; boosted trees have none of these.

    Raises:
        ModelError, DataError, ConfigError: as the selector's own.
    """
    folder = selector_folder(str(path))
    if is_stack(folder):
        return StackedSelector(path, **settings)
    if is_feature_selector(folder):
        return FeatureSelector(path)
    return CrossEncoderSelector(path, **settings)
