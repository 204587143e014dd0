"""Faults that a tester found by trying the commands on outputs, selectors and runs that are not what they seem."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gainrag import CrossEncoderSelector, cli
from gainrag.errors import DataError, ModelError
from gainrag.files.places import check_input, check_output, is_stream


def test_an_output_inside_an_input_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "passages.jsonl").write_text("{}")
    with pytest.raises(DataError, match="is inside an input"):
        check_output(tmp_path / "idx" / "passages.jsonl", [tmp_path / "idx"])
    check_output(tmp_path / "beside.jsonl", [tmp_path / "idx"])


@pytest.mark.parametrize("name", ["gains.meta.json", "gains.jsonl.part"])
def test_an_output_never_takes_the_name_of_what_lies_beside_another(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="beside another output"):
        check_output(tmp_path / name)


def test_the_systems_folders_hold_no_outputs_but_open_files_are_streams() -> None:
    with pytest.raises(DataError, match="folder of the system"):
        check_output("/proc/x")
    assert is_stream("/dev/fd/1")
    assert is_stream("/proc/self/fd/1")


@pytest.mark.parametrize("path", ["a" * 300, "a\0b"])
def test_inputs_that_can_have_no_such_name(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"255 bytes|NUL"):
        check_input(path)
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"id": "q", "question": "Who?"}\n')
    for argv in (["report", path], ["retrieve", str(questions), "--index", path, "-o", str(tmp_path / "o.jsonl")]):
        assert cli.main(argv) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_selector_whose_config_leaves_layers_out(cross_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "selector")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="layers that its config leaves out"):
        CrossEncoderSelector(folder)


def test_a_selector_whose_parts_do_not_fit_one_another(cross_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(cross_encoder, tmp_path / "selector")
    (folder / "sentence_bert_config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        CrossEncoderSelector(folder)


def test_a_report_is_of_the_answers_that_were_evaluated(
    harbours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gainrag.files.streams import file_hash, write_json

    run = shutil.copytree(harbours, tmp_path / "run")
    answers = run / "answers" / "gainrag.jsonl"
    write_json(run / "evaluation.meta.json", {"settings": {}, "inputs": {"GainRAG": file_hash(answers)}})
    assert cli.main(["report", str(run)]) == 0
    capsys.readouterr()
    line, *others = answers.read_text().splitlines()
    changed = json.dumps({**json.loads(line), "comment": "by hand"})
    answers.write_text("\n".join([changed, *others]) + "\n")
    assert cli.main(["report", str(run)]) == 1
    assert "gainrag.jsonl: is not what was evaluated" in capsys.readouterr().err
