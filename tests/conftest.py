from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gainrag.records import Retrieved, Scored

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew")


@pytest.fixture(scope="session")
def smollm() -> LocalLM:
    """The embedded language model in float32, loaded once."""
    from gainrag.lms import open_lm

    return open_lm(model="embedded:smollm2-135m-instruct", dtype="float32")


@pytest.fixture
def candidates() -> list[Retrieved]:
    """Twenty questions with three passages each, of which the last names the answer."""
    return [
        Retrieved(
            id=f"q{i}",
            question=f"Who founded city number {i}?",
            answers=[f"Founder{i}", f"Mister Founder{i}"],
            ctxs=[
                Scored(id=f"p{i}a", text=f"Rain falls on city {i} in winter.", score=3.0, hasanswer=False),
                Scored(id=f"p{i}b", text="Somebodyelse founded another city.", score=2.0, hasanswer=False),
                Scored(id=f"p{i}c", text=f"Founder{i} laid its first stone.", score=1.0, hasanswer=True),
            ],
        )
        for i in range(20)
    ]
