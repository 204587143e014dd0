"""Texts as token ids, by the engine's own endpoint or by a tokenizer's folder on this machine.

Ids are sent wherever an engine takes them: prompt and answer are tokenized apart and stand one behind the other, so the
prompt's ids are the beginning of what is scored whatever the answer is, as they are for a local model. Ids are not kept
on disk: they are cheap to ask for, and longer than the texts.

| engine | ids of a text | of a chat | text of ids |
|---|---|---|---|
| llama.cpp | POST /tokenize content, add_special, parse_special | POST /apply-template | POST /detokenize -> content |
| vLLM | POST /tokenize prompt, add_special_tokens | POST /tokenize messages | POST /detokenize -> prompt |
| SGLang | as vLLM | as vLLM | POST /detokenize -> text |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gainrag.lms.remote.calls import BadAnswer, Call, Caller


class Tokens(Protocol):
    """Texts as token ids."""

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts, with the model's own first token where it has one."""
        ...

    def chats(self, messages: Sequence[str]) -> list[list[int]]:
        """Ids of one user message each inside the model's chat template, up to where the answer begins."""
        ...

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of answers, to stand directly behind a prompt's ids."""
        ...

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        ...


class LlamaCppTokens:
    """By llama.cpp's server.

    Args:
        bos: the model's own first token, as text: what a chat template wrote may begin with it already.
    """

    def __init__(self, caller: Caller, bos: str = "") -> None:
        self._caller, self._bos = caller, bos

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts."""
        return self._ids(texts, special=True)

    def chats(self, messages: Sequence[str]) -> list[list[int]]:
        """Ids of messages inside the chat template."""
        said = [{"messages": [{"role": "user", "content": str(text)}]} for text in messages]
        calls = [Call("/apply-template", body, keep=False) for body in said]
        return self._ids(self._caller.ask(calls, lambda value: text_of(value, "prompt")), special=True)

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of answers."""
        return self._ids(texts, special=False)

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text."""
        ids = self._ids([text], special=False)[0][: max(0, tokens)]
        return _cut(self._caller, Call("/detokenize", {"tokens": ids}, keep=False), "content", ids)

    def _ids(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        calls = []
        for text in texts:
            own = special and not (self._bos and text.startswith(self._bos))
            body = {"content": text, "add_special": own, "parse_special": True}
            calls.append(Call("/tokenize", body, keep=False))
        return self._caller.ask(calls, ids_of)


class ServerTokens:
    """By vLLM or SGLang.

    Args:
        text: the field in which /detokenize returns the text.
    """

    def __init__(self, caller: Caller, text: str) -> None:
        self._caller, self._text = caller, text
        self._model = {"model": caller.address.name}

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts."""
        return self._ids([{"prompt": text, "add_special_tokens": True} for text in texts])

    def chats(self, messages: Sequence[str]) -> list[list[int]]:
        """Ids of messages inside the chat template."""
        return self._ids(
            [{"messages": [{"role": "user", "content": str(m)}], "add_generation_prompt": True} for m in messages]
        )

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of answers."""
        return self._ids([{"prompt": text, "add_special_tokens": False} for text in texts])

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text."""
        ids = self.answers([text])[0][: max(0, tokens)]
        return _cut(self._caller, Call("/detokenize", {**self._model, "tokens": ids}, keep=False), self._text, ids)

    def _ids(self, bodies: Sequence[dict[str, Any]]) -> list[list[int]]:
        return self._caller.ask([Call("/tokenize", {**self._model, **body}, keep=False) for body in bodies], ids_of)


class FolderTokens:
    """By the tokenizer of a model on this machine, which must be the engine's own model.

    Args:
        model: `embedded:NAME`, a Hugging Face id, or a local folder or GGUF file.

    Raises:
        ModelError: it cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        from gainrag.models.folder import resolve
        from gainrag.models.loading import load_tokenizer

        self._tokenizer = load_tokenizer(resolve(model))

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of prompts."""
        bos = str(self._tokenizer.bos_token or "")
        return [self._of(text, special=not (bos and text.startswith(bos))) for text in texts]

    def chats(self, messages: Sequence[str]) -> list[list[int]]:
        """Ids of messages inside the chat template."""
        said = [[{"role": "user", "content": message}] for message in messages]
        template = self._tokenizer.apply_chat_template
        return self.prompts([str(template(one, tokenize=False, add_generation_prompt=True)) for one in said])

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of answers."""
        return [self._of(text, special=False) for text in texts]

    def beginning(self, text: str, tokens: int) -> str:
        """The beginning of a text."""
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoding["offset_mapping"]
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1] if tokens > 0 else 0]

    def _of(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special, verbose=False).input_ids)


def ids_of(value: Any) -> list[int]:
    """The ids in what /tokenize answers.

    Raises:
        BadAnswer: there are none.
    """
    ids = value.get("tokens") if isinstance(value, dict) else None
    if not isinstance(ids, list) or not all(type(i) is int for i in ids):
        raise BadAnswer(f"no token ids but {str(value)[:60]}")
    return ids


def text_of(value: Any, field: str) -> str:
    """A text in an answer.

    Raises:
        BadAnswer: there is none.
    """
    text = value.get(field) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise BadAnswer(f"no {field} but {str(value)[:60]}")
    return text


def _cut(caller: Caller, call: Call, field: str, ids: Sequence[int]) -> str:
    """The text of the first ids of another; a character that is cut through is left out."""
    if not ids:
        return ""
    return str(caller.ask([call], lambda value: text_of(value, field))[0]).rstrip("\ufffd")
