"""Learn which retrieved passage helps a given language model to the right answer, and use it.

The public names, nothing else. Importing any of them is cheap; models are loaded when one is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gainrag.answering import answer
    from gainrag.augmentation import augment
    from gainrag.errors import GainragError
    from gainrag.evaluation import Evaluation, evaluate
    from gainrag.indexing import index, open_index
    from gainrag.inference import GainRAG, Result
    from gainrag.ingestion import ingest, read_passages, read_questions, read_retrieved
    from gainrag.lms import open_lm
    from gainrag.protocols import Generator, Retriever, Scorer, ScoringRequest, Selector
    from gainrag.records import Answer, Gained, GainRecord, Passage, Question, Retrieved, Scored
    from gainrag.retrieval import retrieve
    from gainrag.retrievers import BM25, Dense, Hybrid
    from gainrag.selection import select
    from gainrag.selectors import CrossEncoderSelector, FeatureSelector, open_selector
    from gainrag.selectors.exporting import export
    from gainrag.synthesis import synthesize
    from gainrag.training import train

__version__ = "0.1.0"

# Where each public name lives; read on first use, so that `import gainrag` loads no library.
_HOMES = {
    "answering": ("answer",),
    "augmentation": ("augment",),
    "errors": ("GainragError",),
    "evaluation": ("Evaluation", "evaluate"),
    "selectors.exporting": ("export",),
    "indexing": ("index", "open_index"),
    "inference": ("GainRAG", "Result"),
    "ingestion": ("ingest", "read_passages", "read_questions", "read_retrieved"),
    "lms": ("open_lm",),
    "protocols": ("Generator", "Retriever", "Scorer", "ScoringRequest", "Selector"),
    "records": ("Answer", "GainRecord", "Gained", "Passage", "Question", "Retrieved", "Scored"),
    "retrieval": ("retrieve",),
    "retrievers": ("BM25", "Dense", "Hybrid"),
    "selection": ("select",),
    "selectors": ("CrossEncoderSelector", "FeatureSelector", "open_selector"),
    "synthesis": ("synthesize",),
    "training": ("train",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BM25",
    "Answer",
    "CrossEncoderSelector",
    "Dense",
    "Evaluation",
    "FeatureSelector",
    "GainRAG",
    "GainRecord",
    "Gained",
    "GainragError",
    "Generator",
    "Hybrid",
    "Passage",
    "Question",
    "Result",
    "Retrieved",
    "Retriever",
    "Scored",
    "Scorer",
    "ScoringRequest",
    "Selector",
    "answer",
    "augment",
    "evaluate",
    "export",
    "index",
    "ingest",
    "open_index",
    "open_lm",
    "open_selector",
    "read_passages",
    "read_questions",
    "read_retrieved",
    "retrieve",
    "select",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gainrag' has no attribute {name!r}")
    return getattr(import_module(f"gainrag.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
