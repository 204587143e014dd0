"""What is installed, and with what: extras, oldest versions, the lock, shell completion, the version named in files."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import gainrag
from gainrag import cli
from gainrag.errors import ConfigError, require

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Environments of their own: their versions go with nothing else.
APART = {"haystack", "langchain", "llama-index", "openvino", "ray", "rerankers"}


def plain(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {plain(n): v for n, v in (line.split("==") for line in lines if line and not line.startswith("#"))}


def floors(*groups: list[str]) -> dict[str, str]:
    """The least version of each requirement that is not an extra of our own."""
    wanted = [requirement for group in groups for requirement in group if "gainrag[" not in requirement]
    found = [re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)$", requirement) for requirement in wanted]
    return {plain(m[1]): m[2] for m in found if m}


def test_a_missing_library_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require("report", "jinja2")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"^jinja2 is not installed. Hint: pip install 'gainrag\[report\]'$"):
        require("report", "jinja2")


def test_every_extra_that_the_source_names_is_there_and_brings_what_is_required() -> None:
    named, made_by = set(), packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        for extra, modules in re.findall(r'require\("([\w-]+)", ([^)]+)\)', path.read_text(encoding="utf-8")):
            named.add(extra)
            brought = set(floors(EXTRAS[extra]))
            for module in re.findall(r'"([\w.]+)"', modules):
                assert brought & {plain(name) for name in made_by[module]}, f"[{extra}] does not bring {module}"
    assert named == {"completion", "ingest", "remote", "report", "train"}


def test_all_is_every_extra_that_goes_with_the_rest() -> None:
    assert EXTRAS["all"] == [f"gainrag[{','.join(sorted(set(EXTRAS) - APART - {'all', 'dev'}))}]"]


def test_the_oldest_versions_are_those_of_the_project() -> None:
    wanted = floors(PROJECT["dependencies"], *(EXTRAS[e] for e in set(EXTRAS) - APART - {"all", "dev"}))
    oldest = pins("constraints-oldest.txt")
    assert oldest.pop("torch") == pins("constraints.txt")["torch"]
    del wanted["torch"]
    for name, version in wanted.items():
        assert re.sub(r"(\.0)+$", "", oldest[name]) == re.sub(r"(\.0)+$", "", version), name


def test_the_lock_holds_every_dependency_of_a_developer() -> None:
    wanted = floors(PROJECT["dependencies"], *(EXTRAS[e] for e in set(EXTRAS) - APART))
    assert set(wanted) <= set(pins("constraints.txt"))


def test_the_version_is_the_same_everywhere() -> None:
    assert f"version: {gainrag.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {gainrag.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_flags_and_choices(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--completion", shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    for word in ("synthesize", "--selector" if shell != "tcsh" else "selector", "cross-encoder"):
        assert word in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_importing_takes_less_than_a_tenth_of_a_second() -> None:
    # Its own computing time, the least of three: others may be busy on the machine.
    code = "import time; t = time.process_time(); import gainrag; print(time.process_time() - t)"
    taken = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in "abc"]
    assert min(taken) < 0.1


def test_the_license_is_in_what_is_installed() -> None:
    assert distribution("gainrag").metadata["License-Expression"] == PROJECT["license"]
