"""What the systems of a run are called, and which names may become a file's or a folder's.

Knows nothing of how systems are made: who reads a finished run needs the names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from gainrag.errors import ConfigError
from gainrag.files.meta import digest

T = TypeVar("T")

NO_RETRIEVAL, PSEUDO, RELEVANCE = "no retrieval", "pseudo-passage alone", "relevance selector"
GAINRAG, NO_PSEUDO = "GainRAG", "GainRAG without pseudo-passage"
# Two that know the gold answers. From the retrievers' scores to the first one's is what choosing passages that hold an
# answer would bring; from there to the second one's, what knowing the language model's losses would bring.
FIRST_WITH, ORACLE = "first with an answer", "oracle"
# Beside them the retrievers', which end in top-K.
BUILT_IN = (NO_RETRIEVAL, PSEUDO, RELEVANCE, GAINRAG, NO_PSEUDO, FIRST_WITH, ORACLE)

# Every name is part of paths: no separator, no dot in front. In bytes, as file systems count; what is put behind a
# name (.jsonl.part.meta.json) must fit into their 255, too.
_NAME, _BYTES = re.compile(r"\w[^/\\]{0,99}"), 200
# Behind a name: the same trained with another seed, the first that is not the run's own being 1.
_SEED = re.compile(r"(.+)\.seed([1-9]\d*)")
# The files of what was asked lie beside the systems' answers, see `gainrag.runs.systems.answer_all`.
_POOL = re.compile(r"(pool|sweep)(\..*)?|.*\.asked")


def file_name(system: str) -> str:
    """A system's name as a file name."""
    return "_".join(system.lower().replace("-", " ").split())


def seeded(name: str, n: int) -> str:
    """The name of a system, file or folder for the n-th further seed; of the first seed it has no number.

    >>> seeded("GainRAG", 0), seeded("GainRAG", 2)
    ('GainRAG', 'GainRAG.seed2')
    """
    return f"{name}.seed{n}" if n else name


def unseeded(name: str) -> tuple[str, int]:
    """What `seeded` was given.

    >>> unseeded("GainRAG"), unseeded("GainRAG.seed2")
    (('GainRAG', 0), ('GainRAG', 2))
    """
    found = _SEED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)


def by_seed(systems: Mapping[str, T]) -> tuple[dict[str, T], dict[str, list[T]]]:
    """What systems have, apart from what those of further seeds have, by the system's name. A further seed of a system
    that is not there is a system of its own.

    >>> by_seed({"a": 1, "a.seed2": 3, "a.seed1": 2, "b.seed1": 4})
    ({'a': 1, 'b.seed1': 4}, {'a': [2, 3]})
    """
    further = {name: unseeded(name) for name in systems if unseeded(name)[1] and unseeded(name)[0] in systems}
    found: dict[str, list[T]] = {}
    for name in sorted(further, key=lambda name: further[name][1]):
        found.setdefault(further[name][0], []).append(systems[name])
    return {name: own for name, own in systems.items() if name not in further}, found


def joined(names: Sequence[str]) -> str:
    """Several names as one file name, the same for no other names."""
    plain = "+".join(names)
    short = len(plain.encode()) <= _BYTES and not any("+" in name for name in names)
    return plain if short else f"{len(names)}+{digest('/'.join(names))}"


def check_name(name: str, where: str) -> None:
    """Whether a name can be part of a path below the run folder.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name) or not name.isprintable() or len(name.encode()) > _BYTES:
        raise ConfigError(
            f"the name {name[:100]!r} cannot be a file's",
            where=where,
            hint="begin with a letter or digit, without slashes or control characters, 100 characters at most",
        )


def check_systems(names: Iterable[str]) -> None:
    """Whether further systems can be told from each other and from those of every run.

    Raises:
        ConfigError: a name is taken, or can be no file's.
    """
    taken = {file_name(name): name for name in BUILT_IN}
    for name in names:
        where, file = f"system {name!r}", file_name(name)
        check_name(file, where)
        check_name(name, where)
        if _POOL.fullmatch(file):
            raise ConfigError("the name is that of a file of the run's answers", where=where, hint="choose another one")
        if unseeded(name)[1]:
            raise ConfigError(
                "the name is that of a further seed, which end in .seedN", where=where, hint="choose another one"
            )
        if file in taken or re.search(r"_top_\d+$", file):
            other = f"that of the system {taken[file]!r}" if file in taken else "a retriever's, which end in top-K"
            raise ConfigError(f"the name is {other}", where=where, hint="choose another one")
        taken[file] = name
