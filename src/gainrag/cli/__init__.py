"""The command line."""

from gainrag.cli.main import build_parser, entry, main

__all__ = ["build_parser", "entry", "main"]
