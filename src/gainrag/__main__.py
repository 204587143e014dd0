"""`python -m gainrag`, for where the console script is not on the path."""

from gainrag.cli.main import entry

entry()
