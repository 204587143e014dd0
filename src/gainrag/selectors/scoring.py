"""Scores of many pairs by one cross-encoder, fast: what `CrossEncoder.predict` computes, with less work around it.

Every question and every different passage is tokenized once, pairs are put together from the parts, and a batch holds
pairs of like length up to a number of tokens, so that padding and memory stay small. A model that is no plain text
encoder (a chat model used as a reranker, one with prompts of its own) goes through `CrossEncoder.predict`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.models.devices import kind_of
from gainrag.models.patching import with_forward
from gainrag.models.threads import each
from gainrag.prompts import selector_text
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.selectors.internals import agrees, encoder_of, is_plain

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from tokenizers import Encoding

# Tokens that go through the model at once, padding included. On a CPU few, so that a layer's activations stay in
# the caches; a GPU wants more to be busy.
TOKENS = {"cpu": 2048, "cuda": 32768}
# Pairs that do so where `CrossEncoder.predict` makes the batches.
PAIRS = {"cpu": 32, "cuda": 256}
# A runtime prepares itself anew for every shape it has not seen: lengths are padded to a multiple of this, so that
# shapes come back.
RUNTIME_MULTIPLE = 16


def score_pairs(
    model: CrossEncoder,
    requests: Sequence[tuple[str, Sequence[Passage]]],
    *,
    batch_tokens: int | None = None,
    bf16: bool = False,
) -> list[FloatArray]:
    """The scores [passage] of each question's passages, as `CrossEncoder.predict` gives them.

    A pair's score does not depend on the other pairs, beyond the rounding of the model's dtype.

    Args:
        batch_tokens: tokens in a batch, padding included; a longer pair goes alone. By the device when left out.
        bf16: matrix products in bfloat16 though the weights are float32, as in training.
    """
    import torch

    ends = np.cumsum([len(passages) for _, passages in requests])
    if not requests or ends[-1] == 0:
        return [np.empty(0) for _ in requests]
    if is_plain(model) and agrees(model, partial(_score_texts, model)):
        scores = _score(model, requests, batch_tokens or _tokens(model), bf16)
    else:
        pairs = [(question, selector_text(p)) for question, passages in requests for p in passages]
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            found = model.predict(pairs, batch_size=PAIRS[kind_of(model.device.type)], show_progress_bar=False)
        scores = np.asarray(found, dtype=np.float64)
    return [np.asarray(part) for part in np.split(scores, ends[:-1])]


def _tokens(model: CrossEncoder) -> int:
    return TOKENS[kind_of(model.device.type)]


def _score_texts(model: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """The scores of pairs of texts."""
    return _score(model, [(question, [Passage(id="", text=text)]) for question, text in pairs], _tokens(model), False)


def _score(
    model: CrossEncoder, requests: Sequence[tuple[str, Sequence[Passage]]], batch_tokens: int, bf16: bool
) -> FloatArray:
    """The scores of all pairs in their order."""
    import torch

    encodings = tokenize(model, requests)
    lengths = [len(encoding.ids) for encoding in encodings]
    scores = np.empty(len(encodings), dtype=np.float64)
    model.eval()
    ours = isinstance(encoder_of(model), torch.nn.Module)  # not a runtime's, with threads of its own

    def work(batch: list[int]) -> None:
        features = _pad(model.tokenizer, [encodings[i] for i in batch], None if ours else RUNTIME_MULTIPLE)
        with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            out = model({name: tensor.to(model.device) for name, tensor in features.items()})["scores"]
            scores[batch] = model.activation_fn(out.float()).squeeze(-1).cpu().numpy()

    batches = make_batches(lengths, batch_tokens)
    if ours:
        each(batches, work, device=model.device.type)
    else:
        for batch in batches:
            work(batch)
    return scores


def tokenize(model: CrossEncoder, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[Encoding]:
    """The tokens of every pair, cut and joined as the model's tokenizer does it; each text is tokenized once."""
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    questions = list(dict.fromkeys(question for question, _ in requests))
    texts = list(dict.fromkeys(selector_text(p) for _, passages in requests for p in passages))
    first = backend.encode_batch_fast(questions, add_special_tokens=False)
    # As the second text of a pair whose first is empty, so that its tokens have the second's type.
    second = backend.encode_batch_fast([("", text) for text in texts], add_special_tokens=False)
    of_question, of_text = dict(zip(questions, first, strict=True)), dict(zip(texts, second, strict=True))
    limit = model.max_seq_length
    if limit and limit < 1_000_000:  # "no limit" is a very large number
        backend.enable_truncation(limit, strategy="longest_first", direction=model.tokenizer.truncation_side)
    return [
        backend.post_process(of_question[question], of_text[selector_text(p)])
        for question, passages in requests
        for p in passages
    ]


def make_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Where pairs of like length are, longest first, in batches of at most so many tokens with padding.

    >>> make_batches([3, 9, 4, 2], tokens=10)
    [[1], [2, 0], [3]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


@contextmanager
def in_parts(model: CrossEncoder) -> Iterator[None]:
    """While it lasts, pairs that a model is given together go through it in batches of like length, each as long as its
    longest pair, and come back in their order. For training: a step's pairs come together, few are long.

    A causal model's rows are padded at their beginning; it sees distances between tokens, not where a row begins.
    """
    import torch

    whole = model.forward

    def forward(features: dict[str, Any], **more: Any) -> dict[str, Any]:
        mask = features["attention_mask"]
        lengths = mask.sum(1).tolist()
        batches = make_batches(lengths, _tokens(model))
        by_token = {k: v for k, v in features.items() if isinstance(v, torch.Tensor) and v.shape == mask.shape}
        left = model.tokenizer.padding_side == "left"

        def cut(tensor: torch.Tensor, batch: list[int]) -> torch.Tensor:
            longest = lengths[batch[0]]
            return tensor[batch, -longest:] if left else tensor[batch, :longest]

        scores = torch.cat(
            [whole(features | {k: cut(v, batch) for k, v in by_token.items()}, **more)["scores"] for batch in batches]
        )
        order = [i for batch in batches for i in batch]
        return {"scores": scores[torch.tensor(order).argsort().to(scores.device)]}

    with with_forward(model, forward):
        yield


def _pad(tokenizer: Any, encodings: Sequence[Encoding], multiple: int | None) -> dict[str, Any]:
    """The tensors of a batch, as long as the longest, or the next multiple."""
    inputs = {"input_ids": [encoding.ids for encoding in encodings]}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = [encoding.type_ids for encoding in encodings]
    return dict(tokenizer.pad(inputs, return_tensors="pt", pad_to_multiple_of=multiple))
