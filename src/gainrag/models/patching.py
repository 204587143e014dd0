"""A module that computes something else for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def with_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, this module, and no other of its class, has another `forward`."""
    # An attribute of the instance hides the class's method until it is taken away again. Who ran the module meanwhile
    # (accelerate) may have put its own there.
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        vars(module).pop("forward", None)
