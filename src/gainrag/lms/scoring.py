"""Teacher-forced scoring: the contrastive loss of METHOD section 1, exact over the whole vocabulary.

What makes it fast: a prompt runs once for all answers and alphas (see gainrag.lms.packing); rows of all requests share
packs, so nothing is padded; logits are computed where an answer's token is predicted and nowhere else, and reduced a
few at a time, while they are still in the cache; and on a CPU every core works on a pack of its own, which wastes
less than all cores on one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gainrag.errors import DataError, ModelError
from gainrag.lms.packing import ATTENTION, AnswerTree, Row, Segment, make_even_packs
from gainrag.lms.precision import wider
from gainrag.protocols import FloatArray, ScoringRequest

if TYPE_CHECKING:
    import torch

    from gainrag.lms.local import LocalLM

# A pack must fill one core, or a card; and its logits, vocabulary * outputs numbers, are the memory that scoring needs.
PACK_TOKENS = {"cpu": 2048, "cuda": 16384}
PACK_LOGITS = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
# Logits that are reduced at a time: few enough to stay in a core's cache.
CHUNK_LOGITS = {"cpu": 2**18, "cuda": 2**26}


@dataclass
class Job:
    """A request under way.

    prompts, without_prompt: token ids.
    losses: [passage, answer, alpha], nats per token, on the model's device, filled pack by pack.
    without: logits [output, vocabulary] of the prompt without a passage; None until it ran, or where no alpha needs it.
    answer, position, token: of every token of every answer: whose it is, the output that predicts it, and its id.
    """

    tree: AnswerTree
    prompts: list[list[int]]
    without_prompt: list[int]
    losses: torch.Tensor
    answer: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor
    without: torch.Tensor | None = field(default=None, repr=False)


def contrastive_losses(lm: LocalLM, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
    """The contrastive loss of each request as an array [passage, answer, alpha], nats per token.

    Raises:
        DataError: an answer without tokens, no answers, no passages, or a prompt beyond the context.
        ModelError: the model's logits are not finite, or its architecture cannot be packed.
    """
    if not lm.model._can_set_attn_implementation() or not lm.model._supports_attention_backend:
        raise ModelError(
            f"{type(lm.model).__name__} has no exchangeable attention",
            where=lm.name,
            hint="use a model of another architecture (Llama, Qwen, Mistral, Gemma, Phi, ...) for scoring",
        )
    began = time.perf_counter()
    lm.model.set_attn_implementation(ATTENTION)
    jobs = [_job(lm, request, alphas) for request in requests]
    with wider(lm.model):
        for window in _windows(jobs, _pack_outputs(lm)):
            if any(alpha != 0 for alpha in alphas):
                rows = [Row(jobs[j].without_prompt, jobs[j].tree, (j, -1)) for j in window]
                _run(lm, rows, jobs, alphas)
            rows = [Row(prompt, jobs[j].tree, (j, i)) for j in window for i, prompt in enumerate(jobs[j].prompts)]
            _run(lm, rows, jobs, alphas)
            for j in window:
                jobs[j].without = None
    found = [np.asarray(job.losses.cpu().numpy(), dtype=np.float64) for job in jobs]
    lm.throughput.seconds += time.perf_counter() - began
    if not all(np.isfinite(losses).all() for losses in found):
        raise ModelError(
            "the model returned NaN or infinite logits",
            where=lm.name,
            hint="use --dtype float32, or check the model's weights",
        )
    return found


def _job(lm: LocalLM, request: ScoringRequest, alphas: Sequence[float]) -> Job:
    import torch

    where = f"prompt {request.without_prompt[-60:]!r}"
    if not request.with_prompts:
        raise DataError("no passages to score", where=where, hint="retrieve first")
    if not request.answers:
        raise DataError("no answers to score", where=where, hint="gains need gold answers")
    ids = [lm.answer_ids(answer) for answer in request.answers]
    for text, answer in zip(request.answers, ids, strict=True):
        if not answer or not text.strip():
            raise DataError(f"the answer {text!r} has no tokens", where=where, hint="remove empty answers")
    tree = AnswerTree.build(ids)
    steps = [(number, *step) for number, path in enumerate(tree.steps) for step in path]
    answer_of, position, token = (_on(lm.device, torch.tensor(column)) for column in zip(*steps, strict=True))
    job = Job(
        tree=tree,
        prompts=[lm.prompt_ids(prompt) for prompt in request.with_prompts],
        without_prompt=lm.prompt_ids(request.without_prompt),
        losses=torch.empty(len(request.with_prompts), len(ids), len(alphas), dtype=torch.float64, device=lm.device),
        answer=answer_of,
        position=position,
        token=token,
    )
    longest = max(map(len, [*job.prompts, job.without_prompt])) + max(tree.depth, default=0)
    if longest > lm.context:
        raise DataError(
            f"a prompt and answer of {longest} tokens do not fit the context of {lm.context}",
            where=lm.name,
            hint="render prompts with gainrag.prompts, which cuts passages to the context",
        )
    return job


def _windows(jobs: Sequence[Job], outputs: int) -> Iterator[list[int]]:
    """Consecutive jobs whose logits without a passage may be held together, at most so many outputs."""
    window: list[int] = []
    held = 0
    for j, job in enumerate(jobs):
        width = 1 + len(job.tree.tokens)
        if window and held + width > outputs:
            yield window
            window, held = [], 0
        window.append(j)
        held += width
    if window:
        yield window


def _kind(lm: LocalLM) -> str:
    return "cpu" if lm.device == "cpu" else "cuda"


def _pack_outputs(lm: LocalLM) -> int:
    """How many outputs a pack may have."""
    return max(1, PACK_LOGITS[_kind(lm)] // lm.vocabulary)


def _run(lm: LocalLM, rows: Sequence[Row], jobs: Sequence[Job], alphas: Sequence[float]) -> None:
    """Run rows in packs and reduce their logits: one pack a core at a time on a CPU, one after another on a card."""
    import torch

    threads = torch.get_num_threads() if lm.device == "cpu" else 1
    packs = make_even_packs(rows, tokens=PACK_TOKENS[_kind(lm)], outputs=_pack_outputs(lm), workers=threads)

    def work(pack: Sequence[Row]) -> None:
        with torch.inference_mode():
            logits = pack_logits(lm, pack)
            start = 0
            for row in pack:
                job, passage = jobs[row.owner[0]], row.owner[1]
                part = logits[start : start + row.outputs]
                start += row.outputs
                if passage < 0:
                    job.without = part.float()
                else:
                    job.losses[passage] = _answer_losses(part, job, alphas)
        lm.throughput.count(sum(map(len, pack)), sum(row.outputs for row in pack))

    if threads == 1 or len(packs) == 1:
        for pack in packs:
            work(pack)
        return
    try:
        with ThreadPoolExecutor(min(threads, len(packs)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, packs))
    finally:
        torch.set_num_threads(threads)


def pack_logits(lm: LocalLM, rows: Sequence[Row]) -> torch.Tensor:
    """Logits [the rows' outputs after one another, vocabulary], of one pass over a pack."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    outputs: list[int] = []
    for row in rows:
        prompt = len(row.prompt)
        outputs += range(len(ids) + prompt - 1, len(ids) + len(row))
        ids += [*row.prompt, *row.tree.tokens]
        positions += [*range(prompt), *(prompt - 1 + depth for depth in row.tree.depth)]
    position_ids = _on(lm.device, torch.tensor(positions))
    segments: list[Segment] = []
    masks: dict[int, torch.Tensor] = {}
    start = 0
    for row in rows:
        tree, mask = row.tree, None
        if tree.tokens:
            if id(tree) not in masks:
                masks[id(tree)] = _on(lm.device, torch.from_numpy(tree.mask()))
            prompt_seen = torch.ones(len(tree.tokens), len(row.prompt), dtype=torch.bool, device=lm.device)
            mask = torch.cat([prompt_seen, masks[id(tree)]], dim=1)
        segments.append(Segment(start, len(row.prompt), position_ids[start : start + len(row)], mask))
        start += len(row)
    out = lm.model(
        input_ids=_on(lm.device, torch.tensor([ids])),
        position_ids=position_ids[None],
        logits_to_keep=_on(lm.device, torch.tensor(outputs)),
        segments=segments,
        use_cache=False,
    )
    logits: torch.Tensor = out.logits[0]
    return logits


def _on(device: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the model's device. To a card it goes from pinned memory, so that nothing waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.startswith("cuda") else tensor.to(device)


def _answer_losses(logits: torch.Tensor, job: Job, alphas: Sequence[float]) -> torch.Tensor:
    """[answer, alpha] of one passage, from its logits [output, vocabulary].

    The loss of a token is log sum exp(z) - z[token] at the output that predicts it; of an answer, the mean over its
    tokens. z = with + alpha * (with - without) is only ever made for a few outputs at a time.
    """
    import torch

    chosen = logits[job.position, job.token].float()
    base = job.without
    apart = None if base is None else chosen - base[job.position, job.token]
    steps = max(1, CHUNK_LOGITS["cpu" if logits.device.type == "cpu" else "cuda"] // logits.shape[1])
    normaliser = torch.empty(len(logits), len(alphas), device=logits.device)
    for start in range(0, len(logits), steps):
        part = slice(start, start + steps)
        z = logits[part].float()
        for a, alpha in enumerate(alphas):
            normaliser[part, a] = _log_sum_exp(z, None if alpha == 0 or base is None else base[part], alpha)
    found = torch.zeros(job.losses.shape[1:], dtype=torch.float64, device=logits.device)
    lengths = torch.zeros(len(found), 1, dtype=torch.float64, device=logits.device)
    lengths.index_add_(0, job.answer, torch.ones(len(job.answer), 1, dtype=torch.float64, device=logits.device))
    for a, alpha in enumerate(alphas):
        z_token = chosen if apart is None else chosen + alpha * apart
        found[:, a].index_add_(0, job.answer, (normaliser[job.position, a] - z_token).double())
    return found / lengths


def _log_sum_exp(z: torch.Tensor, base: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """log sum exp over the last axis of z + alpha * (z - base), or of z; with one temporary, and z left as it is."""
    import torch

    scaled = z.clone() if base is None else torch.lerp(base, z, 1 + alpha)
    highest = scaled.amax(dim=-1, keepdim=True)
    return scaled.sub_(highest).exp_().sum(dim=-1).log_() + highest[:, 0]
