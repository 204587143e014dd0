"""What a command of the command line is, what its arguments are, and those that several commands have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gainrag.cli import actions
from gainrag.files.locks import lock
from gainrag.files.places import Writes, check_input, check_output, check_replaceable

# What most commands' interruption leaves, said to whoever pressed Ctrl-C.
STARTS_OVER = "Nothing was written; run the same command again to start over."

# Parameters of stages that may name a file or a folder to read.
_READ = ("base", "start", "aliases")


@dataclass(frozen=True)
class Argument:
    """One argument that no stage parameter stands behind: a file, a folder, a model.

    Args:
        reads: it names a file or a folder that the command reads.
    """

    flags: tuple[str, ...]
    options: dict[str, Any]
    reads: bool = False

    @property
    def name(self) -> str:
        """What its value is called among the arguments."""
        return self.flags[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Command:
    """A command: its arguments, the stages whose parameters are its flags, and what it does.

    Args:
        writes: what its --out is.
        replaces: of a folder that may be there already, the file, or one of several, by which it is known,
            and what it is called.
        kept: what an interruption leaves, as a sentence for whoever caused it.
    """

    name: str
    help: str
    action: Callable[[actions.Arguments], None]
    arguments: tuple[Argument, ...] = ()
    stages: tuple[Callable[..., Any], ...] = ()
    skip: tuple[str, ...] = ()
    writes: Writes = "file"
    replaces: tuple[str | Sequence[str], str] | None = None
    kept: str = STARTS_OVER

    def run(self, arguments: actions.Arguments) -> None:
        """Check the output, and do what the command does while holding the output's lock.

        Raises:
            DataError: an input can have no such name; the output is an input or something that must not be replaced,
                cannot be written, or another process is writing it.
            GainragError: whatever the command raises.
        """
        for path in (*self._inputs(arguments), str(arguments.get("llm") or "")):
            check_input(path)
        if (out := arguments.get("out")) is None:
            self.action(arguments)
            return
        check_output(out, self._inputs(arguments), writes=self.writes)
        if self.replaces:
            check_replaceable(out, *self.replaces)
        # A folder that others may write in, too, has its lock inside.
        with lock(Path(out) / "gainrag" if self.writes == "inside" else out):
            self.action(arguments)

    def _inputs(self, arguments: actions.Arguments) -> list[str]:
        """Every file and folder that is read."""
        names = [argument.name for argument in self.arguments if argument.reads]
        given = [arguments.get(name) for name in (*names, *_READ)]
        return [str(path) for value in given if value for path in (value if isinstance(value, list) else [value])]


def source(name: str, help: str, **more: Any) -> Argument:
    """A file or a folder that the command reads."""
    return Argument((name,), {"help": help, **more}, reads=True)


def target(help: str, **more: Any) -> Argument:
    """What the command writes."""
    return Argument(("-o", "--out"), {"required": True, "metavar": "PATH", "help": help, **more})


def llm() -> Argument:
    """The language model."""
    names = "embedded:NAME, a Hugging Face id, a folder, a GGUF file, or an endpoint: http://HOST:PORT/v1#NAME"
    return Argument(("--llm",), {"required": True, "metavar": "MODEL", "help": names})


def shard() -> Argument:
    """Which share of the questions to work on."""
    text = "work on share I of N of the questions, I from 0; `gainrag merge` joins what all of them made"
    return Argument(("--shard",), {"metavar": "I/N", "help": text})


def calibrate() -> Argument:
    """Answers that the threshold between two fixed choices is set by."""
    text = "for two fixed choices such as Yes and No: this system's answers to training questions, to set the threshold"
    return Argument(("--calibrate",), {"metavar": "ANSWERS", "help": text}, reads=True)


def data(default: str) -> Argument:
    """Where the config's data lies."""
    text = f"the folder that relative data paths of the config start from [{default}]"
    return Argument(("--data",), {"metavar": "FOLDER", "help": text})
