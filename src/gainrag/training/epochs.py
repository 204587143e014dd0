"""The epochs of a training: each passes once over all questions, with groups drawn anew, and is then judged.

A question shows a group of its passages in an epoch. Which ones depends on the seed, the epoch and the question alone.
After each epoch the held-out questions are scored; the weights of the best epoch stay in memory, not on disk. What
moves the weights is sentence-transformers' CrossEncoderTrainer.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, ListNetLoss
from transformers import PrinterCallback, TrainerCallback

from gainrag.files.progress import progress_bar, say
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray
from gainrag.selectors.scoring import in_parts, score_pairs
from gainrag.training.held_out import Judgement, judge
from gainrag.training.labels import Example, as_rows, draw
from gainrag.training.settings import Report, Settings


def fit(
    model: CrossEncoder,
    learn: Sequence[Example],
    held: Sequence[Example],
    settings: Settings,
    *,
    bf16: bool,
    scratch: Path,
) -> tuple[int, list[FloatArray]]:
    """Train a model in place and leave it with the weights of the epoch that does best on the held-out questions.

    Best is the lowest cross-entropy. Without held-out questions it is the last epoch.

    Args:
        bf16: matrix products in bfloat16.
        scratch: an existing folder; the trainer wants one, nothing is written there.

    Returns:
        That epoch, from 1, and its scores of the held-out questions.
    """
    groups = Groups(learn, settings)
    steps = math.ceil(len(learn) / settings.groups_per_step)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=settings.groups_per_step,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup * steps * settings.epochs),
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=bf16,
        use_cpu=model.device.type == "cpu",
        report_to=settings.report_to,
        project="gainrag",  # trackio's; the others have environment variables for it
        save_strategy="no",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        disable_tqdm=True,  # its bar goes to standard output, which is for data
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({Groups.COLUMN: list(range(len(learn)))}),
        data_collator=groups,
        # All pairs of a step at once (-1); the model cuts them by their length itself.
        loss=BinaryCrossEntropyLoss(model) if settings.point_wise else ListNetLoss(model, mini_batch_size=-1),
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    with in_parts(model), _reporting(settings.report_to), ExitStack() as bars:
        watch = Watch(model, groups, held, settings, bf16=bf16, steps=steps, bars=bars, report=trainer.log)
        trainer.add_callback(watch)
        trainer.train()
    watch.restore()
    return watch.best, watch.scores


@contextmanager
def _reporting(to: Report) -> Iterator[None]:
    """While it lasts, what trackers print goes to standard error; a run that wandb began in it is ended with it, which
    its callback leaves to others: the next training of this process is a run of its own."""
    if to == "none":
        yield
        return
    with redirect_stdout(sys.stderr):
        if to != "wandb":
            yield
            return
        import wandb

        begun = wandb.run
        try:
            yield
        finally:
            if begun is None and wandb.run is not None:
                wandb.finish()


class Groups(CrossEncoderDataCollator):  # type: ignore[misc]
    """Turns the numbers of a step's questions into the rows that the losses read, of the current epoch."""

    COLUMN = "number"

    def __init__(self, learn: Sequence[Example], settings: Settings) -> None:
        super().__init__(preprocess_fn=None)  # the losses tokenize
        self.learn, self.settings = learn, settings
        self.epoch = 0

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of some questions, each given as {COLUMN: number}."""
        rows: dict[str, Any] = super().__call__([row for f in features for row in self.rows(f[self.COLUMN])])
        return rows

    def rows(self, number: int) -> list[dict[str, Any]]:
        """What one question shows in this epoch."""
        record, own = self.learn[number]
        rng = np.random.default_rng([self.settings.seed, self.epoch, number])
        chosen = draw(own, self.settings.group_size, rng)
        return as_rows(record, chosen, own, self.settings.labels, self.settings.sharpness)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Begins and ends the epochs: draws groups anew, shows a bar, judges, keeps the best weights, and says how it goes.

    best: the best epoch so far, from 1.
    scores: of the held-out questions, by the best epoch.
    """

    def __init__(
        self,
        model: CrossEncoder,
        groups: Groups,
        held: Sequence[Example],
        settings: Settings,
        *,
        bf16: bool,
        steps: int,
        bars: ExitStack,
        report: Callable[[dict[str, float]], None],
    ) -> None:
        self.model, self.groups, self.held, self.settings = model, groups, held, settings
        self.bf16, self.steps, self.bars, self.report = bf16, steps, bars, report
        self.best, self.scores = 0, list[FloatArray]()
        self._judgements: list[Judgement] = []
        self._weights: dict[str, Any] = {}

    @property
    def _name(self) -> str:
        return f"epoch {self.groups.epoch} of {self.settings.epochs}"

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Draw groups anew."""
        self.groups.epoch += 1
        self._bar = self.bars.enter_context(progress_bar(self._name, unit="steps", total=self.steps))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Move the bar."""
        self._bar.update(1)

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Judge the epoch, and keep its weights where it is the best so far."""
        self.bars.close()
        if not self.held:
            self.best = self.groups.epoch
            return
        records = [e.record for e in self.held]
        asked = [(question_with_choices(r.question, r.choices), r.ctxs) for r in records]
        found = score_pairs(self.model, asked, bf16=self.bf16)
        self._judgements.append(judge(found, self.held, self.settings.sharpness))
        entropies = [j.cross_entropy if math.isfinite(j.cross_entropy) else math.inf for j in self._judgements]
        if entropies.index(min(entropies)) == len(entropies) - 1:
            self.best, self.scores = self.groups.epoch, found
            self._weights = self._copy() if self.groups.epoch < self.settings.epochs else {}

    def on_log(self, _: Any, __: Any, control: Any, logs: dict[str, float], **___: Any) -> None:
        """Print the epoch's figures and report those of the held-out questions, as the trainer does with the loss;
        where the loss is no number any more, stop."""
        if "loss" not in logs:  # what was reported here, or the trainer's closing words
            return
        line = f"{self._name}: training loss {logs['loss']:.4f}"
        if self.held:
            line += f"; {len(self.held)} held-out questions: {self._judgements[-1]}"
            # Under these names trackers show them as figures of an evaluation, apart from the training's.
            self.report({f"eval_{name}": value for name, value in self._judgements[-1]._asdict().items()})
        say(line)
        if not math.isfinite(logs["loss"]):
            control.should_training_stop = True

    def restore(self) -> None:
        """Give the model the weights of the best epoch, where that is not the last one."""
        for name, parameter in self.model.named_parameters():
            if name in self._weights:
                parameter.data.copy_(self._weights[name])

    def _copy(self) -> dict[str, Any]:
        """What training changes of the model, in the computer's memory."""
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
