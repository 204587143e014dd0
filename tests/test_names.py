"""Names that become paths, and how several become one."""

from __future__ import annotations

import pytest

from gainrag.errors import ConfigError
from gainrag.runs.names import by_seed, check_name, check_systems, file_name, joined, seeded, unseeded

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


def test_a_further_seed_is_known_by_its_name_and_no_system_may_have_it() -> None:
    for name in ("GainRAG", "from v1.seeds", "a.seed0"):
        assert [unseeded(seeded(name, n)) for n in (0, 1, 12)] == [(name, 0), (name, 1), (name, 12)]
        assert file_name(seeded(name, 2)) == seeded(file_name(name), 2)
    firsts, further = by_seed({"a.seed10": "c", "a": "a", "a.seed1": "b", "other": "d", "lone.seed1": "e"})
    assert firsts == {"a": "a", "other": "d", "lone.seed1": "e"}
    assert further == {"a": ["b", "c"]}
    check_systems(["from v1.seeds"])
    with pytest.raises(ConfigError, match="further seed"):
        check_systems(["GainRAG.seed1"])
