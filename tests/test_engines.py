"""Losses from engines behind HTTP: what they tell, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gainrag.cli import main
from gainrag.errors import ConfigError, ModelError
from gainrag.lms import examine, open_lm
from gainrag.lms.remote.scorer import RemoteScorer
from gainrag.protocols import ScoringRequest, bounds_with
from tests import stub_engine
from tests.stub_engine import NAME, StubEngine, exact_losses, running

REQUEST = ScoringRequest(
    with_prompts=["It goes one, two, three,", "The weather is fine.", "one, two, three, four, five, six,"],
    without_prompt="How does it go?",
    answers=[" four", " fog", " four, five"],
)


@pytest.fixture(params=["vllm", "sglang"])
def server(request: pytest.FixtureRequest) -> Iterator[StubEngine]:
    with running(request.param) as found:
        yield found


def opened(server: StubEngine, **settings: object) -> RemoteScorer:
    lm = open_lm(model=f"{server.base}#{NAME}", retries=0, **settings)  # type: ignore[arg-type]
    assert isinstance(lm, RemoteScorer)
    return lm


# --- what they tell ------------------------------------------------------------------------------------------------


def test_losses_at_alpha_0_are_exact(server: StubEngine) -> None:
    lm = opened(server)
    assert lm.level == "bounded"
    np.testing.assert_allclose(lm.losses([REQUEST], [0.0])[0], exact_losses(REQUEST, [0.0]), atol=1e-9)


def test_above_it_the_true_loss_lies_between_the_bounds(server: StubEngine) -> None:
    alphas, floor = [0.0, 0.5, 1.0], 1e-5
    lm = opened(server, floor=floor, top_logprobs=10)
    low, high = np.moveaxis(bounds_with(lm, [REQUEST], alphas)[0], -1, 0)
    true = exact_losses(REQUEST, alphas, floor)
    assert (low <= true + 1e-9).all()
    assert (true <= high + 1e-9).all()
    assert np.isfinite(high).all()
    assert (low[..., 0] == high[..., 0]).all()


def test_without_a_floor_only_the_lower_bound_is_finite(server: StubEngine) -> None:
    low, high = np.moveaxis(opened(server).loss_bounds([REQUEST], [0.5])[0], -1, 0)
    assert (low <= exact_losses(REQUEST, [0.5]) + 1e-9).all()
    assert np.isinf(high).all()


def test_an_answer_is_asked_for_once_and_prompts_go_as_ids(server: StubEngine) -> None:
    def scored() -> list[list[int]]:
        return [body.get("input_ids") or body["prompt"] for _, body in server.seen if "logprob" in str(body)]

    lm = opened(server)
    first, asked = lm.losses([REQUEST], [0.0, 0.5]), scored()
    np.testing.assert_array_equal(lm.losses([REQUEST], [0.0, 0.5])[0], first[0])
    assert scored() == asked
    prompt = stub_engine.ids_of(REQUEST.with_prompts[0], special=True)
    assert [*prompt, *stub_engine.ids_of(" four", special=False)] in asked


def test_what_losses_will_cost_is_said_before(server: StubEngine, capsys: pytest.CaptureFixture[str]) -> None:
    opened(server).announce_losses("labels", [REQUEST], [0.0, 0.5])
    assert "labels: about 12 requests" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="nothing was asked"):
        opened(server, max_requests=11).announce_losses("labels", [REQUEST], [0.0, 0.5])


def test_a_chat_prompt_goes_through_the_engines_template(server: StubEngine) -> None:
    lm = opened(server)
    message = lm.render_chat("It goes one, two, three,")
    chat = ScoringRequest([message], lm.render_chat("How does it go?"), ["four"])
    plain = ScoringRequest([stub_engine.CHAT.format(message)], "?", ["four"])
    # The stub's template writes no first token of its own.
    assert lm.losses([chat], [0.0])[0] == pytest.approx(exact_losses(plain, [0.0]), abs=1e-9)


def test_a_context_has_an_end(server: StubEngine) -> None:
    lm = opened(server)
    assert 0 < lm.context < stub_engine.CONTEXT
    assert lm.count_tokens("abc") == 4
    assert lm.truncate("one two", 3) == "one"


def test_an_echo_endpoint_tells_the_answer_alone() -> None:
    with running("echo") as server:
        lm = opened(server, engine="echo")
        assert lm.level == "gold"
        np.testing.assert_allclose(lm.losses([REQUEST], [0.0])[0], exact_losses(REQUEST, [0.0]), atol=1e-9)
        with pytest.raises(ConfigError, match="use --alpha 0"):
            lm.losses([REQUEST], [0.5])
        with pytest.raises(ConfigError, match="tokenizer"):
            lm.losses([ScoringRequest([lm.render_chat("Who?")], lm.render_chat("Who?"), ["Ann"])], [0.0])


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "fault", "said"),
    [
        ("vllm", "one too few", "log-probabilities for"),
        ("vllm", "null", "log-probability"),
        ("sglang", "one too few", "log-probabilities for"),
        ("sglang", "null", "log-probability"),
        ("echo", "ignores echo", "ignores echo"),
        ("echo", "merges", "name the model's tokenizer"),
    ],
)
def test_an_engine_that_does_not_do_what_it_is_asked(engine: str, fault: str, said: str) -> None:
    with running(engine, fault) as server:
        lm = opened(server, engine=engine)
        with pytest.raises(ModelError, match=said):
            lm.losses([REQUEST], [0.0])


def test_an_engine_that_does_not_read_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_engine, "KNOWN", b"????")
    stub_engine.distribution.cache_clear()
    with running("vllm") as server, pytest.raises(ModelError, match="no likelier than"):
        opened(server).losses([REQUEST], [0.0])
    stub_engine.distribution.cache_clear()


def test_more_alternatives_than_the_server_allows() -> None:
    with running("vllm") as server, pytest.raises(ModelError, match="greater than max allowed: 20"):
        opened(server, top_logprobs=100).losses([REQUEST], [0.5])


def test_another_engine_than_the_one_that_is_named() -> None:
    with running("vllm") as server, pytest.raises(ModelError, match=r"no endpoints of llama\.cpp"):
        opened(server, engine="llama.cpp")


def test_settings_of_bounds_are_not_for_exact_engines() -> None:
    with running("echo") as server, pytest.raises(ConfigError, match="floor"):
        opened(server, engine="echo", floor=1e-4)
    with pytest.raises(ConfigError, match="of endpoints"):
        open_lm(floor=1e-4)


# --- what an endpoint can do ---------------------------------------------------------------------------------------


def test_engines_says_what_an_endpoint_can_do(server: StubEngine) -> None:
    lines = list(examine(server.base))  # the only model needs no name
    assert NAME in lines[0]
    assert server.engine in lines[0]
    assert "4,096 tokens" in lines[1]
    assert "bounded" in lines[2]
    assert "scored at alpha 0 in" in lines[3]


def test_where_nothing_answers_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "http://127.0.0.1:9/v1#m"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1


def test_engines_finds_out_whether_an_unknown_one_echoes() -> None:
    with running("echo") as server:
        assert "gold" in "".join(examine(server.base)) or "alpha 0" in "".join(examine(server.base))
    with running("echo", "ignores echo") as server:
        assert "--labels sampled" in "".join(examine(server.base))
