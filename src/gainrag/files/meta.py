"""What stands beside an artefact: `NAME.meta.json`, with its settings, versions and the hashes of its inputs.

An artefact is current when it is there and its meta names the same settings and inputs. Versions are recorded, not
compared: a new version of a library must not throw away a day of labels.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gainrag.files.streams import file_hash, read_json, write_json

LIBRARIES = ("gainrag", "torch", "transformers", "sentence-transformers", "bm25s", "faiss-cpu", "numpy")


def meta_path(artefact: str | Path) -> Path:
    """Where an artefact's meta file is: gains.jsonl.gz -> gains.meta.json, selector/ -> selector.meta.json."""
    path = Path(artefact)
    name = path.name
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return path.with_name(name + ".meta.json")


def hashes(inputs: Mapping[str, str | Path]) -> dict[str, str]:
    """SHA-256 of each input by name; standard input has none."""
    return {name: "-" if str(path) == "-" else file_hash(path) for name, path in inputs.items()}


def digest(text: str) -> str:
    """Twelve digits that stand for a text in the settings of an artefact."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_meta(
    artefact: str | Path,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Write the meta file of a finished artefact; nothing for standard output.

    Args:
        inputs: hashes of what it was made from, by name (see `hashes`).
        summary: figures about the artefact, for people.
    """
    if str(artefact) == "-":
        return
    meta = {"settings": settings, "inputs": inputs, "versions": versions()}
    write_json(meta_path(artefact), {**meta, "summary": summary} if summary else meta)


def is_current(artefact: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the artefact is there and was made with these settings from these inputs."""
    return Path(artefact).exists() and was_made(artefact, settings, inputs)


def was_made(artefact: str | Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the artefact's meta file names these settings and inputs, be the artefact still there or not."""
    meta = meta_path(artefact)
    if not meta.exists():
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


def as_json(value: Mapping[str, Any]) -> Any:
    """The value as it reads back from JSON: tuples as lists."""
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))
