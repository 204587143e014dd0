"""A selector -> the same with a copy for ONNX Runtime or OpenVINO inside, which `CrossEncoderSelector` then picks up.

The exporters are sentence-transformers' and optimum's own. What was learned beside the weights (calibration, lazy
threshold, trees) stays in the folder and applies whatever runs the model.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gainrag.errors import ConfigError, DataError
from gainrag.files.folders import open_output_folder
from gainrag.files.streams import disk_errors, write
from gainrag.models.loading import careful_loading
from gainrag.prompts import question_with_choices, selector_text
from gainrag.records import Record, Retrieved
from gainrag.selectors.backends import RUNTIMES, Exported, need_installed, open_model
from gainrag.selectors.boosted import is_feature_selector
from gainrag.selectors.internals import encoder_of
from gainrag.selectors.learned import read_learned
from gainrag.selectors.stacked import Stack, cross_encoder_folder
from gainrag.settings import checked

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

Quantization = Literal["none", "int8"]
# Pairs that OpenVINO's ranges are learned from; its own default.
CALIBRATION_PAIRS = 300


@checked
def export(
    selector: str | Path,
    out: str | Path | None = None,
    candidates: Sequence[Retrieved] = (),
    *,
    backend: Exported = "openvino",
    quantize: Quantization = "none",
) -> Path:
    """Put an exported model into a selector folder, or into a copy of it, and return that folder.

    Args:
        selector: a selector folder.
        out: a new folder, which becomes a copy of the selector with the exported model; in place when left out.
        candidates: for openvino with int8: real pairs, which the ranges of the activations are learned from.
        backend: onnx or openvino.
        quantize: int8 multiplies in whole numbers of eight bits: faster, and a little less exact.

    Raises:
        DataError: `selector` is no selector folder or one of trees, or `out` is there already.
        ModelError: the backend's libraries are missing or cannot export the model.
        ConfigError: openvino with int8 has no candidates.
    """
    folder = Path(selector)
    parts = _cross_encoders(folder)
    target = Path(out) if out is not None else folder
    if target != folder and target.exists():
        raise DataError("is there already", where=str(target), hint="choose another output, or leave it out")
    need_installed(backend, where="gainrag export")
    if backend == "openvino" and quantize == "int8" and not candidates:
        raise ConfigError(
            "int8 for openvino learns its ranges from real pairs",
            where="gainrag export",
            hint="pass --candidates candidates.jsonl",
        )
    with disk_errors(target), tempfile.TemporaryDirectory(prefix="gainrag-export-") as scratch:
        exported: dict[Path, Path] = {}  # by the place inside the selector folder
        for part in parts:
            place = part.relative_to(folder) / backend
            made_in = Path(scratch) / str(len(exported))
            made_in.mkdir()
            with careful_loading(str(part), str(part)):
                _export(part, made_in, candidates, backend, quantize)
            exported[place] = made_in / backend
        if target == folder:
            _copy(exported, target)
        else:
            with open_output_folder(target) as made:
                shutil.copytree(folder, made, dirs_exist_ok=True)
                _copy(exported, made)
    return target


def _cross_encoders(folder: Path) -> list[Path]:
    """The folders of the cross-encoders of a selector: itself, or those of a stack.

    Raises:
        DataError: it is no selector folder, or has none.
    """
    if stack := read_learned(folder, Stack):
        return [cross_encoder_folder(folder, fold) for fold in range(stack.folds)]
    if is_feature_selector(folder):
        raise DataError(
            "is a feature selector, which runs everywhere as it is", where=str(folder), hint="use it as it is"
        )
    if not (folder / "config.json").is_file():
        raise DataError("is no selector folder", where=str(folder), hint="make one with `gainrag train`")
    return [folder]


def _copy(exported: Mapping[Path, Path], target: Path) -> None:
    """Put exported models, by their place, into a selector folder."""
    for place, source in exported.items():
        shutil.copytree(source, target / place, dirs_exist_ok=True)


def _export(
    folder: Path, scratch: Path, candidates: Sequence[Retrieved], backend: Exported, quantize: Quantization
) -> None:
    """Write scratch/BACKEND/ with the model in it."""
    from sentence_transformers import CrossEncoder

    source, more = folder, dict[str, Any](export=True)
    if backend == "onnx":
        more["provider"] = "CPUExecutionProvider"
    elif cut := _export_cut(folder, scratch):
        source, more = cut, {"file_name": "openvino/openvino_model.xml"}
    model = CrossEncoder(str(source), device="cpu", backend=backend, model_kwargs=more)
    if quantize == "none":
        model.save_pretrained(str(scratch), create_model_card=False)
    elif backend == "onnx":
        from sentence_transformers.backend import export_dynamic_quantized_onnx_model

        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(scratch))
    else:
        _quantize_openvino(model, scratch, candidates)


def _export_cut(folder: Path, scratch: Path) -> Path | None:
    """A copy of the folder with the model for OpenVINO in place of the weights, its last layer cut as PyTorch's is,
    which an export of the folder itself would not have. None for a model that is not cut."""
    from optimum.exporters.openvino import export_from_model

    from gainrag.selectors.first_token import FirstTokenLayer

    model, _ = open_model(str(folder), str(folder), "torch", "float32", "cpu")
    encoder = encoder_of(model)
    if not any(isinstance(module, FirstTokenLayer) for module in encoder.modules()):
        return None
    copy = scratch / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors", *RUNTIMES))
    export_from_model(encoder, copy / "openvino", task="text-classification", stateful=False)
    return copy


def _quantize_openvino(model: CrossEncoder, scratch: Path, candidates: Sequence[Retrieved]) -> None:
    """Static quantization of weights and activations, calibrated on the candidates' own pairs."""
    from sentence_transformers.backend import export_static_quantized_openvino_model

    texts = calibration_texts(candidates, CALIBRATION_PAIRS)
    with tempfile.TemporaryDirectory(prefix="gainrag-calibration-") as data:
        write(Path(data) / "train.jsonl", [_Text(text=text) for text in texts])
        export_static_quantized_openvino_model(
            model,
            {"bits": 8, "weight_only": False, "num_samples": len(texts)},
            str(scratch),
            dataset_name=data,
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )


class _Text(Record, kw_only=True):
    """A line of the calibration data set."""

    text: str


def calibration_texts(candidates: Sequence[Retrieved], n: int) -> list[str]:
    """At most n pairs as texts, spread evenly over all questions and ranks."""
    pairs = [(question_with_choices(r.question, r.choices), passage) for r in candidates for passage in r.ctxs]
    spread = [pairs[i * len(pairs) // n] for i in range(n)] if len(pairs) > n else pairs
    return [f"{question} {selector_text(passage)}" for question, passage in spread]
