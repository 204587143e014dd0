"""Labels -> a selector: a cross-encoder learns to rank passages as the labels do.

The kinds of labels are in gainrag.training.labels; training is the same for all of them. `relevance` needs no language
model, so that every training question can serve as warm start, and it is the rival that a gain selector must beat. The
losses are sentence-transformers': ListNetLoss is the cross-entropy of teacher and student, with the gradient of
KL(teacher || student); for labels that are learned point-wise it is BinaryCrossEntropyLoss on soft targets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.errors import ConfigError, DataError
from gainrag.files.progress import progress_bar
from gainrag.files.streams import disk_errors
from gainrag.gain import teacher
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.models.folder import resolve
from gainrag.models.hub import check_reachable, loading_errors, quiet
from gainrag.prompts import RERANKER_TEMPLATE
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors import CrossEncoderSelector
from gainrag.selectors.calibration import fit
from gainrag.selectors.saving import save
from gainrag.selectors.scoring import in_parts, score_pairs
from gainrag.settings import (
    Alpha,
    Device,
    Dtype,
    Epochs,
    GroupSize,
    GroupsPerStep,
    Layers,
    Length,
    Name,
    Rate,
    Seed,
    Share,
    Temperature,
    checked,
)
from gainrag.training.labels import POINT_WISE, Labels, as_rows, draw, regret, split, targets
from gainrag.training.laziness import calibration_questions, learn_threshold

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer


@checked
def train(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    out: str | Path,
    facts: Mapping[str, Any] | None = None,
    *,
    base: Name = "embedded:all-minilm-l6-v2",
    labels: Labels = "gain",
    alpha: Alpha | None = None,
    temperature: Temperature = 1.0,
    only_kept: bool = True,
    group_size: GroupSize = 16,
    groups_per_step: GroupsPerStep = 8,
    epochs: Epochs = 2,
    learning_rate: Rate = 6e-5,
    warmup: Share = 0.1,
    weight_decay: Share = 0.01,
    dropout: Share | None = None,
    last_layers: Layers = 0,
    max_length: Length = 512,
    validation: Share = 0.0,
    retrieval_prior: bool = False,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> CrossEncoderSelector:
    """Train a cross-encoder and save it as a plain folder that `CrossEncoder(path)` loads, with a model card.

    Args:
        records: gain records, or for relevance labels retrieved ones with `hasanswer`.
        out: the folder to write, whole or not at all.
        facts: what the model card should say about the labels' origin (language model, prompt, data).
        base: the cross-encoder or encoder to start from: embedded:NAME, a Hugging Face id or a folder.
        labels: gain; relevance (whether a passage holds an answer); likelihood (of the answer, as REPLUG); or
            information_gain (likelihood with the passage against without, each pair by itself). Of these gain has an
            alpha, the last two take the losses at alpha 0.
        alpha: train on the gains at this alpha; the run's own when it is left out.
        temperature: of the teacher, softmax(label / temperature); below 1 sharpens. Relevance has none.
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
        validation: share of the questions held out, on average: a question's id decides, alike in every training. The
            epoch that does best on them is kept.
        retrieval_prior: also weigh what the retrievers scored, by the held-out questions.
        seed: of sampling, order, and the fresh head.
        dtype: bfloat16 runs matrix products in it (the weights stay float32).
        device: auto, cpu, cuda, ...

    Raises:
        DataError: no question is left to learn from, or the labels need what the records do not have.
        ConfigError: a setting is out of its range.
        ModelError: the base cannot be loaded.
    """
    if retrieval_prior and validation == 0:
        raise ConfigError("retrieval_prior needs held-out questions", where="train", hint="set validation, such as 0.2")
    rng = np.random.default_rng(seed)
    every: list[GainRecord | Retrieved] = list(records)
    learn, held = split(every, labels, only_kept, validation, rng)
    if not learn:
        raise DataError(
            f"no question is left to learn from ({len(records)} records)",
            where="train",
            hint="relevance needs questions with passages that hold an answer and others that do not"
            if labels == "relevance"
            else "with only_kept = false questions that fail the filter are used too",
        )
    if labels == "relevance":
        temperature = 1.0
    own = {id(r): targets(r, labels, alpha) for r in (*learn, *held)}
    teachers = {id(r): teacher(own[id(r)], temperature) for r in held}
    device = choose_device(device)
    bf16 = choose_dtype(dtype, device) == "bfloat16"
    model = open_cross_encoder(base, device=device, max_length=max_length, seed=seed)
    if dropout is not None:
        set_dropout(model, dropout)
    if last_layers:
        freeze_below(model, last_layers)
    visits = [
        as_rows(r, draw(own[id(r)], group_size, rng), own[id(r)], labels, temperature)
        for _ in range(epochs)
        for r in learn
    ]
    _fit(
        model,
        [row for visit in visits for row in visit],
        held=[(r, teachers[id(r)]) for r in held] if epochs > 1 else [],  # of one there is nothing to choose
        point_wise=labels in POINT_WISE,
        epochs=epochs,
        rows_per_step=groups_per_step * max(map(len, visits)),
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        seed=seed,
        bf16=bf16,
        device=device,
    )
    asked = [] if labels == "relevance" else calibration_questions(records, learn, held, seed)
    scored = list({id(r): r for r in (*held, *asked)}.values())
    found = score_pairs(model, [(r.question, r.ctxs) for r in scored], bf16=bf16)
    scores_of = {id(r): scores for r, scores in zip(scored, found, strict=True)}
    calibration, figures = None, dict[str, float | str | None]()
    if held:
        lists, scores = [r.ctxs for r in held], [scores_of[id(r)] for r in held]
        figures = {"held-out regret (nats)": regret(scores, [own[id(r)] for r in held])}
        fitted, together, alone = fit(lists, scores, [teachers[id(r)] for r in held])
        figures |= {"held-out cross-entropy (nats)": alone}
        if retrieval_prior:
            calibration = fitted
            combined = [fitted.apply(passages, s) for passages, s in zip(lists, scores, strict=True)]
            figures |= {
                "with retrieval prior: regret": regret(combined, [own[id(r)] for r in held]),
                "with retrieval prior: cross-entropy": together,
                "scale": fitted.scale,
                **{f"weight of {name}": weight for name, weight in fitted.weights.items()},
                "level of the pseudo-passage": fitted.pseudo,
            }
    laziness = None
    if asked:
        final = [scores_of[id(r)] for r in asked]
        if calibration:
            final = [calibration.apply(r.ctxs, s) for r, s in zip(asked, final, strict=True)]
        laziness = learn_threshold([r.ctxs for r in asked], final, held_out=bool(held))
        figures |= {"lazy threshold": laziness.threshold, "questions that skip the pseudo-passage": laziness.skipped}
    card = {
        **(facts or {}),
        "base": (facts or {}).get("base", base),
        "labels": labels,
        "questions": len(learn),
        "held-out questions": len(held),
        "alpha": alpha if labels == "gain" else None,
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


def open_cross_encoder(base: str, *, device: str, max_length: int, seed: int) -> CrossEncoder:
    """The base as a cross-encoder with one output; an encoder without a head gets a fresh one, the same for each seed.

    A causal language model needs no head: its score is the log-odds of "yes" against "no" (see RERANKER_TEMPLATE).

    Raises:
        ModelError: it cannot be loaded.
    """
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig

    from gainrag.selectors.first_token import only_first_token

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
    only_first_token(model[0].auto_model)
    if device == "cpu" or causal:
        # On a CPU the fused attention in bfloat16 costs more than the plain one: 13 pairs a second against 16. On a
        # card it gave NaN, seen with a causal model, whose rows are padded at their beginning.
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
    point_wise: bool,
    epochs: int,
    rows_per_step: int,
    learning_rate: float,
    warmup: float,
    weight_decay: float,
    seed: int,
    bf16: bool,
    device: str,
) -> None:
    """Run CrossEncoderTrainer over rows that hold every visit of every epoch; of several epochs the one that does best
    on the held-out questions is kept."""
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, ListNetLoss

    from gainrag.training.held_out import HeldOut

    steps_between = max(1, len(rows) // (rows_per_step * epochs))
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
            per_device_train_batch_size=rows_per_step,
            num_train_epochs=1,  # `rows` hold all of them already
            learning_rate=learning_rate,
            warmup_steps=int(warmup * len(rows) / rows_per_step),
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
            # All pairs of a step at once (-1); the model cuts them by their length itself.
            loss=BinaryCrossEntropyLoss(model) if point_wise else ListNetLoss(model, mini_batch_size=-1),
            evaluator=HeldOut(held, bf16=bf16) if held else None,
        )
        with (
            in_parts(model),
            progress_bar("training", unit="steps", total=-(-len(rows) // rows_per_step)) as bar,
        ):
            _show_progress(trainer, bar)
            trainer.train()
