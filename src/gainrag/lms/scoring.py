"""Teacher-forced scoring: the contrastive loss that gainrag.gain defines, exact over the whole vocabulary.

What makes it fast: a prompt runs once for all answers and alphas (see gainrag.lms.packing); rows of all requests share
packs, so nothing is padded; and on a CPU every core works on a pack of its own, which wastes less than all on one. A
GPU is kept busy in another way, see gainrag.lms.gpu.
What keeps it small: of the layers' output only the hidden states are kept that predict an answer's token, and those
are projected on the vocabulary and reduced a few at a time (see gainrag.lms.projection). A model for which this is not
proven to give the same (see gainrag.lms.ways) is scored with one pass a prompt and answer instead (gainrag.lms.plain).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from gainrag.errors import DataError, ModelError
from gainrag.lms.attention import packed, segments_of, stack_of
from gainrag.lms.checking import check_request, no_tokens
from gainrag.lms.gpu import score_on_gpu
from gainrag.lms.means import Means
from gainrag.lms.packing import AnswerTree, Row, make_even_packs
from gainrag.lms.plain import fill_in
from gainrag.lms.precision import rounded_already, wider
from gainrag.lms.projection import Asked, Job, layers_skipped, on_device, parts_of, reduce_hidden
from gainrag.lms.ways import Way, choose_way
from gainrag.models.hub import quiet
from gainrag.models.threads import each, how_many
from gainrag.protocols import FloatArray, ScoringRequest

if TYPE_CHECKING:
    import torch

    from gainrag.lms.loaded import LoadedModel

# A pack must fill one core, or a GPU.
PACK_TOKENS = {"cpu": 2048, "cuda": 16384}
# Cells of a stack's mask: rows too unlike in length would be mostly padding, and are run as segments.
STACK = 2**27
# Requests that are tokenized together.
TOKENIZED = 16
# Numbers in the hidden states that are held until they are projected.
HIDDEN = 2**26


def contrastive_losses(
    lm: LoadedModel, requests: Sequence[ScoringRequest], alphas: Sequence[float]
) -> list[FloatArray]:
    """The contrastive loss of each request as an array [passage, answer, alpha], nats per token.

    Raises:
        DataError: an answer without tokens, no answers, no passages, or a prompt beyond the context.
        ModelError: the model's logits are not finite.
    """
    if lm.way is None:
        swift = lm.means.beside and (lm.means.compiled or lm.means.graphs)
        lm.way = choose_way(lm.name, lm.dtype, partial(_tiny_losses, lm), swift)
        if lm.means.beside and not lm.way.packed:  # then as a CPU does it, in packs, before prompt by prompt
            lm.means = Means()
            lm.way = choose_way(lm.name, lm.dtype, partial(_tiny_losses, lm))
    began = time.perf_counter()
    found = _score(lm, _asked(lm, requests, any(alpha != 0 for alpha in alphas)), alphas, lm.way)
    lm.throughput.seconds += time.perf_counter() - began
    if not all(np.isfinite(losses).all() for losses in found):
        raise ModelError(
            "the model returned NaN or infinite logits",
            where=lm.name,
            hint="use --dtype float32, or check the model's weights",
        )
    return found


def _score(lm: LoadedModel, asked: Iterable[Asked], alphas: Sequence[float], way: Way) -> list[FloatArray]:
    """The losses of each request [passage, answer, alpha]."""
    if way.packed and lm.means.beside:
        return score_on_gpu(lm, asked, alphas, way)
    jobs = [Job.of(one, alphas=len(alphas), device=lm.device) for one in asked]
    _fill_in(lm, jobs, alphas, way)
    return [np.asarray(job.losses.cpu().numpy(), dtype=np.float64) for job in jobs]


def _fill_in(lm: LoadedModel, jobs: Sequence[Job], alphas: Sequence[float], way: Way) -> None:
    """Fill in the losses of jobs."""
    if not way.packed:
        for job in jobs:
            fill_in(lm, job, alphas)
        return
    workers = how_many(lm.device)
    with wider(lm.model) if way.wide else nullcontext():
        for window in _windows(jobs, lm.model.config.get_text_config().hidden_size):
            rows = [Row(prompt, jobs[j].tree, (j, i)) for j in window for i, prompt in enumerate(jobs[j].prompts)]
            packs = make_even_packs(rows, tokens=PACK_TOKENS[lm.kind], workers=workers)
            with packed(lm.model):
                each(packs, lambda pack: _run(lm, pack, jobs), device=lm.device)
            with layers_skipped(lm.model), rounded_already(lm.model):
                parts = [(j, part) for j in window for part in parts_of(lm, jobs[j], -(-workers // len(window)))]
                each(parts, lambda part: reduce_hidden(lm, jobs[part[0]], part[1], alphas), device=lm.device)
            for j in window:
                jobs[j].hidden.clear()


def _tiny_losses(lm: LoadedModel, way: Way) -> FloatArray:
    """The losses of a request of a few tokens, in a way."""
    ids = [(lm.vocabulary // 3 + 7 * i) % lm.vocabulary for i in range(16)]
    alphas = (0.0, 0.5)
    tree = AnswerTree.build([ids[:3], [ids[0], ids[4]]])
    # The second prompt begins as the first does; a swift way is another from its third time on.
    prompts = [[*ids, *ids[5:8]], [*ids, *ids[4:13]]]
    asked = Asked(tree, prompts, passages=[1], contrast=True)
    with quiet():
        for _ in range(3 if way.swift else 1):
            (found,) = _score(lm, [asked], alphas, way)
    return found


def _asked(lm: LoadedModel, requests: Sequence[ScoringRequest], contrast: bool) -> Iterator[Asked]:
    """The requests in tokens. The prompts of several are tokenized together, which the tokenizer does on all cores."""
    for start in range(0, len(requests), TOKENIZED):
        some = requests[start : start + TOKENIZED]
        answers = [_answers(lm, request) for request in some]
        different: list[dict[str, int]] = []  # prompts, by their place: none runs twice
        for request in some:
            different.append({})
            for prompt in ([request.without_prompt] if contrast else []) + list(request.with_prompts):
                different[-1].setdefault(prompt, len(different[-1]))
        tokens = iter(lm.prompts_ids([prompt for prompts in different for prompt in prompts]))
        for request, own, prompts in zip(some, answers, different, strict=True):
            tree = AnswerTree.build(own)
            passages = [prompts[prompt] for prompt in request.with_prompts]
            asked = Asked(tree, list(islice(tokens, len(prompts))), passages, contrast)
            longest = max(map(len, asked.prompts)) + max(tree.depth, default=0)
            if longest > lm.context:
                raise DataError(
                    f"a prompt and answer of {longest} tokens do not fit the context of {lm.context}",
                    where=lm.name,
                    hint="render prompts with gainrag.prompts, which cuts passages to the context",
                )
            yield asked


def _answers(lm: LoadedModel, request: ScoringRequest) -> list[list[int]]:
    """The token ids of a request's answers."""
    check_request(request)
    ids = [lm.answer_ids(answer) for answer in request.answers]
    for text, answer in zip(request.answers, ids, strict=True):
        if not answer:
            raise no_tokens(request, text)
    return ids


def _windows(jobs: Sequence[Job], width: int) -> Iterator[list[int]]:
    """Consecutive jobs whose hidden states, of so many numbers each, may be held together."""
    window: list[int] = []
    held = 0
    for j, job in enumerate(jobs):
        size = len(job.prompts) * job.outputs * width
        if window and held + size > HIDDEN:
            yield window
            window, held = [], 0
        window.append(j)
        held += size
    if window:
        yield window


def _run(lm: LoadedModel, pack: Sequence[Row], jobs: Sequence[Job]) -> None:
    """Run a pack and keep the hidden states of its rows' outputs."""
    import torch

    with torch.inference_mode():
        hidden = hidden_states(lm, pack)
    start = 0
    for row in pack:
        job, prompt = row.owner
        jobs[job].hidden[prompt] = hidden[start : start + row.outputs]
        start += row.outputs
    lm.throughput.count(sum(map(len, pack)), 0)


def hidden_states(lm: LoadedModel, rows: Sequence[Row]) -> torch.Tensor:
    """Hidden states [the rows' outputs after one another, width], of one pass of the layers over a pack."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    outputs: list[int] = []
    for row in rows:
        outputs += range(len(ids) + len(row.prompt) - 1, len(ids) + len(row))
        ids += [*row.prompt, *row.tree.tokens]
        positions += row.positions
    position_ids = on_device(lm.device, torch.tensor(positions))
    stacked = lm.kind == "cuda" and len(rows) * max(map(len, rows)) ** 2 <= STACK
    out = lm.model.base_model(
        input_ids=on_device(lm.device, torch.tensor([ids])),
        position_ids=position_ids[None],
        **{"stack": stack_of(rows, position_ids)} if stacked else {"segments": segments_of(rows, position_ids)},
        use_cache=False,
    )
    # A copy of the few that are wanted: the whole may go.
    hidden: torch.Tensor = out.last_hidden_state[0, on_device(lm.device, torch.tensor(outputs))]
    return hidden
