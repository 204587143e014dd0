"""Questions that a model writes: each fault is counted by its reason, and a document's questions stay in one split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gainrag.asking import ask, document_of, draw, parse, split_by_document
from gainrag.errors import ConfigError, DataError, StaleError
from gainrag.records import Passage, Question
from gainrag.testing import OverlapLM, OverlapRetriever

# Each document tells of one town, in two passages of enough words.
TOWNS = ["Ostby", "Westby", "Norby", "Sudby", "Midby", "Farby", "Nearby", "Oldby"]


def corpus() -> list[Passage]:
    found = []
    for number, town in enumerate(TOWNS):
        founder = f"Captain{number}"
        text = f"The town of {town} was founded long ago by {founder} who came over the wide sea with many ships."
        found.append(Passage(id=f"{town}.md#top", title=town, text=text))
        text = (
            f"Each year in spring the people of {town} hold a fair at the river, where Market{number} is sung by all."
        )
        found.append(Passage(id=f"{town}.md#fair", title=f"{town} > Fair", text=text))
    return found


class Author(OverlapLM):
    """Writes what a rule says for the last passage it is shown; answers with the name that stands in the passage."""

    def __init__(self, faults: dict[str, str] | None = None) -> None:
        super().__init__()
        self.faults = faults or {}
        self.written = 0

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: str) -> str:
        last = prompt.rstrip().rsplit("Passage: ", 1)[-1]
        names = [
            word for word in last.replace(".", " ").replace(",", " ").split() if word[:-1] in ("Captain", "Market")
        ]
        if not prompt.endswith("Question:"):
            return f" {names[0]}" if names else " nobody"
        self.written += 1
        town = next(town for town in TOWNS if town in last)
        if town in self.faults:
            return self.faults[town]
        said = " ".join(last.split()[3:6])
        return f" Which name belongs to {town} and the {said} there?\nAnswer: {names[0]}\n\nPassage:"


def run(author: Author, out: Path | None = None, **settings: float) -> object:
    passages = corpus()
    return ask(passages, author, OverlapRetriever(passages), out, yes_no=0.0, two=0.0, **settings)  # type: ignore[arg-type]


def test_kept_questions_have_their_answer_and_passage() -> None:
    passages = corpus()
    found = ask(passages, Author(), OverlapRetriever(passages), n=8, rounds=2, yes_no=0.0, two=0.0)
    kept = [question for split in found.splits.values() for question in split]
    assert len(kept) == 8
    assert {question.extra["document"] for question in kept} == {f"{town}.md" for town in TOWNS}
    texts = {passage.id: passage.text for passage in passages}
    assert all(question.answers[0] in texts[question.extra["gold_passages"][0]] for question in kept)
    assert all(question.extra["gain"] >= 0.5 and question.extra["asked_by"] == "model" for question in kept)
    documents = [{question.extra["document"] for question in split} for split in found.splits.values()]
    assert not documents[0] & documents[1]
    assert not documents[0] & documents[2]
    assert not documents[1] & documents[2]


def test_each_fault_is_counted_by_its_reason() -> None:
    faults = {
        "Ostby": " a town by the sea",
        "Westby": " What does this passage say about Westby?\nAnswer: Captain1",
        "Norby": " Who founded the town of Norby?\nAnswer: Columbus",
        "Sudby": " Did Captain3 found the town of Sudby?\nAnswer: Captain3",
        "Midby": " Who founded the town of Midby?\nAnswer: one two three four five six seven eight nine",
        "Farby": " Who founded it?\nAnswer: Captain5",
    }
    passages = corpus()
    found = ask(passages, Author(faults), OverlapRetriever(passages), n=4, rounds=4, k=1, yes_no=0.0, two=0.0)
    reasons = dict(found.rejected)
    assert reasons["no question and answer as asked for"] == 2
    assert reasons["names the passage"] == 2
    assert reasons["answer not in the passage"] == 2
    assert reasons["tells its answer"] == 2
    assert reasons["answer of more than 8 words"] == 2
    assert reasons["fewer than four words"] == 2
    assert found.tried == 16
    assert "2 rejected: tells its answer" in str(found)


def test_a_long_answer_gives_way_to_the_models_own_where_both_say_the_same() -> None:
    faults = {
        "Ostby": " Who founded the town of Ostby?\nAnswer: It was Captain0 who came in a ship and founded it",
        "Westby": " Who founded the town of Westby?\nAnswer: it was a man from over the sea in a ship",
    }
    passages = corpus()
    found = ask(passages, Author(faults), OverlapRetriever(passages), n=8, rounds=1, yes_no=0.0, two=0.0, least=0.0)
    kept = {question.extra["document"]: question for split in found.splits.values() for question in split}
    assert kept["Ostby.md"].answers == ["Captain0"]
    assert kept["Ostby.md"].extra["answer_written"].startswith("It was Captain0")
    assert found.rejected["answer of more than 8 words"] == 1


def test_yes_and_no_are_choices_and_gain_nothing_from_a_passage_without_them() -> None:
    passages = corpus()
    faults = {town: f" Was the town of {town} founded by ships?\nAnswer: Yes, it was" for town in TOWNS}
    with pytest.raises(DataError, match=r"no question was kept .*no clear gain"):
        ask(passages, Author(faults), OverlapRetriever(passages), n=4, rounds=1, yes_no=0.99, two=0.0)


def test_a_run_that_was_stopped_continues(tmp_path: Path) -> None:
    class Stopped(Author):
        def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
            if self.written == 8 and prompts[0].endswith("Question:"):  # behind the first chunk
                raise KeyboardInterrupt
            return super().generate(prompts, max_new_tokens)

    with pytest.raises(KeyboardInterrupt):
        run(Stopped(), tmp_path, n=16, rounds=1)
    again, whole = Author(), Author()
    found = run(again, tmp_path, n=16, rounds=1)
    assert again.written == 8
    assert found == run(whole, n=16, rounds=1)
    finished = Author()
    assert run(finished, tmp_path, n=16, rounds=1) == found
    assert not finished.written
    (tmp_path / "written-1.jsonl").rename(tmp_path / "written-1.jsonl.part")
    (tmp_path / "written-1.jsonl.part.meta.json").write_text('{"seed": 7}')
    with pytest.raises(StaleError, match="seed"):
        run(again, tmp_path, n=16, rounds=1)


def test_real_questions_go_to_test_and_are_marked() -> None:
    passages = corpus()
    real = [Question(id="mine", question="Who came to Ostby?", answers=["Captain0"])]
    found = ask(passages, Author(), OverlapRetriever(passages), real=real, n=4, rounds=1, yes_no=0.0, two=0.0)
    assert found.splits["test"][-1].extra == {"asked_by": "people"}
    assert "1 of them from people, all in test" in str(found)


def test_documents_take_turns() -> None:
    passages = [*corpus(), *(Passage(id=f"big.md#{i}", text=f"word {i} " * 20) for i in range(100))]
    drawn = draw(passages, 9, {"yes_no": 0.0, "two": 0.5}, seed=1)
    assert len({record.extra["document"] for record in drawn}) == 9
    assert {record.extra["kind"] for record in drawn} == {"fact", "two"}
    assert all(len({document_of(ctx) for ctx in record.ctxs}) == 1 for record in drawn)


def test_splits_have_their_shares() -> None:
    questions = [Question(id=str(i), question="?", extra={"document": str(i // 2)}) for i in range(100)]
    found = split_by_document(questions, 0.3, 0.2, seed=0)
    assert [len(found[split]) for split in ("train", "tune", "test")] == [50, 20, 30]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" Who?\nAnswer: Me.\nQuestion: More?\nAnswer: x", ("Who?", "Me")),
        (" Question: Who?\nAnswer: 'Me'", ("Who?", "Me")),
        ("**Question:** Who?\n**Answer:** Me", ("Who?", "Me")),
        (" Who?\n\nAnd then?\nAnswer: Me", None),
        (" Who.\nAnswer: Me", None),
        ("", None),
    ],
)
def test_what_was_written_is_read_by_its_lines(text: str, found: tuple[str, str] | None) -> None:
    assert parse(text) == found


def test_shares_that_leave_nothing() -> None:
    with pytest.raises(ConfigError, match="leave nothing"):
        run(Author(), test=0.7, tune=0.3)
