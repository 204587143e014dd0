"""The model hub: whether it can be reached, and what failures of loading mean."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gainrag.errors import GainragError, ModelError
from gainrag.models.registry import EMBEDDED, PREFIX

# Libraries change what belongs to the whole process while they load (the default dtype, how much they say): one model
# at a time.
_LOADING = threading.RLock()


@contextmanager
def loading_errors(model: str) -> Iterator[None]:
    """Turn whatever a library raises while loading a model into one line; one thread at a time.

    Damaged files end in errors of every kind (a TypeError for a null, one of Rust's for weights that are cut), so any
    is taken for what it is here: the model cannot be loaded.

    Raises:
        ModelError: anything was raised but lack of memory; errors of our own stay as they are.
    """
    with _LOADING:
        try:
            yield
        except (GainragError, MemoryError):
            raise
        except Exception as error:
            what = str(error).strip().split("\n")[0][:200] or type(error).__name__
            if not isinstance(error, OSError | ValueError | ImportError):
                what = f"{type(error).__name__}: {what}"
            raise ModelError(f"the model cannot be loaded ({what})", where=model, hint=_hint(model)) from error


def _hint(model: str) -> str:
    """What to do about a model that cannot be loaded."""
    if model in EMBEDDED:
        return f"did you mean {PREFIX}{model}?"
    if model.startswith(PREFIX) or Path(model).exists():
        return "its files are damaged or incomplete: get or make it again"
    local = ", ".join(f"{PREFIX}{name}" for name in EMBEDDED)
    return f"check the name and the network; without one use a local folder or {local}"


def check_reachable(model: str, files: Sequence[str] = ("config.json",)) -> None:
    """Whether a model that is not on this machine can be fetched at all: without a network the hub's client would try
    again and again for a minute before it says so.

    Args:
        files: any of these shows that the model is in the cache.

    Raises:
        OSError: the model is neither a folder nor in the hub's cache, and the hub's host is not found.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = model.count("/") <= 1 and any(isinstance(try_to_load_from_cache(model, name), str) for name in files)
    if Path(model).exists() or cached:
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
    """While it lasts, the libraries show no progress bars and say nothing below an error: what matters of it (weights
    that are missing) is an error of our own."""
    from transformers.utils import logging as theirs

    shown, level = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    encoders = logging.getLogger("sentence_transformers")
    before = encoders.level
    theirs.disable_progress_bar()
    theirs.set_verbosity_error()
    encoders.setLevel(logging.ERROR)
    try:
        yield
    finally:
        encoders.setLevel(before)
        theirs.set_verbosity(level)
        if shown:
            theirs.enable_progress_bar()
