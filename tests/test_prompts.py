from __future__ import annotations

from dataclasses import replace

import pytest

from gainrag.errors import DataError
from gainrag.prompts import TEMPLATES, Template, for_model, selector_text, wording
from gainrag.records import Passage

SEINE = Passage(id="1", title="Seine", text="A river.")
OWN = Passage(id="2", text="What I know.", origin="generated")


def test_completion_prompt_shows_what_an_answer_looks_like() -> None:
    prompt = for_model("completion", object()).with_passages("Which river?", [SEINE], reserve=0)
    assert prompt == (
        "Passage: Seine\nA river.\n\n"
        "Answer the question below concisely in a few words.\n"
        "Question: Which planet is known as the Red Planet?\nAnswer: Mars\nQuestion: Which river?\nAnswer:"
    )


def test_a_passage_without_title_has_no_empty_title_line() -> None:
    assert (
        for_model("completion", object()).with_passages("q?", [OWN], reserve=0).startswith("Passage: What I know.\n\n")
    )


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_the_prompt_ends_with_the_bare_question_and_keeps_the_order(form: str) -> None:
    prompts = for_model(form, object())
    prompt = prompts.with_passages("Which river?", [SEINE, OWN], reserve=0)
    assert prompt.endswith(prompts.without("Which river?"))
    assert prompt.index("A river.") < prompt.index("What I know.")


def test_braces_in_texts_are_left_alone() -> None:
    prompt = for_model("completion", object()).with_passages(
        "What is {x}?", [Passage(id="1", title="{t}", text="{0} {}")], reserve=0
    )
    assert "{t}\n{0} {}" in prompt
    assert "What is {x}?" in prompt


def test_the_answer_owns_its_leading_space() -> None:
    assert for_model("completion", object()).scored_answer("Paris ") == " Paris"
    assert for_model("chat", object()).scored_answer(" Paris") == "Paris"


def test_a_completion_is_cut_at_the_first_line_end() -> None:
    prompts = for_model("completion", object())
    assert prompts.cut(" Paris, of course \nQuestion: next?") == "Paris, of course"
    assert prompts.cut("\nParis") == ""
    assert for_model("chat", object()).cut("\n\nParis.\nIt is.") == "Paris.\nIt is."


class Words:
    """A model of few tokens, which are words."""

    context = 50

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])


def test_of_many_passages_the_last_give_way_where_the_context_ends() -> None:
    passages = [Passage(id=str(n), text=f"first{n} " + "word " * 8 + f"last{n}") for n in range(10)]
    prompt = for_model("completion", Words()).with_passages("Which river?", passages, reserve=4)
    assert len(prompt.split()) <= 46
    assert "last0" in prompt
    assert "first9" not in prompt
    assert prompt.endswith("Question: Which river?\nAnswer:")


def test_what_is_left_of_nothing_is_left_out() -> None:
    passages = [Passage(id=str(n), title="so " * 9, text="word " * 8) for n in range(30)]
    prompt = for_model("completion", Words()).with_passages("Which river?", passages, reserve=10)
    assert len(prompt.split()) <= 40
    assert prompt.count("Passage:") < 3
    assert prompt.endswith("Question: Which river?\nAnswer:")


@pytest.mark.parametrize("reserve", [0, 10, 20])
def test_the_reserve_is_what_is_asked_for(reserve: int) -> None:
    long = Passage(id="1", text="word " * 200)
    prompt = for_model("completion", Words()).with_passages("Which river?", [long], reserve=reserve)
    assert 50 - reserve - 3 <= len(prompt.split()) <= 50 - reserve


def test_who_needs_too_much_room_is_blamed() -> None:
    prompts = for_model("completion", Words())
    prompts.check("Which river?", reserve=20, where="here")
    with pytest.raises(DataError, match=r"here: the question has 99 tokens.*context of 50.*shorten the question"):
        prompts.check("why " * 99, reserve=20, where="here")
    with pytest.raises(DataError, match=r"here: .*90 are kept.*lower max_new_tokens"):
        prompts.check("Which river?", reserve=90, where="here")
    with pytest.raises(DataError, match="more than the model"):
        prompts.check("Which river?", reserve=44, where="here", background=True)


def test_room_for_answers_is_that_of_the_longest() -> None:
    prompts = for_model("completion", Words())
    assert prompts.answer_tokens(["Paris"]) >= 1
    assert prompts.answer_tokens(["Paris", "x " * 80]) == 80


def test_selector_text() -> None:
    assert selector_text(SEINE) == "Seine\nA river."
    assert selector_text(OWN) == "What I know."


def test_with_the_instruction_first_all_prompts_begin_alike() -> None:
    prompts = for_model("instruction_first", object())
    beginning = TEMPLATES["instruction_first"].before
    assert prompts.without("Which river?") == beginning + "Question: Which river?\nAnswer:"
    assert prompts.with_passages("Which river?", [SEINE, OWN], reserve=0) == (
        beginning + "Passage: Seine\nA river.\n\nPassage: What I know.\n\nQuestion: Which river?\nAnswer:"
    )
    assert prompts.stop == "\n"


def test_the_wordings_of_labels_that_are_there_have_not_changed() -> None:
    assert (wording("completion"), wording("chat")) == ("4bc9907c38d7", "79cb424fe111")


@pytest.mark.parametrize(
    "template",
    [
        replace(TEMPLATES["completion"], passage="{title}: {text}"),
        replace(TEMPLATES["completion"], question="{question}"),
        replace(TEMPLATES["completion"], answer_prefix=""),
        replace(TEMPLATES["completion"], before="Answer."),
    ],
)
def test_a_stage_knows_what_its_prompts_said(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    before = wording("completion"), wording("completion", background=True)
    monkeypatch.setitem(TEMPLATES, "completion", template)
    after = wording("completion"), wording("completion", background=True)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_new_request_for_background_leaves_labels_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = wording("chat"), wording("chat", background=True)
    monkeypatch.setitem(TEMPLATES, "chat", replace(TEMPLATES["chat"], background="Tell me about {question}"))
    after = wording("chat"), wording("chat", background=True)
    assert after[0] == before[0]
    assert after[1] != before[1]
