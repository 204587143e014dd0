"""A run folder: who owns it, and stages that are made once and reused while they are current."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gainrag import lms
from gainrag.cluster import Cluster
from gainrag.errors import StaleError
from gainrag.files.locks import lock
from gainrag.files.meta import hashes, is_current, write_meta
from gainrag.files.places import check_replaceable
from gainrag.files.progress import say
from gainrag.files.resuming import forget
from gainrag.files.streams import open_output
from gainrag.lms.remote.address import is_endpoint
from gainrag.prompts import PromptForm, wording
from gainrag.protocols import Scorer
from gainrag.records import Retrieved
from gainrag.runs.config import Config
from gainrag.settings import recorded, settings_of

CONFIG = "config.toml"
CALLS = "calls.jsonl"  # what an engine answered, see gainrag.lms.remote.kept


@dataclass
class Run:
    """A run under way: its folder and config, and the language model once a stage needs it.

    proxy: the model that labels in its place.
    """

    folder: Path
    config: Config
    update: bool
    proxy: str | None = None
    _lms: dict[str, Any] = field(default_factory=dict)

    def path(self, *parts: str) -> Path:
        """A path inside the folder."""
        return self.folder.joinpath(*parts)

    def lm(self, proxy: str | None = None) -> Any:
        """The language model, or another one that labels in its place, loaded when it is first asked for."""
        table = self._llm(proxy)
        endpoint = lms.endpoint_of(table)
        name = str(endpoint or settings_of(lms.open_lm, table)["model"])
        if name not in self._lms:
            # What an engine answered is kept for all stages: nothing is paid for twice.
            kept: dict[str, Any] = {} if endpoint is None else {"calls": self.path(CALLS)}
            lm = lms.open_lm(**kept, **table)
            say(lms.described(lm))
            self._lms[name] = lm
        return self._lms[name]

    def _llm(self, proxy: str | None) -> dict[str, Any]:
        """The table [llm], or of a proxy what its settings are there: its name holds all that it needs. The key that is
        named there is for the model there alone."""
        table = dict(self.config.table("llm"))
        if proxy is None:
            return table
        left_out = ("dtype", "device") if is_endpoint(proxy) else lms.SCORING
        return {k: v for k, v in table.items() if k not in ("base_url", "api_key_env", *left_out)} | {"model": proxy}

    def ask(
        self,
        stage: Callable[..., Any],
        questions: Sequence[Retrieved],
        artefact: Path,
        memory: dict[str, Any],
        table: Mapping[str, Any],
        sizes: Mapping[str, int],
        proxy: str | None = None,
    ) -> None:
        """Have the language model make a stage's records of questions: here, or on the cluster of [cluster].

        Args:
            memory: what the records depend on beside the questions.
            table: the stage's settings.
            sizes: how many questions it works on together, by what the model runs on.
        """
        cluster = Cluster(**self.config.table("cluster"))
        if cluster.ray is None:
            stage(questions, self.lm(proxy), artefact, memory, **table)
            return
        from gainrag.cluster.driving import distribute

        llm = {**self._llm(proxy), "dtype": memory["settings"]["llm"]["dtype"]}
        distribute(stage, questions, artefact, memory, cluster=cluster, llm=llm, sizes=sizes, settings=table)

    def tells_losses(self) -> bool:
        """Whether the language model tells losses. One on this machine does, and is not loaded to know that."""
        return lms.endpoint_of(self._llm(None)) is None or isinstance(self.lm(), Scorer)

    def llm_settings(self, proxy: str | None = None) -> dict[str, Any]:
        """What results depend on: the model, what identifies its weights, and the dtype it really runs in. Not the
        device: labels made on a GPU are continued on a CPU, and differ by no more than the order of sums."""
        return lms.facts(self._llm(proxy))

    def prompt_of(self, stage: Callable[..., Any], table: Mapping[str, Any], proxy: str | None = None) -> PromptForm:
        """The prompt form of a stage: its setting, or else the model's own."""
        own: PromptForm | None = settings_of(stage, table)["prompt"]
        return own or lms.form_of(self._llm(proxy))

    def prompted(
        self,
        stage: Callable[..., Any],
        table: Mapping[str, Any],
        *,
        background: bool = False,
        proxy: str | None = None,
    ) -> dict[str, Any]:
        """The settings of a stage that prompts the language model, or a proxy, with what results depend on beside
        them."""
        own = {**recorded(stage, table), "prompt": (form := self.prompt_of(stage, table, proxy))}
        return {**own, "llm": self.llm_settings(proxy), "wording": wording(form, background=background)}

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
        with lock(artefact):
            if self.reuses(artefact, settings, digests):
                return
            say(f"{name}: started")
            memory = {"settings": dict(settings), "inputs": digests}
            try:
                summary = make(memory)
            except StaleError:
                if not self.update or not self._forget(artefact):
                    raise
                summary = make(memory)
            write_meta(artefact, settings, digests, summary)
            say(f"{name}: done")

    def _forget(self, artefact: Path) -> bool:
        """Remove what an earlier process made of an artefact and did not finish, here or on a cluster."""
        if "cluster" not in self.config.tables:
            return forget(artefact)
        from gainrag.cluster import driving

        return driving.forget(artefact) | forget(artefact)

    def reuses(self, artefact: Path, settings: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
        """Whether an artefact is current; if so, that is said."""
        current = any(is_current(artefact, own, digests) for own in self._alike(settings))
        if current:
            say(f"{artefact.relative_to(self.folder)}: reused")
        return current

    def _alike(self, settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The settings, and those that ask for the same on another device: where the config leaves the dtype to the
        device, what was finished in either is reused."""
        yield settings
        if "llm" in settings and settings_of(lms.open_lm, self.config.table("llm"))["dtype"] == "auto":
            for dtype in ("float32", "bfloat16"):
                yield {**settings, "llm": {**settings["llm"], "dtype": dtype}}


def claim(folder: Path, config: Config, update: bool) -> None:
    """Make the folder this config's own.

    Raises:
        DataError: it is there and no run folder.
        StaleError: it was made with another config and `update` is off.
    """
    copy = folder / CONFIG
    check_replaceable(folder, CONFIG, "run folder")
    if copy.is_file() and copy.read_text(encoding="utf-8", errors="replace") != config.text and not update:
        raise StaleError(
            "the run folder was made with another config",
            where=str(folder),
            hint="choose another folder, or pass --update to make again what the change touches",
        )
    with open_output(copy) as stream:
        stream.write(config.text.encode())
