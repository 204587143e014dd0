"""`gainrag init`: what it finds, and that the config it writes runs to a table as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gainrag.cli import main
from gainrag.errors import ConfigError, DataError
from gainrag.lms.remote.nearby import Nearby, nearby
from gainrag.runs import beginning, rates, stages, surroundings
from gainrag.runs.beginning import init
from gainrag.runs.config import Config, Options, read_config
from gainrag.runs.contradictions import check
from gainrag.runs.surroundings import look
from tests.stub_engine import NAME, running
from tests.test_making import MINE, Model, write_pages

LINES = "".join(
    f'{{"id": "{i}", "question": "What is number {i}?", "answers": ["{i}"], "ctxs": [{{"id": "p", "text": "t"}}]}}\n'
    for i in range(3)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a few pages, and no engine anywhere."""
    write_pages(tmp_path)
    monkeypatch.setattr(surroundings, "nearby", lambda: ([], []))
    return tmp_path


class NoVectors:
    """An encoder that takes no time."""

    @staticmethod
    def build(passages: Sequence[Any]) -> None:
        pass


def config_of(file: Path) -> Config:
    config = read_config(file, stages.STAGES)
    check(config, Options(**config.table("run")))
    return config


def test_the_config_runs_from_documents_to_a_report_as_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*, model: str = "author", dtype: str = "float32", device: str = "cpu") -> Model:
        return Model()

    monkeypatch.setattr("gainrag.lms.open_lm", opened)
    monkeypatch.setattr(rates, "Dense", NoVectors)
    monkeypatch.chdir(folder)
    assert main(["init"]) == 0
    said = capsys.readouterr().err
    assert "documents   8 (8 .md)" in said
    assert "gainrag run config.toml" in said
    text = (folder / "config.toml").read_text()
    assert 'documents = "."' in text
    assert "#   ask " in text
    (folder / "config.toml").write_text(text.replace('"hybrid"', '"bm25"'))  # vectors take seconds, and learn nothing
    assert main(["run", "config.toml", "-o", "runs/first"]) == 0
    assert main(["report", "runs/first"]) == 0
    assert "GainRAG" in (folder / "runs" / "first" / "report.md").read_text()
    assert main(["init"]) == 1
    assert "config.toml: is there already" in capsys.readouterr().err


def test_files_that_are_there_are_used(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    (data / "corpus.jsonl").write_text('{"id": "p", "text": "A town is a town."}\n')
    (data / "train.jsonl").write_text(LINES)
    (folder / "questions.jsonl").write_text(MINE)
    assert "train.jsonl is not used: a run takes both" in init(folder, folder / "first.toml", measured=False)
    (data / "test.jsonl").write_text(LINES)
    said = init(folder, folder / "new" / "config.toml", measured=False)
    assert "questions.jsonl is not used: train and test are there" in said
    dataset = config_of(folder / "new" / "config.toml").datasets[0]
    assert (dataset.documents, dataset.asked) == (None, False)
    assert [path.resolve().name for path in (dataset.corpus, dataset.train, dataset.test) if path] == [
        "corpus.jsonl", "train.jsonl", "test.jsonl",
    ]  # fmt: skip


def test_what_people_asked_joins_the_test_and_a_damaged_file_is_said(folder: Path) -> None:
    (folder / "questions.jsonl").write_text(MINE)
    (folder / "train.jsonl").write_text("{}\n")
    said = init(folder, folder / "config.toml", measured=False)
    config = config_of(folder / "config.toml")
    assert config.datasets[0].questions == folder / "questions.jsonl"
    assert config.group_by == "asked_by"
    assert "questions   1 questions" in said
    assert "train.jsonl is not used: " in said


def test_sizes_fit_into_the_time_that_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = rates.Rates(scored=0.0005, read=0.0001, written=0.02, prompt=100, bare=10, background=20)
    one = beginning.Measured(rates.Reading(read=0.0, passages=0.002, encode=0.001), model, model)
    monkeypatch.setattr(beginning, "_measure", lambda *_: one)
    found = {}
    for minutes in (1, 60, 100_000):
        said = init(folder, file := folder / f"{minutes}.toml", minutes=minutes)
        found[minutes] = config_of(file).table("ask")["n"]
        assert ("with the smallest sizes" in said) == (minutes == 1)
    assert found[1] < found[60] < found[100_000]


def test_what_there_is_nothing_for_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such folder"):
        init(folder / "none", folder / "config.toml")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no documents"):
        init(folder / "empty", folder / "config.toml")
    monkeypatch.setattr(surroundings, "is_installed", lambda _: False)
    with pytest.raises(ConfigError, match="no language model is there"):
        init(folder, folder / "config.toml")


def test_a_model_that_tells_no_losses_has_a_proxy_where_questions_are_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ollama = Nearby("http://127.0.0.1:11434/v1", ("llama3.2",), "other")
    monkeypatch.setattr(surroundings, "nearby", lambda: ([ollama], []))
    init(folder, folder / "config.toml", measured=False)
    config = config_of(folder / "config.toml")
    assert config.table("llm")["model"] == "http://127.0.0.1:11434/v1#llama3.2"
    assert config.table("run")["proxy"].startswith("embedded:")
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(LINES)
    init(folder, folder / "second.toml", measured=False)
    config = config_of(folder / "second.toml")
    assert "proxy" not in config.table("run")
    assert config.table("synthesize")["labels"] == "sampled"


def test_documents_are_counted_as_they_will_be_read(folder: Path) -> None:
    (folder / ".hidden.md").write_text("# No\n")
    (folder / "picture.png").write_bytes(b"\0")
    found = look(folder)
    assert found.documents == Counter({".md": 8})
    assert found.machine.cores >= 1


def test_engines_are_found_where_they_listen() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    other = HTTPServer(("127.0.0.1", 0), Other)
    Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    with running("vllm") as server:
        found, others = nearby({server.server_port: "vLLM", other.server_port: "llama.cpp", 1: "nothing"})
    other.shutdown()
    other.server_close()
    assert [(engine.engine, engine.models) for engine in found] == [("vllm", (NAME,))]
    assert found[0].name == f"{server.base}#{NAME}"
    assert len(others) == 1
    assert f"port {other.server_port} (llama.cpp)" in others[0]
