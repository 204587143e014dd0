"""What a run's language model will be asked, and how long that takes: here, and on several machines.

How many prompts there are, and how many tokens they have, is counted: of the config, its questions, and a sample of its
passages. How long a token takes is measured, in some seconds, with the model itself. What is neither is not in the
estimate: indexing, searching, training and selection.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from statistics import fmean

from gainrag import answering, augmentation, indexing, ingestion, lms, selection, synthesis
from gainrag.cluster import LOCAL, Cluster
from gainrag.lms.local import LocalLM
from gainrag.models.folder import resolve
from gainrag.prompts import PromptForm, for_model
from gainrag.records import Question, Retrieved, Scored
from gainrag.runs.config import Config, Options, Sweep
from gainrag.runs.folder import Run
from gainrag.runs.questions import draw
from gainrag.settings import settings_of

# What is measured: some questions with some passages each, for at least so many seconds.
_QUESTIONS, _PASSAGES, _SECONDS = 8, 4, 3.0
# Tokens that are written to see what one more takes.
_WRITTEN = 8
# How many machines the estimate is carried to.
_MACHINES = (4, 16, 64)


@dataclass(frozen=True)
class Rates:
    """How fast a model works on this machine.

    scored, read, written: seconds a token of a prompt that answers are scored behind, of one that is continued, and
        of what is written.
    prompt, bare: mean tokens of a prompt with one passage and with none; `background`, of one for the pseudo-passage.
    opened: seconds until the model is there; what each machine takes once.
    """

    scored: float
    read: float
    written: float
    prompt: float
    bare: float
    background: float
    opened: float = 0.0

    @property
    def passage(self) -> float:
        """Mean tokens that a passage adds to a prompt."""
        return self.prompt - self.bare


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
            first = islice(ingestion.read_passages(dataset.corpus), _QUESTIONS * _PASSAGES)
            passages[dataset.name] = [Scored(id=p.id, title=p.title, text=p.text) for p in first]
    some = draw([*found["train"], *found["test"]], _QUESTIONS, 0)[:_QUESTIONS]
    made = []
    for i, question in enumerate(some):
        own = list(question.ctxs) if isinstance(question, Retrieved) else passages[str(question.extra["dataset"])]
        start = i * _PASSAGES % max(1, len(own))
        made.append(
            Retrieved(
                id=question.id,
                question=question.question,
                answers=question.answers,
                choices=question.choices,
                ctxs=(own[start:] + own[:start])[:_PASSAGES],
            )
        )
    return made


def measure(lm: LocalLM, some: Sequence[Retrieved], form: PromptForm | None = None, opened: float = 0.0) -> Rates:
    """Measure a model on some questions with their passages.

    Args:
        form: of the prompts.
        opened: how long it took to open it.
    """
    prompts = for_model(form, lm)
    requests = [synthesis.scoring_request(prompts, record, 16) for record in some if record.ctxs]
    lm.losses(requests[:1], [0.0])  # the first time it is found out how the model is scored
    tokens, seconds, until = lm.throughput.tokens, lm.throughput.seconds, time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        lm.losses(requests, [0.0])
    scored = (lm.throughput.seconds - seconds) / max(1, lm.throughput.tokens - tokens)
    rendered = [prompt for request in requests for prompt in request.with_prompts][: 2 * _QUESTIONS]
    lengths = [lm.count_tokens(prompt) for prompt in rendered]
    first, more = (_timed(lm, rendered, written) for written in (1, 1 + _WRITTEN))
    step = max(0.0, more - first) / _WRITTEN
    return Rates(
        scored=scored,
        read=max(first - step, 0.0) / sum(lengths),
        written=step / len(rendered),
        prompt=fmean(lengths),
        bare=fmean(lm.count_tokens(request.without_prompt) for request in requests),
        background=fmean(lm.count_tokens(prompts.background(record.question)) for record in some),
        opened=opened,
    )


def _timed(lm: LocalLM, prompts: Sequence[str], written: int) -> float:
    began = time.perf_counter()
    lm.generate(prompts, written)
    return time.perf_counter() - began


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
        written = settings_of(augmentation.augment, config.table("augment"))["max_new_tokens"]
        n = train + test
        made.append(Cost("augment", n, read=n * rates.background, written=n * float(written)))
    own = settings_of(synthesis.synthesize, config.table("synthesize"))
    at_train = min(own["at_most"] or k, (options.train_k or k - options.pseudo) + options.pseudo)
    made.append(_labels("synthesize", train, at_train, own, rates))
    if options.oracle:
        made.append(_labels("synthesize, for the oracle", test, k, own, rates))
    if options.diagnose and own["labels"] != "sampled":
        n = min(options.diagnose, train)
        written = n * at_train * float(own["max_new_tokens"])
        made.append(Cost("diagnose", n, read=n * at_train * rates.prompt, written=written))
    made.append(_answers("answer", test, depths_read(config, options), config, rates))
    if "sweep" in config.tables:
        sweep = Sweep(**config.table("sweep"))
        n = len(draw(found["test"], sweep.questions or options.test_questions, options.seed))
        made.append(_answers("answer, for the sweep", n, [k for k in sweep.k for _ in range(2)], config, rates))
    return made


def _labels(stage: str, n: int, passages: int, own: Mapping[str, object], rates: Rates) -> Cost:
    """Labels: losses behind every prompt, and the answer from the silver passage; or so many answers a passage."""
    longest = float(str(own["max_new_tokens"]))
    if own["labels"] == "sampled":
        asked = n * passages * int(str(own["n"]))
        return Cost(stage, n, read=asked * rates.prompt, written=asked * longest)
    scored = n * (passages * rates.prompt + rates.bare)
    return Cost(stage, n, scored=scored, read=n * rates.prompt, written=n * longest)


def _answers(stage: str, n: int, depths: Sequence[int], config: Config, rates: Rates) -> Cost:
    """An answer a question for each system, from so many passages."""
    longest = settings_of(answering.answer, config.table("answer"))["max_new_tokens"]
    read = sum(rates.bare + depth * rates.passage for depth in depths)
    return Cost(stage, n, read=n * read, written=n * len(depths) * float(longest))


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
        f"{1 / max(rates.written, 1e-12):,.0f} written (measured here, on {_QUESTIONS} questions)"
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


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(42), duration(600), duration(9000), duration(500_000)
    ('42 s', '10 min', '2.5 h', '5.8 days')
    """
    if seconds < 120:
        return f"{ceil(seconds)} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
