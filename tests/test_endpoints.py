"""Language models behind HTTP, from `open_lm` to a whole run: against a faulty server, and against llama.cpp's."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gainrag.answering import answer
from gainrag.augmentation import augment
from gainrag.cli.main import main
from gainrag.errors import ConfigError, ModelError
from gainrag.files.streams import read, read_json, write
from gainrag.lms import facts, open_lm
from gainrag.lms.remote import calls
from gainrag.lms.remote.generation import RemoteLM
from gainrag.prompts import for_model, own_form
from gainrag.protocols import continue_with
from gainrag.records import Answer, Retrieved, Scored
from tests.faulty_server import FAULTS, NAME, FaultyServer, answer_to, serving

KEY = "sk-0123-a-key-that-must-be-nowhere"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT", 0.01)


def questions(n: int) -> list[Retrieved]:
    return [
        Retrieved(
            id=f"q{i}",
            question=f"Who founded city number {i}?",
            answers=[f"Founder{i}"],
            ctxs=[Scored(id=f"p{i}", text=f"Founder{i} laid its first stone.", score=1.0)],
        )
        for i in range(n)
    ]


def opened(server: FaultyServer, **settings: Any) -> RemoteLM:
    lm = open_lm(model=f"{server.base}#{NAME}", **{"timeout": 60.0, **settings})
    assert isinstance(lm, RemoteLM)
    return lm


def bodies(server: FaultyServer) -> list[dict[str, Any]]:
    return sorted(server.seen, key=lambda body: json.dumps(body))


# --- what is sent --------------------------------------------------------------------------------------------------


def test_the_chat_form_is_the_default_and_completion_on_request() -> None:
    with serving([]) as server:
        lm = opened(server)
        assert own_form(lm) == "chat"
        chat, plain = for_model(None, lm), for_model("completion", lm)
        record = questions(1)[0]
        for prompts in (chat, plain):
            rendered = prompts.with_passages(record.question, record.ctxs, reserve=16)
            assert continue_with(lm, [rendered], 16, prompts.stop) == [answer_to(str(rendered))]
    first, second = server.seen
    assert [m["role"] for m in first["messages"]] == ["user"]
    assert "Founder0 laid its first stone." in first["messages"][0]["content"]
    assert second["prompt"].endswith("Answer:")
    assert second["stop"] == "\n"
    assert {(b["model"], b["max_tokens"], b["temperature"]) for b in server.seen} == {(NAME, 16, 0.0)}


def test_samples_are_requests_of_their_own_and_more_can_be_asked_for(tmp_path: Path) -> None:
    with serving([]) as server:
        first = opened(server, calls=tmp_path / "calls")
        drawn = first.sample(list("aabb"), 4, None, temperature=1.0, seeds=[7, 8, 7, 8])
        assert drawn == [answer_to(prompt) for prompt in "aabb"]
        opened(server, calls=tmp_path / "calls").sample(list("aaa"), 4, None, temperature=1.0, seeds=[7, 8, 9])
    assert [(b["prompt"], b["seed"], b["temperature"]) for b in bodies(server)] == [
        ("a", 7, 1.0), ("a", 8, 1.0), ("a", 9, 1.0), ("b", 7, 1.0), ("b", 8, 1.0)
    ]  # fmt: skip


def test_extra_body_is_sent_and_belongs_to_what_results_depend_on() -> None:
    extra = '{"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": false}}'
    with serving([]) as server:
        opened(server, extra_body=extra).generate(["a"], 4)
        assert server.seen[0] | json.loads(extra) == server.seen[0]
        assert facts({"model": f"{server.base}#{NAME}", "extra_body": extra})["extra_body"] == extra
        for wrong in ("[1]", "{", '{"model": "x"}'):
            with pytest.raises(ConfigError, match="extra_body"):
                opened(server, extra_body=wrong)


def test_nothing_of_the_environment_is_sent_but_the_key_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("GAINRAG_API_KEY", raising=False)
    with serving([]) as server:
        opened(server).generate(["a"], 4)
        assert KEY not in json.dumps(server.headers)
        assert "authorization" not in server.headers[-1]
        opened(server, api_key_env="OPENAI_API_KEY").generate(["a"], 4)
        assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


# --- what comes back -----------------------------------------------------------------------------------------------


def reading(message: dict[str, Any]) -> str:
    with serving([]) as server:
        return opened(server)._text({"choices": [{"index": 0, "finish_reason": "length", "message": message}]})


def test_a_model_that_thinks_aloud_and_does_not_answer_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert reading({"content": "Paris"}) == "Paris"
    assert reading({"content": "<think>France?</think>Paris"}) == "Paris"
    assert reading({"content": "Paris", "reasoning_content": "France?"}) == "Paris"
    assert reading({"content": None, "refusal": "I cannot"}) == "I cannot"
    for silent in ({"content": "<think>France"}, {"content": "", "reasoning": "France"}):
        with pytest.raises(ModelError, match=r"thoughts and no answer.*max_new_tokens"):
            reading(silent)
    assert reading({"content": None}) == ""
    assert "without a text (finish_reason length)" in capsys.readouterr().err


# --- opening -------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_not_there_or_says_no_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([]) as server:
        with pytest.raises(ConfigError, match="did you mean 'faulty'"):
            open_lm(model=f"{server.base}#faulti")
        server.key = KEY
        with pytest.raises(ModelError, match=r"HTTP 401.*no key was sent.*api_key_env"):
            opened(server)
        monkeypatch.setenv("MY_KEY", "sk-wrong")
        with pytest.raises(ModelError, match=r"HTTP 401.*the key was refused") as caught:
            opened(server, api_key_env="MY_KEY")
        assert "sk-wrong" not in str(caught.value)
        monkeypatch.setenv("MY_KEY", KEY)
        assert opened(server, api_key_env="MY_KEY").identity == {"id": NAME, "owned_by": "tests"}
        with pytest.raises(ConfigError, match="no environment variable that is set") as refused:
            opened(server, api_key_env=KEY)  # the key in place of its name
        assert KEY not in str(refused.value)
        with pytest.raises(ConfigError, match=r"models on this machine"):
            opened(server, dtype="float32")
    with pytest.raises(ModelError, match=r"no connection.*is the engine running"):
        opened(server)


def test_what_identifies_a_remote_model_is_known_without_it_too() -> None:
    with serving([]) as server:
        known = facts({"model": NAME, "base_url": server.base})
        assert known == {"model": f"{server.base}#{NAME}", "identity": {"id": NAME, "owned_by": "tests"}}
        other = facts({"model": "other", "base_url": server.base})
    assert other == {"model": f"{server.base}#other", "identity": None}


# --- before the start ----------------------------------------------------------------------------------------------


def test_the_estimate_says_requests_tokens_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"calls": tmp_path / "calls", "price_read": 1000.0, "price_written": 2000.0}
    with serving([]) as server:
        augment(questions(3), opened(server, **settings), max_new_tokens=10)
        first = capsys.readouterr().err
        augment(questions(5), opened(server, **settings), max_new_tokens=10)
        again = capsys.readouterr().err
        with pytest.raises(ConfigError, match=r"passages: 5 more requests.*max_requests is 2.*nothing was asked"):
            augment(questions(10), opened(server, max_requests=2, **settings), max_new_tokens=10)
    assert "pseudo-passages: 3 requests" in first
    assert "at most 30 to write, at most about 0." in first
    assert "2 requests" in again
    assert "3 answers of an earlier start" in again
    assert sum(server.asked.values()) == 5


# --- a thousand requests -------------------------------------------------------------------------------------------


def killed_after(answered: int, server: FaultyServer, work: Callable[[], object]) -> None:
    """Run work in a process of its own, and kill it once the server has answered so often."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    deadline = time.monotonic() + 300
    while sum(server.answered.values()) < answered:
        assert time.monotonic() < deadline, "the server is not asked"
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_thousand_requests_to_a_faulty_server_killed_twice(tmp_path: Path) -> None:
    """Every question is once in the result, none is lost, and none is asked more often than its retries allow."""
    import openai  # noqa: F401  # once, not in every process

    out, records, in_flight, retries = tmp_path / "answers.jsonl", questions(1000), 16, 8

    def ask() -> list[Answer]:
        settings = {"concurrency": in_flight, "timeout": 60.0, "retries": retries, "calls": tmp_path / "calls"}
        return answer(records, opened(server, **settings), out, max_new_tokens=8)

    with serving(FAULTS, 0.2) as server:
        server.silence = 0.2
        killed_after(250, server, ask)
        assert not out.exists()
        killed_after(600, server, ask)
        ask()
    found = list(read(out, Answer))
    assert [record.id for record in found] == [record.id for record in records]
    right = {answer_to(prompt) for prompt in server.asked}
    assert {record.prediction for record in found} == right
    assert len(right) == len(server.asked) == 1000
    # An answer is asked for again only where a kill came between the server's last byte and the line in the file.
    assert sum(n - 1 for n in server.answered.values()) <= 2 * in_flight
    assert max(server.asked.values()) <= 3 * (1 + retries)
    assert sum(server.asked.values()) < 1500


# --- from the command line -----------------------------------------------------------------------------------------


def holding(folder: Path, text: str) -> list[Path]:
    """The files that hold a text."""
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_commands_take_an_endpoint_and_the_key_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    write("retrieved.jsonl", questions(4))
    with serving(["500", "close", "429"], 0.5) as server:
        server.key = KEY
        model = ["--llm", f"{server.base}#{NAME}", "--api-key-env", "MY_KEY", "--timeout", "60"]
        assert main(["augment", "retrieved.jsonl", *model, "-o", "candidates.jsonl"]) == 0
        assert main(["answer", "candidates.jsonl", *model, "-o", "answers.jsonl", "--prompt", "completion"]) == 0
        asked = sum(server.asked.values())
        os.remove("answers.jsonl")
        assert main(["answer", "candidates.jsonl", *model, "-o", "answers.jsonl", "--prompt", "completion"]) == 0
        assert sum(server.asked.values()) == asked  # paid for once
        server.key = "another"
        assert main(["answer", "candidates.jsonl", *model, "-o", "more.jsonl"]) == 1
    assert main(["answer", "candidates.jsonl", *model, "-o", "more.jsonl"]) == 1
    said = "".join(capfd.readouterr())
    assert said.count("gainrag: ") == 2
    assert KEY not in said
    assert not holding(tmp_path, KEY)
    assert {"prompt", "messages"} == {name for body in server.seen for name in ("prompt", "messages") if name in body}
    settings = read_json("candidates.meta.json")["settings"]
    assert settings["prompt"] == "chat"
    assert settings["llm"] == {"model": f"{server.base}#{NAME}", "identity": {"id": NAME, "owned_by": "tests"}}
    assert read_json("answers.meta.json")["settings"]["prompt"] == "completion"


def test_a_key_in_a_config_in_place_of_its_name_is_refused_before_a_run_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.small_run import write_data

    write_data(tmp_path)
    config = tmp_path / "config.toml"
    text = config.read_text()
    assert "[llm]" not in text
    config.write_text(f'{text}\n[llm]\nmodel = "http://127.0.0.1:9/v1#m"\napi_key_env = "{KEY}"\n')
    assert main(["run", str(config), "-o", str(tmp_path / "run")]) == 1
    assert main(["validate", str(config)]) == 1
    assert KEY not in "".join(capsys.readouterr())
    assert not (tmp_path / "run").exists()


# --- a real engine -------------------------------------------------------------------------------------------------


def test_llama_cpp_answers_and_says_what_it_is(llama_server: str, tmp_path: Path) -> None:
    lm = open_lm(model=f"{llama_server}#smollm2", timeout=600.0, calls=tmp_path / "calls")
    assert isinstance(lm, RemoteLM)
    assert lm.engine_context == 2048
    assert lm.identity is not None
    assert (lm.identity["owned_by"], lm.identity["n_vocab"]) == ("llamacpp", 49152)
    assert lm.generate_until(["The capital of France is"], 4, "\n") == [" Paris."]
    chat = lm.generate([lm.render_chat("Say: yes")], 2)
    assert len(chat) == 1
    assert chat[0]
    assert lm.caller.spent.tokens_written <= 6
    with pytest.raises(ModelError, match=r"HTTP 400.*context.*start the engine with a longer context"):
        lm.generate(["word " * 3000], 4)
    with pytest.raises(ConfigError, match="unknown model 'smollm'"):
        open_lm(model=f"{llama_server}#smollm")
