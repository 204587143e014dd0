"""Every known failure, as one line: what went wrong, where, and what to do.

GainragError            exit status 1
├── DataError           a file or record is missing, empty, malformed or inconsistent
├── ConfigError         a setting is unknown, of the wrong type, or contradicts another
├── ModelError          a model cannot be loaded, or returned something that is no result
├── StaleError          an artefact on disk was made from something else than what is asked for now
├── ResourceError       the machine ran out of something: disk, memory
└── UsageError          exit status 2: the command line itself is wrong

This module knows nothing about the rest of the package.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec


class GainragError(Exception):
    """A known failure: `what` went wrong, `where`, and a `hint` on what to do about it."""

    exit_status = 1
    http_status = 500

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.hint:
            line = f"{line.rstrip('.')}. Hint: {self.hint}"
        # One line is the contract, whatever a library put into its message.
        return " ".join(line.split())


class DataError(GainragError):
    """A file or record is missing, empty, malformed or inconsistent."""

    http_status = 422


class ConfigError(GainragError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    http_status = 422


class ModelError(GainragError):
    """A model cannot be loaded, or returned something that is no result."""


class StaleError(GainragError):
    """An artefact on disk was made from something else than what is asked for now."""


class ResourceError(GainragError):
    """The machine ran out of something: disk, memory."""

    http_status = 503


class UsageError(GainragError):
    """The command line itself is wrong."""

    exit_status = 2


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """The sentence for a name that is not on the list: a near miss is suggested, else the list is shown."""
    names = sorted(available)
    near = get_close_matches(name, names, n=1)
    tail = f"did you mean {near[0]!r}?" if near else f"available: {', '.join(names)}"
    return f"unknown {kind} {name!r}; {tail}"


def require(extra: str, *modules: str) -> None:
    """Check that libraries are there which only an extra of the package brings, before they are imported.

    Raises:
        ConfigError: one is not installed; the hint names the extra.
    """
    for module in modules:
        if find_spec(module) is None:
            raise ConfigError(f"{module} is not installed", hint=f"pip install 'gainrag[{extra}]'")
