"""What the benchmarks share: what ran where, timing that takes turns, medians, means, and results as JSON and a table.

Two things to compare are timed in turns on the same input, so that whatever else the machine does falls on both alike.
A figure is the median over rounds of the figure within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from gainrag.files.meta import versions
from gainrag.files.streams import open_output, write_json
from gainrag.protocols import FloatArray
from gainrag.records import GainRecord

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5


def weights_of(records: Sequence[GainRecord]) -> FloatArray:
    """The weight of each question in a mean over data sets, so that all of these weigh the same."""
    names = [str(r.extra.get("dataset", r.id.partition("/")[0])) for r in records]
    sizes = Counter(names)
    return np.array([1 / (len(sizes) * sizes[name]) for name in names])


def machine() -> dict[str, Any]:
    """The processor, its cores and matrix instructions, threads, memory, and the GPU if there is one."""
    import torch

    info = _first_processor()
    flags = set(str(info.get("flags", "")).split())
    return {
        "processor": info.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "instructions": sorted(flags & {"avx2", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"}),
        "threads": torch.get_num_threads(),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def _first_processor() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def all_versions() -> dict[str, str]:
    """Versions of the project's libraries, and of the runtimes that happen to be there."""
    found = versions()
    for name in ("tokenizers", "onnxruntime", "openvino", "optimum-intel", "nncf"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a call took, and what it returned. On a GPU it waits for all work that was queued."""
    import torch

    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def in_turns(
    rows: Mapping[str, Callable[[T], Any]], items: Sequence[T], rounds: int = ROUNDS, warm_up: int = 2
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, list[Any]]]:
    """Time every row on every item, rows taking turns within an item and in another order each time.

    Args:
        rows: by name what is compared: a function of an item.
        warm_up: items that every row sees once before the clock starts.

    Returns:
        Seconds by row as [round, item], and by row what it returned for each item in the first round.
    """
    names = list(rows)
    for item in items[:warm_up]:
        for call in rows.values():
            call(item)
    seconds = {name: np.zeros((rounds, len(items))) for name in names}
    returned: dict[str, list[Any]] = {name: [] for name in names}
    for r in range(rounds):
        for i, item in enumerate(items):
            turn = (r + i) % len(names)
            for name in names[turn:] + names[:turn]:
                seconds[name][r, i], result = timed(lambda call=rows[name], item=item: call(item))  # type: ignore[misc]
                if r == 0:
                    returned[name].append(result)
    return seconds, returned


def latency(seconds: np.ndarray[Any, Any]) -> dict[str, float]:
    """p50 and p95 over items in milliseconds, each the median over rounds, of an array [round, item]."""
    return {f"p{q} ms": round(1000 * median(np.percentile(seconds, q, axis=1).tolist()), 2) for q in (50, 95)}


def times_faster(seconds: np.ndarray[Any, Any], baseline: np.ndarray[Any, Any]) -> float:
    """Baseline over row, p50 within a round, median over rounds."""
    ratios: list[float] = (np.median(baseline, axis=1) / np.median(seconds, axis=1)).tolist()
    return round(median(ratios), 2)


def with_error(values: np.ndarray[Any, Any], sign: str = "") -> str:
    """The mean of some values with its standard error in brackets; a sign of "+" shows which way a difference goes."""
    return f"{values.mean():{sign}.3f} ({values.std() / len(values) ** 0.5:.3f})"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; the columns are the keys in their first order."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def asked(arguments: argparse.Namespace) -> dict[str, str]:
    """The command line as settings: of files and folders the name alone, where they lie is nobody's business."""
    return {
        key: Path(str(value)).name if Path(str(value)).exists() else str(value)
        for key, value in vars(arguments).items()
        if key != "out"
    }


def write_results(
    name: str, title: str, settings: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], out: Path
) -> None:
    """Write OUT/NAME.json and OUT/NAME.md, and print the latter.

    Args:
        settings: what was asked for: inputs, dtype, rounds.
        tables: by heading, rows.
    """
    facts = {"machine": machine(), "versions": all_versions(), "settings": dict(settings)}
    write_json(out / f"{name}.json", {**facts, "tables": {heading: list(rows) for heading, rows in tables.items()}})
    parts = [f"# {title}"]
    parts += [f"## {heading}\n\n{markdown(rows)}" for heading, rows in tables.items()]
    parts += [
        f"{what}: " + ", ".join(f"{key} {value}" for key, value in about.items()) for what, about in facts.items()
    ]
    text = "\n\n".join(parts) + "\n"
    with open_output(out / f"{name}.md") as stream:
        stream.write(text.encode())
    print(text)
