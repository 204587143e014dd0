"""The selectors that are served, by name; one whose folder changes is loaded beside the old one, tried, and swapped in.

Whatever is wrong with the new one, the old one goes on serving, and what was wrong is said where people look: in the
log, in /ready and in /metrics.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gainrag.errors import ConfigError, DataError, GainragError, unknown
from gainrag.models.registry import PREFIX
from gainrag.protocols import Selector, scores_with
from gainrag.records import Scored
from gainrag.serving.refusals import Refused

_log = logging.getLogger(__name__)

Open = Callable[[str], Selector]
# What a selector is tried with before it serves: two passages, so that features that compare have something to.
PROBE = (
    "Who wrote Emma?",
    [
        Scored(id="0", title="Emma", text="Emma is a novel by Jane Austen."),
        Scored(id="1", title="Paris", text="The Seine flows through Paris."),
    ],
)


@dataclass(eq=False)
class Served:
    """A selector by the name under which clients ask for it.

    failure: what was wrong with the folder's newest content, which is not served; None where all is well.
    """

    name: str
    path: str
    selector: Selector
    state: object = None
    loaded_at: float = field(default_factory=time.time)
    failure: str | None = None


def names_of(paths: list[str]) -> dict[str, str]:
    """Selectors by name from what was typed: NAME=PATH, or PATH, whose name is its last part.

    Raises:
        ConfigError: two have one name.

    >>> names_of(["embedded:gain-features", "best=runs/mine/selector"])
    {'gain-features': 'embedded:gain-features', 'best': 'runs/mine/selector'}
    """
    found: dict[str, str] = {}
    for given in paths:
        name, equals, path = given.partition("=")
        if not equals or not name or "/" in name:
            path = given
            name = given.removeprefix(PREFIX) if given.startswith(PREFIX) else Path(given).resolve().name
        if name in found:
            what = f"two selectors are called {name!r}"
            raise ConfigError(what, where="--selector", hint="name them: --selector one=PATH --selector two=PATH")
        found[name] = path
    return found


class Shelf:
    """All selectors that are served; the first is the one for requests that name none.

    Args:
        paths: where they are, by name.
        opened: opens one.

    Raises:
        GainragError: one cannot be opened, or not used.
    """

    def __init__(self, paths: Mapping[str, str], opened: Open) -> None:
        self._open = opened
        self._told: Callable[[str, bool], None] = lambda name, well: None
        self.served: dict[str, Served] = {}
        for name, path in paths.items():
            state = state_of(path)
            self.served[name] = Served(name, path, _opened(opened, path), state)
        self._stopped = threading.Event()

    def find(self, model: str | None) -> tuple[Served, str | None]:
        """The selector of a name, and what to tell whoever asked for one that is not there.

        Where one selector is served, it answers to every name: clients often must send one.

        Raises:
            Refused: 404 where several are served and none of this name.
        """
        first = next(iter(self.served.values()))
        if model is None or model in self.served:
            return self.served[model] if model else first, None
        if len(self.served) > 1:
            raise Refused(404, unknown("model", model, self.served))
        return first, f"no model {model!r:.80} is served here; {first.name!r} answered"

    def tell(self, told: Callable[[str, bool], None]) -> None:
        """Who is told of each reload: the name, and whether it went well."""
        self._told = told

    def watch(self, every: float) -> None:
        """Look for changed folders until `stop`, in a thread of its own."""

        def look() -> None:
            seen = {name: served.state for name, served in self.served.items()}
            while not self._stopped.wait(every):
                for served in self.served.values():
                    state = state_of(served.path)
                    # Whoever writes a folder may not be done: it counts once it looks the same twice.
                    if state is not None and state != served.state and state == seen[served.name]:
                        self._swap(served, state)
                    seen[served.name] = state

        threading.Thread(target=look, name="gainrag-reload", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _swap(self, served: Served, state: object) -> None:
        """Load a changed folder and serve it, or go on with the old one."""
        served.state = state  # looked at again only when it changes again
        try:
            selector = _opened(self._open, served.path)
        except Exception as error:
            # A damaged folder may raise anything in the libraries that read it.
            served.failure = str(error) if isinstance(error, GainragError) else f"{type(error).__name__}: {error}"
            _log.warning("%s: the changed folder is not served, the old one is: %s", served.path, served.failure)
            self._told(served.name, False)
            return
        served.selector, served.loaded_at, served.failure = selector, time.time(), None
        _log.warning("%s: changed, and served from now on", served.path)
        self._told(served.name, True)


def _opened(opened: Open, path: str) -> Selector:
    """A selector that was tried: the first request is no slower than the others, and what cannot score is known."""
    selector = opened(path)
    scores_with(selector, [PROBE])
    return selector


def state_of(path: str) -> object:
    """What changes when a folder's content does: each file's name, size and time; None of what is no folder."""
    folder = Path(path)
    if path.startswith(PREFIX) or not folder.is_dir():
        return None
    try:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return tuple((str(f.relative_to(folder)), (s := f.stat()).st_size, s.st_mtime_ns, s.st_ino) for f in files)
    except OSError:  # in the middle of a change
        return None


def check_folder(path: str) -> None:
    """Whether a name that can only be a folder's is one.

    Raises:
        DataError: it is not.
    """
    if not path.startswith(PREFIX) and path.startswith(("/", ".", "~")) and not Path(path).is_dir():
        raise DataError("no such selector folder", where=path, hint="make one with `gainrag train`")
