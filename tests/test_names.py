"""Names that become paths, and how several become one."""

from __future__ import annotations

import pytest

from gainrag.errors import ConfigError
from gainrag.runs.names import check_name, joined

BAD = ("../../../x", "/tmp/x", "a/b", "a\\b", "a\0b", "a\nb", "a\u2028b", "x" * 300, "北" * 80, ".", "..", "", "-x")


@pytest.mark.parametrize("name", BAD)
def test_what_would_leave_the_run_folder_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a file's") as error:
        check_name(name, "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nq", "2wikimultihopqa", "selector from Gemma's gains", "北京", "a+b", "x" * 100])
def test_names_are_of_any_language(name: str) -> None:
    check_name(name, "here")


def test_several_names_are_one_file_name_that_nothing_else_has() -> None:
    assert joined(["nq", "squad"]) == "nq+squad"
    several = [("a", "b"), ("a+b",), ("a", "b+c"), ("a+b", "c"), ("x" * 100, "y" * 100, "z" * 100), ("a", "b", "c")]
    found = [joined(names) for names in several]
    assert len(set(found)) == len(several)
    for name in found:
        check_name(name, "here")
        assert len(name.encode()) <= 200
