"""Where an output goes: the place behind its name, and the names of what lies beside it.

    NAME.meta.json                      what the artefact was made from, see gainrag.files.meta
    NAME.part  NAME.part.meta.json      what is made so far, see gainrag.files.resuming
    NAME.calls                          what an engine answered, see gainrag.lms.remote.kept
    .NAME.tmp  .NAME.old  .NAME.lock    while NAME is written; after a kill they stay until NAME is written again

A link is written through to its target. Devices and pipes are written as streams: nothing lies beside them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from gainrag.errors import DataError

Writes = Literal["file", "folder", "inside"]
_HINT = "choose another output path"
_PASSING = (".tmp", ".old", ".lock")
# Files that the process has open already, under names that the system gives them.
_OPENED = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/self/fd/")
# The system's own folders: what looks like a file there is none.
_SYSTEM = (Path("/proc"), Path("/sys"))
# Ends of the names that other outputs give to what lies beside them.
_TAKEN = (".meta.json", ".part", ".calls")
# Bytes of an output's name. A file system takes 255, and the names beside it are longer than its own.
LONGEST = 200


def is_stream(path: str | Path) -> bool:
    """Whether an output is written as a stream: `-`, a character device or a pipe. Such a file is never replaced."""
    if str(path) == "-" or str(path).startswith(_OPENED):
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # there is none
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def target(path: str | Path) -> Path:
    """The path itself, or where it leads when it is a link.

    Raises:
        DataError: no file can have this name or lie there, or its links lead in a circle.
    """
    text = str(path)
    if not text:
        raise DataError("the output has no name", hint=_HINT)
    if "\0" in text:
        raise DataError("the name holds a NUL", where=repr(text), hint=_HINT)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("the name is not UTF-8", where=ascii(text), hint=_HINT) from None
    found = Path(text)
    try:
        link = stat.S_ISLNK(os.lstat(found).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        link = False
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=text, hint=_HINT) from None
    if link or found.name in ("", ".."):
        found = Path(os.path.realpath(found))
    if os.path.islink(found):
        raise DataError("is a link that leads in a circle", where=text, hint=_HINT)
    if not found.name:
        raise DataError("is no place for an output", where=text, hint=_HINT)
    return found


def check_input(path: str) -> None:
    """Whether a file or folder can have this name at all.

    Raises:
        DataError: it holds a NUL, or a part of it is too long for any file system.
    """
    if "\0" in path:
        raise DataError("the name holds a NUL", where=repr(path), hint="check the path")
    if any(len(os.fsencode(part)) > 255 for part in Path(path).parts):
        raise DataError("a name of more than 255 bytes", where=path, hint="check the path")


def beside(path: str | Path, kind: str) -> Path:
    """The hidden neighbour `.NAME.kind` of an output; its kinds are tmp, old and lock."""
    out = target(path)
    return out.with_name(f".{out.name}.{kind}")


def meta_path(artefact: str | Path) -> Path:
    """Where an artefact's meta file is: gains.jsonl.gz -> gains.meta.json, selector/ -> selector.meta.json."""
    path = Path(artefact)
    name = path.name
    for suffix in (".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return path.with_name(name + ".meta.json")


def calls_path(artefact: str | Path) -> Path | None:
    """Where the answers of an engine are kept that an artefact is made of; nowhere beside a stream."""
    return None if is_stream(artefact) else target(artefact).with_name(target(artefact).name + ".calls")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what killed processes of this package left."""
    return all(entry.name.startswith(".") and entry.name.endswith(_PASSING) for entry in folder.iterdir())


def invalidate(path: str | Path) -> None:
    """Remove the meta file of an output that is about to be replaced, so that a kill before the next meta file is
    written can never leave new content under the old one."""
    for name in dict.fromkeys((Path(path), target(path))):
        meta_path(name).unlink(missing_ok=True)


def replace(made: Path, path: str | Path) -> None:
    """A finished file becomes the output."""
    invalidate(path)
    os.replace(made, target(path))


def check_output(path: str | Path, inputs: Iterable[str | Path] = (), *, writes: Writes = "file") -> None:
    """Whether an output can be what a command writes, before it spends hours on it.

    Args:
        inputs: files and folders that the command reads; `-` is none of them.
        writes: a file; a folder that is replaced as a whole; or files inside a folder.

    Raises:
        DataError: it is an input, holds one that would be replaced with it, or is of another kind than what is written.
    """
    wanted = "file" if writes == "file" else "folder"
    if is_stream(path):
        if wanted == "folder":
            raise DataError("is a stream; a folder is written", where=str(path), hint=_HINT)
        return
    out = target(path)
    real = Path(os.path.realpath(out))
    if len(os.fsencode(out.name)) > LONGEST:
        raise DataError(f"the name is longer than {LONGEST} bytes", where=str(path), hint="choose a shorter one")
    if any(folder in real.parents for folder in _SYSTEM):
        raise DataError("is in a folder of the system, where no file can be made", where=str(path), hint=_HINT)
    if out.name.endswith(_TAKEN):
        what = f"a name that ends in {' or '.join(_TAKEN)} is that of a file beside another output"
        raise DataError(what, where=str(path), hint=_HINT)
    if out.exists() and not (out.is_file() if wanted == "file" else out.is_dir()):
        is_now = "a folder" if out.is_dir() else "a file" if out.is_file() else "a device or socket"
        raise DataError(f"is {is_now}; a {wanted} is written", where=str(path), hint=_HINT)
    if writes == "inside":
        return
    for given in inputs:
        with suppress(OSError, ValueError):  # an input that is not there is for its reader to report
            if str(given) != "-" and os.path.samefile(out, given):
                raise DataError(f"is an input, too ({given})", where=str(path), hint=_HINT)
            source = Path(os.path.realpath(given))
            if source in real.parents:
                raise DataError(f"is inside an input ({given})", where=str(path), hint=_HINT)
            if real in source.parents:
                raise DataError(f"holds an input ({given}), which would be replaced", where=str(path), hint=_HINT)
    if real in (Path.cwd(), *Path.cwd().parents):
        raise DataError("is the current folder or above it, and would be replaced", where=str(path), hint=_HINT)


def check_replaceable(path: str | Path, mark: str | Sequence[str], what: str) -> None:
    """Whether a folder may be written here: a wrong path must not cost anyone their folder.

    Args:
        mark: the file by which such a folder is known, or several, any of them.
        what: what such a folder is called.

    Raises:
        DataError: there is something else.
    """
    out, marks = target(path), (mark,) if isinstance(mark, str) else mark
    if out.exists() and not any((out / mark).is_file() for mark in marks) and not (out.is_dir() and is_empty(out)):
        raise DataError(f"is there already and is no {what}", where=str(path), hint="choose another output folder")
