"""A run folder: who owns it, and stages that are made once and reused while they are current."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gainrag import lms
from gainrag.files.meta import hashes, is_current, write_meta
from gainrag.runs.config import Config
from gainrag.settings import settings_of
from gainrag.errors import DataError, StaleError
from gainrag.prompts import wording
from gainrag.files.streams import open_output


@dataclass
class Run:
    """A run under way: its folder and config, and the language model once a stage needs it."""

    folder: Path
    config: Config
    update: bool
    _lm: list[Any] = field(default_factory=list)

    def path(self, *parts: str) -> Path:
        """A path inside the folder."""
        return self.folder.joinpath(*parts)

    def lm(self) -> Any:
        """The language model, loaded when it is first asked for."""
        if not self._lm:
            lm = lms.open_lm(**self.config.table("llm"))
            say(f"{lm.name}: {lm.dtype} on {lm.device}")
            self._lm.append(lm)
        return self._lm[0]

    def llm_settings(self) -> dict[str, Any]:
        """What results depend on: the model, what identifies its weights, and the dtype it really runs in. Not the
        device: labels made on a GPU are continued on a CPU, and differ by no more than the order of sums."""
        from gainrag.models.devices import choose_device, choose_dtype
        from gainrag.models.identity import identity

        full = settings_of(lms.open_lm, self.config.table("llm"))
        dtype = choose_dtype(full["dtype"], choose_device(full["device"]))
        return {"model": full["model"], "dtype": dtype, "identity": identity(full["model"])}

    def prompted(
        self, stage: Callable[..., Any], table: Mapping[str, Any], *, background: bool = False
    ) -> dict[str, Any]:
        """The settings of a stage that prompts the language model, with what results depend on beside them."""
        own = settings_of(stage, table)
        return {**own, "llm": self.llm_settings(), "wording": wording(own["prompt"], background=background)}

    def stage(
        self,
        artefact: Path,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Path],
        make: Callable[[dict[str, Any]], dict[str, Any] | None],
    ) -> None:
        """Make an artefact unless it is current; `make` gets what a resumable stage remembers, returns a summary."""
        name = str(artefact.relative_to(self.folder))
        digests = hashes(inputs)
        if self.reuses(artefact, settings, digests):
            return
        say(f"{name}: started")
        memory = {"settings": dict(settings), "inputs": digests}
        try:
            summary = make(memory)
        except StaleError:
            if not self.update:
                raise
            for part in artefact.parent.glob(artefact.name + ".part*"):
                part.unlink()
            summary = make(memory)
        write_meta(artefact, settings, digests, summary)
        say(f"{name}: done")

    def reuses(self, artefact: Path, settings: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
        """Whether an artefact is current; if so, that is said."""
        current = is_current(artefact, settings, digests)
        if current:
            say(f"{artefact.relative_to(self.folder)}: reused")
        return current


def say(line: str) -> None:
    """One line to a person, on standard error."""
    print(line, file=sys.stderr, flush=True)


def claim(folder: Path, config: Config, update: bool) -> None:
    """Make the folder this config's own.

    Raises:
        DataError: it is there and no run folder.
        StaleError: it was made with another config and `update` is off.
    """
    copy = folder / "config.toml"
    if folder.exists() and not copy.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("is there already and is no run folder", where=str(folder), hint="choose another folder")
    if copy.exists() and copy.read_text(encoding="utf-8") != config.text and not update:
        raise StaleError(
            "the run folder was made with another config",
            where=str(folder),
            hint="choose another folder, or pass --update to make again what the change touches",
        )
    with open_output(copy) as stream:
        stream.write(config.text.encode())
