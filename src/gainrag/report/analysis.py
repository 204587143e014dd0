"""Why a system scores as it does: pure functions from a run's test questions to plain data, no files, no models.

| function              | asks                                                                                 |
|-----------------------|--------------------------------------------------------------------------------------|
| `preference_gap`      | does an answer in the passage make the answer right? (the paper's Figure 1)           |
| `recall_and_score`    | does more recall mean a better score? (Figure 3)                                      |
| `recall_by_k`         | how soon does an answer come in an order of the candidates? (Figure 5, first half)    |
| `k_sweep`             | what do more passages bring? (Figure 5)                                               |
| `pseudo_choice`       | when is the pseudo-passage chosen, and was that right? (Figure 4)                     |
| `compare`, `extremes` | where does one system beat another, and where not?                                    |

The score is mean(contains, F1) of an answer, 0 to 1. Of a system that was trained with several seeds, differences and
mean scores of all questions are of the mean over them; what one question's passages did is of the first seed. How well
a selector orders candidates: gainrag.report.agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from gainrag.errors import ConfigError, DataError, unknown
from gainrag.evaluation import evaluate, score_questions
from gainrag.metrics import holds_answer, normalise, recall_at_k
from gainrag.records import Answer
from gainrag.report.cases import Case, Plain, mean_of, same, share
from gainrag.selection import top
from gainrag.statistics import difference_interval

# Scores nearer than this are one score: the same fraction, summed in another order.
_SAME = 1e-9

_ASKING = {word: word for word in ("who", "what", "which", "when", "where", "why", "how")}
_ASKING |= {"whom": "who", "whose": "who", "whos": "who", "whats": "what", "wheres": "where"}
_YES_OR_NO = {"are", "can", "could", "did", "do", "does", "had", "has", "have", "is", "was", "were", "will", "would"}


def preference_gap(cases: Sequence[Case], system: str) -> Plain:
    """Of questions whose passages hold a gold answer the share answered right, and of those answered right the share
    whose passages hold one. Right is `contains`.

    Returns:
        `right_of_holding` and `holding_of_right`, each a `share`.

    Raises:
        ConfigError: no such system.
    """
    _check(cases, system)
    holding = [case for case in cases if case.scores[system]["recall"]]
    right = [case for case in cases if case.scores[system]["contains"]]
    both = sum(bool(case.scores[system]["contains"]) for case in holding)
    return {"right_of_holding": share(both, len(holding)), "holding_of_right": share(both, len(right))}


def recall_and_score(cases: Sequence[Case], systems: Sequence[str]) -> Plain:
    """By system, the share of questions with a gold answer in the passages it read, and its mean score.

    Systems that read no passages at all are left out: the question of recall does not arise.
    """
    return {
        system: {
            "recall": float(np.mean([case.mean(system, "recall") for case in cases])),
            "score": float(np.mean([case.mean(system) for case in cases])),
        }
        for system in systems
        if any(case.answered[system].ctxs for case in cases)
    }


def recall_by_k(cases: Sequence[Case], order: str | None = None, longest: int = 10) -> list[Plain]:
    """Share of questions with a gold answer in the first k candidates, k = 1 .. `longest`.

    Args:
        order: the system whose selector orders the candidates; None is the retriever's order, where the
            pseudo-passage has no place.
        longest: the largest k; fewer where no question has so many candidates.
    """
    flags = []
    for case in cases:
        if order is None:
            ranked = [c for c in case.candidates if c.origin != "generated"]
        else:
            ranked = [case.candidates[i] for i in top(case.scored[order], longest)]
        flags.append([holds_answer(c, case.answers) for c in ranked[:longest]])
    return [{"k": k, "recall": recall_at_k(flags, k)} for k in range(1, min(longest, max(map(len, flags))) + 1)]


def k_sweep(sweep: Mapping[int, Mapping[str, Sequence[Answer]]], **interval: Any) -> Plain:
    """By system, recall of the passages read and mean score for each k, smallest first, and the difference in score
    from the smallest, with its interval and p (None for the smallest itself).

    Args:
        sweep: by k, by system, its answers from k passages, of each system to the same questions.
        interval: `resamples`, `confidence` and `seed`, see `gainrag.evaluation.evaluate`.
    """
    by_system: dict[str, dict[int, Sequence[Answer]]] = {}
    for k, systems in sorted(sweep.items()):
        for system, answers in systems.items():
            by_system.setdefault(system, {})[k] = answers
    found: dict[str, list[Plain]] = {}
    for system, by_k in by_system.items():
        first = str(min(by_k))
        whole = evaluate({str(k): answers for k, answers in by_k.items()}, **interval).overall
        for k, answers in by_k.items():
            rows = score_questions({system: answers})
            above = None if str(k) == first else whole.difference(str(k), first)
            found.setdefault(system, []).append(
                {
                    "k": k,
                    "n": len(rows),
                    "recall": float(np.mean([row["recall"] for row in rows])),
                    "score": float(np.mean([row["mean"] for row in rows])),
                    "difference": above
                    and {"difference": above.value, "low": above.low, "high": above.high, "p": above.p},
                }
            )
    return found


def pseudo_choice(cases: Sequence[Case], system: str, without: str | None = None) -> Plain:
    """When a system's first passage is the pseudo-passage, and whether that was right.

    Of the questions that have one; what is by true gain has no value where a run measured none:

    | key                    | what                                                                              |
    |------------------------|-----------------------------------------------------------------------------------|
    | `chosen`               | share whose first passage read is the pseudo-passage                              |
    | `best`                 | share where its true gain is above that of every retrieved passage                |
    | `best_of_chosen`       | share of the chosen where it is                                                   |
    | `best_of_others`       | share of those not chosen where it is: what was missed                            |
    | `score`                | mean score of the chosen                                                          |
    | `score_without`        | of the same questions, what `without`, which may not choose it, scores            |
    | `score_best_retrieved` | where some system read nothing but the retrieved passage of highest gain: its mean |
    |                        | score, and `chosen`, the score of the chosen on just these                        |

    Args:
        without: the system that makes the same choice among retrieved passages alone, where it was run.

    Raises:
        ConfigError: no such system.
    """
    _check(cases, system, *([without] if without else []))
    having = [case for case in cases if case.pseudo() is not None and len(case.candidates) > 1]
    chosen = [case for case in having if _chose_pseudo(case, system)]
    others = [case for case in having if not _chose_pseudo(case, system)]
    measured = bool(cases[0].gains())
    known = [(c, score) for c in chosen if measured and (score := _score_of_best_retrieved(c)) is not None]

    def best(part: Sequence[Case]) -> Plain:
        return share(sum(map(_pseudo_is_best, part)), len(part)) if measured else share(0, 0)

    return {
        "chosen": share(len(chosen), len(having)),
        "best": best(having),
        "best_of_chosen": best(chosen),
        "best_of_others": best(others),
        "score": mean_of([case.scores[system]["mean"] for case in chosen]),
        "score_without": mean_of([case.scores[without]["mean"] for case in chosen]) if without else None,
        "score_best_retrieved": {
            **mean_of([score for _, score in known]),
            "chosen": mean_of([case.scores[system]["mean"] for case, _ in known])["value"],
        },
    }


def _chose_pseudo(case: Case, system: str) -> bool:
    ctxs = case.answered[system].ctxs
    return bool(ctxs) and ctxs[0].origin == "generated"


def _pseudo_is_best(case: Case) -> bool:
    at = case.pseudo()
    assert at is not None
    gains = case.gains()
    return gains[at] > max(gain for i, gain in enumerate(gains) if i != at)


def _score_of_best_retrieved(case: Case) -> float | None:
    """The score of an answer from the retrieved candidate of highest gain alone, by whichever system gave it."""
    retrieved = [c for c in case.candidates if c.origin != "generated"]
    gains = [gain for c, gain in zip(case.candidates, case.gains(), strict=True) if c.origin != "generated"]
    best = retrieved[top(gains, 1)[0]]
    for system, answer in case.answered.items():
        if len(answer.ctxs) == 1 and same(answer.ctxs[0], best):
            return case.scores[system]["mean"]
    return None


def compare(cases: Sequence[Case], system: str, baseline: str, **interval: Any) -> Plain:
    """How two systems' scores differ: mean difference with a bootstrap interval, and how many questions each wins.

    Args:
        interval: `resamples`, `confidence` and `seed` of the interval, see `gainrag.statistics`.

    Returns:
        n, wins, losses, ties, `same_passages` (questions where both read the same), difference, low, high.

    Raises:
        ConfigError: no such system.
    """
    _check(cases, system, baseline)
    # In the order of ids, so that the interval of all questions, or of a data set, is that of evaluation.json.
    differences = [difference(case, system, baseline) for case in sorted(cases, key=lambda case: case.id)]
    low, high = difference_interval(differences, **interval)
    return {
        "n": len(cases),
        "wins": sum(d > 0 for d in differences),
        "losses": sum(d < 0 for d in differences),
        "ties": sum(d == 0 for d in differences),
        "same_passages": sum(_reads_the_same(case, system, baseline) for case in cases),
        "difference": float(np.mean(differences)),
        "low": low,
        "high": high,
    }


def compare_groups(
    cases: Sequence[Case], system: str, baseline: str, keys: Sequence[str] = (), **interval: Any
) -> list[Plain]:
    """`compare` for each group of questions, by each way of grouping them.

    Ways: data set; each of `keys` that some question has; the word that asks; length of the shortest gold answer;
    whether some candidate holds an answer. A way with a single group says nothing and is left out.

    Args:
        keys: keys of the questions, such as "question_type".
    """
    ways: dict[str, Callable[[Case], str]] = {"dataset": lambda case: case.dataset}
    ways |= {key: lambda case, key=key: str(case.extra.get(key, "not given")) for key in keys}  # type: ignore[misc]
    ways["asked by"] = lambda case: question_word(case.question)
    ways["shortest answer"] = answer_length
    ways["candidates"] = lambda case: "some hold an answer" if _answerable(case) else "none holds an answer"
    found = []
    for by, group_of in ways.items():
        groups: dict[str, list[Case]] = {}
        for case in cases:
            groups.setdefault(group_of(case), []).append(case)
        if len(groups) > 1:
            found += [
                {"by": by, "group": name, **compare(groups[name], system, baseline, **interval)}
                for name in sorted(groups)
            ]
    return found


def extremes(cases: Sequence[Case], system: str, baseline: str, n: int = 20) -> tuple[list[Case], list[Case]]:
    """The n largest wins and the n largest losses of a system against a baseline, largest first.

    Of equal differences in score, the one where what was read differs more in true gain comes first; passages that
    are no candidates have none, and count as no difference.
    """

    def size(case: Case) -> tuple[float, float]:
        gains = [_gain_read(case, name) for name in (system, baseline)]
        return difference(case, system, baseline), 0.0 if None in gains else gains[0] - gains[1]  # type: ignore[operator]

    ordered = sorted(cases, key=lambda case: (*(-x for x in size(case)), case.id))
    wins = [case for case in ordered if difference(case, system, baseline) > 0]
    losses = [case for case in reversed(ordered) if difference(case, system, baseline) < 0]
    return wins[:n], losses[:n]


def difference(case: Case, system: str, baseline: str) -> float:
    """By how much a system scores above the baseline on a question; exactly 0 where they score the same."""
    found = case.mean(system) - case.mean(baseline)
    return 0.0 if abs(found) < _SAME else found


def question_word(question: str) -> str:
    """The first English word that asks, as a group's name.

    >>> question_word("In which year was Emma written?"), question_word("How many rivers cross it?")
    ('which', 'how many')
    >>> question_word("Is the Danube longer than the Rhine?"), question_word("Name the author of Emma")
    ('yes or no', 'other')
    """
    words = normalise(question).split()
    for word, following in zip_longest(words, words[1:]):
        if word == "how" and following in ("many", "much"):
            return "how many"
        if word in _ASKING:
            return _ASKING[word]
    return "yes or no" if words and words[0] in _YES_OR_NO else "other"


def answer_length(case: Case) -> str:
    """The length of the shortest gold answer in normalised words, as a group's name."""
    words = min(len(normalise(answer).split()) for answer in case.answers)
    return "1 word" if words <= 1 else "2 words" if words == 2 else "3 words or more"


def _gain_read(case: Case, system: str) -> float | None:
    """The true gain of the first passage a system read."""
    ctxs = case.answered[system].ctxs
    return case.gain(ctxs[0]) if ctxs else None


def _reads_the_same(case: Case, system: str, baseline: str) -> bool:
    one, other = case.answered[system].ctxs, case.answered[baseline].ctxs
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def _answerable(case: Case) -> bool:
    return any(holds_answer(c, case.answers) for c in case.candidates)


def _check(cases: Sequence[Case], *systems: str) -> None:
    if not cases:
        raise DataError("there are no questions to analyse", hint="give at least one")
    for system in systems:
        if system not in cases[0].answered:
            raise ConfigError(unknown("system", system, cases[0].answered), hint="name a system that was evaluated")
