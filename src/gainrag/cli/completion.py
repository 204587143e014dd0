"""What a shell needs to complete gainrag's commands and flags: `gainrag completion`.

The script is made once and holds every command and flag. So completing starts no Python, which would take longer than
typing. It is made by shtab, from the same parser that reads the command line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from gainrag.cli.actions import Arguments
from gainrag.errors import require

SHELLS = ("bash", "zsh", "tcsh")

# What an argument that names a file or a folder is called in the help.
_PATHS = frozenset(("PATH", "FILE", "FOLDER", "ANSWERS", "MODEL"))


def complete(arguments: Arguments) -> None:
    """Print the script of a shell on standard output.

    Raises:
        ConfigError: the extra is not installed.
    """
    require("completion", "shtab")
    import shtab

    from gainrag.cli.main import build_parser  # here, as it imports the list of commands, which this is one of

    parser = build_parser()
    for action in _actions(parser):
        # A positional without choices is a file, too.
        if action.metavar in _PATHS or not (action.option_strings or action.choices):
            vars(action)["complete"] = shtab.FILE
    print(shtab.complete(parser, shell=arguments["shell"]))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
