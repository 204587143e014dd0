"""What tells a model's weights from another's of the same name.

| model                | identity                                                            |
|----------------------|---------------------------------------------------------------------|
| embedded:NAME        | its package and version                                             |
| a folder, a file     | SHA-256 of its bytes                                                |
| a Hugging Face id    | the commit that would be loaded                                     |
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from functools import cache
from pathlib import Path

from gainrag.models.hub import unreachable_hub
from gainrag.models.registry import EMBEDDED, PREFIX

# What libraries load of a model's folder; model cards, pictures and version control are left out.
_LOADED = {".json", ".safetensors", ".gguf", ".model", ".txt", ".jinja", ".onnx", ".xml", ".bin"}


def identity(model: str) -> str | None:
    """What stands for a model's weights in the settings of what was made with it.

    Returns:
        None where it cannot be known: no such model is on this machine, and the hub does not answer.
    """
    if model.startswith(PREFIX):
        return _package(model.removeprefix(PREFIX))
    path = Path(model)
    return _contents(path) if path.exists() else _commit(model)


def _package(name: str) -> str | None:
    """Package and version that an embedded model is installed from."""
    if name not in EMBEDDED:
        return None
    package = EMBEDDED[name].requirement.split()[-1].partition("==")[0]
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _contents(path: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of a folder's files."""
    if path.is_file():
        return _file(str(path.resolve()), *_state(path))
    found = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.suffix in _LOADED and p.is_file()):
        found.update(f"{file.relative_to(path).as_posix()}\0{_file(str(file.resolve()), *_state(file))}\n".encode())
    return found.hexdigest()


def _state(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


@cache
def _file(path: str, size: int, mtime: int) -> str:
    """SHA-256 of a file, read once while its size and time stay."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _commit(model: str) -> str | None:
    """The commit of the hub that would be loaded now: its config.json, or a feature selector's features.json, is asked
    for in the same way."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    look = try_to_load_from_cache if unreachable_hub() else hf_hub_download
    for name in ("config.json", "features.json"):
        try:
            file = look(model, name)
        except (HfHubHTTPError, HFValidationError, OSError, ValueError):
            continue
        if isinstance(file, str):  # .../snapshots/COMMIT/NAME
            return Path(file).parent.name
    return None
