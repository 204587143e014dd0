"""One stage on several machines: each makes a share of the questions, and `merge` joins what they made.

    gainrag synthesize candidates.jsonl --shard 0/4 -o gains-0.jsonl    on one machine, 1/4 on the next, and so on
    gainrag merge gains-*.jsonl -o gains.jsonl                          the bytes that one machine would have written

A share is made of whole chunks, the questions that a stage works on together (see gainrag.files.resuming): so each of
them is in the same batch as on one machine, and in bfloat16 its result may depend a little on that. The chunks are
dealt out in the order of a hash of their first question's id. So every share has as many as the others, or one less,
and an input that is sorted by length or data set is spread evenly.

The meta file of what a share became names it among the settings, as `shard`, and where its input was, as `paths`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from gainrag.errors import ConfigError, UsageError
from gainrag.files.resuming import chunks
from gainrag.records import Question
from gainrag.settings import count

T = TypeVar("T", bound=Question)

# Where the meta file of what a share became says which it is, and where its input was.
SHARD, PATHS = "shard", "paths"


@dataclass(frozen=True)
class Shard:
    """Share `number`, from 0, of `of`."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A share as people write it.

        Raises:
            UsageError: it is none.

        >>> Shard.parse("0/4")
        Shard(number=0, of=4)
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
            hint = "give I/N, I from 0: of four shards the first is 0/4, the last 3/4"
            raise UsageError(f"{text!r} is no shard", where="--shard", hint=hint)
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def settings(self, chunk: int) -> dict[str, int]:
        """What the settings of what is made of a share say of it."""
        return {"number": self.number, "of": self.of, "chunk": chunk}


def share(items: Sequence[T], shard: Shard, chunk: int) -> list[T]:
    """The items of a share, in the input's order, whole chunks of them.

    Raises:
        ConfigError: there are fewer chunks than shards.
    """
    parts = list(chunks(items, chunk))
    if shard.of > len(parts):
        raise ConfigError(
            f"{count(len(items), 'question')} are {count(len(parts), 'chunk')} of {chunk}, which stay together: "
            f"too few for {shard.of}",
            where="--shard",
            hint=f"use at most {len(parts)}",
        )
    dealt = sorted(range(len(parts)), key=lambda i: (hashlib.sha256(parts[i][0].id.encode()).digest(), i))
    return [item for i in sorted(dealt[shard.number :: shard.of]) for item in parts[i]]
