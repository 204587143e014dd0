"""What a retriever, a language model and a selector must offer, what they may offer beyond it, and how they are called.

Batches first; nothing more than is used. What a part can do beyond its protocol is declared by a protocol of its own
(`StoppingGenerator`, `BatchSelector`, ...), and asked for with `isinstance`. Parts are called through functions that
check what comes back: a wrong number of scores must not shift labels without a word.

A hosted chat model is a Generator and no Scorer: scoring needs the whole vocabulary's logits.

offers.py    the protocols
calling.py   the functions
"""

from gainrag.protocols.calling import (
    bounds_with,
    chunk_for,
    continue_with,
    is_listwise,
    losses_with,
    name_of,
    need,
    sample_with,
    scores_with,
    search_with,
)
from gainrag.protocols.offers import (
    BatchSelector,
    Bounded,
    BoundedScorer,
    Chat,
    ChatFirst,
    FloatArray,
    Generator,
    Hardware,
    Lazy,
    Level,
    Listwise,
    Metered,
    MeteredScorer,
    Named,
    Retriever,
    SamplingGenerator,
    Scorer,
    ScorerGenerator,
    ScoringRequest,
    Selector,
    StoppingGenerator,
    Weighing,
    Windowed,
)

__all__ = [
    "BatchSelector",
    "Bounded",
    "BoundedScorer",
    "Chat",
    "ChatFirst",
    "FloatArray",
    "Generator",
    "Hardware",
    "Lazy",
    "Level",
    "Listwise",
    "Metered",
    "MeteredScorer",
    "Named",
    "Retriever",
    "SamplingGenerator",
    "Scorer",
    "ScorerGenerator",
    "ScoringRequest",
    "Selector",
    "StoppingGenerator",
    "Weighing",
    "Windowed",
    "bounds_with",
    "chunk_for",
    "continue_with",
    "is_listwise",
    "losses_with",
    "name_of",
    "need",
    "sample_with",
    "scores_with",
    "search_with",
]
