"""What a run's language model will be asked, and how long that takes: here, and on several machines.

How many prompts there are, and how many tokens they have, is counted: of the config, its questions, and a sample of its
passages. How long a token takes is measured (gainrag.runs.rates). What is neither is not in the estimate: indexing,
searching, training and selection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path

from gainrag import answering, augmentation, indexing, ingestion, lms, selection, synthesis
from gainrag.cluster import LOCAL, Cluster
from gainrag.lms.local import LocalLM
from gainrag.models.folder import resolve
from gainrag.records import Question, Retrieved, Scored
from gainrag.retrievers.store import scored
from gainrag.runs.config import Config, Options, Sweep
from gainrag.runs.folder import Run
from gainrag.runs.questions import draw
from gainrag.runs.rates import PASSAGES, QUESTIONS, Rates, measure
from gainrag.settings import settings_of

# How many machines the estimate is carried to.
_MACHINES = (4, 16, 64)


@dataclass(frozen=True)
class Cost:
    """What a stage asks of the model.

    scored, read, written: tokens, as in `Rates`.
    """

    stage: str
    questions: int
    scored: float = 0.0
    read: float = 0.0
    written: float = 0.0

    def seconds(self, rates: Rates) -> float:
        """How long it takes on the machine of these rates."""
        return self.scored * rates.scored + self.read * rates.read + self.written * rates.written


def estimate(
    run: Run, options: Options, found: Mapping[str, Sequence[Question]], *, download: bool = False
) -> list[str]:
    """What a run's language model will be asked and how long it takes, a line a stage; nothing where that cannot be
    measured here: of a model behind an endpoint, or of one that other machines run (say `gainrag validate` there).

    Args:
        found: every question, by split.
        download: whether a model of the hub may be fetched for it.
    """
    llm = run.config.table("llm")
    cluster = Cluster(**run.config.table("cluster"))
    if lms.endpoint_of(llm) is not None or cluster.ray not in (None, LOCAL):
        return []
    name = settings_of(lms.open_lm, llm)["model"]
    if not (download or Path(resolve(name)).exists()):
        return [f"[llm] what the run takes is measured when {name} is here: name its folder, or start the run"]
    began = time.perf_counter()
    lm = run.lm()
    if not isinstance(lm, LocalLM):
        return []
    opened, form = time.perf_counter() - began, run.config.table("synthesize").get("prompt")
    rates = measure(lm, sample(run.config, found), form, opened)
    return described(costs(run.config, options, found, rates), rates, lms.described(lm))


def sample(config: Config, found: Mapping[str, Sequence[Question]]) -> list[Retrieved]:
    """Some questions of a run with passages of its corpora, which stand for those that will be retrieved: the first
    ones of each corpus, or those that questions bring."""
    passages: dict[str, list[Scored]] = {}
    for dataset in config.datasets:
        if dataset.corpus:
            first = islice(ingestion.read_passages(dataset.corpus), QUESTIONS * PASSAGES)
            passages[dataset.name] = [scored(passage, 0.0) for passage in first]
    some = draw([*found["train"], *found["test"]], QUESTIONS, 0)[:QUESTIONS]
    made = []
    for i, question in enumerate(some):
        own = list(question.ctxs) if isinstance(question, Retrieved) else passages[str(question.extra["dataset"])]
        start = i * PASSAGES % max(1, len(own))
        made.append(
            Retrieved(
                id=question.id,
                question=question.question,
                answers=question.answers,
                choices=question.choices,
                ctxs=(own[start:] + own[:start])[:PASSAGES],
            )
        )
    return made


def costs(config: Config, options: Options, found: Mapping[str, Sequence[Question]], rates: Rates) -> list[Cost]:
    """What each stage of a run asks of its language model, at the most: what is reused or read twice is asked once.

    Args:
        found: every question, by split.
        rates: of which the lengths of prompts are taken.
    """
    train = len(draw(found["train"], options.train_questions, options.seed))
    test = len(draw(found["test"], options.test_questions, options.seed))
    k = int(config.table("retrieve").get("k", 20)) + int(options.pseudo)
    made = []
    if options.pseudo:
        longest = settings_of(augmentation.augment, config.table("augment"))["max_new_tokens"]
        made.append(pseudo_passages(train + test, longest, rates))
    own = settings_of(synthesis.synthesize, config.table("synthesize"))
    sampled = own["n"] if own["labels"] == "sampled" else None
    at_train = min(own["at_most"] or k, (options.train_k or k - options.pseudo) + options.pseudo)
    made.append(labels("synthesize", train, at_train, own["max_new_tokens"], rates, sampled))
    if options.oracle:
        made.append(labels("synthesize, for the oracle", test, k, own["max_new_tokens"], rates, sampled))
    if options.diagnose and sampled is None:
        made.append(answers("diagnose", min(options.diagnose, train), [1] * at_train, own["max_new_tokens"], rates))
    longest = settings_of(answering.answer, config.table("answer"))["max_new_tokens"]
    made.append(answers("answer", test, depths_read(config, options), longest, rates))
    if "sweep" in config.tables:
        sweep = Sweep(**config.table("sweep"))
        n = len(draw(found["test"], sweep.questions or options.test_questions, options.seed))
        made.append(answers("answer, for the sweep", n, [k for k in sweep.k for _ in range(2)], longest, rates))
    return made


def pseudo_passages(n: int, longest: int, rates: Rates) -> Cost:
    """A pseudo-passage of at most so many tokens for each of n questions."""
    return Cost("augment", n, read=n * rates.background, written=n * longest)


def labels(stage: str, n: int, passages: int, longest: int, rates: Rates, sampled: int | None = None) -> Cost:
    """Labels of so many passages for each of n questions: losses behind every prompt, and the answer from the silver
    passage; or so many `sampled` answers a passage. An answer has at most `longest` tokens."""
    if sampled is not None:
        asked = n * passages * sampled
        return Cost(stage, n, read=asked * rates.prompt, written=asked * longest)
    scored = n * (passages * rates.prompt + rates.bare)
    return Cost(stage, n, scored=scored, read=n * rates.prompt, written=n * longest)


def answers(stage: str, n: int, depths: Sequence[int], longest: int, rates: Rates) -> Cost:
    """Answers of at most `longest` tokens to n questions, for each of `depths` one that reads so many passages."""
    read = sum(rates.bare + depth * rates.passage for depth in depths)
    return Cost(stage, n, read=n * read, written=n * len(depths) * longest)


def depths_read(config: Config, options: Options) -> list[int]:
    """How many passages each system of a run reads, at the most; see `gainrag.runs.systems.choose`."""
    k = int(settings_of(selection.select, config.table("select"))["k"])
    retriever = settings_of(indexing.index, config.table("index"))["retriever"]
    lists = 3 if retriever == "hybrid" else 1
    found = [0] + [depth for depth in {k, *options.top} for _ in range(lists)]
    found += [1] if options.pseudo else []
    trained = 2 + len(config.variants)  # GainRAG's and the relevance selector
    found += [k] * (options.seeds * (trained + int(options.pseudo)) + len(config.rerankers))
    return found + ([k, k] if options.oracle else [])


def described(estimate: Sequence[Cost], rates: Rates, what: str) -> list[str]:
    """The estimate, a line a stage.

    Args:
        what: the model and what it runs on.
    """
    whole = sum(cost.seconds(rates) for cost in estimate)
    lines = [
        f"{what}: {1 / max(rates.scored, 1e-12):,.0f} tokens/s scored, {1 / max(rates.read, 1e-12):,.0f} read, "
        f"{1 / max(rates.written, 1e-12):,.0f} written (measured here, on {QUESTIONS} questions)"
    ]
    for cost in estimate:
        told = [(cost.scored, "scored"), (cost.read, "read"), (cost.written, "written")]
        tokens = ", ".join(f"{_short(n)} {word}" for n, word in told if n)
        lines.append(f"{cost.stage}: {duration(cost.seconds(rates))} ({cost.questions:,} questions; tokens: {tokens})")
    spread = ", ".join(f"{duration(whole / n + rates.opened)} on {n}" for n in _MACHINES)
    lines.append(
        f"together at most {duration(whole + rates.opened)} on this machine; on several such ones (--shard, [cluster]) "
        f"{spread}. Indexing, searching, training and selection are not in it"
    )
    return lines


def _short(tokens: float) -> str:
    """A number of tokens in a few digits.

    >>> _short(1234), _short(56_789_000)
    ('1.2 thousand', '56.8 million')
    """
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if tokens >= size:
            return f"{tokens / size:.1f} {name}"
    return f"{tokens:.0f}"


def duration(seconds: float, most: float | None = None) -> str:
    """A time in the unit that suits it, or one between two.

    >>> duration(42), duration(600), duration(9000), duration(500_000)
    ('42 s', '10 min', '2.5 h', '5.8 days')
    >>> duration(5, 5), duration(140, 300), duration(40, 9000)
    ('5 s', '2 to 5 min', '40 s to 2.5 h')
    """
    (first, unit), (last, other) = _in_unit(seconds), _in_unit(seconds if most is None else most)
    if (first, unit) == (last, other):
        return f"{first} {unit}"
    return f"{first} to {last} {unit}" if unit == other else f"{first} {unit} to {last} {other}"


def _in_unit(seconds: float) -> tuple[str, str]:
    if seconds < 120:
        return f"{ceil(seconds)}", "s"
    if seconds < 7200:
        return f"{seconds / 60:.0f}", "min"
    return (f"{seconds / 3600:.1f}", "h") if seconds < 172_800 else (f"{seconds / 86_400:.1f}", "days")
