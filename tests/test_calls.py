"""Many requests to an engine that fails in every way: gainrag.lms.remote.calls, kept and address."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gainrag.errors import ConfigError, ResourceError
from gainrag.lms.remote import calls
from gainrag.lms.remote.address import is_endpoint, parse
from gainrag.lms.remote.calls import BadAnswer, Call, Caller, EngineError, Limits
from gainrag.lms.remote.kept import Kept
from tests.faulty_server import FAULTS, NAME, FaultyServer, logprobs, serving


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT", 0.01)


def caller(server: FaultyServer, kept: Kept | None = None, **limits: Any) -> Caller:
    own = {"concurrency": 8, "timeout": 60.0, "retries": 3, **limits}
    return Caller(parse(f"{server.base}#{NAME}"), Limits(**own), kept=kept)


def score(n: int) -> Call:
    return Call("/score", {"tokens": [n, n + 1, n + 2]}, reader="scores 1")


def read(value: Any) -> list[float]:
    found = value["logprobs"] if isinstance(value, dict) and "logprobs" in value else None
    if not isinstance(found, list) or len(found) != 3:
        raise BadAnswer(f"{len(found or [])} log-probabilities for 3 tokens")
    if not all(math.isfinite(x) for x in found):
        raise BadAnswer("a log-probability that is NaN")
    return [float(x) for x in found]


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "base_url", "what"),
    [
        ("http://localhost:8000/v1", None, "names no model.*8000/v1#NAME"),
        ("http://localhost:8000#m", None, "no path.*http://localhost:8000/v1"),
        ("http://localhost:eight/v1#m", None, "no URL"),
        ("http:///v1#m", None, "no URL"),
        ("m", "localhost:8000/v1", "no URL"),
        ("http://a/v1#m", "http://b/v1", "both"),
    ],
)
def test_an_address_that_can_be_none_is_said_in_one_line(model: str, base_url: str | None, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        parse(model, base_url)


@pytest.mark.parametrize("secret", ["http://me:hunter2@h/v1#m", "https://h/v1?key=hunter2#m", "http://h:hunter2/v1#m"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(secret)
    assert "hunter2" not in str(caught.value)


def test_names_of_models_that_are_no_endpoints() -> None:
    assert not any(map(is_endpoint, ("embedded:x", "org/model", "folder", "http")))
    assert is_endpoint("HTTPS://h/v1#m")


# --- requests ------------------------------------------------------------------------------------------------------


def test_answers_come_in_order_whatever_fails_on_the_way() -> None:
    with serving([f for f in FAULTS if f != "hang"], share=0.5) as server:
        own = caller(server)
        found = own.ask(map(score, range(100)), read)
    assert found == [logprobs([n, n + 1, n + 2]) for n in range(100)]
    assert max(server.asked.values()) == 4  # three faults at most, and as many retries
    assert set(server.answered.values()) == {1}
    assert server.most_in_flight <= 8
    assert own.spent.sent == sum(server.asked.values()) > 100
    assert own.spent.reserved == 0


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("close", "the connection broke.*3 times"),
        ("hang", "no answer within 1 s, 3 times"),
        ("500", "HTTP 500: out of luck, 3 times"),
        ("429", "HTTP 429: slow down, 3 times.*lower concurrency"),
        ("truncated", "returned what is no JSON"),
        ("cut", "the connection broke"),
        ("tokens", "returned 2 log-probabilities for 3 tokens, 3 times"),
        ("nan", "no JSON|NaN"),
    ],
)
def test_a_fault_that_stays_is_one_line_after_the_retries(fault: str, what: str) -> None:
    with serving([fault], share=1.0, most=99) as server:
        with pytest.raises(EngineError, match=what) as caught:
            caller(server, retries=2, timeout=1.0 if fault == "hang" else 60.0).ask([score(1)], read)
        assert sum(server.asked.values()) <= 3  # a slow machine may reach the deadline before the server
    assert "\n" not in str(caught.value)
    assert server.base in str(caught.value)


def test_what_was_in_flight_when_one_failed_is_kept(tmp_path: Path) -> None:
    def picky(value: Any) -> list[float]:
        if value["logprobs"][0] == logprobs([5])[0]:
            raise BadAnswer("a five")
        return read(value)

    kept = Kept(tmp_path / "calls")
    with serving([]) as server, pytest.raises(EngineError, match="a five"):
        caller(server, kept, retries=0).ask(map(score, range(40)), picky)
    assert len(Kept(tmp_path / "calls")) == sum(server.answered.values()) - 1
    assert sum(server.asked.values()) < 40  # nothing new was sent


def test_a_pause_that_one_request_is_asked_for_holds_for_all() -> None:
    with serving(["429"], share=1.0, most=1) as server:
        server.retry_after = "1"
        caller(server, concurrency=2).ask(map(score, range(2)), read)
        gaps = [b - a for a, b in zip(server.times[1:], server.times[2:], strict=False)]
    assert gaps[0] >= 0.99


def test_a_pause_of_an_hour_is_for_a_person_to_decide() -> None:
    with serving(["429"], share=1.0) as server:
        server.retry_after = "3600"
        with pytest.raises(EngineError, match=r"HTTP 429.*a pause of 3,600 s"):
            caller(server).ask([score(1)], read)
        assert sum(server.asked.values()) == 1


def test_an_engine_that_is_not_there_is_one_line_with_a_hint() -> None:
    with serving([]) as server:
        own = caller(server, retries=0)
    with pytest.raises(EngineError, match=r"no connection.*is the engine running.*curl http://127"):
        own.ask([score(1)], read)


def test_a_path_that_is_not_there_is_not_tried_again() -> None:
    with serving([]) as server, pytest.raises(EngineError, match="HTTP 404") as caught:
        caller(server).ask([Call("nothing", method="GET")], read)
    assert caught.value.status == 404


# --- what is kept --------------------------------------------------------------------------------------------------


def test_an_answer_is_asked_for_once(tmp_path: Path) -> None:
    with serving([]) as server:
        first = caller(server, Kept(tmp_path / "calls")).ask([score(1), score(2), score(1)], read)
        again = caller(server, Kept(tmp_path / "calls")).ask([score(2), score(1), score(3)], read)
        assert first == [first[0], first[1], first[0]]
        assert again[:2] == [first[1], first[0]]
        assert set(server.asked.values()) == {1}
        # What is not kept is asked anew, and so is what another reader reads of the same answer, or another model.
        caller(server, Kept(tmp_path / "calls")).ask([Call("/score", score(1).body, keep=False)], read)
        caller(server, Kept(tmp_path / "calls")).ask([Call("/score", score(1).body, reader="scores 2")], read)
        other = Caller(parse(f"{server.base}#{NAME}"), kept=Kept(tmp_path / "calls"), model="another report")
        other.ask([score(1)], read)
        assert server.asked["[1, 2, 3]"] == 4


def test_half_a_line_is_left_out_and_what_follows_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    kept = Kept(path)
    for key in "abc":
        kept.put(key, {"text": key * 3})
    kept.close()
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        found = Kept(path)
        there = [key for key in "abc" if key in found]
        assert there == list("abc"[: whole[:cut].count(b"\n")])
        found.put("d", [1.5])
        found.close()
        again = Kept(path)
        assert [again.get(key) for key in there] == [{"text": key * 3} for key in there]
        assert again.get("d") == [1.5]
        again.close()


def test_two_writers_of_one_file_find_their_own_lines(tmp_path: Path) -> None:
    one, two = Kept(tmp_path / "calls"), Kept(tmp_path / "calls")
    for n in range(20):
        (one if n % 2 else two).put(str(n), n)
    assert [(one if n % 2 else two).get(str(n)) for n in range(20)] == list(range(20))
    assert len(Kept(tmp_path / "calls")) == 20


# --- the budget ----------------------------------------------------------------------------------------------------


def test_nothing_is_sent_beyond_the_budget_and_what_came_back_is_kept(tmp_path: Path) -> None:
    with serving(["500"], share=0.5) as server:
        with pytest.raises(ResourceError, match="max_requests = 30 is used up"):
            caller(server, Kept(tmp_path / "calls"), max_requests=30).ask(map(score, range(100)), read)
        assert sum(server.asked.values()) == 30
        assert len(Kept(tmp_path / "calls")) == sum(server.answered.values()) > 0
        caller(server, Kept(tmp_path / "calls")).ask(map(score, range(100)), read)
        assert set(server.answered.values()) == {1}


def test_a_budget_of_tokens_counts_what_is_in_flight() -> None:
    with serving([]) as server, pytest.raises(ResourceError, match="max_total_tokens = 100 is used up"):
        caller(server, max_total_tokens=100).ask(
            [Call("completions", {"prompt": f"prompt {n}"}, tokens=30) for n in range(50)], lambda value: None
        )
    assert 3 <= sum(server.asked.values()) <= 50


def test_calls_are_taken_from_an_iterator_a_little_ahead_only() -> None:
    taken = 0

    def endless() -> Iterator[Call]:
        nonlocal taken
        while True:
            taken += 1
            yield score(taken)

    with serving([]) as server:
        for n, _ in enumerate(caller(server, concurrency=2).each(endless(), read)):
            if n == 10:
                break
    assert taken < 30


def test_several_threads_share_one_limit() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with serving([]) as server, ThreadPoolExecutor(4) as pool:
        own = caller(server, concurrency=3)
        found = list(pool.map(lambda i: own.ask(map(score, range(i, i + 30)), read), range(4)))
    assert [len(part) for part in found] == [30] * 4
    assert server.most_in_flight <= 3
    assert set(server.asked.values()) == {1}


def test_a_key_that_the_server_repeats_is_in_no_error() -> None:
    key = "sk-not-the-right-one"
    with serving([]) as server:
        server.key = "sk-right"
        own = Caller(parse(f"{server.base}#{NAME}"), key=key)
        with pytest.raises(EngineError, match=r"HTTP 401.*\*\*\*.*the key was refused") as caught:
            own.ask([score(1)], read)
    assert key not in str(caught.value)
    assert key not in repr(own)
    assert own.hide(f"Bad key: {key[:-3]}") == "Bad key: ***"


def test_what_is_kept_is_json_that_people_can_read(tmp_path: Path) -> None:
    with serving([]) as server:
        caller(server, Kept(tmp_path / "calls")).ask([score(7)], read)
    line = json.loads((tmp_path / "calls").read_text())
    assert line["value"] == logprobs([7, 8, 9])
    assert len(line["key"]) == 64
