"""The rerank service: the endpoint that clients of Cohere, Jina, vLLM and TEI call, answers, and a playground.

    request -> bodies (bounded) -> wire (read) -> waiting (a bounded queue, one thread) -> scoring -> wire (answer)

Needs the extra `gainrag[serve]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta

from gainrag.errors import ConfigError
from gainrag.prompts import PromptForm
from gainrag.protocols import Generator, Retriever, Selector
from gainrag.selectors import PRIOR, open_selector
from gainrag.settings import Batch, Device, Dtype, Name, Passages, Tokens, checked

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0.1, le=3600)]
Megabytes = Annotated[float, Meta(gt=0, le=1024)]

# The longest time that finishing what was begun may take, beyond the deadline, in seconds.
_DRAIN = 5.0


@checked
def serve(
    selectors: Sequence[str] = (PRIOR,),
    retriever: Retriever | None = None,
    llm: Generator | None = None,
    *,
    host: Name = "127.0.0.1",
    port: Port = 8080,
    documents: Batch = 1000,
    megabytes: Megabytes = 2.0,
    queue: Batch = 4096,
    together: Batch = 256,
    deadline: Seconds = 30.0,
    depth: Passages = 20,
    k: Passages = 1,
    pseudo: Literal["auto", "eager", "lazy", "never"] = "auto",
    prompt: PromptForm | None = None,
    max_new_tokens: Tokens = 16,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Serve selectors over HTTP until stopped by SIGTERM or SIGINT, which lets begun requests finish.

    Args:
        selectors: folders or names, each as PATH or NAME=PATH; the first answers requests that name no model.
        retriever, llm: an index and a language model, for /answer.
        host: the address to listen on; 0.0.0.0 is all of this machine's.
        port: the port; 0 is any that is free.
        documents: the most documents of one request.
        megabytes: the largest body, in MiB.
        queue: passages that may wait; requests beyond it are refused with the time to come back after.
        together: passages of waiting requests that are scored at a time.
        deadline: seconds after which a request without a result is given up.
        depth: passages that /answer retrieves.
        k: passages that the language model reads.
        pseudo: when the language model writes a candidate of its own: eager, lazy, never, or auto, lazy where the
            selector has learned when.
        prompt: the prompt form: completion, chat, or instruction_first, a completion whose beginning a GPU runs once
            for many; when left out chat for a model behind an endpoint, else completion.
        max_new_tokens: the longest answer, in tokens.
        dtype: of cross-encoders: float32, bfloat16, or auto (bfloat16 where the machine multiplies it natively).
        device: of cross-encoders: auto, cpu, cuda, ...

    Raises:
        ConfigError: two selectors have one name, only one of index and language model is given, or the extra is not
            installed.
        ResourceError: the address is taken.
        GainragError: a selector cannot be opened.
    """
    if (retriever is None) != (llm is None):
        raise ConfigError("/answer needs an index and a language model", where="serve", hint="give --index and --llm")
    try:
        from gainrag.serving import server
        from gainrag.serving.app import Limits, create_app
    except ModuleNotFoundError as error:
        hint = "pip install 'gainrag[serve]'"
        raise ConfigError(f"{error.name} is not installed", where="gainrag serve", hint=hint) from None
    from gainrag.serving.answering import Answerer
    from gainrag.serving.keys import VARIABLE, keys_of_environment
    from gainrag.serving.loaded import Shelf, check_folder, names_of

    keys = keys_of_environment()
    named = names_of(list(selectors))
    for path in named.values():
        check_folder(path)
    # Taken first: whoever started it twice should not wait for the models.
    with server.listen(host, port) as listening:
        shelf = Shelf(named, partial(_open, dtype=dtype, device=device))
        answerer = None
        if retriever is not None and llm is not None:
            shared = {"depth": depth, "k": k, "pseudo": pseudo, "prompt": prompt, "max_new_tokens": max_new_tokens}
            answerer = Answerer(retriever, llm, **shared)
        limits = Limits(
            documents=documents, bytes=int(megabytes * (1 << 20)), queue=queue, together=together, deadline=deadline
        )
        app = create_app(shelf, answerer, limits=limits, keys=keys)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        locked = f", locked by {VARIABLE}" if keys else ""

        def started() -> None:
            print(f"serving {', '.join(named)} on {url}{locked}", file=sys.stderr, flush=True)

        server.run(app, listening, drain=deadline + _DRAIN, started=started)


def _open(path: str, *, dtype: Dtype, device: Device) -> Selector:
    return open_selector(path, dtype=dtype, device=device)
