"""Training settings chosen on questions held out of training, one after another.

What is compared is the regret of the trained selector on the held-out questions in plain loss (alpha 0), in nats per
token: how much higher the loss is with the passage that the selector puts first than with the best passage. It does not
depend on the alpha and temperature used in training, so these can be compared by it, too. Of questions with choices it
is the regret in the gain normalised over the choices, in nats, as their answer is the choice of least loss. Test
questions are not used.

A single training is a matter of luck: two seeds often differ by more than two settings do. So each setting is trained
with several seeds, and what is compared is the mean of their regrets.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gainrag.errors import ConfigError, ModelError
from gainrag.files.folders import open_output_folder
from gainrag.prompts import question_with_choices
from gainrag.protocols import Selector, scores_with
from gainrag.records import GainRecord
from gainrag.settings import Alpha, Epochs, GroupSize, Rate, Seeds, Temperature, checked, further_seed, settings_of
from gainrag.statistics import spread
from gainrag.training import train
from gainrag.training.labels import AT_ALPHA, Labels, regret, split, targets
from gainrag.training.settings import Settings, check_training

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
    its trainings the one with the seed that was asked for.

    Args:
        facts: for the model card, see `train`.
        settings: what all trainings share, and the first of them; questions must be held out, see `validation` there.
        labels: values to try, in this order of the settings: gain and choice, of questions with choices.
        alpha: values to try; only for labels gain and choice, others have none.
        temperature: values to try; not for labels relevance, which have none.
        learning_rate: values to try.
        epochs: values to try; of several epochs the best one is kept anyway.
        group_size: values to try.
        seeds: how many trainings, with the seed, the next one, and so on, are averaged before two settings are
            compared.

    Returns:
        Every choice of settings that was tried, in order.

    Raises:
        ConfigError: nothing is held out.
        DataError: no loss is stored at an alpha.
    """
    own = settings_of(train, dict(settings or {}))
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
    if own["kind"] == "features":
        grid["learning_rate"] = grid["epochs"] = grid["group_size"] = ()
    if own["labels"] == "relevance":
        grid["labels"] = grid["temperature"] = ()
    held = _held(records, own["labels"], own)
    trials: list[Trial] = []
    with open_output_folder(out) as chosen:
        scratch = chosen / ".trials"
        best = _attempt(records, scratch / "0", facts, own, {}, held, trials, seeds)
        for name, values in grid.items():
            for value in values:
                changed = {k: v for k, v in {**trials[best].settings, name: value}.items() if v != own[k]}
                if any(changed == trial.settings for trial in trials):
                    continue
                try:
                    at = _attempt(records, scratch / str(len(trials)), facts, own, changed, held, trials, seeds)
                except ModelError as error:  # the first training showed that the base can be trained
                    print(f"{name} {value} is left out: {error}", file=sys.stderr, flush=True)
                    continue
                worse = at if trials[at].regret >= trials[best].regret else best
                best = best if worse == at else at
                shutil.rmtree(scratch / str(worse))
        shutil.copytree(scratch / str(best), chosen, dirs_exist_ok=True)
        shutil.rmtree(scratch)
    return [msgspec.structs.replace(trial, best=n == best) for n, trial in enumerate(trials)]


def _held(records: Sequence[GainRecord], labels: Labels, own: Mapping[str, Any]) -> Sequence[GainRecord]:
    """The questions that every training holds out.

    Raises:
        ConfigError: there are none.
    """
    rng = np.random.default_rng(own["seed"])
    held = split(records, labels, own["only_kept"], own["validation"], rng)[1]
    if not held:
        raise ConfigError(
            f"tuning needs held-out questions, and of {len(records)} questions none is held out",
            where="tune",
            hint="set validation in [train], such as 0.2",
        )
    return held


def _attempt(
    records: Sequence[GainRecord],
    folder: Path,
    facts: Mapping[str, Any] | None,
    own: Mapping[str, Any],
    changed: dict[str, Any],
    held: Sequence[GainRecord],
    trials: list[Trial],
    seeds: int,
) -> int:
    """Train with every seed, add the trial, and return its number; the folder holds the first seed's selector. Trials
    are compared with one another, so a selector that is worse than the retriever's order is one, too.

    Raises:
        ModelError: the selector is of no use.
    """
    regrets = []
    for n in range(seeds):
        out = folder.with_name(f"{folder.name}.seed{n}") if n else folder
        settings = {**own, **changed, "keep_worse": True, "seed": further_seed(own["seed"], n)}
        regrets.append(plain_regret(train(records, out, facts, **settings), held))
        if n:
            shutil.rmtree(out)
    trials.append(Trial(settings=changed, regret=float(np.mean(regrets)), regrets=regrets))
    return len(trials) - 1


def plain_regret(selector: Selector, held: Sequence[GainRecord]) -> float:
    """Mean loss of the passages a selector puts first above that of the best ones, in nats per token, at alpha 0 (at
    the run's own alpha where losses at 0 are not stored)."""
    scores = scores_with(selector, [(question_with_choices(r.question, r.choices), r.ctxs) for r in held])
    if all(ctx.choice_losses for record in held for ctx in record.ctxs):
        return regret(scores, [targets(record, "choice", 0.0) for record in held])
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
