"""What a finished run's choices are worth: the table on the test questions that no earlier run had, and regrets.

    python benchmarks/choices.py runs/six --data FOLDER --seen 200

Two tables. The first is the run's own, without the questions that a run with `test_questions` = SEEN draws. The second
is on all: by how much the first passage of each ranking loses against the best candidate, in nats a token of the plain
loss (alpha 0), with standard errors, and how often it holds an answer; beside the rankings the passages that somebody
would choose who knew which candidates hold an answer and nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gainrag import config, evaluation, reporting, running, systems
from gainrag.protocols import FloatArray
from gainrag.records import Answer, Gained, GainRecord, Retrieved, read
from gainrag.synthesis import losses_at

Choice = Callable[[Sequence[Gained]], Gained]


def unseen(run: Path, settings: config.Config, seen: int) -> str:
    """The table over the other test questions."""
    drawn = {q.id for q in running._draw(running.read_all(settings)["test"], seen, 0)}
    answers = {}
    extra = [*(v.name for v in settings.variants), *(r.name for r in settings.rerankers)]
    retrievers = [f"{name} top-1" for name in ("bm25", "dense", "hybrid")]
    for name in (*systems.BUILT_IN[:1], *retrievers, *systems.BUILT_IN[1:], *extra):
        path = run / "answers" / f"{systems.file_name(name)}.jsonl"
        if path.exists():
            answers[name] = [answer for answer in read(path, Answer) if answer.id not in drawn]
    return reporting.text_table(evaluation.evaluate(answers, group_by="dataset"), baseline=systems.GAINRAG)


def regrets(run: Path) -> str:
    """By whose choice: the mean regret, and the share of choices that hold an answer."""
    gains = {record.id: record for record in read(run / "gains" / "test.jsonl", GainRecord)}
    plain = {i: dict(zip((c.id for c in r.ctxs), losses_at(r, 0.0), strict=True)) for i, r in gains.items()}
    rng = np.random.default_rng(0)

    def choose(who: Choice, *, knows: bool) -> dict[str, str]:
        found = {}
        for i, record in gains.items():
            holds = [ctx for ctx in record.ctxs if ctx.hasanswer] if knows else []
            found[i] = who(holds or record.ctxs).id
        return found

    chosen = {
        "hybrid's first": choose(lambda ctxs: ctxs[0], knows=False),
        "the first that holds an answer": choose(lambda ctxs: ctxs[0], knows=True),
        "any that holds an answer": choose(lambda ctxs: ctxs[rng.integers(len(ctxs))], knows=True),
    }
    best = {i: min(losses.values()) for i, losses in plain.items()}
    for path in sorted((run / "scores").glob("*.jsonl")):
        chosen[path.stem] = {record.id: record.ctxs[0].id for record in read(path, Retrieved)}
    lines = [f"{'choice':48} {'regret':16} {'above GainRAG':16} holds an answer"]
    lost = {name: np.array([plain[i][first[i]] - best[i] for i in gains]) for name, first in chosen.items()}
    for name, first in chosen.items():
        holds = np.mean([any(c.id == first[i] and c.hasanswer for c in r.ctxs) for i, r in gains.items()])
        above = lost[name] - lost[systems.file_name(systems.GAINRAG)]
        lines.append(f"{name:48} {_mean(lost[name]):16} {_mean(above):16} {holds:.1%}")
    return "\n".join(lines)


def _mean(values: FloatArray) -> str:
    return f"{values.mean():.3f} ({values.std() / len(values) ** 0.5:.3f})"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seen", type=int, default=200, help="test questions a data set that earlier runs had")
    arguments = parser.parse_args()
    settings = config.read_config(arguments.run / "config.toml", running.STAGES, arguments.data)
    print(unseen(arguments.run, settings, arguments.seen), regrets(arguments.run), sep="\n\n")


if __name__ == "__main__":
    main()
