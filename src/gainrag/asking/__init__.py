"""Passages -> questions: the language model writes them, and those are kept that a passage helps to answer.

A question is kept only if all of this holds; every rejection is counted by the first reason that applies:

| it must | reason of a rejection |
|---|---|
| be one question with a short answer, in its own words | no question and answer, names the passage, tells its answer |
| have its answer in the passage | answer not in the passage |
| be found again: its passages are among the first k of retrieval | not found again |
| be helped: its answer is likelier by `least` nats a token with its passages than without any | no clear gain |
| need both of two passages | one passage is enough |
| be answered: the model answers right from its passages alone | not answered from its passage |
| be a new one | near-duplicate |

A small model often writes a right answer as a whole sentence. Where the written answer is too long, or not in the
passage's words, what the model answers from its passage takes its place, if that says the same in the passage's words.

Passages are drawn spread over documents, and a document's questions all go to one split: train, tune or test.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gainrag.asking.documents import document_of, draw, split_by_document
from gainrag.asking.writing import Writer, parse
from gainrag.errors import ConfigError, DataError
from gainrag.files.meta import digest, is_current, write_meta
from gainrag.files.progress import say
from gainrag.files.resuming import write_resumable
from gainrag.files.streams import read
from gainrag.metrics import contains, normalise
from gainrag.prompts import ASKING, PromptForm, for_model, wording
from gainrag.protocols import Retriever, ScorerGenerator, chunk_for, need
from gainrag.records import ASKED_BY, BY_MODEL, BY_PEOPLE, GOLD, Passage, Question, Retrieved
from gainrag.settings import Passages, Seed, Share, checked

__all__ = ["Questions", "ask", "document_of", "draw", "parse", "split_by_document"]

Wanted = Annotated[int, Meta(ge=1, le=1_000_000)]  # questions
Rounds = Annotated[int, Meta(ge=1, le=100)]
Nats = Annotated[float, Meta(ge=0.0, le=100.0)]  # a token
Writing = Callable[[Sequence[Retrieved]], list[Retrieved]]

# Questions written together. Fixed: see gainrag.files.resuming.
CHUNK = {"cpu": 8, "cuda": 256}
# Of two questions that are the same one: the share of their words that both have.
_SAME = 0.8


@dataclass
class Questions:
    """What was written: the questions of each split, how many were rejected by reason, and how many were tried."""

    splits: dict[str, list[Question]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    tried: int = 0
    wanted: int = 0

    def __str__(self) -> str:
        """One line a figure."""
        kept = sum(len(found) for found in self.splits.values())
        written = sum(q.extra[ASKED_BY] == BY_MODEL for found in self.splits.values() for q in found)
        lines = [f"{written} of {self.tried} written questions kept, {self.wanted} wanted"]
        lines += [f"{count} rejected: {reason}" for reason, count in self.rejected.most_common()]
        lines += [f"{len(found)} in {split}" for split, found in self.splits.items()]
        return "\n".join([*lines, f"{kept - written} of them from people, all in test"] if kept > written else lines)


@checked
def ask(
    passages: Sequence[Passage],
    lm: ScorerGenerator,
    retriever: Retriever,
    out: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    real: Sequence[Question] = (),
    *,
    n: Wanted = 300,
    rounds: Rounds = 4,
    k: Passages = 20,
    least: Nats = 0.5,
    yes_no: Share = 0.15,
    two: Share = 0.15,
    test: Share = 0.3,
    tune: Share = 0.2,
    prompt: PromptForm | None = None,
    seed: Seed = 0,
) -> Questions:
    """Have the language model write questions on sampled passages, and keep those that a passage helps to answer.

    Args:
        out: a folder for what is written as it is made, with what was rejected and why, in written-1.jsonl and further
            rounds; a run that was stopped continues there.
        settings: what else the questions depend on (model, corpus), checked when a stopped run continues.
        real: questions that people asked; they go to test, and are marked `"asked_by": "people"`.
        n: questions to keep.
        rounds: as many times n questions are written at most, in rounds, until n are kept.
        k: a question's passage must be among so many of retrieval.
        least: the least gain of a passage, in nats per token of the answer: its loss without a passage less that with.
        yes_no: share of the questions that yes or no answers.
        two: share of the questions that need two passages, both of one document.
        test: share of the questions for the test.
        tune: share of the questions for choosing settings.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        seed: of the sampling.

    Raises:
        ConfigError: the model is no scorer and generator, or shares leave nothing for the rest.
        DataError: no passage is long enough, or no question was kept.
        ModelError: the model returns no text, or losses of another number.
    """
    need(lm, ScorerGenerator, what="lm", where="ask", hint="pass open_lm(..), or see gainrag.protocols")
    for name, total in {"test": test + tune, "two": two + yes_no}.items():
        if total >= 1:
            raise ConfigError(
                f"shares of {total:g} leave nothing", where=name, hint="they must be less than 1 together"
            )
    prompts = for_model(prompt, lm)
    plan = draw(passages, n * rounds, {"yes_no": yes_no, "two": two}, seed)
    writer = Writer(lm, retriever, prompts, k, least)
    write = _timed(writer.write, n, len(plan))
    form = prompts.form
    own = {**(settings or {}), "k": k, "least": least, "yes_no": yes_no, "two": two, "prompt": form, "seed": seed}
    own["wording"] = digest(repr((ASKING[form], wording(form))))
    found, kept = Questions(wanted=n), list[Question]()
    for number in range(rounds):
        part = plan[number * n : (number + 1) * n]
        if not part or len(kept) >= n:
            break
        file = Path(out) / f"written-{number + 1}.jsonl" if out is not None else None
        what = f"writing questions, round {number + 1} of {rounds}"
        made = _round(part, write, chunk_for(lm, CHUNK), file, own, what)
        found.tried += len(made)
        for record in made:
            _keep(record, kept, n, found.rejected)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.rejected.most_common(3))
        raise DataError(f"no question was kept ({reasons})", where="ask", hint="use a larger model, or lower --least")
    found.splits = split_by_document(kept, test, tune, seed)
    for question in real:
        marked = msgspec.structs.replace(question, extra={**question.extra, ASKED_BY: BY_PEOPLE})
        found.splits["test"].append(marked)
    return found


def _round(
    part: Sequence[Retrieved], write: Writing, chunk: int, file: Path | None, settings: dict[str, object], what: str
) -> list[Retrieved]:
    """The records of a round, of one that is finished from its file."""
    drawn = "\n".join(passage.id for record in part for passage in record.ctxs)
    own = {**settings, "drawn": digest(drawn)}
    if file is not None and is_current(file, own, {}):
        return list(read(file, Retrieved))
    made = write_resumable(file, part, write, kind=Retrieved, chunk=chunk, settings=own, what=what)
    if file is not None:
        write_meta(file, own, {})
    return made


@lru_cache(maxsize=4096)  # each is compared with all that come later
def _words(question: str) -> frozenset[str]:
    return frozenset(normalise(question).split())


def _keep(record: Retrieved, kept: list[Question], n: int, rejected: Counter[str]) -> None:
    """Add a record's question to the kept ones, or count why not."""
    if reason := record.extra.get("rejected"):
        rejected[str(reason)] += 1
        return
    own = _words(record.question)
    for other in kept:
        theirs = _words(other.question)
        # Questions that differ in a name alone have other answers.
        alike = len(own & theirs) >= _SAME * len(own | theirs) and contains(record.answers[0], other.answers)
        if own == theirs or alike:
            rejected["near-duplicate of another question"] += 1
            return
    if len(kept) >= n:
        rejected["more than were wanted"] += 1
        return
    extra = {**record.extra, ASKED_BY: BY_MODEL, GOLD: [passage.id for passage in record.ctxs]}
    kept.append(
        Question(id=record.id, question=record.question, answers=record.answers, choices=record.choices, extra=extra)
    )


def _timed(write: Writing, n: int, most: int) -> Writing:
    """The same, which also says what all will take, by the time that the first questions took.

    Args:
        n: questions to keep.
        most: questions to write.
    """
    told = False

    def timed(part: Sequence[Retrieved]) -> list[Retrieved]:
        nonlocal told
        begun = time.perf_counter()
        made = write(part)
        if not told:
            each = (time.perf_counter() - begun) / len(part) / 60
            least = min(n, most)
            minutes = f"{each * least:.0f} to {each * most:.0f} minutes at the speed of the first {len(part)}"
            say(f"{least} to {most} questions to write, {n} to keep: {minutes}")
            told = True
        return made

    return timed
