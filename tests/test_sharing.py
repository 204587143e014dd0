"""A run folder shared without its data's texts, and made whole again from the data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from gainrag import cli
from gainrag.errors import DataError
from gainrag.report import report
from gainrag.runs.sharing import restore, share
from tests.small_run import CONFIG, RIVERS, Model, config_of, run


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def records_of(run: Path) -> dict[str, bytes]:
    rooms = ("retrieved", "candidates", "gains", "scores", "selected", "answers")
    return {str(p.relative_to(run)): p.read_bytes() for room in rooms for p in (run / room).rglob("*.jsonl*")}


def test_a_shared_run_has_no_text_of_the_data_and_is_restored_to_the_byte(folder: Path) -> None:
    run(folder)
    share(folder / "out", folder / "shared", config_of(folder))
    files = (folder / "shared").rglob("*.gz")
    texts = {path: gzip.decompress(path.read_bytes()).decode() for path in files}
    assert len(texts) > 10
    for path, text in texts.items():
        for city in RIVERS:
            assert f"flows through {city}" not in text, path
            assert f"Rain falls on {city}" not in text, path
    candidates = next(text for path, text in texts.items() if path.match("candidates/test.jsonl.gz"))
    written = [c for line in candidates.splitlines() for c in json.loads(line)["ctxs"] if c.get("origin")]
    assert all(ctx["text"] for ctx in written)  # the model's own words are nobody else's

    restore(folder / "shared", folder / "again", config_of(folder))
    assert records_of(folder / "again") == records_of(folder / "out")
    found, before = report(folder / "again"), report(folder / "out")
    for key in ("evaluation", "analyses", "questions", "settings", "summaries"):
        assert found[key] == before[key]


def test_a_restored_run_goes_on_without_making_labels_or_indexes_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(folder)
    share(folder / "out", folder / "shared", config_of(folder))
    (folder / "out").rename(folder / "before")
    restore(folder / "shared", folder / "out", config_of(folder))
    capsys.readouterr()
    again = run(folder)
    said = capsys.readouterr().err
    for name in ("retrieved/train", "candidates/train", "gains/train", "candidates/test", "gains/test"):
        assert f"{name}.jsonl: reused" in said
    assert "index" not in said
    assert "warm_start: started" in said  # weights are not shared
    assert set(again.overall.systems) == set(found.overall.systems)


def test_passages_that_questions_brought_may_share_an_id(folder: Path) -> None:
    """Where there is no corpus a passage's id is its question's own."""
    for split in ("train", "test"):
        lines = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for line in lines:
            city = line["id"]
            texts = (f"{RIVERS[city]} flows through {city}.", f"Rain falls on {city}.", "Rivers are wet.")
            line["ctxs"] = [{"id": str(n), "text": text, "score": -n} for n, text in enumerate(texts)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.toml").write_text(CONFIG.replace('corpus = "corpus.jsonl"\n', "").replace("k = 4", "k = 3"))
    run(folder)
    share(folder / "out", folder / "shared", config_of(folder))
    restore(folder / "shared", folder / "again", config_of(folder))
    assert records_of(folder / "again") == records_of(folder / "out")


def test_labels_that_were_stopped_go_on_where_they_were(folder: Path, lm: Model) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "losses", _stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    part = folder / "out" / "gains" / "train.jsonl.part"
    assert part.exists()
    share(folder / "out", folder / "shared", config_of(folder))
    restore(folder / "shared", folder / "again", config_of(folder))
    assert (folder / "again" / "gains" / "train.jsonl.part").read_bytes() == part.read_bytes()
    assert (folder / "again" / "gains" / "train.jsonl.part.meta.json").exists()


def test_other_data_is_noticed(folder: Path) -> None:
    run(folder)
    share(folder / "out", folder / "shared", config_of(folder))
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("Seine", "Marne"))
    with pytest.raises(DataError, match=r"does not come out as it was shared.*check --data"):
        restore(folder / "shared", folder / "again", config_of(folder))
    with pytest.raises(DataError, match="is not a record of this data"):
        share(folder / "out", folder / "other", config_of(folder))
    corpus.write_text("".join(line for line in corpus.read_text().splitlines(True) if "Paris" not in line))
    with pytest.raises(DataError, match=r"jsonl.*:1: .*its question or a passage is not there"):
        restore(folder / "shared", folder / "third", config_of(folder))
    assert not any((folder / name).exists() for name in ("again", "other", "third"))


def test_a_shared_folder_cannot_write_elsewhere(folder: Path) -> None:
    (folder / "shared").mkdir()
    for name in ("../elsewhere.jsonl", "gains/../../elsewhere.jsonl", "/tmp/elsewhere.jsonl"):
        (folder / "shared" / "shared.json").write_text(json.dumps({"files": {name: ""}}))
        with pytest.raises(DataError, match="is no file of a run"):
            restore(folder / "shared", folder / "again", config_of(folder))


def test_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    out, shared, again = (str(folder / name) for name in ("out", "shared", "again"))
    assert cli.main(["share", out, "-o", shared, "--data", str(folder)]) == 0
    assert cli.main(["restore", shared, "-o", again, "--data", str(folder)]) == 0
    assert records_of(Path(again)) == records_of(Path(out))
    capsys.readouterr()
    for wrong, message in (
        (["share", out, "-o", shared, "--data", str(folder)], "is there already"),
        (["restore", shared, "-o", again, "--data", str(folder)], "is there already"),
        (["restore", out, "-o", again + "2", "--data", str(folder)], "no such file"),
        (["share", str(folder / "nowhere"), "-o", shared, "--data", str(folder)], "no such file"),
    ):
        assert cli.main(wrong) == 1
        assert message in capsys.readouterr().err
