"""Retrieval: each question with its k best passages, in the DPR/Contriever result format."""

from __future__ import annotations

from collections.abc import Sequence

from gainrag.errors import DataError, ModelError
from gainrag.files.progress import progress_bar
from gainrag.metrics import mark_answers
from gainrag.protocols import Retriever, search_with
from gainrag.records import GOLD, Question, Retrieved, Scored, check
from gainrag.settings import Passages, checked

# Questions searched at a time: encoded together, and little enough for the bar to move.
_BATCH = 128


@checked
def retrieve(questions: Sequence[Question], retriever: Retriever, *, k: Passages = 20) -> list[Retrieved]:
    """Find every question's k best passages, best first; fewer only when the corpus is smaller.

    Where the question has answers, each passage is marked with whether it holds one (`hasanswer`), and where it has
    `gold_passages`, ids of those that people marked, with whether it is one of them (`gold`).

    Args:
        k: passages per question.

    Raises:
        ConfigError: k is less than 1.
        ModelError: the retriever returned something that is no ranking, or not one for each question.
    """
    retrieved: list[Retrieved] = []
    with progress_bar("retrieving", unit="questions", total=len(questions)) as bar:
        for start in range(0, len(questions), _BATCH):
            batch = questions[start : start + _BATCH]
            found = search_with(retriever, [question.question for question in batch], k)
            for question, passages in zip(batch, found, strict=True):
                retrieved.append(_with_passages(question, passages, k, type(retriever).__name__))
            bar.update(len(batch))
    return retrieved


def _with_passages(question: Question, passages: Sequence[Scored], k: int, retriever: str) -> Retrieved:
    if not isinstance(passages, Sequence) or not all(isinstance(passage, Scored) for passage in passages):
        what = "the retriever gave something else than a list of passages"
        raise ModelError(what, where=retriever, hint="return Scored records")
    if len(passages) > k:
        what = f"the retriever gave {len(passages)} passages where {k} were asked for"
        raise ModelError(what, where=retriever, hint="return at most k")
    mark_answers(passages, question.answers)
    if isinstance(gold := question.extra.get(GOLD), list):
        for passage in passages:
            passage.gold = passage.id in gold
    record = Retrieved(
        id=question.id,
        question=question.question,
        answers=question.answers,
        choices=question.choices,
        ctxs=list(passages),
        extra=question.extra,
    )
    try:
        check(record, f"{retriever}, question {question.id!r}")
    except DataError as error:
        raise ModelError(f"the retriever gave no ranking: {error.what}", where=error.where, hint=error.hint) from None
    return record
