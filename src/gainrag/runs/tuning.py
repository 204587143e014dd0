"""Training settings chosen on questions that a training did not learn from, one after another.

What is compared is the regret of the trained selector on these questions in plain loss (alpha 0), in nats per token:
how much higher the loss is with the passage that the selector puts first than with the best passage. It does not depend
on the alpha and temperature used in training, so these can be compared by it, too. Of questions with choices it is the
regret in the gain normalised over the choices, in nats, as their answer is the choice of least loss. Test questions are
not used.

A single training is a matter of luck: two seeds often differ by more than two settings do. So each setting is trained
with several seeds, and what is compared is the mean of their regrets.

| kind | judged by |
|---|---|
| features | folds of all questions, one a seed: each training leaves its own fold out |
| cross-encoder, stack | the held-out questions, alike for all seeds |

Of trainings with folds none is the selector: it is trained once more, from all questions. Trees learn in seconds, and
for them this costs little; cross-encoders learn for up to hours, so one of the trainings that were judged is kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from gainrag.errors import ConfigError, ModelError
from gainrag.files.folders import open_output_folder
from gainrag.prompts import question_with_choices
from gainrag.protocols import Selector, scores_with
from gainrag.records import GainRecord
from gainrag.settings import Alpha, Epochs, GroupSize, Rate, Seeds, Temperature, checked, further_seed, settings_of
from gainrag.statistics import spread
from gainrag.synthesis import level_of
from gainrag.training import train
from gainrag.training.labels import AT_ALPHA, Labels, regret, split, targets, teaches
from gainrag.training.settings import Kind, Settings, check_read, check_training, read_by

FILE = "tuning.json"


class Trial(msgspec.Struct, frozen=True):
    """One choice of settings: those in which it differs from the first, its regret, and whether it was the best.

    regret: the mean over its trainings, which differ in the seed; `regrets` are those of each.
    """

    settings: dict[str, Any]
    regret: float
    best: bool = False
    regrets: list[float] = []


@checked
def tune(
    records: Sequence[GainRecord],
    out: str | Path,
    facts: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    labels: Sequence[Labels] = (),
    alpha: Sequence[Alpha] = (),
    temperature: Sequence[Temperature] = (),
    learning_rate: Sequence[Rate] = (),
    epochs: Sequence[Epochs] = (),
    group_size: Sequence[GroupSize] = (),
    seeds: Seeds = 3,
) -> list[Trial]:
    """Train with every value of each setting, the others at their best so far, and keep the best selector in `out`: of
    its trainings the one with the seed that was asked for; trees are trained with it once more, from all questions.

    Args:
        facts: for the model card, see `train`.
        settings: what all trainings share, and the first of them; but for trees alone questions must be held out, see
            `validation` there.
        labels: values to try, in this order of the settings: gain and choice, of questions with choices.
        alpha: values to try; only for labels gain and choice, others have none.
        temperature: values to try; not for labels relevance, which have none.
        learning_rate: values to try; trees have none, nor the two that follow.
        epochs: values to try; of several epochs the best one is kept anyway.
        group_size: values to try.
        seeds: how many trainings, with the seed, the next one, and so on, are averaged before two settings are
            compared; of trees two at least, each judged by another fold of the questions.

    Returns:
        Every choice of settings that was tried, in order.

    Raises:
        ConfigError: nothing is held out, or a setting is none of the kind's.
        DataError: no loss is stored at an alpha.
    """
    given = dict(settings or {})
    own = settings_of(train, given)
    kind: Kind = own["kind"]
    check_training(Settings(**own), tuned=True, where="tune")
    grid: dict[str, Sequence[Any]] = {
        "labels": labels,
        "alpha": alpha,
        "temperature": temperature,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "group_size": group_size,
    }
    if own["labels"] not in AT_ALPHA:
        grid["alpha"] = ()
    for table in (given, {name: values for name, values in grid.items() if values}):
        check_read(kind, table, where="tune")
    if own["labels"] == "relevance":
        grid["labels"] = grid["temperature"] = ()
    own = read_by(kind, own)
    by_folds = kind == "features"
    lessons = _folds(records, own, max(2, seeds)) if by_folds else [Lesson(records, _held(records, own))] * seeds
    trials: list[Trial] = []
    with open_output_folder(out) as chosen:
        scratch = chosen / ".trials"
        best = _attempt(scratch / "0", facts, own, {}, lessons, trials)
        for name, values in grid.items():
            for value in values:
                changed = {k: v for k, v in {**trials[best].settings, name: value}.items() if v != own[k]}
                if any(changed == trial.settings for trial in trials):
                    continue
                try:
                    at = _attempt(scratch / str(len(trials)), facts, own, changed, lessons, trials)
                except ModelError as error:  # the first training showed that the base can be trained
                    print(f"{name} {value} is left out: {error}", file=sys.stderr, flush=True)
                    continue
                worse = at if trials[at].regret >= trials[best].regret else best
                best = best if worse == at else at
                shutil.rmtree(scratch / str(worse))
        if by_folds:  # none of the trainings had all questions
            shutil.rmtree(scratch / str(best))
            train(records, scratch / str(best), facts, **{**own, **trials[best].settings, "keep_worse": True})
        shutil.copytree(scratch / str(best), chosen, dirs_exist_ok=True)
        shutil.rmtree(scratch)
    return [msgspec.structs.replace(trial, best=n == best) for n, trial in enumerate(trials)]


class Lesson(NamedTuple):
    """What one training is given, and the questions that it is judged by."""

    records: Sequence[GainRecord]
    judges: Sequence[GainRecord]


def _folds(records: Sequence[GainRecord], own: Mapping[str, Any], folds: int) -> list[Lesson]:
    """Folds of the questions that can teach anything: each judges the training that has all others.

    Raises:
        ConfigError: there are too few.
    """
    usable = [record for record in records if teaches(record, own["labels"], own["only_kept"])]
    if len(usable) < 2 * folds:
        raise ConfigError(
            f"tuning has {folds} folds, and {len(usable)} questions to learn from",
            where="tune",
            hint="label more questions",
        )
    fold = (np.random.default_rng(own["seed"]).permutation(len(usable)) % folds).tolist()
    return [
        Lesson(
            records=[record for record, its in zip(usable, fold, strict=True) if its != n],
            judges=[record for record, its in zip(usable, fold, strict=True) if its == n],
        )
        for n in range(folds)
    ]


def _held(records: Sequence[GainRecord], own: Mapping[str, Any]) -> Sequence[GainRecord]:
    """The questions that every training holds out.

    Raises:
        ConfigError: there are none.
    """
    rng = np.random.default_rng(own["seed"])
    held = split(records, own["labels"], own["only_kept"], own["validation"], rng)[1]
    if not held:
        raise ConfigError(
            f"tuning needs held-out questions, and of {len(records)} questions none is held out",
            where="tune",
            hint="set validation in [train], such as 0.2",
        )
    return held


def _attempt(
    folder: Path,
    facts: Mapping[str, Any] | None,
    own: Mapping[str, Any],
    changed: dict[str, Any],
    lessons: Sequence[Lesson],
    trials: list[Trial],
) -> int:
    """Train with every seed, add the trial, and return its number; the folder holds the first seed's selector. Trials
    are compared with one another, so a selector that is worse than the retriever's order is one, too.

    Raises:
        ModelError: the selector is of no use.
    """
    regrets = []
    for n, lesson in enumerate(lessons):
        out = folder.with_name(f"{folder.name}.seed{n}") if n else folder
        settings = {**own, **changed, "keep_worse": True, "seed": further_seed(own["seed"], n)}
        if own["kind"] == "features":
            settings["validation"] = 0.0  # what is left out judges
        regrets.append(plain_regret(train(lesson.records, out, facts, **settings), lesson.judges))
        if n:
            shutil.rmtree(out)
    trials.append(Trial(settings=changed, regret=float(np.mean(regrets)), regrets=regrets))
    return len(trials) - 1


def plain_regret(selector: Selector, held: Sequence[GainRecord]) -> float:
    """Mean loss of the passages a selector puts first above that of the best ones, in nats per token, at alpha 0 (at
    the run's own alpha where losses at 0 are not stored); of sampled labels, mean gain below that of the best."""
    scores = scores_with(selector, [(question_with_choices(r.question, r.choices), r.ctxs) for r in held])
    if all(ctx.choice_losses for record in held for ctx in record.ctxs):
        return regret(scores, [targets(record, "choice", 0.0) for record in held])
    if level_of(held, "tune") == "sampled":
        return regret(scores, [targets(record, "gain") for record in held])
    names = ["0.0" if "0.0" in record.ctxs[0].loss else next(iter(record.ctxs[0].loss)) for record in held]
    return regret(scores, [[-ctx.loss[name] for ctx in r.ctxs] for r, name in zip(held, names, strict=True)])


def describe(trials: Sequence[Trial]) -> str:
    """The trials as a few lines for a person, the best one marked."""
    rows = [
        (", ".join(f"{name} {value}" for name, value in trial.settings.items()) or "as configured", trial)
        for trial in trials
    ]
    width = max(len(text) for text, _ in rows)
    return "\n".join(
        f"{'*' if t.best else ' '} {text:{width}}  held-out regret {t.regret:.3f}"
        + (f" ± {spread(t.regrets):.3f}" if len(t.regrets) > 1 else "")
        for text, t in rows
    )
