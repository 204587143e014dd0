"""The local folder that a model's name stands for, and where it would come from."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from gainrag.errors import ModelError, unknown
from gainrag.files.streams import disk_errors
from gainrag.models.loading import load_model, load_tokenizer
from gainrag.models.registry import EMBEDDED, PREFIX, cache_folder, package_folder


def resolve(model: str) -> str:
    """The local folder of an `embedded:` model; any other name unchanged.

    Raises:
        ModelError: no embedded model of this name, or its package is not installed.
    """
    if not model.startswith(PREFIX):
        return model
    name = model.removeprefix(PREFIX)
    if name not in EMBEDDED:
        raise ModelError(unknown("embedded model", name, EMBEDDED), hint="a Hugging Face id or a folder will do too")
    entry = EMBEDDED[name]
    package = package_folder(entry.module, entry.requirement)
    folder = cache_folder() / name
    if (folder / "config.json").exists():
        return str(folder)
    if entry.terms:
        print(entry.terms, file=sys.stderr)
    source = entry.find(package)
    return str(source if source.is_dir() else unpack_gguf(source, folder))


def source_of(model: str) -> str:
    """Where a model would come from, in words, without loading it.

    Raises:
        ModelError: no embedded model of this name, its package is not installed, or the name can only be a folder's
            and there is none.
    """
    if model.startswith(PREFIX):
        resolve(model)
        return "installed"
    if Path(model).exists():
        return "a local folder"
    # An id of the hub is NAME or OWNER/NAME.
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ModelError("no such folder", where=model, hint="make it first, or name a Hugging Face id")
    return "from the Hugging Face hub when the run starts"


def unpack_gguf(file: Path, folder: Path) -> Path:
    """De-quantize a GGUF file to a folder of float32 safetensors with its tokenizer; whole or not at all.

    Raises:
        ModelError: the file cannot be read.
        ResourceError: the disk is full.
    """

    print(f"de-quantizing {file.name} once, into {folder}", file=sys.stderr)
    with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
        partial = Path(scratch) / "model"
        packed = load_model(str(file), "float32")
        # Its numbers are plain now, but transformers still takes it for quantized and would not save it: the same
        # numbers in a model made from the configuration alone are saved like any other.
        config = packed.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(packed)(config)
        plain.load_state_dict(packed.state_dict())
        plain.save_pretrained(partial)
        load_tokenizer(str(file)).save_pretrained(partial)
        try:
            os.replace(partial, folder)
        except OSError:
            if not (folder / "config.json").exists():  # another process was faster: its folder is as good
                raise
    return folder
