"""A language model on this machine, through transformers: greedy generation and exact contrastive scoring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gainrag.errors import ConfigError, DataError, ModelError
from gainrag.lms.embedded import resolve
from gainrag.lms.loading import choose_device, choose_dtype, load_model, load_tokenizer
from gainrag.lms.packing import ATTENTION, AnswerTree, Row, Segment, make_packs, register_attention
from gainrag.protocols import FloatArray, ScoringRequest

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding

# A pack of a few thousand tokens fills two cores or a card; its logits stay below about 256 MB.
PACK_TOKENS = 4096
PACK_LOGITS = 64 * 1024 * 1024
GENERATION_BATCH = 16


class LocalLM:
    """A causal language model with its tokenizer. A Scorer and a Generator.

    Args:
        model: `embedded:NAME`, a Hugging Face id, or a local folder or GGUF file.
        dtype: float32, bfloat16, or auto (bfloat16 where the machine multiplies it natively).
        device: auto, cpu, cuda, ...

    Raises:
        ModelError: it cannot be loaded, or its architecture cannot be scored.
    """

    def __init__(self, model: str, *, dtype: str = "auto", device: str = "auto") -> None:
        self.name = model
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        path = resolve(model)
        self.tokenizer = load_tokenizer(path)
        self.model = load_model(path, self.dtype, self.device)
        self.tokenizer.padding_side = "left"
        config = self.model.config.get_text_config()
        self.context: int = int(getattr(config, "max_position_embeddings", 0) or 2048)
        self.vocabulary: int = int(config.vocab_size)
        register_attention()

    # --- text -------------------------------------------------------------------------------------------------------

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
        bos = self.tokenizer.bos_token
        templated = bool(bos) and prompt.startswith(str(bos))
        return list(self.tokenizer(prompt, add_special_tokens=not templated).input_ids)

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, to stand directly behind a prompt's ids."""
        return list(self.tokenizer(answer, add_special_tokens=False).input_ids)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has as a prompt."""
        return len(self.prompt_ids(text))

    def truncate(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoding["offset_mapping"]
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1] if tokens > 0 else 0]

    # --- generation -------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The greedy continuation of each prompt, without the prompt."""
        return self.generate_until(prompts, max_new_tokens, None)

    def generate_until(self, prompts: Sequence[str], max_new_tokens: int, stop: str | None) -> list[str]:
        """Like `generate`, but a row may end once `stop` stands in its continuation; what follows is not specified."""
        import torch

        ids = [self.prompt_ids(prompt) for prompt in prompts]
        for prompt, tokens in zip(prompts, ids, strict=True):
            if len(tokens) + max_new_tokens > self.context:
                raise DataError(
                    f"a prompt of {len(tokens)} tokens leaves no room for {max_new_tokens} more in {self.context}",
                    where=f"prompt {prompt[:40]!r}",
                    hint="lower max_new_tokens, or render the prompt with gainrag.prompts, which cuts passages",
                )
        # Rows of like length share a batch; the result stands at its prompt's place.
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        texts = [""] * len(ids)
        self.model.set_attn_implementation("sdpa")
        for start in range(0, len(order), GENERATION_BATCH):
            batch = order[start : start + GENERATION_BATCH]
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
                    stop_strings=[stop] if stop else None,
                    tokenizer=self.tokenizer if stop else None,
                )
            new = out[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    # --- scoring ----------------------------------------------------------------------------------------------------

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """Contrastive loss of METHOD section 1, exact over the whole vocabulary.

            z = (1 + alpha) * z_with - alpha * z_without,  loss = -mean over tokens of log_softmax(z)[token]

        A prompt is run once for all answers and alphas, the prompt without a passage once for all passages, and logits
        are computed for the answers' positions alone. A request's result does not depend on the other requests.

        Returns:
            For each request an array [passage, answer, alpha], nats per token.

        Raises:
            DataError: an answer without tokens, no answers, no passages, or a prompt beyond the context.
            ModelError: the model's logits are not finite, or its architecture cannot be packed.
        """
        if not self.model._can_set_attn_implementation() or not self.model._supports_attention_backend:
            raise ModelError(
                f"{type(self.model).__name__} has no exchangeable attention",
                where=self.name,
                hint="use a model of another architecture (Llama, Qwen, Mistral, Gemma, Phi, ...) for scoring",
            )
        self.model.set_attn_implementation(ATTENTION)
        return [self._request_losses(request, alphas) for request in requests]

    def _request_losses(self, request: ScoringRequest, alphas: Sequence[float]) -> FloatArray:
        import torch

        tree = self._tree(request)
        budget = max(1, PACK_LOGITS // self.vocabulary)
        prompts = [self.prompt_ids(prompt) for prompt in request.with_prompts]
        if not prompts:
            raise DataError(
                "no passages to score", where=f"prompt {request.without_prompt[-60:]!r}", hint="retrieve first"
            )
        contrast = any(alpha != 0 for alpha in alphas)
        result = np.empty((len(prompts), len(request.answers), len(alphas)), dtype=np.float64)
        with torch.inference_mode():
            without = None
            if contrast:
                row = Row(self.prompt_ids(request.without_prompt), tree, (0, -1))
                without = self._logits([row])
            rows = [Row(prompt, tree, (0, i)) for i, prompt in enumerate(prompts)]
            for pack in make_packs(rows, tokens=PACK_TOKENS, outputs=budget):
                logits = self._logits(pack).view(len(pack), 1 + len(tree.tokens), -1)
                passages = [row.owner[1] for row in pack]
                for a, alpha in enumerate(alphas):
                    result[passages, :, a] = _answer_losses(logits, without, tree, alpha)
        if not np.isfinite(result).all():
            raise ModelError(
                "the model returned NaN or infinite logits",
                where=self.name,
                hint="use --dtype float32, or check the model's weights",
            )
        return result

    def _tree(self, request: ScoringRequest) -> AnswerTree:
        where = f"prompt {request.without_prompt[-60:]!r}"
        if not request.answers:
            raise DataError("no answers to score", where=where, hint="gains need gold answers")
        ids = [self.answer_ids(answer) for answer in request.answers]
        for answer, tokens in zip(request.answers, ids, strict=True):
            if not tokens or not answer.strip():
                raise DataError(f"the answer {answer!r} has no tokens", where=where, hint="remove empty answers")
        return AnswerTree.build(ids)

    def _logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """Logits [row's outputs after one another, vocabulary] in float32, of one pass over a pack."""
        import torch

        ids: list[int] = []
        outputs: list[int] = []
        segments: list[Segment] = []
        masks: dict[int, torch.Tensor] = {}
        for row in rows:
            start, prompt, tree = len(ids), len(row.prompt), row.tree
            longest = prompt + max(tree.depth, default=0)
            if longest > self.context:
                raise DataError(
                    f"a prompt and answer of {longest} tokens do not fit the context of {self.context}",
                    where=self.name,
                    hint="render prompts with gainrag.prompts, which cuts passages to the context",
                )
            ids += [*row.prompt, *tree.tokens]
            positions = [*range(prompt), *(prompt - 1 + depth for depth in tree.depth)]
            outputs += range(start + prompt - 1, len(ids))
            mask = None
            if tree.tokens:
                if id(tree) not in masks:
                    masks[id(tree)] = torch.from_numpy(tree.mask())
                mask = torch.cat([torch.ones(len(tree.tokens), prompt, dtype=torch.bool), masks[id(tree)]], dim=1)
                mask = mask.to(self.device)
            segments.append(Segment(start, prompt, torch.tensor(positions, device=self.device), mask))
        out = self.model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.cat([s.positions for s in segments])[None],
            logits_to_keep=torch.tensor(outputs, device=self.device),
            segments=segments,
            use_cache=False,
        )
        logits: torch.Tensor = out.logits[0].float()
        return logits


def _answer_losses(logits: torch.Tensor, without: torch.Tensor | None, tree: AnswerTree, alpha: float) -> FloatArray:
    """[passage, answer] from logits [passage, output, vocabulary] and without [output, vocabulary]."""
    import torch

    z = logits
    if alpha != 0:
        assert without is not None
        z = torch.add(logits, logits - without, alpha=alpha)  # (1 + alpha) * with - alpha * without
    normaliser = z.logsumexp(dim=-1)  # [passage, output]
    steps = [(answer, *step) for answer, path in enumerate(tree.steps) for step in path]
    answer, position, token = (torch.tensor(column, device=z.device) for column in zip(*steps, strict=True))
    surprise = normaliser[:, position] - z[:, position, token]  # [passage, step]
    total = torch.zeros(z.shape[0], len(tree.steps), device=z.device, dtype=torch.float64)
    total.index_add_(1, answer, surprise.double())
    lengths = torch.tensor([len(path) for path in tree.steps], device=z.device)
    return np.asarray((total / lengths).cpu().numpy(), dtype=np.float64)
