"""What stands beside an artefact: `NAME.meta.json`, with its settings, versions and the hashes of its inputs.

An artefact is current when it is there, is the file its meta was written for, and its meta names the same settings and
inputs. Versions are recorded, not compared: a new version of a library must not throw away a day of labels.

Who replaces an artefact removes its meta first (`places.replace`), and writes the new one when the artefact is there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gainrag.files.places import is_stream
from gainrag.files.places import meta_path as meta_path
from gainrag.files.streams import file_hash, read_json, write_json

LIBRARIES = ("gainrag", "torch", "transformers", "sentence-transformers", "bm25s", "faiss-cpu", "numpy")


def hashes(inputs: Mapping[str, str | Path]) -> dict[str, str]:
    """SHA-256 of each input by name; standard input has none."""
    return {name: "-" if str(path) == "-" else file_hash(path) for name, path in inputs.items()}


def digest(text: str) -> str:
    """Twelve digits that stand for a text in the settings of an artefact."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {name: version for name in LIBRARIES if (version := _version(name)) is not None}
    return {"python": platform.python_version(), **found}


@lru_cache  # a file is read for each, and a run writes dozens of metas
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_meta(
    artefact: str | Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    summary: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the meta file of a finished artefact; nothing for a stream.

    Args:
        inputs: hashes of what it was made from, by name (see `hashes`).
        summary: figures about the artefact, for people.
        more: what else stands in it, or in the place of what would: of a merged artefact the versions of its shards.
    """
    if is_stream(artefact):
        return
    meta: dict[str, Any] = {"settings": settings, "inputs": inputs, "versions": versions(), **(more or {})}
    if (own := _identity(artefact)) is not None:
        meta["artefact"] = own
    write_json(meta_path(artefact), {**meta, "summary": summary} if summary else meta, of=artefact)


def is_current(artefact: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the artefact is there, untouched, and was made with these settings from these inputs."""
    if is_stream(artefact) or not Path(artefact).exists() or not was_made(artefact, settings, inputs):
        return False
    return is_untouched(artefact, read_json(meta_path(artefact)))


def is_untouched(artefact: str | Path, meta: Mapping[str, Any]) -> bool:
    """Whether an artefact is the one that its meta was written for."""
    # Metas from before there was an identity have none, nor have those of folders: an index is too large to read whole.
    recorded = meta.get("artefact")
    return recorded is None or recorded == _identity(artefact)


def was_made(artefact: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the artefact's meta file names these settings and inputs, be the artefact still there or not.

    Nothing is known to have been made from standard input: that has no hash.
    """
    meta = meta_path(artefact)
    if not meta.exists() or "-" in inputs.values():
        return False
    found = read_json(meta)
    return same_settings(found.get("settings"), as_json(settings)) and found.get("inputs") == inputs


def same_settings(recorded: Any, wanted: Any) -> bool:
    """Whether settings as they were recorded are those wanted now. What identifies a model's weights (`identity`) is
    compared where it is known of both: version 0.1.0 did not record it."""
    if not (isinstance(recorded, dict) and isinstance(wanted, dict)):
        return bool(recorded == wanted)
    keys = recorded.keys() | wanted.keys()
    if recorded.get("identity") is None or wanted.get("identity") is None:
        keys -= {"identity"}
    missing = object()
    return all(same_settings(recorded.get(key, missing), wanted.get(key, missing)) for key in keys)


def _identity(artefact: str | Path) -> dict[str, Any] | None:
    """What tells a file from every other; None for a folder."""
    path = Path(artefact)
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)} if path.is_file() else None


def as_json(value: Mapping[str, Any]) -> Any:
    """The value as it reads back from JSON: tuples as lists."""
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))
