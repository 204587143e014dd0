"""A run that begins with a folder of documents: the corpus and the questions are its own, made once and made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.files.streams import read
from gainrag.ingestion import read_passages
from gainrag.records import Question
from gainrag.runs import stages
from gainrag.runs.config import Config, read_config
from gainrag.runs.sharing import share
from gainrag.runs.validation import validate
from tests.test_asking import TOWNS, Author

CONFIG = """
[run]
diagnose = 0
warm_start = false
pseudo = false
oracle = false

[[dataset]]
name = "towns"
documents = "."

[ask]
n = 8
rounds = 2
yes_no = 0.0
two = 0.0

[index]
retriever = "bm25"

[retrieve]
k = 4

[train]
kind = "features"
only_kept = false
validation = 0.4
"""

MINE = '{"id": "mine", "question": "Who came to Ostby?", "answers": ["Captain0"]}\n'


class Model(Author):
    """The author with what a local model says of itself."""

    name, dtype, device = "author", "float32", "cpu"


def write_pages(folder: Path) -> None:
    """A page a town."""
    for number, town in enumerate(TOWNS):
        (folder / f"{town}.md").write_text(
            f"# {town}\n\nThe town of {town} was founded long ago by Captain{number} who came over the wide sea with "
            f"many ships.\n\n## Fair\n\nEach year in spring the people of {town} hold a fair at the river, where "
            f"Market{number} is sung by all.\n"
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents, and the config among them."""
    write_pages(tmp_path)
    (tmp_path / "mine.jsonl").write_text(MINE)
    (tmp_path / "config.toml").write_text(CONFIG)
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="author", dtype="float32", device="cpu": Model())
    return tmp_path


def config_of(folder: Path, text: str = CONFIG) -> Config:
    (folder / "config.toml").write_text(text)
    return read_config(folder / "config.toml", stages.STAGES)


def run(folder: Path, config: Config, update: bool = False) -> None:
    stages.run(config, folder / "runs" / "one", update, **config.table("run"))


def test_a_run_goes_from_documents_to_a_table_and_reuses_all_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(folder)
    run(folder, config)
    data = folder / "runs" / "one" / "data" / "towns"
    assert len(list(read_passages(data / "corpus.jsonl"))) == len(TOWNS)
    splits = {split: list(read(data / f"{split}.jsonl", Question)) for split in ("train", "test")}
    documents = {split: {q.extra["document"] for q in questions} for split, questions in splits.items()}
    assert not documents["train"] & documents["test"]
    assert sum(map(len, splits.values())) == 8
    assert {q.extra["asked_by"] for q in splits["test"]} == {"model"}
    assert (folder / "runs" / "one" / "table.txt").exists()
    capsys.readouterr()
    before = (data / "train.jsonl").read_bytes()
    (folder / "runs" / "one" / "report.md").write_text("# A report\n\nIt is no document.\n")
    (folder / "runs" / "two").mkdir()
    (folder / "runs" / "two" / "config.toml").write_text("")
    (folder / "runs" / "two" / "report.md").write_text("# Another\n\nIt is no document either.\n")
    run(folder, config)
    said = capsys.readouterr().err
    assert "data/towns/train.jsonl: reused" in said
    assert "started" not in said
    assert (data / "train.jsonl").read_bytes() == before


def test_a_document_that_changed_is_read_again(folder: Path) -> None:
    config = config_of(folder)
    run(folder, config)
    corpus = folder / "runs" / "one" / "data" / "towns" / "corpus.jsonl"
    (folder / "Annals.md").write_text("# Annals\n\nThe annals of Ostby tell of a fire in which Market9 was lost.\n")
    run(folder, config)
    assert "Annals.md#top" in {passage.id for passage in read_passages(corpus)}


def test_what_people_asked_is_in_the_test_and_shown_apart(folder: Path) -> None:
    config = config_of(folder, CONFIG.replace('documents = "."', 'documents = "."\nquestions = "mine.jsonl"'))
    run(folder, config)
    table = (folder / "runs" / "one" / "table.txt").read_text()
    assert "people" in table
    assert "model" in table
    assert "towns: 8 questions that the model will write, 1 that people asked" in "\n".join(validate(config))


def test_what_a_run_made_itself_cannot_be_shared(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder)
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / "config.toml").write_text(CONFIG)
    with pytest.raises(DataError, match=r"it made the data of towns itself.*name the files of data/"):
        share(folder / "runs" / "one", tmp_path / "shared", config)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('documents = "."', 'documents = "."\ncorpus = "c.jsonl"', "both 'corpus' and 'documents'"),
        ("[ask]\nn = 8\nrounds = 2\nyes_no = 0.0\ntwo = 0.0", "", r"neither 'train' nor 'test'.*a table \[ask\]"),
        ('documents = "."', 'documents = "."\ntrain = "a"\ntest = "b"', r"\[ask\]: every \[\[dataset\]\] has its"),
        ('documents = "."', 'documents = "."\ntrain = "a"\nquestions = "b"', "'questions' and 'train'"),
        ('documents = "."', 'documents = "elsewhere"', "no such folder"),
        ('documents = "."', 'corpus = "c"\n[ingest]\nsize = 100', r"\[ingest\]: no \[\[dataset\]\] has 'documents'"),
        ("[ask]\n", "[ask]\ntune = 0.1\n", r"\[ask\] tune"),
    ],
)
def test_what_cannot_be_made_is_said_first(folder: Path, old: str, new: str, says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says):
        run(folder, config_of(folder, CONFIG.replace(old, new)))
    assert not (folder / "runs").exists()
