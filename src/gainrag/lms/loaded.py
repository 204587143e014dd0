"""A causal language model in memory with its tokenizer: what scoring and generation both stand on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from gainrag.errors import ConfigError
from gainrag.lms.graphs import Graphs
from gainrag.lms.means import Means
from gainrag.lms.throughput import Throughput
from gainrag.lms.ways import Way
from gainrag.models.devices import choose_device, choose_dtype, kind_of
from gainrag.models.folder import resolve
from gainrag.models.loading import check_fitting, load_model, load_tokenizer


class LoadedModel:
    """Weights and tokenizer, and texts as token ids.

    Args:
        model: `embedded:NAME`, a Hugging Face id, or a local folder or GGUF file.
        dtype: float32, bfloat16, or auto (bfloat16 where the machine multiplies it natively).
        device: auto, cpu, cuda, ...

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, model: str, *, dtype: str = "auto", device: str = "auto") -> None:
        self.name = model
        self.device = choose_device(device)
        self.kind = kind_of(self.device)
        self.dtype = choose_dtype(dtype, self.device)
        path = resolve(model)
        self.tokenizer = load_tokenizer(path)
        self.model = load_model(path, self.dtype, self.device)
        check_fitting(self.tokenizer, self.model, model)
        self.tokenizer.padding_side = "left"
        config = self.model.config.get_text_config()
        self.context: int = int(getattr(config, "max_position_embeddings", 0) or 2048)
        self.vocabulary: int = int(config.vocab_size)
        self.throughput = Throughput.of(self.model)
        self.way: Way | None = None  # how it is scored, found out at the first time
        self.means = Means.of(self.device)
        self.graphs = Graphs()
        self.batch_tokens: int | None = None  # of a batch on a GPU, measured at the first time
        self.short_of_memory = False  # whether that was said
        self.lock = threading.RLock()  # around all that the model computes
        self._tokenizing = threading.Lock()

    def render_chat(self, message: str) -> str:
        """One user message inside the model's own chat template, up to where the answer begins.

        Raises:
            ConfigError: the model has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise ConfigError(f"{self.name} has no chat template", where="prompt", hint="use --prompt completion")
        messages = [{"role": "user", "content": message}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt. What a chat template wrote already begins with the model's own first token."""
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """The same of several prompts, tokenized together."""
        bos = self.tokenizer.bos_token
        found: list[list[int]] = [[] for _ in prompts]
        for templated in (False, True):
            mine = [i for i, p in enumerate(prompts) if (bool(bos) and p.startswith(str(bos))) == templated]
            if mine:
                ids = self._tokenize([prompts[i] for i in mine], add_special_tokens=not templated).input_ids
                for i, own in zip(mine, ids, strict=True):
                    found[i] = list(own)
        return found

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, to stand directly behind a prompt's ids."""
        return list(self._tokenize(answer, add_special_tokens=False).input_ids)

    def _tokenize(self, texts: str | list[str], **settings: Any) -> Any:
        """What the tokenizer makes of texts. It keeps the settings of its last call, so it is called by one thread at a
        time; a prompt longer than the context is no reason for it to warn."""
        with self._tokenizing:
            return self.tokenizer(texts, verbose=False, **settings)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has as a prompt."""
        return len(self.prompt_ids(text))

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        encoding = self._tokenize(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoding["offset_mapping"]
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1] if tokens > 0 else 0]
