"""Selection of one passage out of 101 by a feature selector: milliseconds on one core.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/features.py retrieved.jsonl [--selector embedded:gain-features]

Where questions have fewer candidates, those of the next questions are added: what a question's features cost depends on
how many words its candidates have, not on whether they fit it.

"""

from __future__ import annotations

import argparse
from itertools import cycle, islice
from pathlib import Path

from common import RESULTS, ROUNDS, asked, in_turns, latency, write_results
from msgspec.structs import replace

from gainrag.files.streams import read
from gainrag.records import Retrieved
from gainrag.selectors import PRIOR, open_selector
from gainrag.selectors.boosted import FeatureSelector
from gainrag.selectors.features import matrix


def filled(records: list[Retrieved], passages: int) -> list[Retrieved]:
    """The questions with so many candidates each, their own first."""
    every = [ctx for record in records for ctx in record.ctxs]
    full = []
    for n, record in enumerate(records):
        more = islice(cycle(every), n * passages, (n + 1) * passages)
        full.append(replace(record, ctxs=[*record.ctxs, *more][:passages]))
    return full


def main() -> None:
    """Time features, and features with trees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--selector", default=PRIOR)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--passages", type=int, default=101)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    selector = open_selector(arguments.selector)
    assert isinstance(selector, FeatureSelector)
    trees = selector.trees
    records = filled(list(islice(read(arguments.candidates, Retrieved), arguments.questions)), arguments.passages)
    seconds, _ = in_turns(
        {
            "features": lambda r: matrix(r.question, r.ctxs, trees.words, trees.names),
            "features and trees": lambda r: selector.score(r.question, r.ctxs),
        },
        records,
        arguments.rounds,
    )
    table = [{"what": name, **latency(found)} for name, found in seconds.items()]
    title = f"Selection of 1 out of {arguments.passages} by features, {len(records)} questions"
    write_results("features", title, asked(arguments), {"Latency a question": table}, arguments.out)


if __name__ == "__main__":
    main()
