"""Labels made of sampled answers: from a model that only writes to a selector and its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from gainrag.cli import main
from gainrag.errors import ConfigError, DataError, GainragError, StaleError
from gainrag.files.streams import read, read_json, write
from gainrag.gain import gain_from_answers, teacher
from gainrag.lms import open_lm
from gainrag.lms.local import LocalLM
from gainrag.prompts import for_model
from gainrag.records import GainRecord, Retrieved, Scored
from gainrag.report import report
from gainrag.runs.recorded import Taught
from gainrag.runs.tuning import plain_regret
from gainrag.selectors import open_selector
from gainrag.settings import recorded, settings_of
from gainrag.statistics import chance_interval
from gainrag.synthesis import agree, describe, diagnose, gains_at, level_of, losses_at, summarize, synthesize
from gainrag.synthesis.candidates import thin
from gainrag.synthesis.sampled import SAMPLED_CHUNK, choice_said
from gainrag.testing import EchoGenerator, OverlapLM
from gainrag.training import train
from gainrag.training.labels import targets
from tests.faulty_server import NAME, serving
from tests.small_run import CONFIG, run
from tests.test_synthesis import Killed

CHUNK = SAMPLED_CHUNK["cpu"]


class Writer(OverlapLM):
    """Writes and draws, and dies when more than so many prompts would be answered."""

    def __init__(self, lives: int = 10**9) -> None:
        super().__init__()
        self.lives, self.batches = lives, list[int]()

    def sample(
        self, prompts: Sequence[str], max_new_tokens: int, stop: str | None, *, temperature: float, seeds: Sequence[int]
    ) -> list[str]:
        self.batches.append(len(prompts))
        if sum(self.batches) > self.lives:
            raise Killed
        return super().sample(prompts, max_new_tokens, stop, temperature=temperature, seeds=seeds)


def two_names(n: int = 30) -> list[Retrieved]:
    """Questions with passages of which one names the answer alone, one beside others, and one names only others."""
    texts = ("Founder{i} came.", "Founder{i} met Other and Third.", "Other met Third.", "Third came.")
    return [
        Retrieved(
            id=f"q{i}",
            question=f"who founded city number {i}?",
            answers=[f"Founder{i}"],
            ctxs=[
                Scored(
                    id=f"{i}-{j}", text=texts[(i + j) % 4].format(i=i), score=float(4 - j), hasanswer=(i + j) % 4 < 2
                )
                for j in range(4)
            ],
        )
        for i in range(n)
    ]


# --- the labels ------------------------------------------------------------------------------------------------------


def test_a_label_is_the_share_of_right_answers(candidates: list[Retrieved]) -> None:
    for record in synthesize(candidates, OverlapLM(), labels="sampled", n=5):
        assert record.level == "sampled"
        assert [ctx.right for ctx in record.ctxs] == [0.0, 0.0, 5.0]
        assert [ctx.gain for ctx in record.ctxs] == pytest.approx(
            [np.log(1 / 12), np.log(1 / 12), np.log(11 / 12)], abs=1e-6
        )
        assert record.ctxs[2].interval == pytest.approx(chance_interval(5, 5), abs=1e-6)
        assert record.ctxs[2].said == [record.answers[0]] * 5
        assert (record.silver, record.kept, record.prediction) == (2, True, record.answers[0])
        assert not record.ctxs[0].loss
        assert record.said_without is None


def test_one_answer_is_the_greedy_one_and_any_model_will_do(candidates: list[Retrieved]) -> None:
    lm = EchoGenerator()
    records = synthesize(candidates[:2], lm, labels="sampled", n=1)
    assert len(lm.prompts) == 6
    assert {len(ctx.said or ()) for record in records for ctx in record.ctxs} == {1}
    with pytest.raises(ConfigError, match=r"not a SamplingGenerator.*n = 1"):
        synthesize(candidates, lm, labels="sampled", n=2)
    with pytest.raises(ConfigError, match=r"not a ScorerGenerator.*--labels sampled"):
        synthesize(candidates, lm)


def test_the_teacher_is_in_proportion_to_the_chance_of_a_right_answer() -> None:
    utilities = [(c + 0.5) / 6 for c in (0, 2, 5)]
    shares = teacher([gain_from_answers(c, 5) for c in (0, 2, 5)])
    assert shares == pytest.approx([u / sum(utilities) for u in utilities])


def test_an_answer_depends_on_seed_question_passage_and_number_alone() -> None:
    records = two_names(6)
    there = synthesize(records, OverlapLM(), labels="sampled", n=4)
    back = synthesize([replace(r, ctxs=r.ctxs[::-1]) for r in records[::-1]], OverlapLM(), labels="sampled", n=4)[::-1]
    assert [[c.said for c in r.ctxs] for r in there] == [[c.said for c in r.ctxs][::-1] for r in back]
    more = synthesize(records, OverlapLM(), labels="sampled", n=6)
    assert [[c.said for c in r.ctxs] for r in there] == [[(c.said or [])[:4] for c in r.ctxs] for r in more]
    other = synthesize(records, OverlapLM(), labels="sampled", n=4, seed=1)
    assert [[c.said for c in r.ctxs] for r in there] != [[c.said for c in r.ctxs] for r in other]


def test_right_may_be_right_in_part() -> None:
    record = Retrieved(id="1", question="who?", answers=["Jane Austen"], ctxs=[Scored(id="a", text="Austen wrote it.")])
    found = [synthesize([record], OverlapLM(), labels="sampled", n=2, right=r)[0] for r in ("contains", "f1")]
    assert [r.ctxs[0].right for r in found] == pytest.approx([0.0, 2 * 2 / 3], abs=1e-6)


def test_long_answers_count_by_their_f1_and_are_kept_by_what_a_passage_adds() -> None:
    answer = "Austen wrote the novel that everybody in the whole country wanted to read"
    texts = ("Austen wrote it.", "Rain falls.")
    ctxs = [Scored(id=str(i), text=text) for i, text in enumerate(texts)]
    record = synthesize(
        [Retrieved(id="1", question="who?", answers=[answer], ctxs=ctxs)], OverlapLM(), labels="sampled"
    )[0]
    assert 0 < (record.ctxs[0].right or 0.0) < 3
    assert record.ctxs[1].right == record.right_without == 0.0
    assert len(record.said_without or ()) == 3
    assert record.kept


def test_choices_are_shown_and_the_one_said_first_counts() -> None:
    ctxs = [Scored(id="1", text="Seine flows there."), Scored(id="2", text="Thames flows there.")]
    record = Retrieved(id="1", question="which river?", answers=["Seine"], choices=["Thames", "Seine"], ctxs=ctxs)

    class Reader(EchoGenerator):
        def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
            self.prompts += prompts
            return ["Seine, not Thames" if "Seine flows" in prompt else "the Thames." for prompt in prompts]

    reader = Reader()
    made = synthesize([record], reader, labels="sampled", n=1)[0]
    assert all("Thames or Seine" in prompt for prompt in reader.prompts)
    assert [ctx.right for ctx in made.ctxs] == [1.0, 0.0]
    assert (made.prediction, made.right_without, made.kept) == ("Seine", 0.0, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [("A.", "A"), ("It is b", None), ("no way, yes", "no"), ("north by northwest", "north by northwest"), ("", None)],
)
def test_what_choice_a_text_says(text: str, said: str | None) -> None:
    choices = ["A", "B c"] if len(text) < 8 else ["yes", "no", "north", "north by northwest"]
    assert choice_said(text, choices) == said


# --- what it costs, and what a stop costs ----------------------------------------------------------------------------


def test_the_number_of_requests_is_said_before_the_first(
    candidates: list[Retrieved], capsys: pytest.CaptureFixture[str]
) -> None:
    lm = Writer(lives=0)
    with pytest.raises(Killed):
        synthesize(candidates, lm, labels="sampled", n=3)
    assert (
        "sampled labels: 360 requests, 3 answers at temperature 1 for each of up to 3 candidates"
        in capsys.readouterr().err
    )
    synthesize(candidates, thinned := OverlapLM(), labels="sampled", n=3, keep="gain", at_most=2)
    assert "360 requests" in capsys.readouterr().err
    assert len(thinned.prompts) == 360  # two candidates and none


@pytest.mark.parametrize("lives", [0, 12 * CHUNK, 12 * CHUNK + 5])
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, lives: int) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    synthesize(two_names(10), Writer(), whole, labels="sampled", n=3)
    with pytest.raises(Killed):
        synthesize(two_names(10), Writer(lives), broken, labels="sampled", n=3)
    again = Writer()
    synthesize(two_names(10), again, broken, labels="sampled", n=3)
    assert sum(again.batches) == 12 * (10 - lives // (12 * CHUNK) * CHUNK)
    assert broken.read_bytes() == whole.read_bytes()
    assert [r.level for r in read(broken, GainRecord)] == ["sampled"] * 10


@pytest.mark.parametrize(
    "changed", [{"n": 4}, {"seed": 1}, {"right": "f1"}, {"sampling_temperature": 0.5}, {"at_most": 2}]
)
def test_a_run_begun_with_other_settings_is_not_continued(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        synthesize(two_names(8), Writer(12 * CHUNK), tmp_path / "g.jsonl", labels="sampled", n=3)
    with pytest.raises(StaleError, match=next(iter(changed))):
        synthesize(two_names(8), Writer(), tmp_path / "g.jsonl", **{"labels": "sampled", "n": 3, **changed})


def test_settings_of_other_labels_are_refused(candidates: list[Retrieved]) -> None:
    with pytest.raises(ConfigError, match="n is of sampled labels"):
        synthesize(candidates, OverlapLM(), n=5)
    with pytest.raises(ConfigError, match="no alpha"):
        synthesize(candidates, OverlapLM(), labels="sampled", alpha=[0.0, 0.5])


def test_labels_made_before_there_were_samples_stay_current() -> None:
    assert set(recorded(synthesize, {})) == {"alpha", "prompt", "keep", "max_new_tokens"}
    assert recorded(synthesize, {"labels": "sampled", "n": 3})["labels"] == "sampled"
    assert settings_of(synthesize, {})["n"] == 3


# --- thinning --------------------------------------------------------------------------------------------------------


def test_thinning_keeps_the_pseudo_passage_and_the_order_and_records_the_rest() -> None:
    record = two_names(1)[0]
    record.ctxs.append(Scored(id="own", text="rain falls.", origin="generated"))
    found, others = thin([record], 3)
    kept = [ctx.id for ctx in found[0].ctxs]
    assert kept[-1] == "own"
    assert kept == [ctx.id for ctx in record.ctxs if ctx.id in kept]
    assert len(kept) == 3
    assert sorted([*kept, *others[0]]) == sorted(ctx.id for ctx in record.ctxs)
    for labels in ("losses", "sampled"):
        made = synthesize([record], OverlapLM(), labels=labels, at_most=3)[0]
        assert ([ctx.id for ctx in made.ctxs], made.thinned) == (kept, others[0])
    assert synthesize([record], OverlapLM(), at_most=5)[0].thinned is None


# --- what needs losses -----------------------------------------------------------------------------------------------


@pytest.fixture
def sampled(candidates: list[Retrieved]) -> list[GainRecord]:
    return synthesize(candidates, OverlapLM(), labels="sampled", n=3)


def test_what_needs_losses_is_refused_in_one_line(sampled: list[GainRecord], tmp_path: Path) -> None:
    assert gains_at(sampled[0], None) == [ctx.gain for ctx in sampled[0].ctxs]
    for ask in (
        lambda: losses_at(sampled[0], 0.0),
        lambda: gains_at(sampled[0], 0.5),
        lambda: targets(sampled[0], "likelihood"),
        lambda: targets(sampled[0], "choice"),
        lambda: train(sampled, tmp_path / "s", kind="features", alpha=0.0),
        lambda: train(sampled, tmp_path / "s", kind="features", labels="information_gain"),
        lambda: diagnose(sampled, OverlapLM()),
    ):
        with pytest.raises(GainragError, match="sampled"):
            ask()


def test_levels_are_never_mixed(sampled: list[GainRecord], candidates: list[Retrieved], tmp_path: Path) -> None:
    exact = synthesize(candidates, OverlapLM())
    mixed = [*sampled[:30], *exact[30:]]
    for ask in (
        lambda: level_of(mixed, "here"),
        lambda: summarize(mixed),
        lambda: train(mixed, tmp_path / "s", kind="features"),
    ):
        with pytest.raises(DataError, match=r"labels of several levels \(30 sampled, 10 exact\)"):
            ask()
    assert "labels: exact" in describe(summarize(exact))
    said = describe(summarize(sampled))
    assert "labels: sampled, 3 answers a passage, 33.3% of them right; in 100.0% of the questions" in said


@pytest.mark.parametrize(("field", "value"), [("right", None), ("right", 9.0), ("said", ["a"]), ("loss", {"0.0": 1.0})])
def test_a_sampled_record_that_is_none_is_refused(
    sampled: list[GainRecord], tmp_path: Path, field: str, value: object
) -> None:
    broken = replace(sampled[0], ctxs=[*sampled[0].ctxs[:2], replace(sampled[0].ctxs[2], **{field: value})])
    write(tmp_path / "g.jsonl", [broken])
    with pytest.raises(DataError, match=rf"ctxs\[2\]\.{field}"):
        list(read(tmp_path / "g.jsonl", GainRecord))


# --- what is learned -------------------------------------------------------------------------------------------------


def test_a_selector_learns_from_sampled_labels(tmp_path: Path) -> None:
    labelled = synthesize(two_names(60), OverlapLM(), labels="sampled", n=5)
    folder = tmp_path / "selector"
    selector = train(labelled, folder, kind="features", only_kept=False, keep_worse=True, start="scratch")
    assert plain_regret(open_selector(folder), labelled) < 1.0
    assert "| level of the labels | sampled, 5 answers a passage |" in (folder / "README.md").read_text()
    assert Taught(alpha=0.5, temperature=1.0).true_gains(labelled[0]) == [ctx.gain for ctx in labelled[0].ctxs]
    assert len(selector.score(labelled[0].question, labelled[0].ctxs)) == 4


def test_questions_whose_passages_are_labelled_alike_change_nothing(tmp_path: Path) -> None:
    labelled = synthesize(two_names(60), OverlapLM(), labels="sampled", n=5)
    flat = [replace(r, id=f"flat-{r.id}", ctxs=[replace(c, gain=-1.0) for c in r.ctxs]) for r in labelled]
    for name, records in {"without": labelled, "with": [*labelled, *flat]}.items():
        train(records, tmp_path / name, kind="features", only_kept=False, keep_worse=True, start="scratch")
    assert open_selector(tmp_path / "with").score("?", flat[0].ctxs).tolist() == (
        open_selector(tmp_path / "without").score("?", flat[0].ctxs).tolist()
    )


def test_cross_encoders_learn_from_them(tmp_path: Path, tiny: str) -> None:
    labelled = synthesize(two_names(12), OverlapLM(), labels="sampled", n=3)
    train(labelled, tmp_path / "selector", kind="cross-encoder", base=tiny, epochs=1, only_kept=False)
    assert len(open_selector(tmp_path / "selector").score("?", labelled[0].ctxs)) == 4


# --- two models ------------------------------------------------------------------------------------------------------


def test_how_far_two_models_agree(candidates: list[Retrieved]) -> None:
    exact = synthesize(candidates, OverlapLM(), alpha=0.0)
    sampled = synthesize(candidates[:20], OverlapLM(), labels="sampled", n=3)
    found = agree(exact, sampled)
    assert (found["questions"], found["levels"]) == (20, ["exact", "sampled"])
    assert found["same_silver"]["k"] == 20
    assert found["rank_correlation"]["mean"] == pytest.approx(1.0)
    assert found["regret"]["mean"] == 0.0 < found["regret"]["chance"]
    turned = [replace(r, ctxs=[replace(c, gain=-c.gain) for c in r.ctxs]) for r in sampled]
    assert agree(exact, turned)["rank_correlation"]["mean"] == pytest.approx(-1.0)
    with pytest.raises(DataError, match="no question is labelled by both"):
        agree(exact[:5], sampled[10:])


def test_a_run_with_sampled_labels_of_a_proxy_and_its_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.replace("diagnose = 0", 'proxy = "other"\nproxy_questions = 3')
    config = config.replace('kind = "cross-encoder"\nepochs = 1\n', 'kind = "features"\n')
    (folder / "config.toml").write_text(config + '\n[synthesize]\nlabels = "sampled"\nn = 2\nat_most = 3\n')
    run(folder)
    said = capsys.readouterr().err
    assert "sampled labels: 24 requests" in said  # four questions, three candidates
    assert "sampled labels: 20 requests" in said  # two test questions, all of their candidates
    assert "no alphas are compared" in said
    assert "the proxy's labels against the reader's own, 3 questions" in said
    out = folder / "out"
    assert read_json(out / "gains" / "train.meta.json")["settings"]["llm"]["model"] == "other"
    assert read_json(out / "gains" / "reader.meta.json")["settings"]["llm"]["model"] != "other"
    assert all(len(r.thinned or ()) == 2 for r in read(out / "gains" / "train.jsonl", GainRecord))
    assert "labelled by | other" in (out / "selector" / "README.md").read_text()

    report(out)
    text = (out / "report.md").read_text()
    assert "Does the proxy agree?" in text
    assert "the logarithm of the share of right answers" in text
    data = read_json(out / "report.json")
    assert data["levels"] == {"labels": "sampled", "gains": "sampled"}
    assert data["agreement"]["same_silver"]["n"] == 3

    run(folder)
    assert "started" not in capsys.readouterr().err


def test_a_config_that_wants_losses_of_sampled_labels_stops_at_once(folder: Path) -> None:
    for more in ("[train]\nalpha = 0.0\n", '[[variant]]\nname = "v"\nlabels = "likelihood"\n'):
        table = '\n[synthesize]\nlabels = "sampled"\n'
        config = CONFIG.replace("[train]\n", more) if more.startswith("[train]") else CONFIG + more
        (folder / "config.toml").write_text(config + table)
        with pytest.raises(ConfigError, match="sampled labels, which have no losses"):
            run(folder)


def test_the_command_line(
    folder: Path, candidates: list[Retrieved], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    write("c.jsonl", candidates)
    argv = [
        "synthesize",
        "c.jsonl",
        "--llm",
        "overlap",
        "--labels",
        "sampled",
        "-n",
        "2",
        "--at-most",
        "2",
        "-o",
        "g.jsonl",
    ]
    assert main([*argv, "--diagnose", "5"]) == 2
    assert "sampled labels have none" in capsys.readouterr().err
    assert main(argv) == 0
    assert "sampled labels: 160 requests" in capsys.readouterr().err
    made = json.loads(Path("g.jsonl").read_text().splitlines()[0])
    assert (made["level"], len(made["thinned"]), len(made["ctxs"][0]["said"])) == ("sampled", 1, 2)


# --- an endpoint -----------------------------------------------------------------------------------------------------


def test_an_endpoint_draws_by_seeds_says_what_it_costs_and_is_asked_for_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(faults=()) as server:
        asked: dict[str, Any] = {"model": f"{server.base}#{NAME}", "calls": tmp_path / "calls.jsonl"}
        records = synthesize(two_names(2), open_lm(**asked), labels="sampled", n=2)
        assert "sampled labels: 16 requests to" in capsys.readouterr().err
        assert {(body["temperature"], body["max_tokens"]) for body in server.seen} == {(1.0, 16)}
        assert len({body["seed"] for body in server.seen}) == 16 == len(server.seen)
        assert all((ctx.right, len(ctx.said or ())) == (0.0, 2) for record in records for ctx in record.ctxs)
        more = synthesize(two_names(2), open_lm(**asked), labels="sampled", n=3)
        assert "sampled labels: 8 requests to" in capsys.readouterr().err
        assert len(server.seen) == 24
        assert [[(c.said or [])[:2] for c in r.ctxs] for r in more] == [[c.said for c in r.ctxs] for r in records]
        with pytest.raises(ConfigError, match="max_requests is 5"):
            synthesize(two_names(2), open_lm(**asked, max_requests=5), labels="sampled", n=4)
        assert len(server.seen) == 24


# --- a real model ----------------------------------------------------------------------------------------------------


def test_a_real_model_draws_the_same_alone_and_in_a_batch(smollm: LocalLM) -> None:
    prompts = for_model("completion", smollm)
    texts = ["Name a colour.", "Name any animal that lives in a forest or in a river.", "Name a town."]
    rendered = [prompts.without(text) for text in texts for _ in range(3)]
    seeds = list(range(len(rendered)))
    together = smollm.sample(rendered, 6, None, temperature=1.0, seeds=seeds)
    alone = [smollm.sample([p], 6, None, temperature=1.0, seeds=[s])[0] for p, s in zip(rendered, seeds, strict=True)]
    assert together == alone
    assert len(set(together)) > 3
    assert smollm.sample(rendered[:1], 6, None, temperature=0.001, seeds=[5]) == smollm.generate(rendered[:1], 6)
