"""What a finished run's choices are worth: the table on the test questions that no earlier run had, and regrets.

    python benchmarks/choices.py runs/six --data FOLDER --seen 200 --other runs/gemma

Three tables. The first is the run's own, without the questions that a run with `test_questions` = SEEN draws. The
second is on all: by how much the first passage of each ranking loses against the best candidate, in nats a token of the
plain loss (alpha 0), with standard errors, and how often it holds an answer; beside the rankings the passages that
somebody would choose who knew which candidates hold an answer and nothing else, or another reader's gains (OTHER, a run
of the same questions). The third divides the same loss by what went wrong, and says what a ranking loses among the
passages that hold an answer, where two or more do.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import with_error

from gainrag import evaluation
from gainrag.evaluation.lost import place
from gainrag.files.streams import read
from gainrag.protocols import FloatArray
from gainrag.records import Answer, GainRecord, Retrieved
from gainrag.report import lost
from gainrag.runs import config, names, printing, questions, stages

HYBRID = "hybrid's first"


def unseen(run: Path, settings: config.Config, seen: int) -> str:
    """The table over the other test questions."""
    drawn = {q.id for q in questions.draw(questions.read_all(settings)["test"], seen, 0)} if seen else set()
    answers = {}
    extra = [*(v.name for v in settings.variants), *(r.name for r in settings.rerankers)]
    retrievers = [f"{name} top-1" for name in ("bm25", "dense", "hybrid")]
    for name in (*names.BUILT_IN[:1], *retrievers, *names.BUILT_IN[1:], *extra):
        path = run / "answers" / f"{names.file_name(name)}.jsonl"
        if path.exists():
            answers[name] = [answer for answer in read(path, Answer) if answer.id not in drawn]
    if not answers[names.GAINRAG]:
        return f"All test questions of this run are among the {seen} of each data set that earlier runs had."
    return printing.text_table(evaluation.evaluate(answers, group_by="dataset"), baseline=names.GAINRAG)


class Choices(NamedTuple):
    """Who would put which candidates first, and what that costs; by question id.

    plain: the loss of each candidate; orders: by chooser, the candidates' ids, best first; holds: those with an answer.
    """

    plain: dict[str, dict[str, float]]
    orders: dict[str, dict[str, list[str]]]
    holds: dict[str, set[str]]

    def lost(self, chooser: str) -> FloatArray:
        """Of each question the loss of the first candidate above that of the best."""
        order = self.orders[chooser]
        return np.array([lost.regret(losses, order[i][0]) for i, losses in self.plain.items()])

    def places(self, chooser: str) -> list[str]:
        """Of each question whether its first candidate holds an answer, another one does, or none."""
        order = self.orders[chooser]
        return [
            place([c in self.holds[i] for c in losses], [order[i][0] in self.holds[i]])
            for i, losses in self.plain.items()
        ]


def read_choices(run: Path, other: Path | None) -> Choices:
    """The choices of a run's rankings, and of those who know something of the answers."""
    gains = _gains(run)
    holds = {i: {ctx.id for ctx in r.ctxs if ctx.hasanswer} for i, r in gains.items()}
    rng = np.random.default_rng(0)
    retrieved = {i: [ctx.id for ctx in r.ctxs] for i, r in gains.items()}
    shuffled = {i: [str(c) for c in rng.permutation(ids)] for i, ids in retrieved.items()}
    orders = {
        HYBRID: retrieved,
        "the first that holds an answer": {i: _first_of(ids, holds[i]) for i, ids in retrieved.items()},
        "any that holds an answer": {i: _first_of(ids, holds[i]) for i, ids in shuffled.items()},
    }
    if other:
        theirs = _plain(_gains(other))
        shared = {i: [c for c in ids if c in theirs[i]] for i, ids in retrieved.items()}
        orders["the other reader's best"] = {i: sorted(ids, key=theirs[i].__getitem__) for i, ids in shared.items()}
    for path in sorted((run / "scores").glob("*.jsonl")):
        orders[path.stem] = {record.id: [ctx.id for ctx in record.ctxs] for record in read(path, Retrieved)}
    return Choices(_plain(gains), orders, holds)


def regrets(choices: Choices) -> str:
    """By whose choice: the mean regret, and the share of choices that hold an answer."""
    lines = [f"{'choice':48} {'regret':16} {'above GainRAG':16} holds an answer"]
    own = choices.lost(names.file_name(names.GAINRAG))
    for name in choices.orders:
        regret, places = choices.lost(name), choices.places(name)
        holds = places.count("read") / len(places)
        lines.append(f"{name:48} {with_error(regret):16} {with_error(regret - own):16} {holds:.1%}")
    return "\n".join(lines)


def parts(choices: Choices) -> str:
    """The regret of each choice as a sum: over questions where a candidate holds an answer and the first does not,
    where the first does, and where none does."""
    lines = [f"{'choice':48} {'missed the answer':20} {'holds it':10} {'none does':10} among those that hold it"]
    several = [i for i, holding in choices.holds.items() if len(holding) > 1]
    for name, order in choices.orders.items():
        places = choices.places(name)
        sums = lost.divided(places, choices.lost(name).tolist())
        among = []
        for i in several:
            first = next(c for c in order[i] if c in choices.holds[i])
            among.append(lost.regret(choices.plain[i], first, among=choices.holds[i]))
        lines.append(
            f"{name:48} {sums.get('missed', 0.0):.3f} ({places.count('missed') / len(places):.1%})        "
            f"{sums.get('read', 0.0):<10.3f} {sums.get('none', 0.0):<10.3f} {with_error(np.array(among))}"
        )
    return "\n".join(lines)


def _gains(run: Path) -> dict[str, GainRecord]:
    """The gains of the test questions, by question id."""
    return {record.id: record for record in read(run / "gains" / "test.jsonl", GainRecord)}


def _plain(gains: Mapping[str, GainRecord]) -> dict[str, dict[str, float]]:
    """The plain loss of each candidate of each question."""
    return {i: lost.plain_losses(r.ctxs) for i, r in gains.items()}


def _first_of(ids: Sequence[str], known: set[str]) -> list[str]:
    """The known ones first, otherwise in their order."""
    return sorted(ids, key=lambda c: c not in known)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seen", type=int, default=200, help="test questions of each data set that earlier runs had")
    parser.add_argument("--other", type=Path, help="the run of another reader")
    arguments = parser.parse_args()
    settings = config.read_config(arguments.run / "config.toml", stages.STAGES, arguments.data)
    choices = read_choices(arguments.run, arguments.other)
    print(unseen(arguments.run, settings, arguments.seen), regrets(choices), parts(choices), sep="\n\n")


if __name__ == "__main__":
    main()
