"""What of a finished run is kept in docs/results: its config, table and report, and one small metrics.json.

    python benchmarks/summarise.py runs/six -o docs/results/six [--system GainRAG] [--trials trials.json]

metrics.json holds the figures of the run's evaluation.json, rounded to five digits: every system's scores with their
intervals, and the differences of SYSTEM from the others with p. Groups have fewer metrics. `pairs` holds the
differences between the other systems, of the mean of contains and F1, averaged over groups. Beside them: what the
labels are (gains/train.meta.json), the diagnosis, the settings that `[tune]` tried, the facts of each selector's
model card, and the trials of benchmarks/trials.py as means with standard errors.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 5
KEPT = ("config.toml", "table.txt", "report.md")


def metrics(run: Path, system: str, trials: Path | None = None) -> dict[str, Any]:
    """The content of metrics.json; a part that the run does not have is left out."""
    evaluation = _json(run / "evaluation.json")
    all_pairs = evaluation["macro"] or evaluation["overall"]
    found = {
        "columns": {"systems": "value, low, high", "differences and pairs": "first minus second, low, high, p"},
        **{key: evaluation[key] for key in ("resamples", "confidence", "seed", "group_by")},
        "differences_of": system,
        "overall": _scope(evaluation["overall"], system),
        "macro": _scope(evaluation["macro"], system) if evaluation["macro"] else None,
        "groups": {name: _scope(scope, system, brief=True) for name, scope in evaluation["groups"].items()},
        "pairs": [
            [p["system"], p["other"], *_numbers(p["metrics"]["mean"])]
            for p in all_pairs["pairs"]
            if system not in (p["system"], p["other"])
        ],
        "labels": _labels(run / "gains" / "train.meta.json"),
        "diagnosis": _json(run / "diagnosis.json").get("diagnosis"),
        "tuning": _json(run / "selector.meta.json").get("summary", {}).get("trials"),
        "selectors": {path.parent.relative_to(run).as_posix(): _card(path) for path in sorted(run.rglob("README.md"))},
        "trials": _trials(_json(trials)) if trials else None,
    }
    return {key: value for key, value in found.items() if value not in (None, {})}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _numbers(interval: Mapping[str, float]) -> list[float]:
    """An interval's or a difference's numbers in the order of `columns`."""
    return [round(interval[key], DIGITS) for key in ("value", "low", "high", "p") if key in interval]


def _scope(scope: Mapping[str, Any], system: str, brief: bool = False) -> dict[str, Any]:
    """The scores of every system, and the differences of one of them from all others; `brief` leaves metrics out."""
    systems, differences = {}, {}
    for name, scores in scope["systems"].items():
        measured = scores["metrics"] | {key: scores[key] for key in ("recall", "generated") if scores[key]}
        left_out = ("exact_match", "paper_em") if brief else ()
        systems[name] = {key: _numbers(measured[key]) for key in measured if key not in left_out}
    for pair in scope["pairs"]:
        if system in (pair["system"], pair["other"]):
            other, sign = (pair["other"], 1) if pair["system"] == system else (pair["system"], -1)
            compared = ("mean",) if brief else pair["metrics"]
            differences[other] = {key: _signed(_numbers(pair["metrics"][key]), sign) for key in compared}
    return {"n": scope["n"], "systems": systems, "differences": differences}


def _signed(difference: list[float], sign: int) -> list[float]:
    """The difference the other way round where `sign` is -1: low and high change places, p stays."""
    value, low, high, p = difference
    return difference if sign == 1 else [0.0 - value, 0.0 - high, 0.0 - low, p]


def _labels(path: Path) -> Any:
    meta = _json(path)
    return {key: meta[key] for key in ("settings", "summary", "versions") if key in meta}


def _card(path: Path) -> dict[str, str]:
    """The facts of a model card: the rows of its only table."""
    rows = re.findall(r"^\| (.+?) \| (.*?) \|$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {fact: value for fact, value in rows if fact != "fact"}


def _trials(trials: Mapping[str, Any]) -> dict[str, Any]:
    """Each trial's mean regret and its difference from the first trial's, with standard errors, in nats per token."""
    first = np.array(next(iter(trials.values()))["regrets"])
    return {
        name: {
            "questions": trial["questions"],
            "judged_by": len(first),
            "regret": _with_error(np.array(trial["regrets"])),
            "above_the_first": _with_error(np.array(trial["regrets"]) - first),
            "holds_an_answer": round(float(np.mean(trial["holds an answer"])), DIGITS),
        }
        for name, trial in trials.items()
    }


def _with_error(values: np.ndarray[Any, Any]) -> list[float]:
    """Mean and standard error."""
    return [round(float(values.mean()), DIGITS), round(float(values.std() / len(values) ** 0.5), DIGITS)]


def main() -> None:
    """Copy what is kept and write metrics.json beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder in docs/results")
    parser.add_argument("--system", default="GainRAG", help="whose differences from the others are kept")
    parser.add_argument("--trials", type=Path, help="what benchmarks/trials.py wrote for this run")
    arguments = parser.parse_args()
    found = metrics(arguments.run, arguments.system, arguments.trials)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (arguments.run / name).exists():
            shutil.copyfile(arguments.run / name, arguments.output / name)
    (arguments.output / "metrics.json").write_text(_text(found) + "\n", encoding="utf-8")


def _text(value: Any, indent: str = "") -> str:
    """JSON with what belongs together on one line: a system's scores, a pair."""
    rows: list[str] = []
    if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        rows = [f"{json.dumps(key)}: {_text(inner, indent + ' ')}" for key, inner in value.items()]
    elif isinstance(value, list) and value and not isinstance(value[0], int | float):
        rows = [json.dumps(inner) for inner in value]
    if not rows:
        return json.dumps(value)
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return opened + ",".join(f"\n{indent} {row}" for row in rows) + f"\n{indent}{closed}"


if __name__ == "__main__":
    main()
