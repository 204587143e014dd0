"""What each selector of a run learns from, told by a training that only takes notes. Real ones: test_running.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from gainrag import training
from gainrag.errors import ConfigError
from gainrag.files.streams import write
from gainrag.records import Gained, GainRecord, Retrieved, Scored
from gainrag.runs import names, tuning
from gainrag.runs.config import Config, Options, read_config
from gainrag.runs.contradictions import check
from gainrag.runs.folder import Run
from gainrag.runs.stages import STAGES
from gainrag.runs.variants import check_enough, not_for_warm_starts, train_all, warm_start_table
from gainrag.training.labels import is_held_out

DATA = "".join(
    f'[[dataset]]\nname = "{name}"\ncorpus = "c"\n' + ('train = "t"\n' if name != "d" else "") + 'test = "u"\n\n'
    for name in "abcd"
)


@dataclass
class Training:
    """A training that was asked for."""

    folder: str
    ids: list[str]
    settings: dict[str, Any]
    facts: dict[str, Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Training]:
    notes: list[Training] = []

    @wraps(training.train)
    def train(records: Sequence[Any], out: Path, facts: dict[str, Any], **settings: Any) -> None:
        notes.append(Training(str(Path(out).relative_to(tmp_path / "run")), [r.id for r in records], settings, facts))
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / "weights").write_text(str(notes[-1]))

    @wraps(tuning.tune)
    def tune(records: Sequence[Any], out: Path, facts: Any, settings: Any, **_: Any) -> list[tuning.Trial]:
        train(records, out, facts, **settings)
        return [tuning.Trial({}, 0.3), tuning.Trial({"temperature": 2.0, "alpha": 0.5}, 0.2, best=True)]

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(tuning, "tune", tune)
    return notes


def read(folder: Path, text: str) -> Config:
    """A config whose selectors are cross-encoders: those alone have warm starts."""
    kind = '[train]\nkind = "cross-encoder"\n'
    text = text.replace("[train]\n", kind) if "[train]\n" in text else kind + text
    (folder / "config.toml").write_text(DATA + text)
    return read_config(folder / "config.toml", STAGES)


def variants(folder: Path, text: str, warm_start: bool = True) -> dict[str, dict[str, Path]]:
    """Train the selectors of a config on four training questions a data set, of which the first two have labels."""
    extra = [(f"{name}{i}", {"dataset": name}) for i in range(4) for name in "abc"]
    ctxs = [Scored(id="p", text="Text.", hasanswer=True), Scored(id="q", text="Rain.", hasanswer=False)]
    retrieved = [Retrieved(id=name, question="?", answers=["a"], ctxs=ctxs, extra=more) for name, more in extra]
    gained = [Gained(id=c.id, text=c.text, hasanswer=c.hasanswer, loss={"0.0": 1.0}, gain=-1.0) for c in ctxs]
    gains = [
        GainRecord(
            id=name, question="?", answers=["a"], kept=True, prediction="a", silver=0, ctxs=gained, extra=more
        )
        for name, more in extra[:6]
    ]
    write(folder / "run" / "retrieved" / "train.jsonl", retrieved)
    write(folder / "run" / "gains" / "train.jsonl", gains)
    found = train_all(Run(folder / "run", read(folder, text), False), retrieved if warm_start else [], gains)
    return {
        system: {name: path.relative_to(folder / "run") for name, path in by_dataset.items()}
        for system, by_dataset in found.items()
    }


TRANSFER = """
[[variant]]
name = "Two of three"
train_on = ["b", "a"]

[[variant]]
name = "The others"
leave_out = true
"""


def test_each_test_question_is_ranked_by_the_selector_that_never_saw_its_data_set(
    tmp_path: Path, trained: list[Training]
) -> None:
    found = variants(tmp_path, TRANSFER)
    home = Path("variants")
    assert found[names.GAINRAG] == dict.fromkeys("abcd", Path("selector"))
    assert found["Two of three"] == dict.fromkeys("abcd", home / "two_of_three" / "selector")
    others = {name: home / "the_others" / f"without_{name}" for name in "abc"}
    assert found["The others"] == {**others, "d": home / "the_others" / "selector"}  # d has no training questions

    by_folder = {note.folder: note for note in trained}
    assert len(by_folder) == len(trained)  # nothing is made twice, warm starts on the same data sets neither
    learned = {
        folder: "".join(sorted({id[0] for id in note.ids})) for folder, note in by_folder.items()
    }
    assert learned == {
        "warm_start": "abc", "relevance": "abc", "selector": "abc",
        "warm_starts/a+b": "ab", "warm_starts/b+c": "bc", "warm_starts/a+c": "ac",
        "variants/two_of_three/selector": "ab",
        "variants/the_others/without_a": "bc", "variants/the_others/without_b": "ac",
        "variants/the_others/without_c": "ab", "variants/the_others/selector": "abc",
    }  # fmt: skip
    assert len(by_folder["warm_starts/a+b"].ids) == 8  # labelled or not
    for folder, start in (("two_of_three/selector", "warm_starts/a+b"), ("the_others/selector", "warm_start")):
        assert by_folder[f"variants/{folder}"].settings["base"] == str(tmp_path / "run" / start)
    assert by_folder["variants/the_others/without_b"].facts["data"] == "a, c"

    variants(tmp_path, TRANSFER)
    assert len(trained) == len(by_folder)  # all of it is current


def test_what_selectors_hold_out_by_themselves_is_kept_from_warm_starts(tmp_path: Path) -> None:
    """A variant may learn from fewer of the questions, of which it holds out a larger share."""
    ids = [f"q{i}" for i in range(200)]
    for text, share in (
        ("", 0.25),
        ("[train]\nvalidation = 0.0\n", 0.0),
        ("[train]\nvalidation = 0.4\n", 0.4),
        ("[train]\nvalidation = 0.0\n[[variant]]\nname = 'v'\nvalidation = 0.3\n", 0.3),
    ):
        kept = not_for_warm_starts(read(tmp_path, text), ids)
        assert kept == {name for name in ids if is_held_out(name, share)}
        assert not_for_warm_starts(read(tmp_path, text), ids[:39]) <= kept
    assert not_for_warm_starts(read(tmp_path, ""), ids[:39]) == set()


def test_a_warm_start_holds_out_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    def table(text: str) -> dict[str, Any]:
        (tmp_path / "config.toml").write_text(DATA + text)
        return warm_start_table(read_config(tmp_path / "config.toml", STAGES))

    assert table("[train]\nvalidation = 0.3\n")["validation"] == 0.0
    assert table("[warm_start]\nvalidation = 0.1\n")["validation"] == 0.1


def test_a_variant_has_what_tuning_chose_but_for_its_own_settings(tmp_path: Path, trained: list[Training]) -> None:
    text = "[train]\nalpha = 0.0\nepochs = 3\nvalidation = 0.2\n[tune]\nalpha = [0.5]\ntemperature = [2.0]\n"
    text += '[[variant]]\nname = "Plain"\nalpha = 0.0\n'
    text += '[[variant]]\nname = "Rival"\nlabels = "likelihood"\nepochs = 1\n'
    text += '[[variant]]\nname = "Cold"\nlabels = "relevance"\nbase = "embedded:all-minilm-l6-v2"\n'
    variants(tmp_path, text)
    plain, rival, cold = (note.settings for note in trained[-3:])
    warm = str(tmp_path / "run" / "warm_start")
    assert plain == {
        "kind": "cross-encoder", "alpha": 0.0, "temperature": 2.0, "epochs": 3, "validation": 0.2,
        "base": warm, "keep_worse": True,
    }  # fmt: skip
    assert rival == {**plain, "labels": "likelihood", "alpha": 0.5, "epochs": 1}
    assert cold == {**rival, "labels": "relevance", "epochs": 3, "base": "embedded:all-minilm-l6-v2"}
    assert "base" not in trained[-1].facts  # not said to be warmed up

    # Only the variant that the change touches is made again.
    count = len(trained)
    variants(tmp_path, text.replace("epochs = 1", "epochs = 2"))
    assert [note.folder for note in trained[count:]] == ["variants/rival/selector"]


def test_fewer_questions_are_among_more(tmp_path: Path, trained: list[Training]) -> None:
    text = "".join(f'[[variant]]\nname = "{n} questions"\nquestions = {n}\n' for n in (2, 4, 6))
    variants(tmp_path, text, warm_start=False)
    assert [note.folder for note in trained] == [
        "relevance", "selector", *(f"variants/{n}_questions/selector" for n in (2, 4, 6))
    ]  # fmt: skip
    two, four, six = (note.ids for note in trained[-3:])
    assert (two, four) == (six[:2], six[:4])
    assert sorted(six) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert "base" not in trained[-1].settings

    config = read(tmp_path, '[[variant]]\nname = "many"\nquestions = 5\nleave_out = true\n')
    check_enough(config, {"a": 3, "b": 3, "c": 2})
    with pytest.raises(ConfigError, match=r"\[\[variant\]\] many: questions is 5, but 4 are labelled in b, c"):
        check_enough(config, {"a": 3, "b": 2, "c": 2})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[variant]]\nname = "gainrag"\n', "that of the system 'GainRAG'"),
        ('[[reranker]]\nname = "Oracle"\nmodel = "m"\n', "that of the system 'oracle'"),
        ('[[variant]]\nname = "a-b"\n[[reranker]]\nname = "A b"\nmodel = "m"\n', "that of the system 'a-b'"),
        ('[[variant]]\nname = "GainRAG top-5"\n', "a retriever's"),
        ('[[variant]]\nname = "gain/loss"\n', "cannot be a file's"),
        ('[[variant]]\nname = ""\n', "cannot be a file's"),
        ('[train]\nlabels = "likelihood"\n', r"in a run \[train\] has labels 'gain' or 'choice', not 'likelihood'"),
    ],
)
def test_systems_have_names_of_their_own(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(read(tmp_path, text), Options())
