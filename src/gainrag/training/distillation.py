"""Labels -> a selector that ranks passages as the labels do: trees over cheap features, a cross-encoder, or both.

The kinds of labels are in gainrag.training.labels; training is the same for all of them. `relevance` needs no language
model, so every training question can serve as warm start, and it is the rival that a gain selector must beat. The
losses are sentence-transformers': ListNetLoss is the cross-entropy of teacher and student, with the gradient of
KL(teacher || student); for labels that are learned point-wise it is BinaryCrossEntropyLoss on soft targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gainrag.errors import ConfigError, DataError
from gainrag.files.folders import open_output_folder
from gainrag.files.progress import say
from gainrag.models.devices import choose_device, choose_dtype
from gainrag.records import GainRecord, Retrieved
from gainrag.selectors import CrossEncoderSelector, FeatureSelector, StackedSelector
from gainrag.selectors.saving import check_target, write_selector
from gainrag.settings import (
    Alpha,
    Device,
    Dtype,
    Epochs,
    Folds,
    GroupSize,
    GroupsPerStep,
    Layers,
    Length,
    Name,
    Passages,
    Passes,
    Rate,
    Seed,
    Share,
    Temperature,
    added_later,
    checked,
)
from gainrag.synthesis import level_of
from gainrag.training.base import open_base
from gainrag.training.features import train_features
from gainrag.training.finishing import finish
from gainrag.training.labels import AT_ALPHA, ENOUGH, Example, Labels, split, targets
from gainrag.training.settings import Kind, Report, Settings, check_training, reads_what_it_is_given
from gainrag.training.stacking import train_stack

# With so many labelled questions or fewer, a selector was no better than retrieval (docs/results.md); 400 served.
FEW, SERVED = 100, 400


@added_later("report_to")
@checked
@reads_what_it_is_given
def train(
    records: Sequence[GainRecord] | Sequence[Retrieved],
    out: str | Path,
    facts: Mapping[str, Any] | None = None,
    *,
    kind: Kind = "stack",
    base: Name = "embedded:all-minilm-l6-v2",
    start: Name | None = None,
    labels: Labels = "gain",
    alpha: Alpha | None = None,
    temperature: Temperature = 0.25,
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
    folds: Folds = 2,
    depth: Passages = 10,
    relevance_epochs: Passes = 1,
    validation: Share | None = None,
    retrieval_prior: bool = False,
    keep_worse: bool = False,
    report_to: Report = "none",
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> CrossEncoderSelector | FeatureSelector | StackedSelector:
    """Train a selector and save it as a plain folder with a model card; of a cross-encoder it is one that
    `CrossEncoder(path)` loads.

    Each epoch's training loss and held-out figures are printed on standard error, and of cross-encoders also sent to a
    tracker where `report_to` names one.

    Args:
        records: gain records, or for relevance labels retrieved ones with `hasanswer`.
        out: the folder to write, whole or not at all.
        facts: what the model card should say about the labels' origin (language model, prompt, data).
        kind: cross-encoder, which reads question and passage; or features: boosted trees over cheap features, which
            learn in a minute. Of the settings below these have start, labels, alpha, temperature, only_kept,
            validation, keep_worse and seed; a setting that the kind does not have is refused. A stack is such trees
            that also read the scores of cross-encoders, made out of fold; where these do not help by more than one
            standard error, or there are fewer than 100 questions, it is features alone.
        base: the cross-encoder or encoder to start from: embedded:NAME, a Hugging Face id or a folder.
        start: a feature selector that the trees go on from, such as embedded:gain-features: what few labels add to it
            is used as far as folds of the questions show that it helps; or scratch. When it is left out it is the one
            that ships with fewer than 1,000 questions to learn from, else scratch; with labels relevance always
            scratch, as the one that ships learned from gains.
        labels: gain; relevance (whether a passage holds an answer); likelihood (of the answer, as REPLUG);
            information_gain (likelihood with the passage against without, each pair by itself); or choice (the gain
            normalised over a question's choices). Gain and choice have an alpha, the two between take the losses at
            alpha 0.
        alpha: train on the gains at this alpha. When it is left out: the one that the labels' diagnosis recommends
            where `gainrag train` or a run has one, else the one that the gains are at.
        temperature: of the teacher, softmax(label / temperature); lower is sharper. Relevance has none.
        only_kept: leave out questions that did not pass the keep-filter.
        group_size: passages a question shows in an epoch: the best one and others, drawn anew in each epoch.
        groups_per_step: questions in one step of the optimizer.
        epochs: passes over all questions, shuffled anew each time. The one that does best on the held-out questions
            is kept; without any, the last one.
        learning_rate: the highest, after warm-up; it falls linearly to 0.
        warmup: share of steps in which the learning rate rises.
        weight_decay: of AdamW.
        dropout: while training; the base model's own when it is left out. 0 is a third faster on a CPU.
        last_layers: train only so many of the last layers, which is faster with a large base; 0 is all.
        max_length: tokens of question and passage together, cut at the passage's end.
        folds: of a stack: how many cross-encoders, each of which leaves another part of the questions out.
        depth: of a stack: how many passages of a question the cross-encoders read, by the retrievers' scores.
        relevance_epochs: of a stack: passes over the questions with has-answer labels that each cross-encoder begins
            with, where the passages are marked so.
        validation: share of the questions held out, on average; a question's id decides, alike in every training.
            When it is left out and there are 40 questions or more, a tenth is held out, or 10 questions if that is
            more. 0 learns from all questions: there are no held-out figures and no comparison with the retriever.
        retrieval_prior: of a cross-encoder: also weigh what the retrievers scored, by the held-out questions.
        keep_worse: save a selector that is worse on the held-out questions than the retriever's order, too.
        report_to: trackio, wandb or mlflow, which must be installed: each epoch's loss and held-out figures, and the
            settings, go there, too; of a stack each cross-encoder is a run. Their own environment variables say where
            (WANDB_PROJECT, MLFLOW_TRACKING_URI, TRACKIO_DIR ..).
        seed: of sampling, order, and the fresh head.
        dtype: bfloat16 runs matrix products in it (the weights stay float32).
        device: auto, cpu, cuda, ...

    Raises:
        DataError: no question is left to learn from, all labels of each question are equal, the labels need what the
            records do not have, or `out` is not a selector folder.
        ConfigError: a setting is out of its range, is none of the kind's, or contradicts another or the number of
            questions; the tracker is not installed.
        ModelError: the base cannot be loaded; or the selector is not saved, because its scores are NaN, or equal for
            all passages of every question, or (without keep_worse) their first choices are worse than the retriever's
            on the held-out questions.
        ResourceError: the disk is full.
    """
    settings = Settings(
        kind=kind,
        base=base,
        start=start,
        labels=labels,
        alpha=alpha,
        temperature=temperature,
        only_kept=only_kept,
        group_size=group_size,
        groups_per_step=groups_per_step,
        epochs=epochs,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        dropout=dropout,
        last_layers=last_layers,
        max_length=max_length,
        folds=folds,
        depth=depth,
        relevance_epochs=relevance_epochs,
        validation=validation,
        retrieval_prior=retrieval_prior,
        keep_worse=keep_worse,
        report_to=report_to,
        seed=seed,
        dtype=dtype,
        device=device,
    )
    check_training(settings)
    check_target(Path(out))
    learn, held = _divide(records, settings)
    _say_what_to_expect(len(learn), len(held), len(records), settings)
    facts = {**(facts or {}), **_level(records, settings)}
    if kind != "cross-encoder":
        about = _card(facts, settings, len(learn), len(held), {})
        make = train_features if kind == "features" else train_stack
        return make(records, learn, held, out, about, settings)
    from gainrag.training.epochs import fit  # here, as it imports the trainer, which takes seconds

    device = choose_device(device)
    bf16 = choose_dtype(dtype, device) == "bfloat16"
    # Opened before training: what cannot be written is known at once, and a training that stops leaves nothing.
    with open_output_folder(out) as folder:
        model = open_base(
            base, device=device, max_length=max_length, seed=seed, dropout=dropout, last_layers=last_layers
        )
        best, scores = fit(model, learn, held, settings, bf16=bf16, scratch=folder)
        finished = finish(model, records, learn, held, scores, settings, bf16=bf16)
        figures = {"best epoch": best if held else None, **finished.figures}
        card = _card(facts, settings, len(learn), len(held), figures)
        write_selector(model, folder, card, finished.calibration, finished.laziness)
    return CrossEncoderSelector(str(out), device=device)


def _divide(
    records: Sequence[GainRecord] | Sequence[Retrieved], settings: Settings
) -> tuple[list[Example], list[Example]]:
    """The questions to learn from and those held out, with their labels, in random order.

    Raises:
        DataError: there is nothing to learn.
        ConfigError: the settings need held-out questions, and there are none.
    """
    every: list[GainRecord | Retrieved] = list(records)
    if settings.labels != "relevance":
        level_of([record for record in records if isinstance(record, GainRecord)], "train")
    rng = np.random.default_rng(settings.seed)
    parts = split(every, settings.labels, settings.only_kept, settings.validation, rng)
    learn, held = ([Example(r, targets(r, settings.labels, settings.alpha)) for r in part] for part in parts)
    if not learn:
        out = f", {len(held)} of them held out" if held else ""
        raise DataError(
            f"no question is left to learn from ({len(records)} records{out})",
            where="train",
            hint="relevance needs questions with passages that hold an answer and others that do not"
            if settings.labels == "relevance"
            else "a question needs two passages whose gains differ: label more questions, or of sampled labels ask for "
            "more answers (-n); with only_kept = false questions that fail the filter are used too",
        )
    if settings.retrieval_prior and not held:
        raise ConfigError(
            f"retrieval_prior needs held-out questions, and of {len(learn)} questions none is held out",
            where="train",
            hint="set validation, such as 0.2",
        )
    return learn, held


def _level(records: Sequence[GainRecord] | Sequence[Retrieved], settings: Settings) -> dict[str, Any]:
    """What the model card says of the labels' level; nothing of labels that no language model made."""
    first = records[0]
    if settings.labels == "relevance" or not isinstance(first, GainRecord):
        return {}
    if first.level != "sampled":
        return {"level of the labels": first.level}
    return {"level of the labels": f"sampled, {len(first.ctxs[0].said or ())} answers a passage"}


def _say_what_to_expect(learn: int, held: int, records: int, settings: Settings) -> None:
    """Print how many questions there are, which teach nothing, and what follows where they are few."""
    say(f"training on {learn} questions, {held} held out")
    if out := records - learn - held:
        if settings.labels == "relevance":
            why = "all of their passages contain an answer, or none does"
        elif settings.only_kept:
            why = "the keep-filter left them out; --no-only-kept uses them, too"
        else:
            why = "they have a single passage, or the same label for all"
        say(f"{out} of {records} questions are not used: {why}")
    if not held:
        why = f"fewer than {ENOUGH} questions to train on" if learn < ENOUGH else "validation is 0"
        say(f"no held-out figure, and no comparison with the retriever's order: {why}")
    if learn + held <= FEW:
        say(
            f"warning: with {FEW} questions or fewer a selector is seldom better than the retriever's order; "
            f"{SERVED} were enough in our measurements"
        )


def _card(
    facts: Mapping[str, Any], settings: Settings, learn: int, held: int, figures: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of the model card, those on the labels' origin first."""
    trees = settings.kind == "features"
    shown = {"start": settings.start} if trees else {"base": facts.get("base", settings.base)}
    more = {
        "group size": settings.group_size,
        "groups per step": settings.groups_per_step,
        "epochs": settings.epochs,
        "learning rate": settings.learning_rate,
        "last layers trained": settings.last_layers or "all",
    }
    return {
        **facts,
        **shown,
        "labels": settings.labels,
        "questions": learn,
        "held-out questions": held,
        "alpha": settings.alpha if settings.labels in AT_ALPHA else None,
        "temperature": settings.sharpness,
        "only kept questions": settings.only_kept,
        **({} if trees else more),
        "relevance epochs before": settings.relevance_epochs if settings.kind == "stack" else None,
        "seed": settings.seed,
        **figures,
    }
