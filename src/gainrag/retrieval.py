"""Retrieval: each question with its k best passages, in the DPR/Contriever result format."""

from __future__ import annotations

from collections.abc import Sequence

from gainrag.files.progress import progress_bar
from gainrag.metrics import mark_answers
from gainrag.protocols import Retriever, search_with
from gainrag.records import Question, Retrieved, Scored
from gainrag.settings import Passages, checked

# Questions searched at a time: encoded together, and little enough for the bar to move.
_BATCH = 128


@checked
def retrieve(questions: Sequence[Question], retriever: Retriever, *, k: Passages = 20) -> list[Retrieved]:
    """Find every question's k best passages, best first; fewer only when the corpus is smaller.

    Where the question has answers, each passage is marked with whether it holds one (`hasanswer`).

    Args:
        k: passages per question.

    Raises:
        ConfigError: k is less than 1.
        ModelError: the retriever returns too few or too many lists.
    """
    retrieved: list[Retrieved] = []
    with progress_bar("retrieving", unit="questions", total=len(questions)) as bar:
        for start in range(0, len(questions), _BATCH):
            batch = questions[start : start + _BATCH]
            found = search_with(retriever, [question.question for question in batch], k)
            for question, passages in zip(batch, found, strict=True):
                retrieved.append(_with_passages(question, passages))
            bar.update(len(batch))
    return retrieved


def _with_passages(question: Question, passages: Sequence[Scored]) -> Retrieved:
    mark_answers(passages, question.answers)
    return Retrieved(
        id=question.id, question=question.question, answers=question.answers, ctxs=list(passages), extra=question.extra
    )
