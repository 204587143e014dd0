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
    assert "index/" not in said
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


@pytest.fixture
def shared(folder: Path) -> Path:
    """A shared folder by hand: one record of a question that brought a passage."""
    record = {"id": "Paris", "ctxs": [{"id": "Paris-1", "score": 1.0}], "dataset": "rivers"}
    (folder / "shared" / "retrieved").mkdir(parents=True)
    (folder / "shared" / "config.toml").write_text(CONFIG)
    _put(folder / "shared", record)
    return folder / "shared"


def _put(shared: Path, *records: object, text: bytes | None = None) -> None:
    """Make the shared file of these lines; the manifest says what they should come out as, if anything."""
    lines = text if text is not None else b"".join(json.dumps(record).encode() + b"\n" for record in records)
    (shared / "retrieved" / "train.jsonl.gz").write_bytes(gzip.compress(lines))
    (shared / "shared.json").write_text(json.dumps({"files": {"retrieved/train.jsonl": "0" * 64}}))


def _restore(shared: Path, data: Path | None = None) -> str:
    """The one line with which the command fails."""
    out = shared.parent / "again"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: said.append(" ".join(map(str, text))))
        command = ["restore", str(shared), "-o", str(out), *(["--data", str(data)] if data else [])]
        assert cli.main(command) == 1
    assert not out.exists()
    assert len(said) == 1
    return said[0]


def test_restore_reads_and_copies_nothing_behind_a_link(shared: Path) -> None:
    data, secret = shared.parent, shared.parent / "secret.json"
    secret.write_text('{"key": "of somebody else"}')
    for name in ("gains.meta.json", "diagnosis.json", "retrieved/train.meta.json"):
        (shared / name).symlink_to(secret)
        assert "link" in _restore(shared, data)
        (shared / name).unlink()
    (shared / "index").symlink_to(data)
    assert "shared/index: is a link" in _restore(shared, data)
    (shared / "index").unlink()
    for name in ("retrieved/train.jsonl.gz", "shared.json", "config.toml"):
        (shared / name).rename(data / "moved")
        (shared / name).symlink_to(data / "moved")
        assert f"{name}: is a link" in _restore(shared, data)
        (shared / name).unlink()
        (data / "moved").rename(shared / name)
    for name in ("corpus", "train", "test"):
        (shared / f"{name}.jsonl").symlink_to(data / f"{name}.jsonl")
    assert "corpus.jsonl: is a link" in _restore(shared)


def test_share_passes_on_nothing_behind_a_link(folder: Path, tmp_path: Path) -> None:
    run(folder)
    (folder / "secret").write_text('{"id": "x", "ctxs": []}\n')
    for name in ("gains/more.jsonl", "more.meta.json"):
        (folder / "out" / name).symlink_to(folder / "secret")
        with pytest.raises(DataError, match="is a link"):
            share(folder / "out", folder / "shared", config_of(folder))
        (folder / "out" / name).unlink()
    (folder / "out" / "answers" / "7").symlink_to(folder)
    with pytest.raises(DataError, match="7: is a link"):
        share(folder / "out", folder / "shared", config_of(folder))


@pytest.mark.parametrize("path", ["/etc/passwd", "../corpus.jsonl", "a/../../corpus.jsonl"])
def test_a_shared_config_does_not_choose_what_is_read(
    shared: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = CONFIG.replace("corpus.jsonl", path)
    (shared / "config.toml").write_text(text)
    for data in (None, shared.parent):
        assert f"{path!r} is no path below a data folder" in _restore(shared, data)
    (shared.parent / "config.toml").write_text(text)
    (shared.parent / "out").mkdir()
    (shared.parent / "out" / "config.toml").write_text(text)
    with pytest.raises(DataError):
        share(shared.parent / "out", shared.parent / "other", config_of(shared.parent))
    assert "to restore, make the paths of config.toml relative" in capsys.readouterr().err


@pytest.mark.parametrize(
    "manifest",
    [
        "{}", '{"files": []}', '{"files": null}', '{"files": "gains"}', '{"files": {"gains/a.jsonl": 1}}', "[]", "\xff",
        *(json.dumps({"files": {name: ""}}) for name in (
            "", ".", "gains", "gains/", "gains/.", "a\0b", "gains/a\0.jsonl", "gains/" + "a" * 300 + ".jsonl",
            "gains/../../x.jsonl", "gains/.x.jsonl", "/gains/x.jsonl", "index/x.jsonl", "gains/x.toml", "gains\n/x",
        )),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_one_line(shared: Path, manifest: str) -> None:
    (shared / "shared.json").write_text(manifest, encoding="latin-1")
    assert "shared.json" in _restore(shared, shared.parent)


@pytest.mark.parametrize(
    "line",
    [
        b"null", b"[]", b"1", b"{}", b'{"id": "Paris"}', b'{"ctxs": []}', b'{"id": 1, "ctxs": []}',
        b'{"id": "Paris", "ctxs": null}', b'{"id": "Paris", "ctxs": [1]}', b'{"id": "Paris", "ctxs": [{"text": "a"}]}',
        b'{"id": "Paris", "ctxs": [], "absent": 1}', b'{"id": "Paris", "ctxs": [], "silver": "x"}', b"{", b"\xff",
        b'{"id": "nobody", "ctxs": []}', b"[" * 100_000,
    ],
    ids=lambda line: line[:40].decode("latin-1"),
)  # fmt: skip
def test_a_record_that_is_none_is_one_line(shared: Path, line: bytes) -> None:
    _put(shared, text=line + b"\n")
    assert "retrieved/train.jsonl.gz:1: " in _restore(shared, shared.parent)
