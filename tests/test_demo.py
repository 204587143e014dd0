"""The data set that ships with the package has the shape it is described with."""

from __future__ import annotations

from collections import Counter

from gainrag.demo import load, most_telling
from gainrag.metrics import has_answer
from gainrag.records import Gained, GainRecord

ROLES = ("outright", "hint", "mislead", "near")


def test_there_are_enough_questions_and_passages_and_half_are_to_train_on() -> None:
    train, test, corpus = load()
    assert len(train) + len(test) >= 200
    assert len(corpus) >= 600
    assert abs(len(train) - len(test)) <= 12
    assert not {q.extra["topic"] for q in train} & {q.extra["topic"] for q in test}
    assert len({p.text for p in corpus}) == len(corpus)
    assert len({q.question for q in train + test}) == len(train) + len(test)


def test_every_question_has_passages_of_every_role_and_a_third_need_two() -> None:
    train, test, corpus = load()
    texts = {p.id: f"{p.title}\n{p.text}" for p in corpus}
    for question in train + test:
        roles = [key for role in ROLES for key in question.extra[role]]
        assert all(question.extra[role] for role in ROLES), question.id
        assert len(roles) == len(set(roles)), question.id
        assert set(roles) <= set(texts), question.id
        assert all(has_answer(texts[key], question.answers) for key in question.extra["outright"]), question.id
        assert not any(has_answer(texts[key], question.answers[:1]) for key in question.extra["near"]), question.id
        assert set(question.extra["needs"]) <= set(texts), question.id
        assert len(question.extra["needs"]) == (2 if question.extra["kind"] == "two" else 1), question.id
    kinds = Counter(q.extra["kind"] for q in train + test)
    assert kinds["two"] * 3 >= kinds.total()


def test_every_passage_serves_some_question() -> None:
    train, test, corpus = load()
    used = {key for q in train + test for role in (*ROLES, "needs") for key in q.extra[role]}
    assert {p.id for p in corpus} == used


def test_the_most_telling_questions_are_those_where_selection_matters_most() -> None:
    def record(name: str, gains: list[float], kept: bool) -> GainRecord:
        ctxs = [Gained(id=str(i), text="x", loss={}, gain=g) for i, g in enumerate(gains)]
        return GainRecord(
            id=name, question="?", answers=["a"], kept=kept, prediction="a", silver=gains.index(max(gains)), ctxs=ctxs
        )

    records = [record("first", [-1, -5], True), record("wrong", [-9, -1], False), record("little", [-2, -1], True)]
    much = record("much", [-5, -1], True)
    assert [r.id for r in most_telling([*records, much])] == ["much", "little"]
