"""llama.cpp's server with the embedded SmolLM2, in a process of its own: a real engine behind HTTP.

    python -m tests.llama_server        prints its base URL, and serves until its standard input ends

The model is called `smollm2` there, its context has 2,048 tokens a request, and two requests run at a time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "smollm2"
SLOTS, CONTEXT = 2, 2048


@contextmanager
def running(key: str = "") -> Iterator[str]:
    """The base URL of a server, while it runs. With a key it wants that as a bearer token."""
    command = [sys.executable, "-m", "tests.llama_server", key]
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            base = process.stdout.readline().strip()
            assert base.startswith("http"), f"llama.cpp's server did not start: {base!r}"
            yield base
        finally:
            process.stdin.close()
            process.kill()


def main() -> None:
    import xllamacpp

    from gainrag.models.registry import EMBEDDED, package_folder

    embedded = EMBEDDED["smollm2-135m-instruct"]
    params = xllamacpp.CommonParams()
    params.model.path = str(embedded.find(package_folder(embedded.module, embedded.requirement)))
    params.model_alias = {NAME}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx, params.kv_unified = SLOTS, SLOTS * CONTEXT, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.endpoint_props, params.n_gpu_layers = False, True, 0
    if sys.argv[1:] and sys.argv[1]:
        params.api_keys = [sys.argv[1]]
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
