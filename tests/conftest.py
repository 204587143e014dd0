from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM
    from gainrag.records import Retrieved
    from tests.small_run import Model


_frozen = [0]  # how many modules there were


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew-golden", action="store_true", help="write the golden files anew")


@pytest.fixture(scope="session", autouse=True)
def _short_measurements() -> Iterator[None]:
    """A run measures its model for seconds before it starts: here for a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gainrag.runs.rates._SECONDS", 0.1)
        yield


@pytest.fixture(autouse=True)
def _imported_objects_are_not_collected() -> None:
    """What torch and transformers bring is half a million objects that stay: a collection looks at all of them, which
    takes 0.3 s, and a training asks for several. So they are left out of it, whenever more was imported."""
    if len(sys.modules) > _frozen[0] + 50:
        gc.collect()
        gc.freeze()
        _frozen[0] = len(sys.modules)


@pytest.fixture(scope="session")
def harbours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run made of records, with its report: to be read, and copied by who changes it."""
    from gainrag.report import report
    from tests.recorded_run import make_run

    folder = make_run(tmp_path_factory.mktemp("runs") / "harbours")
    report(folder)
    return folder


@pytest.fixture(scope="session")
def smollm() -> LocalLM:
    """The embedded language model in float32, loaded once."""
    from gainrag.lms.local import LocalLM

    return LocalLM("embedded:smollm2-135m-instruct", dtype="float32")


@pytest.fixture(scope="session")
def llama_server() -> Iterator[str]:
    """The base URL of llama.cpp's server, started once; its model is called smollm2. Keep what it writes short."""
    from tests.llama_server import running

    with running() as base:
        yield base


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained cross-encoder, short in its context and with a head that tells passages apart."""
    import torch

    from gainrag.training.base import open_cross_encoder

    model = open_cross_encoder("embedded:all-minilm-l6-v2", device="cpu", max_length=96, seed=0)
    torch.manual_seed(0)
    model.model.classifier.weight.data.normal_(0, 0.5)
    folder = tmp_path_factory.mktemp("selectors") / "cross_encoder"
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a cross-encoder of a few thousand weights, to start trainings from that take a second."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.?")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2, "initializer_range": 0.5}  # weights large enough for scores that differ
    BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **size)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def lm() -> Model:
    """The language model of `folder`'s run."""
    from tests.small_run import Model

    return Model()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lm: Model, tiny: str) -> Path:
    """What a small run needs: data and config (tests/small_run.py), the base of its selectors, found from here as
    `tiny`, and a language model in place of a real one."""
    from tests.small_run import write_data

    (tmp_path / "tiny").symlink_to(tiny)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="overlap", dtype="float32", device="cpu": lm)
    write_data(tmp_path)
    return tmp_path


@pytest.fixture
def candidates() -> list[Retrieved]:
    """Forty questions with three passages each, of which the last names the answer."""
    from tests.small_run import cities

    return cities()
