"""The plan that Ray Data runs, what an earlier one left, and the results as the artefact.

    NAME.ray/questions.parquet   the chunks of questions, a row each
    NAME.ray/made/               what workers made of them
    NAME.ray/done/               Ray's checkpoint: the chunks that need not be worked on again
    NAME.ray/begun.json          the settings that they were begun with
    NAME.failed.jsonl            the questions that failed, with the error

A worker that dies is started anew and its chunk is worked on again; after the driver died, by kill -9 too, the same
command continues. Then the folder must lie where all machines see it. It goes when all is in the artefact.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from gainrag.cluster.settings import LOCAL, Cluster
from gainrag.cluster.working import FAILED, KEY, LINES, Task, Worker
from gainrag.errors import ConfigError, DataError, ModelError, ResourceError, StaleError
from gainrag.files.locks import lock
from gainrag.files.meta import as_json, same_settings
from gainrag.files.places import is_stream, target
from gainrag.files.progress import progress_bar, say
from gainrag.files.resuming import chunks, difference
from gainrag.files.streams import open_output, read_json, write_json
from gainrag.records import Question, Retrieved, encode
from gainrag.settings import count

if TYPE_CHECKING:
    from ray.data import Dataset

# Cores that Ray keeps for what is not a worker: reading, leaving out what is done, writing. Without them a plan whose
# workers have all cores waits for ever.
_SPARE = 3
# What reading and writing a chunk takes of a core: they wait for the disk.
_A_LITTLE = {"num_cpus": 0.1}
_OBJECTS = 512 * 2**20  # bytes on this machine for chunks on their way
_EVERY = 2.0  # seconds between two looks at what is done


def distribute(
    stage: Callable[..., Sequence[Question]],
    questions: Sequence[Retrieved],
    out: str | Path,
    memory: Mapping[str, Any],
    *,
    cluster: Cluster,
    llm: Mapping[str, Any],
    sizes: Mapping[str, int],
    settings: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
) -> int:
    """Have workers make what a stage makes of each question, and write it to `out` as one process would.

    Args:
        stage: augment, synthesize or answer.
        memory: what the records depend on beside the questions, compared when an earlier run is continued.
        llm: settings of `gainrag.lms.open_lm`, with the dtype in which all workers work.
        sizes: how many questions the stage works on together, by what a model runs on.
        settings: the stage's own.
        more: what the stage is given beside them.

    Returns:
        How many questions failed and were left out.

    Raises:
        ConfigError: the cluster has not what the workers are to be given.
        ResourceError: Ray does not start, or is not there.
        DataError: more questions failed than may; what was made is kept, and running again tries those again.
        StaleError: what is there was begun with other settings.
        ModelError: the model cannot be opened on a worker.
    """
    if is_stream(out):
        raise ConfigError("what a cluster makes is gathered in files", where=str(out), hint="name a file")
    home = _home(out)
    kind = "cuda" if cluster.gpus else "cpu"
    # Ray hides GPUs from who is given none.
    task = Task(stage, settings, more or {}, {**llm, "device": kind}, cluster.cores)
    parts = [list(part) for part in chunks(questions, sizes[kind])]
    with lock(out):
        _begin(home, {**memory, "chunk": sizes[kind]}, out)
        keys = _prepare(home, parts)
        done = _results(home)
        if lacking := sum(key not in done for key in keys):
            said = f"{count(lacking, 'chunk')} of up to {count(sizes[kind], 'question')}"
            each = f"{count(cluster.cores, 'core')} and {cluster.gpus:g} GPUs each"
            say(f"{said}, on {count(cluster.workers, 'worker')} with {each}")
            with _connected(cluster), _progress(home, parts, keys):
                _run(home, task, cluster)
        return _gather(home, keys, out, cluster.may_fail)


# --- Ray -----------------------------------------------------------------------------------------------------------


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Ray, started here or joined, and left again."""
    # Ray tells its makers how it is used, and people what its own parts do, unless it is asked not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.ray == LOCAL:
        given |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
        given["num_cpus"] = cluster.workers * cluster.cores + _SPARE
    try:
        _start(str(cluster.ray), given, tries=3 if cluster.ray == LOCAL else 1)
    except Exception as error:  # Ray raises bare ones, too
        hint = "see that it runs (ray status); on a busy machine run the same command again"
        raise ResourceError(f"Ray cannot be used there ({error})", where=str(cluster.ray), hint=hint) from None
    try:
        _check_room(cluster, ray.cluster_resources())
        yield
    finally:
        ray.shutdown()


def _start(address: str, settings: Mapping[str, Any], tries: int) -> None:
    """Start or join Ray; on a busy machine its parts may not find one another in the time that Ray gives them."""
    import ray

    for left in reversed(range(tries)):
        try:
            ray.init(address=address, **settings)
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


def _check_room(cluster: Cluster, there: Mapping[str, float]) -> None:
    """Whether all workers fit beside what reads and writes: those that do not would be waited for without a word."""
    for name, wanted in {
        "CPU": cluster.workers * cluster.cores + _SPARE,
        "GPU": cluster.workers * cluster.gpus,
    }.items():
        if there.get(name, 0) < wanted:
            what = f"{wanted:g} {name} are needed, {_SPARE} of the cores for reading and writing, and Ray has"
            hint = "lower workers, cores or gpus"
            raise ConfigError(f"{what} {there.get(name, 0):g}", where=str(cluster.ray), hint=hint)


def _run(home: Path, task: Task, cluster: Cluster) -> None:
    """Run the plan: read, leave out what is done, work, write."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.data.checkpoint import CheckpointConfig

    # Of its own log people see what is wrong; the rest is in Ray's files.
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(KEY, str(home / "done"), delete_checkpoint_on_success=False)
    # One reader streams the file as blocks of a chunk each: a block is what a worker takes, and what Ray notes as done.
    # The newer reader gives all rows of a small file to one worker.
    context.use_datasource_v2 = False
    source = home / "questions.parquet"
    plan: Dataset = ray.data.read_parquet(
        str(source), override_num_blocks=pq.read_metadata(source).num_rows, **_A_LITTLE
    )
    try:
        plan.map_batches(
            Worker,
            fn_constructor_args=(task,),
            batch_size=1,
            batch_format="pyarrow",
            # Two chunks a worker are under way: one that it works on, one that waits for it.
            compute=ActorPoolStrategy(size=cluster.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=cluster.cores,
            num_gpus=cluster.gpus,
        ).write_parquet(str(home / "made"), ray_remote_args=_A_LITTLE)
    except (ray.exceptions.RayError, RuntimeError) as error:
        what = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        hint = "run the same command again to continue; Ray's logs say more"
        raise ModelError(f"the workers stopped: {what}", where=str(cluster.ray), hint=hint) from error
    finally:
        context.checkpoint_config = None


def forget(out: str | Path) -> bool:
    """Remove what an earlier run made of an output on a cluster and did not finish; whether there was any."""
    with lock(out):
        there = _home(out).exists()
        shutil.rmtree(_home(out), ignore_errors=True)
    return there


def _home(out: str | Path) -> Path:
    """The folder of what workers make; a whole path, as they start in other folders."""
    return Path(os.path.abspath(target(out))).with_name(target(out).name + ".ray")


# --- what is there -------------------------------------------------------------------------------------------------


def _begin(home: Path, settings: Mapping[str, Any], out: str | Path) -> None:
    """Begin a folder, or see whether it may be continued."""
    begun = home / "begun.json"
    if begun.exists():
        was, now = read_json(begun), as_json(settings)
        if not same_settings(was, now):
            raise StaleError(
                f"begun with other settings ({difference(was, now)})",
                where=str(home),
                hint="use those settings again, or remove the folder to start over",
            )
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "made").mkdir()
    write_json(begun, settings, of=out)


def _prepare(home: Path, parts: Sequence[Sequence[Retrieved]]) -> list[str]:
    """Write the chunks of questions, and give the key of each: the first question's id, and which try it is. Those of
    which a question failed are tried again."""
    failed = {key for key, (_, failures) in _results(home).items() if failures}
    keys = []
    for part in parts:
        tried = 0
        while f"{part[0].id}#{tried}" in failed:
            tried += 1
        keys.append(f"{part[0].id}#{tried}")
    columns = pa.schema({KEY: pa.string(), LINES: pa.large_binary()})
    temporary = home / "questions.tmp"
    with pq.ParquetWriter(temporary, columns) as stream:
        for key, part in zip(keys, parts, strict=True):
            stream.write_table(pa.table({KEY: [key], LINES: [b"".join(map(encode, part))]}, columns))
    os.replace(temporary, home / "questions.parquet")
    return keys


def _results(home: Path) -> dict[str, tuple[Path, list[dict[str, str]]]]:
    """By chunk, the file in which its records are, and which of its questions failed."""
    found: dict[str, tuple[Path, list[dict[str, str]]]] = {}
    for path in sorted((home / "made").glob("*.parquet")):
        try:
            table = pq.read_table(path, columns=[KEY, FAILED])
        except pa.ArrowInvalid:  # a kill left it half-written; Ray knows that it is not done, and removes it
            continue
        for key, failed in zip(table[KEY].to_pylist(), table[FAILED].to_pylist(), strict=True):
            found.setdefault(key, (path, msgspec.json.decode(failed)))
    return found


@contextmanager
def _progress(home: Path, parts: Sequence[Sequence[Retrieved]], keys: Sequence[str]) -> Iterator[None]:
    """A bar that shows how many questions are done, as Ray's checkpoint says."""
    sizes = {key: len(part) for key, part in zip(keys, parts, strict=True)}
    known: dict[Path, int] = {}

    def done() -> int:
        for path in (home / "done").glob("*.parquet"):
            if path not in known and ".pending" not in path.name:
                known[path] = sum(sizes.get(key, 0) for key in pq.read_table(path)[KEY].to_pylist())
        return sum(known.values())

    over = threading.Event()
    with progress_bar("questions", unit="questions", total=sum(sizes.values()), done=done()) as bar:

        def watch() -> None:
            while not over.wait(_EVERY):
                # A file that Ray is just renaming is looked at the next time.
                with suppress(OSError, pa.ArrowInvalid):
                    bar.update(done() - bar.n)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()
            with suppress(OSError, pa.ArrowInvalid):
                bar.update(done() - bar.n)


def _gather(home: Path, keys: Sequence[str], out: str | Path, may_fail: int) -> int:
    """What the workers made, in the questions' order; how many failed."""
    results = _results(home)
    if lacking := [key for key in keys if key not in results]:
        what = f"{count(len(lacking), 'chunk')} lack their results, such as that of {lacking[0]}"
        raise DataError(what, where=str(home), hint="run the same command again to continue")
    failed = [failure for key in keys for failure in results[key][1]]
    aside = target(out).with_name(target(out).name.partition(".jsonl")[0] + ".failed.jsonl")
    aside.unlink(missing_ok=True)
    if failed:
        with open_output(aside, of=out) as stream:
            stream.write(b"".join(msgspec.json.encode(failure) + b"\n" for failure in failed))
        said = f"{count(len(failed), 'question')} failed, such as {failed[0]['id']}: {failed[0]['error']}"
        if len(failed) > may_fail:
            hint = f"run the same command again to try these again, or leave them out: may_fail = {len(failed)}"
            raise DataError(said, where=str(aside), hint=hint)
        say(f"left out, with their errors in {aside}: {said}")
    with open_output(out) as stream:
        for key in keys:
            table = pq.read_table(results[key][0], columns=[KEY, LINES])
            row = table[KEY].to_pylist().index(key)
            stream.write(table[LINES][row].as_py())
    shutil.rmtree(home)
    return len(failed)
