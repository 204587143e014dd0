"""What a run's meta files say of how its selector was trained, read without anything that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gainrag.errors import DataError
from gainrag.files.meta import meta_path
from gainrag.files.streams import read_json


def taught(selector: Path) -> dict[str, Any]:
    """The settings that a selector of a run was trained with: those configured, over them what tuning chose.

    Raises:
        DataError: it has no meta file, or that is no meta file of a training.
    """
    meta = meta_path(selector)
    found = read_json(meta).get("settings")
    if not isinstance(found, dict) or not {"alpha", "temperature"} <= found.keys():
        raise DataError("names no settings of a training", where=str(meta), hint="run it again with `gainrag run`")
    return {**found, **chosen_settings(selector)}


def chosen_settings(selector: Path) -> dict[str, Any]:
    """The settings in which what tuning chose for a selector differs from what was configured."""
    meta = meta_path(selector)
    summary = (read_json(meta).get("summary") if meta.exists() else None) or {}
    try:
        return next((dict(trial["settings"]) for trial in summary.get("trials", ()) if trial["best"]), {})
    except (TypeError, KeyError, ValueError, AttributeError):
        raise DataError("its trials are none of a tuning", where=str(meta), hint="run it again") from None
