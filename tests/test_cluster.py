"""Stages through Ray. What starts it takes a minute or more: `make test-ray` runs that, `make test` the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli
from gainrag.cluster import Cluster, check_cluster
from gainrag.errors import ConfigError, DataError
from gainrag.files.resuming import chunks
from gainrag.files.streams import read, write
from gainrag.records import Answer
from tests.cluster_driver import CHUNK, QUESTIONS, run
from tests.test_sharding import questions

with_ray = pytest.mark.skipif(not os.environ.get("GAINRAG_RAY"), reason="make test-ray")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a language model of few weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from gainrag.models.folder import resolve
    from gainrag.models.loading import load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = load_tokenizer(resolve("embedded:smollm2-135m-instruct"))
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), initializer_range=0.5, **size)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Ray for tests that need not start their own."""
    import ray

    ray.init(address="local", num_cpus=5, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def asked(log: Path) -> list[str]:
    """The chunks that workers were asked for."""
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []


def whole() -> list[str]:
    return ["+".join(q.id for q in part) for part in chunks(QUESTIONS, CHUNK)]


def check(out: Path, left_out: tuple[str, ...] = ()) -> None:
    """Every question is there once, in its place, in its own chunk."""
    expected = [(q.id, f"float32 {ids}") for q in QUESTIONS for ids in whole() if q.id in ids.split("+")]
    found = [(a.id, a.prediction) for a in read(out, Answer)]
    if left_out:  # asked one by one where one of a chunk failed
        assert [id for id, _ in found] == [q.id for q in QUESTIONS if q.id not in left_out]
    else:
        assert found == expected
    assert not out.with_name(out.name + ".ray").exists()


@with_ray
def test_each_question_once_in_its_chunk_and_failures_apart(model: str, tmp_path: Path, ray: None) -> None:
    out, log = tmp_path / "answers.jsonl", tmp_path / "log"
    with pytest.raises(DataError, match=r"2 questions failed, such as q5: question q5: it is bad.*may_fail = 2"):
        run(model, out, log, bad=["q5", "q9"])
    assert not out.exists()
    failed = [json.loads(line) for line in (tmp_path / "answers.failed.jsonl").read_text().splitlines()]
    assert [f["id"] for f in failed] == ["q5", "q9"]
    assert sorted(part for part in asked(log) if "+" in part) == sorted(whole())

    log.unlink()
    assert run(model, out, log, may_fail=2, bad=["q5", "q9"]) == 2
    check(out, ("q5", "q9"))
    assert {part for part in asked(log) if "+" in part} == {"q4+q5+q6+q7", "q8+q9+q10+q11"}  # no others again

    log.unlink()
    assert run(model, out, log) == 0
    check(out)
    assert not (tmp_path / "answers.failed.jsonl").exists()
    assert sorted(asked(log)) == sorted(whole())


@with_ray
@pytest.mark.parametrize("stage", ["synthesize", "augment", "answer"])
def test_the_bytes_of_one_process(stage: str, model: str, tmp_path: Path, ray: None) -> None:
    write(tmp_path / "input.jsonl", questions(70))
    given = [stage, str(tmp_path / "input.jsonl"), "--llm", model, "--dtype", "float32", "--max-new-tokens", "4"]
    assert cli.main([*given, "--device", "cpu", "-o", str(tmp_path / "one.jsonl")]) == 0
    assert cli.main([*given, "--ray", "local", "--workers", "2", "-o", str(tmp_path / "two.jsonl")]) == 0
    for suffix in (".jsonl", ".meta.json"):
        assert (tmp_path / f"two{suffix}").read_bytes() == (tmp_path / f"one{suffix}").read_bytes()


@with_ray
def test_a_worker_and_then_the_driver_are_killed(model: str, tmp_path: Path) -> None:
    out, log = tmp_path / "answers.jsonl", tmp_path / "log"
    command = [sys.executable, "-m", "tests.cluster_driver", model, str(out), str(log)]

    def wait_for(done: int) -> None:
        until = time.monotonic() + 900
        while len(list((tmp_path / "answers.jsonl.ray" / "made").glob("*.parquet"))) < done:
            assert time.monotonic() < until
            assert driver.poll() is None
            time.sleep(0.1)

    driver = subprocess.Popen(command)
    wait_for(2)
    worker = int(log.read_text().split()[-2])
    os.kill(worker, signal.SIGKILL)
    wait_for(5)
    driver.kill()
    driver.wait()
    time.sleep(2)  # workers end with their driver
    before = asked(log)
    assert {line.split()[0] for line in log.read_text().splitlines()} != {str(worker)}
    subprocess.run(command, check=True, timeout=900)
    check(out)
    again = sorted(part for part in set(asked(log)) if asked(log).count(part) > 1)
    # In flight are what a worker works on and what waits to be written: of the dead worker, then of both.
    assert set(asked(log)) == set(whole())
    assert len(again) <= 5, (again, before)


SETTINGS: list[tuple[Cluster, dict[str, Any], str]] = [
    (Cluster(workers=2), {}, "workers, cores, gpus and may_fail are of Ray"),
    (Cluster(ray="local"), {"model": "http://127.0.0.1:1/v1#m"}, "behind an endpoint"),
    (Cluster(ray="local"), {"device": "cuda"}, "a worker with 0 GPUs works on cpu, not cuda"),
    (Cluster(ray="local", gpus=1.0), {"device": "cpu"}, "works on cuda, not cpu"),
    (Cluster(ray="10.0.0.1:6379"), {}, "auto is another dtype on another machine"),
]


@pytest.mark.parametrize(("cluster", "llm", "says"), SETTINGS, ids=lambda value: str(value)[:20])
def test_what_cannot_be_spread(cluster: Cluster, llm: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_cluster(cluster, llm)


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'gainrag\[ray\]'"):
        check_cluster(Cluster(ray="local"), {})
