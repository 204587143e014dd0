"""Answers -> Evaluation: the scores of each answer, comparisons over all of them, and the records of what was found."""

from gainrag.evaluation.evaluating import evaluate
from gainrag.evaluation.results import (
    Breakdown,
    Comparison,
    Difference,
    Estimate,
    Evaluation,
    SystemScores,
)
from gainrag.evaluation.scoring import ACCURACY, GOLD_RECALL, METRICS, score_questions

__all__ = [
    "ACCURACY",
    "GOLD_RECALL",
    "METRICS",
    "Breakdown",
    "Comparison",
    "Difference",
    "Estimate",
    "Evaluation",
    "SystemScores",
    "evaluate",
    "score_questions",
]
