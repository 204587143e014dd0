"""What may be asked of a cluster: the table [cluster] of a config, and flags of the stages that ask a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from gainrag import lms
from gainrag.errors import ConfigError
from gainrag.settings import Name, Some

Workers = Annotated[int, Meta(ge=1, le=100_000)]
Cores = Annotated[int, Meta(ge=1, le=1024)]
Gpus = Annotated[float, Meta(ge=0.0, le=64.0)]

LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How a stage is spread over machines.

    Args:
        ray: the address of a Ray cluster, auto for the one that this machine belongs to, or local for processes here.
        workers: with Ray: models that work at a time.
        cores: with Ray: what each of them is given.
        gpus: with Ray: likewise; a share, such as 0.5, puts several on one GPU.
        may_fail: with Ray: so many questions may fail; they are left out, and are in NAME.failed.jsonl with the error.
    """

    ray: Name | None = None
    workers: Workers = 1
    cores: Cores = 1
    gpus: Gpus = 0.0
    may_fail: Some = 0


def check_cluster(cluster: Cluster, llm: Mapping[str, Any], where: str = "") -> None:
    """Whether a stage with this model can be spread so, before anything is started.

    Args:
        llm: settings of `gainrag.lms.open_lm`.
        where: what to write before a setting's name.

    Raises:
        ConfigError: Ray is not installed; the model is behind an endpoint; there are settings and no `ray`; a device is
            asked for that a worker does not have; or the dtype is left to each machine.
    """
    if cluster.ray is None:
        if cluster != Cluster():
            hint = "name a cluster: ray = local, auto, or an address"
            raise ConfigError("workers, cores, gpus and may_fail are of Ray", where=f"{where}ray", hint=hint)
        return
    if (endpoint := lms.endpoint_of(llm)) is not None:
        hint = "leave Ray out: one process asks an engine as fast as it answers, see concurrency"
        raise ConfigError("a model behind an endpoint is not spread over workers", where=str(endpoint), hint=hint)
    wanted = "cuda" if cluster.gpus else "cpu"
    if (device := str(llm.get("device", "auto"))) not in ("auto", wanted):
        hint = "leave the device out, or say with gpus how many a worker is given"
        what = f"a worker with {cluster.gpus:g} GPUs works on {wanted}, not {device}"
        raise ConfigError(what, where="device", hint=hint)
    if cluster.ray != LOCAL and llm.get("dtype", "auto") == "auto":
        hint = "name it: float32 or bfloat16"
        raise ConfigError("auto is another dtype on another machine", where="dtype", hint=hint)
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed", where=f"{where}ray", hint="pip install 'gainrag[ray]'")
