"""Every code block of the README and of the documentation is tried.

Python runs, in a folder that holds what the pages speak of. A `gainrag` command goes through the command line's own
parser, a config through the config's own check, a JSON record through the reader of its kind. What cannot be tried
here has a line `<!-- not run: REASON -->` before it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gainrag.cli.main import _check_flags, build_parser
from gainrag.errors import GainragError
from gainrag.ingestion import read_questions, read_retrieved
from gainrag.runs.config import read_config
from gainrag.runs.stages import STAGES

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Pages whose Python needs what is not in this environment, and what runs it.
ELSEWHERE = {"docs/integrations.md": "make test-clients"}
# Commands that are not ours: nothing of them is tried.
OTHERS = frozenset(("cd", "curl", "docker", "export", "git", "hf", "kill", "llama-server", "ollama", "vllm", "source"))
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
# A sign inside a word, as in http://HOST/v1#NAME, begins none.
_COMMENT = re.compile(r"(^|\s)#.*")
# Where one command ends and another begins, or its output goes elsewhere.
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "2>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, its text, and why it is not tried."""

    page: str
    line: int
    language: str
    text: str
    mark: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    for found in _FENCE.finditer(text):
        mark = _MARK.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(name, line, found[1], found[2], mark[1] if mark else None)


BLOCKS = [block for page in PAGES if page.exists() for block in blocks_of(page)]


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without comments, settings of variables, and what stands behind a
    pipe or a redirection."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.match(r"\s*(\w+=\S* )*[a-z][\w./-]*( |$)", line):
            continue
        try:
            words = shlex.split(_COMMENT.sub("", line))
        except ValueError:  # a text with an apostrophe, or a quotation over several lines
            continue
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        command: list[str] = []
        for word in [*words, ";"]:
            if word in _ENDS:
                if command:
                    yield command
                command = []
                if word in {">", ">>", "2>", "<"}:
                    break
            else:
                command.append(word)


def try_gainrag(words: list[str]) -> None:
    parser = the_parser()
    if words in (["--version"], ["--help"]):
        return
    given = vars(parser.parse_args(words))
    command = given.pop("do")
    _check_flags(command, given)


def try_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for option, value in pairwise(words):
        if option in {"-c", "-r"}:
            assert (ROOT / value).is_file(), f"there is no {value}"
    for word in words:
        if extras := re.fullmatch(r"(?:gainrag|\.)\[(.+)\]", word):
            for extra in extras[1].split(","):
                assert extra in project["optional-dependencies"], f"there is no extra {extra}"


def try_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for word in words:
        assert "=" in word or word in targets, f"make has no target {word}"


def try_python(words: list[str]) -> None:
    assert words[0] == "-m" or (ROOT / words[0]).is_file(), f"there is no {words[0]}"


@cache
def the_parser() -> ArgumentParser:
    """The command line's own, made once."""
    return build_parser()


TRIED = {"gainrag": try_gainrag, "pip": try_pip, "make": try_make, "python": try_python}


def is_shell(block: Block) -> bool:
    """Whether a block without a language holds commands; otherwise it is output, or a formula."""
    if block.language:
        return block.language in {"sh", "bash", "console", "shell"}
    return any(words[0] in TRIED for words in commands_of(block.text))


SHELL = [block for block in BLOCKS if block.mark is None and is_shell(block)]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_a_command_of_a_page_is_one_that_the_parser_takes(block: Block) -> None:
    for words in commands_of(block.text):
        name = Path(words[0]).name
        if name in TRIED:
            try:
                TRIED[name](words[1:])
            except GainragError as error:
                pytest.fail(f"{block.where}: {shlex.join(words)}: {error}")
        elif block.language:
            assert name in OTHERS, f"{block.where}: what is {name}? Mark the block, or add it to what is not tried"


def test_the_shell_blocks_hold_the_commands_of_the_program() -> None:
    used = {words[1] for block in SHELL for words in commands_of(block.text) if words[0] == "gainrag" and words[1:]}
    assert {"ingest", "ask", "index", "retrieve", "augment", "synthesize", "train", "select", "answer", "run"} <= used
    assert len(SHELL) > 25


CONFIGS = [block for block in BLOCKS if block.mark is None and block.language == "toml"]
# Completes a part of a config that names no data set: with those that the pages speak of.
DATASETS = "".join(
    f'\n[[dataset]]\nname = "{name}"\ncorpus = "corpus.jsonl"\ntrain = "{name}.jsonl"\ntest = "{name}_test.jsonl"\n'
    for name in ("mine", "hotpotqa", "webquestions")
)


@pytest.mark.parametrize("block", CONFIGS, ids=lambda block: block.where)
def test_a_config_of_a_page_is_one_that_a_run_takes(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block.text + DATASETS * ("dataset" not in tomllib.loads(block.text)), encoding="utf-8")
    read_config(path, STAGES)


RECORDS = [block for block in BLOCKS if block.mark is None and block.language == "json"]


@pytest.mark.parametrize("block", RECORDS, ids=lambda block: block.where)
def test_a_record_of_a_page_is_one_that_is_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    record = json.loads(block.text)
    path.write_text(json.dumps(record), encoding="utf-8")
    read = read_retrieved if "ctxs" in record else read_questions
    assert len(read(path, need_answers=True)) == 1


PYTHON = [
    page
    for page in dict.fromkeys(block.page for block in BLOCKS if block.language == "python" and block.mark is None)
    if page not in ELSEWHERE
]
PASSAGES = [
    {"id": "seine", "title": "Seine", "text": "The Seine is a river that flows through Paris."},
    {"id": "rain", "title": "Weather", "text": "Rain falls on Paris in winter."},
    {"id": "lyon", "title": "Lyon", "text": "Lyon lies where the Rhone and the Saone meet."},
]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm: LocalLM) -> Path:
    """A folder with what the pages' Python opens: an index, a selector, candidates. The model is the embedded one,
    loaded once, and writes four tokens at most."""
    from gainrag.indexing import index

    write = smollm.generate_until
    monkeypatch.setattr(smollm, "generate_until", lambda prompts, tokens, stop: write(prompts, min(tokens, 4), stop))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *_, model, **__: smollm)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PASSAGES), encoding="utf-8")
    index("corpus.jsonl", "idx", retriever="bm25")
    ctxs = [{**p, "score": 3.0 - n} for n, p in enumerate(PASSAGES)]
    asked = {"Which river flows through Paris?": "Seine", "Which rivers meet in Lyon?": "Rhone"}
    with open("candidates.jsonl", "w", encoding="utf-8") as stream:
        for number, (question, answer) in enumerate(asked.items()):
            record = {"id": f"q{number}", "question": question, "answers": [answer], "ctxs": ctxs}
            stream.write(json.dumps(record) + "\n")
    shutil.copytree(ROOT / "src" / "gainrag" / "selectors" / "gain_features", tmp_path / "selector")
    return tmp_path


@pytest.mark.parametrize("page", PYTHON)
def test_the_python_of_a_page_runs(page: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in BLOCKS:
        if block.page == page and block.language == "python" and block.mark is None:
            # Behind so many empty lines an error names the line of the page.
            exec(compile("\n" * block.line + block.text, page, "exec"), names)


def test_what_is_not_tried_is_little_and_says_why() -> None:
    marked = [block for block in BLOCKS if block.mark]
    assert len(marked) <= 6, [block.where for block in marked]
    languages = {block.language for block in BLOCKS}
    assert languages <= {"", "python", "toml", "json", "sh", "bash", "console", "shell"}, languages
    for page in ELSEWHERE:
        assert any(block.page == page for block in BLOCKS)
