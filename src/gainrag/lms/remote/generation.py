"""Text from a model behind HTTP, by the official `openai` client: chat completions, or plain ones on request.

A prompt in the chat form is one user message, and the engine puts it into the model's own template; a prompt in the
completion form is continued as it stands. Both are greedy (temperature 0) unless samples are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gainrag.errors import ConfigError
from gainrag.files.progress import say
from gainrag.lms.remote.address import Address
from gainrag.lms.remote.calls import BadAnswer, Call, Caller, EngineError, Failure, check_status, decode
from gainrag.settings import count

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CHAT, COMPLETIONS = "chat/completions", "completions"
# Bytes a token, about, in English: what an estimate is made with before an engine has counted any.
BYTES_PER_TOKEN = 4
READER = "text 1"
_NO_THINKING = "raise max_new_tokens, or turn thinking off by extra_body, see docs/endpoints.md"


class Message(str):
    """A prompt in the chat form: a user's message that the engine puts into the model's chat template."""

    __slots__ = ()


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any currency; None is not known."""

    read: float | None = None
    written: float | None = None

    def cost(self, read: float, written: float) -> float | None:
        """The cost of tokens read and written; None where no price is known."""
        if self.read is None and self.written is None:
            return None
        return ((self.read or 0.0) * read + (self.written or 0.0) * written) / 1e6


class RemoteLM:
    """A language model behind HTTP. A Generator, and no Scorer: for that see the engines' own adapters.

    Several threads may use it; `concurrency` bounds them all together.

    Args:
        address: the endpoint.
        caller: what sends its requests, with the answers that are there already.
        identity: what the engine says of the model, as JSON values; None where it says nothing.
        context: the tokens of the model's context, where the engine says so.
        prices: for the estimate.
        extra: what else is sent with every request, such as {"reasoning_effort": "none"}.
    """

    kind = "remote"
    chat_first = True

    def __init__(
        self,
        address: Address,
        caller: Caller,
        *,
        identity: dict[str, Any] | None = None,
        context: int | None = None,
        prices: Prices | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.address, self.caller, self.identity = address, caller, identity
        self.name = str(address)
        self.engine_context = context
        self.prices, self.extra = prices or Prices(), dict(extra or {})
        self._client: AsyncOpenAI | None = None
        self._limit = "max_tokens"  # or max_completion_tokens, where the engine wants that
        self._greedy = True  # whether the engine takes a temperature
        self._silent = 0  # answers without a text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    # --- as a Generator -----------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """The greedy continuation of each prompt, without the prompt."""
        return self.generate_until(prompts, max_new_tokens, None)

    def generate_until(self, prompts: Sequence[str], max_new_tokens: int, stop: str | None) -> list[str]:
        """Like `generate`; a continuation ends before `stop`.

        Raises:
            EngineError: the engine answers no, or nothing.
            ResourceError: the budget is used up.
        """
        return self.caller.ask([self._call(p, max_new_tokens, stop) for p in prompts], self._text, self._send)

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, *, temperature: float, seeds: Sequence[int]
    ) -> list[str]:
        """One continuation of each prompt, drawn at the temperature by its seed, as far as the engine honours seeds. An
        answer that was paid for is kept with its seed, and not asked for again."""
        calls = self._drawn(prompts, max_new_tokens, stop, temperature, seeds)
        return self.caller.ask(calls, self._text, self._send)

    def _drawn(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, temperature: float, seeds: Sequence[int]
    ) -> list[Call]:
        return [
            self._call(prompt, max_new_tokens, stop, temperature=temperature, seed=seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def render_chat(self, message: str) -> str:
        """One user message, marked as such: the template is the engine's."""
        return Message(message)

    def described(self) -> str:
        """A line that says what this is."""
        context = "" if self.engine_context is None else f", a context of {self.engine_context:,} tokens"
        return f"{self.name}{context}, {count(self.caller.limits.concurrency, 'request')} at a time"

    def rate(self) -> str:
        """What was sent so far, in a few words for a progress line."""
        spent = self.caller.spent
        return f"{spent.sent} requests, {spent.tokens_read:,} tokens read, {spent.tokens_written:,} written"

    def announce(
        self,
        what: str,
        prompts: Sequence[str],
        max_new_tokens: int,
        stop: str | None = None,
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Say what asking these prompts will cost, before the first is asked. With seeds, one a prompt, they are drawn.

        Raises:
            ConfigError: it is more than the budget allows.
        """
        calls = self._drawn(prompts, max_new_tokens, stop, temperature, [0] * len(prompts) if seeds is None else seeds)
        self.say_estimate(what, calls, max_new_tokens)

    def say_estimate(self, what: str, calls: Sequence[Call], max_new_tokens: int) -> None:
        """`announce`, of calls."""
        new = {key: call for call in calls if (key := self.caller.key_of(call)) not in self.caller.kept}
        there = len({self.caller.key_of(call) for call in calls}) - len(new)
        written = len(new) * max_new_tokens
        read = sum(call.tokens for call in new.values()) - written
        line = f"{what}: {count(len(new), 'request')} to {self.address}"
        if new:
            line += f", about {read:,} tokens to read and at most {written:,} to write"
            if (cost := self.prices.cost(read, written)) is not None:
                line += f", at most about {cost:,.{2 if cost >= 10 else 4}f} by the given prices"
        say(line + (f"; {count(there, 'answer')} of an earlier start are there" if there else ""))
        limits, spent = self.caller.limits, self.caller.spent
        for name, limit, used, wanted in (
            ("max_requests", limits.max_requests, spent.sent, len(new)),
            ("max_total_tokens", limits.max_total_tokens, spent.tokens, read),
        ):
            if limit is not None and used + wanted > limit:
                unit = "request" if name == "max_requests" else "token"
                before = f" after {used:,}" if used else ""
                raise ConfigError(
                    f"{what}: {wanted:,} more {unit}{'s' * (wanted != 1)}{before}, and {name} is {limit}",
                    where=str(self.address),
                    hint="raise it, or ask fewer questions; nothing was asked",
                )

    # --- a request ----------------------------------------------------------------------------------------------------

    def _call(
        self, prompt: str, max_new_tokens: int, stop: str | None, *, temperature: float = 0.0, seed: int = 0
    ) -> Call:
        """What is sent for a prompt."""
        chat = isinstance(prompt, Message)
        text = str(prompt)
        given: dict[str, Any] = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
        body: dict[str, Any] = {"model": self.address.name, **given, "max_tokens": max_new_tokens}
        body |= {"temperature": temperature, "seed": seed}
        if stop is not None:
            body["stop"] = stop
        return Call(
            CHAT if chat else COMPLETIONS,
            {**body, **self.extra},
            reader=READER,
            tokens=len(text.encode()) // BYTES_PER_TOKEN + 1 + max_new_tokens,
            about=f"prompt {text[-60:]!r}",
        )

    async def _send(self, call: Call) -> Any:
        """Send a call through the openai client.

        Raises:
            Failure: it failed.
            BadAnswer: the answer is no JSON.
        """
        import openai

        client, body = self._openai(), dict(call.body)
        if self._limit not in body:
            body[self._limit] = body.pop("max_tokens")
        if not self._greedy:
            body.pop("temperature")
        extra = {name: body.pop(name) for name in self.extra}
        create: Any = client.chat.completions if call.path == CHAT else client.completions
        try:
            # Without a key no header: the client would make one up, or take OpenAI's.
            headers = None if self.caller.key else {"Authorization": openai.Omit()}
            sent = await create.with_raw_response.create(**body, extra_body=extra or None, extra_headers=headers)
        except openai.APIStatusError as error:
            try:
                check_status(error.response.status_code, error.response.headers, error.response.content)
            except Failure as failure:
                raise self._adapted(failure, body, call) from None
            raise
        except openai.APIConnectionError as error:
            raise Failure.of_connection(error.__cause__ or error) from None
        return decode(sent.http_response.content)

    def _adapted(self, failure: Failure, body: Mapping[str, Any], call: Call) -> Failure:
        """The failure, to be tried again where the engine takes the request under another name, else with a hint."""
        if failure.status == 400 and "max_completion_tokens" in failure.what and "max_tokens" in body:
            self._limit = "max_completion_tokens"
            return Failure(failure.what, wait=0.0, status=400)
        if failure.status == 400 and "temperature" in failure.what and "temperature" in body:
            if self._greedy:
                say(f"{self.address} takes no temperature: its answers are samples, and differ from run to run")
            self._greedy = False
            return Failure(failure.what, wait=0.0, status=400)
        if failure.status in (400, 404) and call.path == COMPLETIONS and "chat" in failure.what:
            failure.hint = "the model answers in the chat form alone: --prompt chat"
        elif failure.status == 400 and call.path == CHAT and "template" in failure.what:
            failure.hint = "the model has no chat template: --prompt completion"
        elif failure.status == 400 and "context" in failure.what:
            failure.hint = "start the engine with a longer context, or let fewer or shorter passages be read"
        return failure

    def _openai(self) -> AsyncOpenAI:
        """The client, made by the first request. It takes nothing from the environment: what is meant for OpenAI must
        not be sent elsewhere."""
        if self._client is None:
            from openai import AsyncOpenAI, Omit

            silent: Any = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
            self._client = AsyncOpenAI(
                api_key=self.caller.key or "none",
                admin_api_key="",
                base_url=self.address.base,
                max_retries=0,
                timeout=None,
                default_headers=silent,
                http_client=self.caller.http(),
            )
        return self._client

    # --- an answer ----------------------------------------------------------------------------------------------------

    def _text(self, value: Any) -> str:
        """The text in an answer.

        Raises:
            BadAnswer: there is none.
            EngineError: the model thinks aloud and comes to no answer.
        """
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            found = "an error" if isinstance(value, dict) and value.get("error") else "no single choice"
            raise BadAnswer(f"{found} ({str(value)[:120]})")
        choice = choices[0]
        message = choice.get("message")
        if not isinstance(message, dict):
            text = choice.get("text")
            if not isinstance(text, str):
                raise BadAnswer(f"no text ({str(choice)[:120]})")
            return text
        text = message.get("content")
        thought = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(text, str) and text.lstrip().startswith("<think>"):
            thought, _, text = text.partition("</think>")
        if thought and not text:
            what = "the model wrote its thoughts and no answer"
            raise EngineError(what, where=str(self.address), hint=_NO_THINKING)
        if text is None and isinstance(message.get("refusal"), str):
            text = message["refusal"]
        if text is None:
            self._silent += 1
            if self._silent == 1:
                reason = choice.get("finish_reason")
                say(f"{self.address}: an answer without a text (finish_reason {reason}) counts as an empty one")
            return ""
        if not isinstance(text, str):
            raise BadAnswer(f"content that is no text ({str(text)[:120]})")
        return text
