"""The model hub: whether it can be reached, and what its failures mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gainrag.errors import ModelError
from gainrag.models.registry import EMBEDDED


@contextmanager
def loading_errors(model: str) -> Iterator[None]:
    """Turn whatever a library raises while loading a model into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        name = next((n for n in EMBEDDED if n == model), None)
        hint = (
            f"did you mean embedded:{name}?"
            if name
            else "check the name and the network; without one use a local folder or "
            + ", ".join(f"embedded:{n}" for n in EMBEDDED)
        )
        what = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"the model cannot be loaded ({what})", where=model, hint=hint) from error


def check_reachable(model: str) -> None:
    """Whether a model that is not on this machine can be fetched at all: without a network the hub's client would try
    again and again for a minute before it says so.

    Raises:
        OSError: the model is neither a folder nor in the hub's cache, and the hub's host is not found.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(model).exists() or (model.count("/") <= 1 and try_to_load_from_cache(model, "config.json")):
        return
    if host := unreachable_hub():
        raise OSError(f"it is no local folder, and {host} cannot be reached")


def unreachable_hub() -> str | None:
    """The hub's host when its name is not found; None when it is, or when only a try can tell (proxies, caches)."""
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    if getproxies() or constants.HF_HUB_OFFLINE:
        return None
    host = urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return host
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries' own progress bars would tear ours apart."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
