"""Shards: what several machines make is what one would have made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainrag import cli
from gainrag.errors import ConfigError, UsageError
from gainrag.files.resuming import chunks
from gainrag.files.sharding import Shard, share
from gainrag.files.streams import write
from gainrag.records import Question, Retrieved, Scored
from gainrag.testing import OverlapLM
from tests.test_cli import failure

# Flags of each stage, and the name of what it makes.
STAGES = {
    "augment": ["--max-new-tokens", "4"],
    "synthesize": ["--alpha", "0", "--alpha", "0.5"],
    "sampled": ["--labels", "sampled", "-n", "1"],
    "answer": ["--max-new-tokens", "4"],
}


class InBatches(OverlapLM):
    """What it writes shows which other questions were in the batch, as a batch in bfloat16 may."""

    name, dtype, device, kind = "overlap", "float32", "cpu", "cpu"

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [f"{text} of {len(prompts)}" for text in super().generate(prompts, max_new_tokens)]

    def rate(self) -> str:
        return ""


def questions(number: int) -> list[Retrieved]:
    texts = ("Rain falls.", "City {i} was founded by Person{i}.", "The Sea.")
    return [
        Retrieved(
            id=f"q{i}",
            question=f"Who founded city {i}?",
            answers=[f"Person{i}"],
            ctxs=[Scored(id=f"{i}-{j}", text=text.format(i=i)) for j, text in enumerate(texts)],
        )
        for i in range(number)
    ]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As many questions as there are four chunks of in every stage, and a model that shows its batches."""
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="overlap", dtype="float32", device="cpu": InBatches())
    write(tmp_path / "input.jsonl", questions(200))
    return str(tmp_path / "input.jsonl")


def make(stage: str, source: str, out: Path, *more: str) -> Path:
    command = "synthesize" if stage == "sampled" else stage
    assert cli.main([command, source, "--llm", "overlap", "-o", str(out), *STAGES[stage], *more]) == 0
    return out


def four(stage: str, source: str, folder: Path, name: str = "shard-{}.jsonl") -> list[str]:
    return [str(make(stage, source, folder / name.format(i), "--shard", f"{i}/4")) for i in range(4)]


@pytest.mark.parametrize(
    ("stage", "name"),
    [*((stage, "shard-{}.jsonl") for stage in STAGES), ("answer", "shard-{}.jsonl.gz")],
)
def test_four_shards_merged_are_the_bytes_of_one_machine(stage: str, name: str, source: str, tmp_path: Path) -> None:
    one = make(stage, source, tmp_path / "one.jsonl")
    shards = four(stage, source, tmp_path, name)
    assert cli.main(["merge", *reversed(shards), "-o", str(tmp_path / "merged.jsonl")]) == 0
    for suffix in (".jsonl", ".meta.json"):
        assert (tmp_path / f"merged{suffix}").read_bytes() == one.with_name(f"one{suffix}").read_bytes()


@given(number=st.integers(1, 60), of=st.integers(1, 8), chunk=st.integers(1, 9))
def test_every_question_is_in_one_share_and_in_its_own_chunk(number: int, of: int, chunk: int) -> None:
    items = [Question(id=f"q{i}", question="?") for i in range(number)]
    whole = [list(part) for part in chunks(items, chunk)]
    if of > len(whole):
        with pytest.raises(ConfigError, match="use at most"):
            share(items, Shard(0, of), chunk)
        return
    shares = [share(items, Shard(n, of), chunk) for n in range(of)]
    parts = [list(part) for own in shares for part in chunks(own, chunk)]
    assert sorted(parts, key=whole.index) == whole
    sizes = [-(-len(own) // chunk) for own in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "1/0", "", "1/2/3"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="I from 0"):
        Shard.parse(text)


def test_a_shard_goes_on_in_the_chunks_that_it_was_begun_in(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a CPU began is continued on a GPU, whose chunks are larger."""
    half = make("answer", source, tmp_path / "half.jsonl", "--shard", "0/2")
    begun = InBatches.generate

    def stops(lm: InBatches, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        if lm.prompts:
            raise KeyboardInterrupt
        return begun(lm, prompts, max_new_tokens)

    monkeypatch.setattr(InBatches, "generate", stops)
    out = tmp_path / "again.jsonl"
    arguments = ["answer", source, "--llm", "overlap", "-o", str(out), *STAGES["answer"], "--shard", "0/2"]
    assert cli.main(arguments) == 130
    monkeypatch.setattr(InBatches, "generate", begun)
    monkeypatch.setattr(InBatches, "kind", "cuda")
    assert cli.main(arguments) == 0
    assert out.read_bytes() == half.read_bytes()


def test_what_cannot_be_merged(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards, out = four("answer", source, tmp_path), str(tmp_path / "merged.jsonl")

    def refusal(*arguments: str) -> str:
        said = failure(capsys, 1, "merge", *arguments, "-o", out)
        assert not Path(out).exists()
        return said

    assert "shard 2 of 4 is not among those given" in refusal(*shards[:2], shards[3])
    assert "is shard 1 of 4, as is" in refusal(*shards, shards[1])
    assert "was not made with --shard" in refusal(*shards[:3], str(make("answer", source, tmp_path / "whole.jsonl")))

    other = make("answer", source, tmp_path / "other.jsonl", "--shard", "3/4", "--prompt", "completion")
    meta = json.loads(other.with_name("other.meta.json").read_text())
    meta["settings"]["max_new_tokens"] = 5
    other.with_name("other.meta.json").write_text(json.dumps(meta))
    assert "settings.max_new_tokens was 4, is 5" in refusal(*shards[:3], str(other))

    kept = Path(shards[3]).read_bytes()
    Path(shards[3]).write_bytes(kept.replace(b"Person", b"Nobody"))
    assert "is not the file that shard-3.meta.json was written for" in refusal(*shards)
    Path(shards[3]).write_bytes(kept)

    moved = shutil.move(source, tmp_path / "moved.jsonl")
    assert "--of FILE" in refusal(*shards)
    write(tmp_path / "changed.jsonl", questions(199))
    assert "is not the file that the shards are of" in refusal(*shards, "--of", str(tmp_path / "changed.jsonl"))
    assert cli.main(["merge", *shards, "--of", str(moved), "-o", out]) == 0

    Path(shards[3]).with_name("shard-3.meta.json").unlink()
    assert "has no shard-3.meta.json beside it" in failure(capsys, 1, "merge", *shards, "-o", out)


def test_shards_on_streams_and_diagnoses_of_shards_are_refused(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = ("--llm", "overlap", "--shard", "0/4")
    assert "on a stream" in failure(capsys, 2, "answer", source, *llm, "-o", "-")
    out = str(tmp_path / "a.jsonl")
    assert "without --shard" in failure(capsys, 2, "synthesize", source, *llm, "-o", out, "--diagnose", "3")
    assert "too few for 40" in failure(capsys, 1, "answer", source, "--llm", "overlap", "--shard", "0/40", "-o", out)
