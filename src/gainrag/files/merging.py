"""Shards of one artefact -> the artefact, byte for byte what one machine would have written.

What was made with which settings, from which input, is in each shard's meta file; see gainrag.files.sharding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gainrag.errors import DataError, StaleError
from gainrag.files.meta import is_untouched, meta_path
from gainrag.files.progress import say
from gainrag.files.resuming import difference
from gainrag.files.sharding import PATHS, SHARD
from gainrag.files.streams import file_hash, open_output, read_json, read_lines

_NAME_IT = "name it: --of FILE"
_AGAIN = "make it again with the settings of the others"


@dataclass(frozen=True)
class Shards:
    """All shards of an artefact, and what they were made with.

    paths: by their number.
    source: the input that they are shares of.
    versions: of the libraries; of one that differed between shards all of its versions.
    summarized: whether the shards have a summary each, so that the whole wants one.
    """

    paths: Sequence[Path]
    source: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]
    summarized: bool


class _Id(msgspec.Struct):
    id: str


def check_shards(paths: Sequence[str | Path], of: str | Path | None = None) -> Shards:
    """Whether files are all shards of one artefact.

    Args:
        of: the input that they are shares of; where it was when the first of them was made, if left out.

    Raises:
        DataError: a file is no shard, or is not as it was made; a shard is missing, or there twice; or the input is
            not there.
        StaleError: they were made with other settings or from another input.
    """
    metas = [_meta_of(Path(path)) for path in paths]
    shards = [meta["settings"][SHARD] for meta in metas]
    made_with = [_made_with(meta) for meta in metas]
    for path, own in zip(paths, made_with, strict=True):
        if own != made_with[0]:
            what = f"was made otherwise than {paths[0]} ({difference(made_with[0], own)})"
            raise StaleError(what, where=str(path), hint=_AGAIN)
    by_number: dict[int, Path] = {}
    for path, shard in zip(paths, shards, strict=True):
        number = shard["number"]
        if number in by_number:
            what = f"is shard {number} of {shard['of']}, as is {by_number[number]}"
            raise DataError(what, where=str(path), hint="give each shard once")
        by_number[number] = Path(path)
    if lacking := [str(n) for n in range(shards[0]["of"]) if n not in by_number]:
        what = f"shard {', '.join(lacking)} of {shards[0]['of']} is not among those given"
        raise DataError(what, where="gainrag merge", hint="give all shards")
    source = Path(of or next(iter(metas[0][PATHS].values())))
    if not source.is_file():
        raise DataError("the input of the shards is not there", where=str(source), hint=_NAME_IT)
    if file_hash(source) not in metas[0]["inputs"].values():
        raise StaleError("is not the file that the shards are of", where=str(source), hint=_NAME_IT)
    return Shards(
        paths=[by_number[n] for n in range(len(by_number))],
        source=source,
        settings={key: value for key, value in metas[0]["settings"].items() if key != SHARD},
        inputs=metas[0]["inputs"],
        versions=_versions(metas),
        summarized=any("summary" in meta for meta in metas),
    )


def _meta_of(path: Path) -> dict[str, Any]:
    """The meta file of a shard."""
    if not path.is_file():
        raise DataError("no such file", where=str(path), hint="name the shards")
    if not meta_path(path).is_file():
        what = f"has no {meta_path(path).name} beside it"
        raise DataError(what, where=str(path), hint="copy it with its meta file; one that is not finished has none yet")
    meta = read_json(meta_path(path))
    shard = meta.get("settings", {}).get(SHARD) if isinstance(meta.get("settings"), dict) else None
    if not (isinstance(shard, dict) and {"number", "of"} <= shard.keys() and meta.get(PATHS)):
        raise DataError("was not made with --shard", where=str(path), hint="merge shards")
    if not is_untouched(path, meta):
        what = f"is not the file that {meta_path(path).name} was written for"
        raise DataError(what, where=str(path), hint="copy both again, or make the shard again")
    return meta


def _made_with(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the shards of an artefact must have in common."""
    shard = {key: value for key, value in meta["settings"][SHARD].items() if key != "number"}
    return {"settings": {**meta["settings"], SHARD: shard}, "inputs": meta["inputs"]}


def _versions(metas: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The versions of the libraries that made the shards. That they differ forbids nothing, as in a run that is
    continued; it is said and written down."""
    found: dict[str, list[str]] = {}
    for meta in metas:
        for name, version in meta.get("versions", {}).items():
            if version not in (known := found.setdefault(name, [])):
                known.append(version)
    for name, known in found.items():
        if len(known) > 1:
            say(f"the shards were made with several versions of {name}: {', '.join(known)}")
    return {name: ", ".join(known) for name, known in found.items()}


def join(shards: Shards, order: Iterable[str], out: str | Path) -> int:
    """Write the records of all shards, as they are, in the input's order; how many.

    Args:
        order: the ids of the input, in its order.

    Raises:
        DataError: a question's record is missing, there twice, or of no question of the input.
    """
    lines = [_lines(path) for path in shards.paths]
    heads: dict[str, tuple[int, bytes]] = {}  # each shard's next record
    written = 0

    def advance(number: int) -> None:
        if (found := next(lines[number], None)) is None:
            return
        own, line = found
        if own in heads:
            other = shards.paths[heads[own][0]]
            raise DataError(f"question {own} is in {other}, too", where=str(shards.paths[number]), hint=_AGAIN)
        heads[own] = number, line

    for number in range(len(lines)):
        advance(number)
    with open_output(out) as stream:
        for wanted in order:
            if (head := heads.pop(wanted, None)) is None:
                what = f"question {wanted} is in no shard, or not at its place"
                raise DataError(what, where=str(shards.source), hint="make the shards again from this input")
            number, line = head
            stream.write(line)
            written += 1
            advance(number)
        if heads:
            own, (number, _) = next(iter(heads.items()))
            what = f"question {own} is none of {shards.source}, or is there twice"
            raise DataError(what, where=str(shards.paths[number]), hint="make the shards again from this input")
    return written


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The records of a file by their ids, as they are written there."""
    for number, line in read_lines(path):
        try:
            own = msgspec.json.decode(line, type=_Id).id
        except msgspec.MsgspecError as error:
            raise DataError(f"is no record: {error}", where=f"{path}:{number}", hint=_AGAIN) from None
        yield own, line.rstrip(b"\n") + b"\n"
