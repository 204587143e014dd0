"""Labels -> a selector: a cross-encoder learns to rank passages as the labels do.

Two kinds of labels, one way of training. `gain`: the teacher is softmax(gain / temperature) over a group of passages,
the silver passage always among them (METHOD section 4). `relevance`: the teacher is flat over the passages that hold an
answer; it needs no language model, so that every training question can serve as warm start, and it is the rival that a
gain selector must beat. sentence-transformers' ListNetLoss is the cross-entropy of teacher and student: the gradient
of KL(teacher || student).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from gainrag.errors import ConfigError, DataError
from gainrag.gain import teacher
from gainrag.lms.embedded import resolve
from gainrag.lms.loading import check_reachable, choose_device, choose_dtype, loading_errors, quiet
from gainrag.progress import progress_bar
from gainrag.prompts import RERANKER_TEMPLATE, selector_text
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved, disk_errors
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.calibration import choose_order, fit, learn_prior
from gainrag.selectors.lazy import calibration_questions, learn_threshold
from gainrag.selectors.saving import save
from gainrag.synthesis import gains_at

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer

Labels = Literal["gain", "relevance"]
T = TypeVar("T", bound=GainRecord | Retrieved)

# Log-odds between a passage with an answer and one without, as good as certain: exp(-10) of the mass is left.
RELEVANT = 10.0
# Pairs that go through the model at once: bounds memory and padding, changes nothing else.
MINI_BATCH = 16


def train(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    out: str | Path,
    facts: Mapping[str, Any] | None = None,
    *,
    base: str = "embedded:all-minilm-l6-v2",
    labels: Labels = "gain",
    alpha: float | None = None,
    temperature: float = 1.0,
    only_kept: bool = True,
    group_size: int = 16,
    groups_per_step: int = 8,
    epochs: int = 2,
    learning_rate: float = 6e-5,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    dropout: float | None = None,
    last_layers: int = 0,
    max_length: int = 512,
    validation: float = 0.0,
    rank_prior: bool = False,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
) -> CrossEncoderSelector:
    """Train a cross-encoder and save it as a plain folder that `CrossEncoder(path)` loads, with a model card.

    Args:
        records: gain records, or for relevance labels retrieved ones with `hasanswer`.
        out: the folder to write, whole or not at all.
        facts: what the model card should say about the labels' origin (language model, prompt, data).
        base: the cross-encoder or encoder to start from: embedded:NAME, a Hugging Face id or a folder.
        labels: gain, or relevance (whether a passage holds an answer).
        alpha: train on the gains at this alpha; the run's own when it is left out.
        temperature: of the teacher: softmax(gain / temperature); below 1 sharpens.
        only_kept: leave out questions that did not pass the keep-filter.
        group_size: passages a question shows at each visit: the silver one and others sampled anew.
        groups_per_step: questions in one step of the optimizer.
        epochs: visits of each question.
        learning_rate: the highest, after warm-up; it falls linearly to 0.
        warmup: share of steps in which the learning rate rises.
        weight_decay: of AdamW.
        dropout: while training; the base model's own when it is left out. 0 is a third faster on a CPU.
        last_layers: train only so many of the last layers, which is faster with a large base; 0 is all.
        max_length: tokens of question and passage together, cut at the passage's end.
        validation: share of the questions held out; the epoch that does best on them is kept.
        rank_prior: also learn what the retriever's order says, and weigh it by the held-out questions.
        seed: of sampling, order, and the fresh head.
        dtype: bfloat16 runs matrix products in it (the weights stay float32).
        device: auto, cpu, cuda, ...

    Raises:
        DataError: no question is left to learn from.
        ConfigError: a setting is out of its range.
        ModelError: the base cannot be loaded.
    """
    _check(
        temperature=temperature,
        group_size=group_size,
        groups_per_step=groups_per_step,
        epochs=epochs,
        learning_rate=learning_rate,
        validation=validation,
    )
    if rank_prior and validation == 0:
        raise ConfigError("rank_prior needs held-out questions", where="train", hint="set validation, such as 0.2")
    rng = np.random.default_rng(seed)
    every: list[GainRecord | Retrieved] = list(records)
    learn, held = split(every, labels, only_kept, validation, rng)
    if not learn:
        raise DataError(
            f"no question is left to learn from ({len(records)} records)",
            where="train",
            hint="with only_kept = false questions that fail the filter are used too"
            if labels == "gain"
            else "relevance needs questions with passages that hold an answer and others that do not",
        )
    device = choose_device(device)
    model = open_cross_encoder(base, device=device, max_length=max_length, seed=seed)
    if dropout is not None:
        set_dropout(model, dropout)
    if last_layers:
        freeze_below(model, last_layers)
    rows = [_group(record, labels, alpha, temperature, group_size, rng) for _ in range(epochs) for record in learn]
    teachers = {id(r): _teacher(r, labels, alpha, temperature) for r in (*learn, *held)}
    _fit(
        model,
        rows,
        held=[(r, teachers[id(r)]) for r in held],
        steps_between=max(1, len(learn) // groups_per_step),
        groups_per_step=groups_per_step,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        seed=seed,
        bf16=choose_dtype(dtype, device) == "bfloat16",
        device=device,
    )
    calibration, figures = None, dict[str, float | str | None]()
    if held:
        scores = score_lists(model, held)
        lists, targets = [r.ctxs for r in held], [teachers[id(r)] for r in held]
        figures = {"held-out regret (nats)": regret(scores, [_targets(r, labels, alpha) for r in held])}
        order_by = choose_order([r.ctxs for r in learn], [_targets(r, labels, alpha) for r in learn])
        prior = learn_prior([r.ctxs for r in learn], [teachers[id(r)] for r in learn], order_by)
        fitted, with_prior, alone = fit(lists, scores, targets, prior)
        figures |= {"held-out cross-entropy (nats)": alone}
        if rank_prior:
            calibration = fitted
            combined = [fitted.apply(passages, s) for passages, s in zip(lists, scores, strict=True)]
            figures |= {
                "with rank prior: regret": regret(combined, [_targets(r, labels, alpha) for r in held]),
                "with rank prior: cross-entropy": with_prior,
                "scale": fitted.scale,
                "weight of the rank prior": fitted.weight,
                "rank prior by": fitted.order or "retrieval score",
            }
    laziness = None
    if labels == "gain" and (asked := calibration_questions(records, learn, held, seed)):
        own = [
            s if calibration is None else calibration.apply(r.ctxs, s)
            for r, s in zip(asked, score_lists(model, asked), strict=True)
        ]
        laziness = learn_threshold([r.ctxs for r in asked], own, held_out=bool(held))
        figures |= {"lazy threshold": laziness.threshold, "questions that skip the pseudo-passage": laziness.skipped}
    card = {
        **(facts or {}),
        "base": (facts or {}).get("base", base),
        "labels": labels,
        "questions": len(learn),
        "held-out questions": len(held),
        "alpha": alpha,
        "temperature": temperature,
        "only kept questions": only_kept,
        "group size": group_size,
        "groups per step": groups_per_step,
        "epochs": epochs,
        "learning rate": learning_rate,
        "last layers trained": last_layers or "all",
        "seed": seed,
        **figures,
    }
    save(model, Path(out), card, calibration, laziness)
    return CrossEncoderSelector(str(out), device=device)


def split(
    records: Sequence[T], labels: Labels, only_kept: bool, validation: float, rng: np.random.Generator
) -> tuple[list[T], list[T]]:
    """The questions that can teach anything, in the order of chance, as those to learn from and those held out."""
    usable = [r for r in records if _teaches(r, labels, only_kept)]
    order = [usable[i] for i in rng.permutation(len(usable))]
    held = int(len(order) * validation)
    return order[held:], order[:held]


def _check(**settings: float) -> None:
    """Settings whose range the types do not say."""
    for name, value in settings.items():
        low = 2 if name == "group_size" else 0
        if value < low or (value == 0 and name != "validation") or (name == "validation" and value >= 1):
            wanted = {"group_size": "2 or more", "validation": "from 0 up to below 1"}.get(name, "above 0")
            raise ConfigError(f"{name} is {value}", where="train", hint=f"it should be {wanted}")


def _teaches(record: GainRecord | Retrieved, labels: Labels, only_kept: bool) -> bool:
    """Whether a question can teach anything: a ranking needs two passages, relevance needs both kinds."""
    if len(record.ctxs) < 2:
        return False
    if labels == "relevance":
        return len({bool(ctx.hasanswer) for ctx in record.ctxs}) == 2
    if not isinstance(record, GainRecord):
        raise DataError(
            "no gains in these records", where=f"question {record.id}", hint="run `gainrag synthesize` first"
        )
    return record.kept or not only_kept


def _targets(record: GainRecord | Retrieved, labels: Labels, alpha: float | None) -> list[float]:
    """The label of each passage, before temperature: its gain, or RELEVANT where it holds an answer."""
    if labels == "gain" and isinstance(record, GainRecord):
        return gains_at(record, alpha)
    return [RELEVANT if ctx.hasanswer else 0.0 for ctx in record.ctxs]


def _teacher(record: GainRecord | Retrieved, labels: Labels, alpha: float | None, temperature: float) -> FloatArray:
    """The target distribution over all candidates of a question."""
    return teacher(_targets(record, labels, alpha), temperature if labels == "gain" else 1.0)


def _group(
    record: GainRecord | Retrieved,
    labels: Labels,
    alpha: float | None,
    temperature: float,
    size: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One visit of a question: the best passage (one of the best, by chance) and others, sampled anew."""
    targets = np.asarray(_targets(record, labels, alpha))
    best = int(rng.choice(np.flatnonzero(targets == targets.max())))
    others = rng.permutation([i for i in range(len(targets)) if i != best])[: size - 1]
    chosen = [best, *map(int, others)]
    return {
        "question": record.question,
        "passages": [selector_text(record.ctxs[i]) for i in chosen],
        # ListNetLoss applies the softmax: labels / temperature are the teacher's log-probabilities up to a constant.
        "labels": [float(targets[i]) / (temperature if labels == "gain" else 1.0) for i in chosen],
    }


def open_cross_encoder(base: str, *, device: str, max_length: int, seed: int) -> CrossEncoder:
    """The base as a cross-encoder with one output; an encoder without a head gets a fresh one, the same for each seed.

    A causal language model needs no head: its score is the log-odds of "yes" against "no" (see RERANKER_TEMPLATE).

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    path = resolve(base)
    torch.manual_seed(seed)
    with loading_errors(base), quiet():
        check_reachable(path)
        architectures = AutoConfig.from_pretrained(path, trust_remote_code=False).architectures or [""]
        causal = architectures[0].endswith("ForCausalLM") and not Path(path, "modules.json").exists()
        form = {"processor_kwargs": {"chat_template": RERANKER_TEMPLATE}} if causal else {"num_labels": 1}
        model = CrossEncoder(
            path,
            **form,
            max_length=max_length,
            device=device,
            activation_fn=torch.nn.Identity(),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    if device == "cpu":
        # On a CPU the fused attention in bfloat16 costs more than the plain one: 13 pairs a second against 16.
        model[0].auto_model.set_attn_implementation("eager")
    return model


def _show_progress(trainer: CrossEncoderTrainer, bar: Any) -> None:
    """Replace the trainer's own reports, which go to standard output, by the project's bar."""
    from transformers import PrinterCallback, TrainerCallback

    class Bar(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            bar.update(1)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())


def freeze_below(model: CrossEncoder, layers: int) -> None:
    """Leave the embeddings and all layers but the last ones as they are.

    Raises:
        ConfigError: the model has no list of layers, or fewer.
    """
    import torch

    stacks = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    stack = max(stacks, key=len, default=torch.nn.ModuleList())
    if len(stack) < layers:
        raise ConfigError(
            f"last_layers is {layers} of {len(stack)}", where="train", hint="give at most as many; 0 is all"
        )
    encoder = model[0].auto_model
    for part in (encoder.get_input_embeddings(), *list(stack)[: len(stack) - layers]):
        part.requires_grad_(False)


def set_dropout(model: CrossEncoder, p: float) -> None:
    """Set the chance of every dropout layer."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = p


def _fit(
    model: CrossEncoder,
    rows: list[dict[str, Any]],
    *,
    held: Sequence[tuple[Retrieved | GainRecord, FloatArray]],
    steps_between: int,
    groups_per_step: int,
    learning_rate: float,
    warmup: float,
    weight_decay: float,
    seed: int,
    bf16: bool,
    device: str,
) -> None:
    """Run CrossEncoderTrainer over the groups; of several epochs the one that does best on the held-out questions."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    from gainrag.selectors.held_out import HeldOut

    with tempfile.TemporaryDirectory(prefix="gainrag-train-") as scratch, disk_errors(scratch):
        keep = {
            "eval_strategy": "steps",
            "eval_steps": steps_between,
            "save_strategy": "steps",
            "save_steps": steps_between,
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": HeldOut.METRIC,
            "greater_is_better": False,
        }
        arguments = CrossEncoderTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=groups_per_step,
            num_train_epochs=1,  # `rows` hold every visit already
            learning_rate=learning_rate,
            warmup_steps=int(warmup * len(rows) / groups_per_step),
            weight_decay=weight_decay,
            seed=seed,
            bf16=bf16,
            use_cpu=device == "cpu",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,  # it would write to standard output; see _show_progress
            **(keep if held else {"save_strategy": "no"}),
        )
        trainer = CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            loss=ListNetLoss(model, mini_batch_size=MINI_BATCH),
            evaluator=HeldOut(held) if held else None,
        )
        with progress_bar("training", unit="steps", total=-(-len(rows) // groups_per_step)) as bar:
            _show_progress(trainer, bar)
            trainer.train()


def score_lists(model: CrossEncoder, records: Sequence[Retrieved | GainRecord]) -> list[FloatArray]:
    """The model's bare scores of all candidates of each question."""
    pairs = [(record.question, selector_text(ctx)) for record in records for ctx in record.ctxs]
    scores = np.asarray(model.predict(pairs, show_progress_bar=False), dtype=np.float64)
    ends = np.cumsum([len(record.ctxs) for record in records])
    return [np.asarray(part) for part in np.split(scores, ends[:-1])]


def regret(scores: Sequence[FloatArray], targets: Sequence[Sequence[float]]) -> float:
    """By how much the label of the highest-scored passage falls short of the best one's, on average."""
    return float(np.mean([max(t) - t[int(np.argmax(s))] for s, t in zip(scores, targets, strict=True)]))
