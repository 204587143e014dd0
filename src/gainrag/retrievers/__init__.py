"""Retrievers: by words (bm25), by meaning (dense), by both (hybrid). All are `gainrag.protocols.Retriever`s."""

from gainrag.retrievers.bm25 import BM25
from gainrag.retrievers.dense import Dense
from gainrag.retrievers.hybrid import Hybrid

__all__ = ["BM25", "Dense", "Hybrid"]
