from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gainrag import cli
from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.records import Retrieved
from gainrag.selectors import CrossEncoderSelector, backends
from gainrag.selectors.calibration import Calibration
from gainrag.selectors.exporting import calibration_texts, export
from gainrag.selectors.lazy import Laziness
from gainrag.selectors.learned import write_learned


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = {name: (("no_such_runtime.at_all",), *rest) for name, (_, *rest) in backends.RUNTIMES.items()}
    monkeypatch.setattr(backends, "RUNTIMES", runtimes)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder in which exported models lie, as far as names go."""
    for file in ("onnx/model.onnx", "openvino/openvino_model.xml", "openvino/openvino_model_qint8_quantized.xml"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def test_auto_takes_what_is_exported_and_installed(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "choose_device", lambda device: "cpu" if device == "auto" else device)
    installed: set[str] = set()
    monkeypatch.setattr(backends, "is_installed", lambda backend: backend in installed)
    choose = backends.choose_backend
    assert choose(exported, "auto", "auto", "auto") == "torch"
    installed.add("onnx")
    assert choose(exported, "auto", "auto", "auto") == "onnx"
    installed.add("openvino")
    assert choose(exported, "auto", "auto", "auto") == "openvino"
    assert choose(exported / "elsewhere", "auto", "auto", "auto") == "torch"
    # Asking for a dtype or a GPU is asking for torch.
    assert choose(exported, "auto", "float32", "auto") == choose(exported, "auto", "auto", "cuda") == "torch"


def test_a_quantized_model_goes_before_others(exported: Path) -> None:
    assert backends.exported_file(exported, "openvino") == "openvino/openvino_model_qint8_quantized.xml"
    assert backends.exported_file(exported, "onnx") == "onnx/model.onnx"
    assert backends.exported_file(exported / "elsewhere", "onnx") is None


def test_what_is_missing_is_said_with_what_to_do(cross_encoder: Path, nothing_installed: None) -> None:
    assert CrossEncoderSelector(cross_encoder).backend == "torch"
    for backend in ("onnx", "openvino"):
        with pytest.raises(ModelError, match=r"the \w+ backend needs no_such_runtime.*Hint: pip install"):
            CrossEncoderSelector(cross_encoder, backend=backend)
        with pytest.raises(ModelError, match=r"gainrag export.*Hint: pip install"):
            export(cross_encoder, backend=backend)
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        CrossEncoderSelector(cross_encoder, backend="openvin")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dtype is bfloat16"):
        CrossEncoderSelector(cross_encoder, backend="onnx", dtype="bfloat16")


def test_a_selector_that_was_not_exported(cross_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda _: True)
    with pytest.raises(ModelError, match=r"no model exported for onnx.*gainrag export .* --backend onnx"):
        CrossEncoderSelector(cross_encoder, backend="onnx")


def test_bad_folders_and_settings(cross_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainrag.selectors.exporting.need_installed", lambda *_, **__: None)
    with pytest.raises(DataError, match="no selector folder"):
        export(tmp_path)
    with pytest.raises(DataError, match="there already"):
        export(cross_encoder, tmp_path)
    with pytest.raises(ConfigError, match="pass --candidates"):
        export(cross_encoder, quantize="int8")


def test_the_command_fails_in_one_line(
    cross_encoder: Path, nothing_installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(cross_encoder), "--backend", "onnx"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "pip install" in lines[0]


def test_ranges_are_learned_from_pairs_of_all_questions(candidates: list[Retrieved]) -> None:
    assert len(calibration_texts(candidates, 300)) == 3 * len(candidates)
    few = calibration_texts(candidates, 20)
    assert len(few) == len(set(few)) == 20
    assert sum(record.question in text for record in candidates for text in few) >= 20


@pytest.mark.skipif(not backends.is_installed("openvino"), reason="the openvino extra is not installed")
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_an_exported_selector_chooses_the_same(
    cross_encoder: Path, tmp_path: Path, candidates: list[Retrieved], quantize: str
) -> None:
    folder = export(cross_encoder, tmp_path / "out", candidates, backend="openvino", quantize=quantize)  # type: ignore[arg-type]
    calibration = Calibration(0.5, {"bm25": 0.3, "dense": 0.2}, -1.0)
    write_learned(folder, calibration)
    write_learned(folder, Laziness(0.25, 9, True, 0.5, 0.0))
    fast, exact = CrossEncoderSelector(folder), CrossEncoderSelector(cross_encoder, dtype="float32")
    assert fast.backend == "openvino"
    assert fast.threshold == 0.25
    for record in candidates[:5]:
        plain = calibration.apply(record.ctxs, exact.score(record.question, record.ctxs))
        found = fast.score(record.question, record.ctxs)
        assert np.abs(found - plain).max() < (0.03 if quantize == "none" else 0.3)
        assert found.argmax() == plain.argmax()
