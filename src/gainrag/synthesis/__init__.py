"""Candidates -> gains: the labels that a selector learns from, made of losses or of sampled answers.

labelling.py   the stage: checks, thinning, labels from losses
sampled.py     labels from answers, for models that tell no log-probabilities
candidates.py  which questions and candidates are labelled, which questions are kept
reading.py     what the labels of a record say
diagnosis.py   how good labels are, and how far two models' labels agree
"""

from gainrag.synthesis.candidates import LONG
from gainrag.synthesis.diagnosis import (
    NothingToCompareError,
    agree,
    describe,
    describe_agreement,
    describe_diagnosis,
    diagnose,
    evenly_spaced,
    recommended_alpha,
    summarize,
)
from gainrag.synthesis.labelling import CHUNK, as_alphas, check_source, chunk_sizes, scoring_request, synthesize
from gainrag.synthesis.reading import (
    choice_gain_without,
    choice_gains_at,
    choice_losses_of,
    gains_at,
    is_certain,
    level_of,
    losses_at,
)
from gainrag.synthesis.sampled import requests_for

__all__ = [
    "CHUNK",
    "LONG",
    "NothingToCompareError",
    "agree",
    "as_alphas",
    "check_source",
    "choice_gain_without",
    "choice_gains_at",
    "choice_losses_of",
    "chunk_sizes",
    "describe",
    "describe_agreement",
    "describe_diagnosis",
    "diagnose",
    "evenly_spaced",
    "gains_at",
    "is_certain",
    "level_of",
    "losses_at",
    "recommended_alpha",
    "requests_for",
    "scoring_request",
    "summarize",
    "synthesize",
]
