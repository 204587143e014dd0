"""The command line. Each stage is a command; its flags are the stage function's keyword-only parameters.

Data goes to standard output, everything else to standard error. Exit status 0, 1 for a known failure (one line: what,
where, hint), 2 for wrong usage, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from gainrag import __version__
from gainrag.cli import commands
from gainrag.cli.arguments import Command
from gainrag.cli.completion import SHELLS, PrintCompletion
from gainrag.errors import GainragError, UsageError
from gainrag.settings import describe_type, fits, parameters


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line like every other failure."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where=self.prog, hint=f"see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; every command from its entry in gainrag.cli.commands."""
    parser = _Parser(prog="gainrag", description="Learn which retrieved passage helps your language model, and use it.")
    parser.add_argument("--version", action="version", version=f"gainrag {__version__}")
    about = "print what makes a shell complete commands and flags"
    parser.add_argument("--completion", action=PrintCompletion, choices=SHELLS, help=about)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in commands.COMMANDS:
        own = sub.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            own.add_argument(*argument.flags, **argument.options)
        taken: list[str] = list(command.skip)
        for stage in command.stages:
            # What two stages call the same is one flag.
            add_flags(own, stage, skip=taken)
            taken += parameters(stage)
        own.set_defaults(do=command)
    return parser


def add_flags(parser: argparse.ArgumentParser, stage: Callable[..., Any], skip: Sequence[str] = ()) -> None:
    """Add a flag for each keyword-only parameter of a stage; its help is the parameter's line in the docstring.

    A flag that is not given is left out of the namespace, so that the default stays written once, in the signature.
    """
    import docstring_parser

    helps = {p.arg_name: p.description or "" for p in docstring_parser.parse(stage.__doc__ or "").params}
    for name, parameter in parameters(stage).items():
        if name in skip:
            continue
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        annotation, default = parameter.annotation, parameter.default
        text = helps.get(name, "").replace("%", "%%")
        if annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            kind, repeated, choices = _flag_type(annotation)
            options |= {"type": kind, "metavar": None if choices else kind.__name__.upper()}
            if choices:
                options["choices"] = choices
            if repeated:
                options["action"] = "append"
                text += " (may be given several times)"
        if isinstance(default, tuple):
            default = ", ".join(map(str, default))
        shown = "" if default is None or default is parameter.empty else f" [{default}]"
        flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        parser.add_argument(flag, help=text + shown, **options)


def _flag_type(annotation: Any) -> tuple[type, bool, tuple[str, ...] | None]:
    """The converter of a flag, whether it may be repeated, and its choices."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _flag_type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        # Of "a choice in words, or true or false" the command line offers the words.
        options = [a for a in typing.get_args(annotation) if a not in (type(None), bool)]
        found = [_flag_type(option) for option in options]
        return found[0][0], any(repeated for _, repeated, _ in found), found[0][2]
    if origin is typing.Literal:
        return str, False, tuple(map(str, typing.get_args(annotation)))
    if origin is not None:
        return _flag_type(typing.get_args(annotation)[0])[0], True, None
    if annotation not in (int, float, str):
        raise TypeError(f"no flag for {describe_type(annotation)}")
    return annotation, False, None


def _check_flags(command: Command, given: Mapping[str, Any]) -> None:
    """Whether every flag's value is in its range, before anything is read or loaded.

    Raises:
        UsageError: one is not.
    """
    for stage in command.stages:
        known = parameters(stage)
        for name, value in given.items():
            if name in known and not fits(value, known[name].annotation):
                wanted = describe_type(known[name].annotation)
                flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
                raise UsageError(f"{flag} is {value!r}, not {wanted}", where=f"gainrag {command.name}")


def quiet_libraries() -> None:
    """Only the doors configure logging: on standard error are our own lines, and other libraries' errors alone.

    The libraries set the levels of their loggers when they are imported, which is later than this. So what is shown
    is decided where it is shown; those with handlers of their own are told by their environment variables.
    """
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    handler = logging.StreamHandler()
    handler.addFilter(_is_shown)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    # Whoever asks Python for warnings (-W, PYTHONWARNINGS) sees them.
    logging.captureWarnings(not sys.warnoptions)


def _is_shown(record: logging.LogRecord) -> bool:
    ours = record.name.partition(".")[0] == "gainrag"
    return record.levelno >= (logging.WARNING if ours else logging.ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a character shows its escape; standard error does so of itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    kept = "Nothing was begun."
    try:
        arguments = vars(build_parser().parse_args(argv))
        command: Command = arguments.pop("do")
        arguments.pop("command")
        quiet_libraries()
        _check_flags(command, arguments)
        kept = command.kept
        command.run(arguments)
    except GainragError as error:
        print(f"gainrag: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"gainrag: stopped. {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who read our output has seen enough; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        print("gainrag: out of memory. Hint: lower the batch or group size, or use a smaller model", file=sys.stderr)
        return 1
    return 0


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
