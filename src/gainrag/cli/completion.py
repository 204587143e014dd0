"""What a shell needs to complete gainrag's commands and flags: `gainrag --completion SHELL`.

The script is made once and holds every command and flag. So completing starts no Python, which would take longer than
typing. It is made by shtab, from the parser that reads the command line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from gainrag.errors import require

SHELLS = ("bash", "zsh", "tcsh")

# What an argument that names a file or a folder is called in the help.
_PATHS = frozenset(("PATH", "FILE", "FOLDER", "ANSWERS", "MODEL"))


class PrintCompletion(argparse.Action):
    """The flag: print the script of a shell on standard output, and stop.

    Raises (when it is given):
        ConfigError: the extra is not installed.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        """Called by argparse, with the shell."""
        print(script(parser, values))
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script of a shell for a parser. Arguments that name files get the completion of files.

    Raises:
        ConfigError: the extra is not installed.
    """
    require("completion", "shtab")
    import shtab

    for action in _actions(parser):
        # A positional without choices is a file, too.
        if action.metavar in _PATHS or not (action.option_strings or action.choices):
            vars(action)["complete"] = shtab.FILE
    return shtab.complete(parser, shell=shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
