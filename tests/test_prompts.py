from __future__ import annotations

import pytest

from gainrag.prompts import for_model, selector_text
from gainrag.records import Passage

SEINE = Passage(id="1", title="Seine", text="A river.")
OWN = Passage(id="2", text="What I know.", origin="generated")


def test_completion_prompt_as_the_issue_words_it() -> None:
    prompt = for_model("completion", object()).with_passages("Which river?", [SEINE])
    assert prompt == (
        "Passage: Seine\nA river.\n\n"
        "Answer the question below concisely in a few words.\nQuestion: Which river?\nAnswer:"
    )


def test_a_passage_without_title_has_no_empty_title_line() -> None:
    assert for_model("completion", object()).with_passages("q?", [OWN]).startswith("Passage: What I know.\n\n")


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_the_prompt_ends_with_the_bare_question_and_keeps_the_order(form: str) -> None:
    prompts = for_model(form, object())
    prompt = prompts.with_passages("Which river?", [SEINE, OWN])
    assert prompt.endswith(prompts.without("Which river?"))
    assert prompt.index("A river.") < prompt.index("What I know.")


def test_braces_in_texts_are_left_alone() -> None:
    prompt = for_model("completion", object()).with_passages(
        "What is {x}?", [Passage(id="1", title="{t}", text="{0} {}")]
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

    context = 40

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])


def test_of_many_passages_the_last_give_way_where_the_context_ends() -> None:
    passages = [Passage(id=str(n), text=f"first{n} " + "word " * 8 + f"last{n}") for n in range(10)]
    prompt = for_model("completion", Words()).with_passages("Which river?", passages, reserve=4)
    assert len(prompt.split()) <= 36
    assert "last0" in prompt
    assert "first9" not in prompt
    assert prompt.endswith("Question: Which river?\nAnswer:")


def test_selector_text() -> None:
    assert selector_text(SEINE) == "Seine\nA river."
    assert selector_text(OWN) == "What I know."
