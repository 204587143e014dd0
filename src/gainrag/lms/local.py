"""A language model on this machine, through transformers: it writes, greedily or drawn, and scores exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gainrag.errors import DataError
from gainrag.lms.drawing import Drawn, draws_of
from gainrag.lms.loaded import LoadedModel
from gainrag.lms.scoring import contrastive_losses
from gainrag.lms.throughput import measured_peak
from gainrag.protocols import FloatArray, Level, ScoringRequest

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding

# Rows that are generated together. More fill the cores better, but wait for the longest answer and are padded to the
# longest prompt: on two cores 32 write pseudo-passages 1.6 times and answers 1.2 times as fast as 16; with 96 answers
# come more slowly. Of long prompts, whose reading is most of the work, few: what passes between the layers should stay
# in the caches, so their tokens are bounded, too. A GPU takes hardly longer for many rows than for a few, as long as
# their keys and values fit into its memory: GENERATION_CACHE is the bytes that they may take.
GENERATION_BATCH = {"cpu": 32, "cuda": 512}
GENERATION_TOKENS = {"cpu": 8192, "cuda": 2**22}
GENERATION_CACHE = 2**32


Choosing = Callable[[Sequence[int]], Drawn]


class LocalLM(LoadedModel):
    """A causal language model with its tokenizer. A Scorer and a Generator.

    Several threads may use it: it generates or scores for one of them at a time (`lock`), since scoring exchanges the
    model's attention while it lasts, and since memory is bounded for one call. Each gets what it would get alone.

    Args:
        model: `embedded:NAME`, a Hugging Face id, or a local folder or GGUF file.
        dtype: float32, bfloat16, or auto (bfloat16 where the machine multiplies it natively).
        device: auto, cpu, cuda, ...

    Raises:
        ModelError: it cannot be loaded.
        ConfigError: the device is not there.
    """

    level: Level = "exact"

    def __init__(self, model: str, *, dtype: str = "auto", device: str = "auto") -> None:
        super().__init__(model, dtype=dtype, device=device)
        self._peak: float | None = None  # measured when it is first asked for
        self._ends: dict[str, torch.Tensor] = {}  # by a character, [vocabulary]: whether a token contains it

    # --- generation -------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The greedy continuation of each prompt, without the prompt."""
        return self.generate_until(prompts, max_new_tokens, None)

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, *, temperature: float, seeds: Sequence[int]
    ) -> list[str]:
        """One continuation of each prompt, drawn at the temperature from the whole vocabulary. What is drawn depends on
        the prompt and its seed alone: each row has random numbers of its own."""
        draws = [draws_of(seed, max_new_tokens) for seed in seeds]
        return self._continue(prompts, max_new_tokens, stop, lambda rows: Drawn([draws[i] for i in rows], temperature))

    def generate_until(self, prompts: Sequence[str], max_new_tokens: int, stop: str | None) -> list[str]:
        """Like `generate`, but a row may end once `stop` stands in its continuation; what follows is not specified."""
        return self._continue(prompts, max_new_tokens, stop)

    def _continue(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, choosing: Choosing | None = None
    ) -> list[str]:
        """The continuations of prompts; what chooses the tokens of some of them, by their numbers, is made by
        `choosing`: the likeliest is taken where it is left out."""
        ids = self.prompts_ids(prompts)
        for prompt, tokens in zip(prompts, ids, strict=True):
            if len(tokens) + max_new_tokens > self.context:
                raise DataError(
                    f"a prompt of {len(tokens)} tokens leaves no room for {max_new_tokens} more in {self.context}",
                    where=f"prompt {prompt[:40]!r}",
                    hint="lower max_new_tokens, or render the prompt with gainrag.prompts, which cuts passages",
                )
        with self.lock:
            return self._generate(ids, max_new_tokens, stop, choosing)

    def _generate(
        self, ids: Sequence[list[int]], max_new_tokens: int, stop: str | None, choosing: Choosing | None
    ) -> list[str]:
        import torch

        # Rows of like length share a batch; the result stands at its prompt's place.
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        texts = [""] * len(ids)
        for batch in self._batches(order, [len(tokens) + max_new_tokens for tokens in ids]):
            inputs: BatchEncoding = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                out: Any = self.model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self.tokenizer.pad_token_id,
                    **self._stopping(stop),
                    **({"logits_processor": [choosing(batch)]} if choosing else {}),
                )
            new = out[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    def _stopping(self, stop: str | None) -> dict[str, Any]:
        """What `generate` of transformers is to stop at. Given a string, it goes through the vocabulary at every call,
        which takes as long as five tokens; the tokens that contain a single character are found once."""
        import torch

        if not stop:
            return {}
        if len(stop) > 1 or not stop.isascii():
            return {"stop_strings": [stop], "tokenizer": self.tokenizer}
        if stop not in self._ends:
            size = min(len(self.tokenizer), self.vocabulary)
            texts = self.tokenizer.batch_decode([[i] for i in range(size)])
            ends = torch.tensor([stop in text for text in texts] + [False] * (self.vocabulary - size))
            self._ends[stop] = ends.to(self.device)
        ends = self._ends[stop]
        return {"stopping_criteria": [lambda ids, _scores, **__: ends[ids[:, -1]]]}

    def _batches(self, order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive rows, shortest first, that may be generated together; a longer one goes alone."""
        config = self.model.config.get_text_config()
        tokens = GENERATION_TOKENS[self.kind]
        if queries := getattr(config, "num_attention_heads", None):  # a model without attention keeps no keys
            heads = getattr(config, "num_key_value_heads", None) or queries
            width = getattr(config, "head_dim", None) or config.hidden_size // queries
            a_token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize  # bytes: keys and values
            tokens = min(tokens, GENERATION_CACHE // a_token)
        batch: list[int] = []
        for i in order:
            too_large = (len(batch) + 1) * lengths[i] > tokens
            if batch and (too_large or len(batch) == GENERATION_BATCH[self.kind]):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    # --- scoring ----------------------------------------------------------------------------------------------------

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """The contrastive loss that gainrag.gain defines, exact over the whole vocabulary.

            z = (1 + alpha) * z_with - alpha * z_without,  loss = -mean over tokens of log_softmax(z)[token]

        A prompt is run once for all answers and alphas, the prompt without a passage once for all passages, and logits
        are computed for the answers' positions alone: see gainrag.lms.scoring. Requests share packs; in bfloat16 a
        request's result may differ in its last digits with the requests it came with, as in any batch.

        Returns:
            For each request an array [passage, answer, alpha], nats per token.

        Raises:
            DataError: an answer without tokens, no answers, no passages, or a prompt beyond the context.
            ModelError: the model's logits are not finite.
        """
        with self.lock:
            return contrastive_losses(self, requests, alphas)

    def rate(self) -> str:
        """How fast scoring went so far: tokens a second, and the share of the machine's measured peak."""
        if self._peak is None:
            self._peak = measured_peak(self.dtype, self.device)
        return self.throughput.rate(self._peak)
