"""Questions with choices, from labels to the table: claims, yes/no, multiple choice."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gainrag.answering import Threshold, answer, calibrate, calibrate_on, decide
from gainrag.cli.main import main
from gainrag.errors import ConfigError, DataError
from gainrag.evaluation import evaluate
from gainrag.files.streams import read, write
from gainrag.gain import CHOICE_TEMPERATURE, choice_gain
from gainrag.prompts import for_model
from gainrag.protocols import FloatArray, ScoringRequest
from gainrag.records import Answer, GainRecord, Passage, Retrieved, Scored, check, encode, from_builtins, to_builtins
from gainrag.runs import stages
from gainrag.runs.config import read_config
from gainrag.runs.names import file_name, seeded
from gainrag.runs.printing import text_table
from gainrag.runs.tuning import plain_regret
from gainrag.selection import cut, select
from gainrag.synthesis import choice_gain_without, choice_gains_at, diagnose, gains_at, summarize, synthesize
from gainrag.testing import EchoGenerator, OverlapLM, OverlapSelector
from gainrag.training.labels import targets


class SaysNo(OverlapLM):
    """To every claim the loss of No is the lower one, and yet less so where a passage confirms the claim."""

    name, dtype, device = "says no", "float32", "cpu"

    def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
        """No costs 1; Yes costs 3, or 2 where the prompt says "indeed"."""
        found = []
        for request in requests:
            rows = [
                [{"yes": 2.0 if "indeed" in prompt else 3.0, "no": 1.0}[a.strip().lower()] for a in request.answers]
                for prompt in request.with_prompts
            ]
            found.append(np.repeat(np.array(rows)[:, :, None], len(alphas), axis=2))
        return found

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Never to be asked: a choice is scored."""
        raise AssertionError(prompts)


def claims(n: int = 8) -> list[Retrieved]:
    """Every second one is true, and its second passage says so."""
    return [
        Retrieved(
            id=f"c{i}",
            question=f"Is this claim true? Stone {i} is a gem.",
            answers=["No" if i % 2 else "Yes"],
            choices=["Yes", "No"],
            extra={"dataset": "stones"},
            ctxs=[
                Scored(id=f"c{i}-a", text=f"Stone {i} lies here.", score=2.0, gold=False),
                Scored(id=f"c{i}-b", text=f"Stone {i} is {'no' if i % 2 else 'indeed a'} gem.", score=1.0, gold=True),
            ],
        )
        for i in range(n)
    ]


RIVERS = ["the Seine", "the Spree", "the long river Thames", "none of them"]


def rivers() -> Retrieved:
    return Retrieved(
        id="r",
        question="Which river flows through Paris?",
        answers=["the Seine"],
        choices=list(RIVERS),
        ctxs=[
            Scored(id="1", text="The Spree and the Thames are rivers."),
            Scored(id="2", text="The Seine is the one in Paris."),
            Scored(id="3", text="It rains."),
        ],
    )


def test_normalised_shares_are_of_all_choices_and_sum_to_one() -> None:
    record = synthesize([rivers()], OverlapLM(), alpha=[0.5, 0.0])[0]
    for ctx in record.ctxs:
        assert ctx.choice_losses is not None
        for losses in ctx.choice_losses.values():
            shares = np.exp([choice_gain(losses, right, 0.25) for right in range(4)])
            assert shares.sum() == pytest.approx(1.0)
    own = [ctx.choice_losses["0.0"] for ctx in record.ctxs if ctx.choice_losses]
    by_hand = [-x[0] - np.log(np.exp(-np.array(x)).sum()) for x in own]
    assert choice_gains_at(record, 0.0) == pytest.approx(by_hand)
    assert targets(record, "choice", 0.0) == pytest.approx(choice_gains_at(record, 0.0, CHOICE_TEMPERATURE))
    assert targets(record, "gain", 0.0) == gains_at(record, 0.0)


def test_the_loss_of_an_answer_is_that_of_the_right_choice_and_plain_losses_are_always_there() -> None:
    record = synthesize([rivers()], OverlapLM(), alpha=0.5)[0]
    for ctx in record.ctxs:
        assert ctx.choice_losses is not None
        assert list(ctx.loss) == ["0.5", "0.0"]  # the run's own alpha first
        assert {alpha: losses[0] for alpha, losses in ctx.choice_losses.items()} == ctx.loss
    assert record.choice_losses_without is not None
    assert record.loss_without == record.choice_losses_without[0]
    assert record.prediction == "the Seine"
    assert choice_gains_at(record, None) == choice_gains_at(record, 0.5)


def test_permuting_choices_permutes_their_losses_and_nothing_else() -> None:
    one, other = rivers(), rivers()
    order = [2, 0, 3, 1]
    other.choices = [RIVERS[i] for i in order]
    there, back = (synthesize([r], OverlapLM(), alpha=[0.5, 0.0])[0] for r in (one, other))
    assert choice_gains_at(there, 0.5) == pytest.approx(choice_gains_at(back, 0.5))
    assert (there.prediction, there.kept, there.silver) == (back.prediction, back.kept, back.silver)
    for a, b in zip(there.ctxs, back.ctxs, strict=True):
        assert a.choice_losses
        assert b.choice_losses
        assert [a.choice_losses["0.0"][i] for i in order] == b.choice_losses["0.0"]


def test_permuting_passages_permutes_normalised_gains() -> None:
    turned = rivers()
    turned.ctxs.reverse()
    there, back = (synthesize([r], OverlapLM(), alpha=0.0)[0] for r in (rivers(), turned))
    assert choice_gains_at(there, None) == choice_gains_at(back, None)[::-1]
    assert choice_gain_without(there) == choice_gain_without(back)


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = synthesize(claims(), SaysNo(), tmp_path / "gains.jsonl", alpha=[0.0, 0.5])
    assert list(read(tmp_path / "gains.jsonl", GainRecord)) == records
    old = to_builtins(records[0])  # as they were before choices were scored
    del old["choice_losses_without"]
    for ctx in old["ctxs"]:
        del ctx["choice_losses"]
    record = from_builtins(GainRecord, old)
    check(record, "old")
    assert encode(record) == msgspec.json.encode(old) + b"\n"
    assert len(targets(record, "gain", 0.5)) == 2
    with pytest.raises(DataError, match="the losses of choices are not stored"):
        targets(record, "choice")


def test_labels_with_another_number_of_choices_are_damaged() -> None:
    record = synthesize(claims(1), SaysNo(), alpha=0.0)[0]
    record.choices = ["Yes", "No", "Perhaps"]
    with pytest.raises(DataError, match=r"ctxs\[0\].choice_losses.0.0 has 2 losses, and there are 3 choices"):
        check(record, "gains.jsonl:1")


@pytest.mark.parametrize(
    ("choices", "answers", "what"),
    [
        (["Yes", "No"], ["yes"], r"answers\[0\] is 'yes', which is none of the choices"),
        (["Yes"], ["Yes"], "field choices"),
        (["Yes", "Yes"], ["Yes"], "field choices"),
        (["Yes", " "], ["Yes"], "field choices"),
        ([], ["Yes"], "field choices"),
    ],
)
def test_choices_that_are_none_are_named(choices: list[str], answers: list[str], what: str) -> None:
    record = claims(1)[0]
    record.choices, record.answers = choices, answers
    with pytest.raises(DataError, match=f"question c0: {what}"):
        synthesize([record], SaysNo())


def test_both_classes_are_kept_by_a_model_that_says_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    records = synthesize(claims(), SaysNo(), alpha=0.0)
    assert {r.prediction for r in records} == {"No"}
    # A passage helps to call the true claims true; nothing can make No more certain than it is without a passage.
    assert [r.kept for r in records] == [True, False] * 4
    assert capsys.readouterr().err.count("kept where the best passage has a higher gain") == 1
    assert summarize(records)["kept"] == 0.5


def test_long_answers_are_kept_by_gain() -> None:
    long = "The wall is high " * 3
    helped = Retrieved(id="a", question="How high?", answers=[long], ctxs=[Scored(id="1", text="The wall is high.")])
    not_helped = Retrieved(id="b", question="How high?", answers=[long], ctxs=[Scored(id="1", text="Rain.")])
    assert [r.kept for r in synthesize([helped, not_helped], OverlapLM(), alpha=0.0)] == [True, False]
    helped.answers = ["wall"]
    assert [r.kept for r in synthesize([helped], OverlapLM(), alpha=0.0, keep="exact_match")] == [False]
    assert [r.kept for r in synthesize([helped], OverlapLM(), alpha=0.0, keep="gain")] == [True]


def test_the_diagnosis_takes_the_answers_from_the_labels() -> None:
    record = rivers()
    del record.ctxs[2]
    found = diagnose(synthesize([record], OverlapLM(), alpha=[0.0]), SaysNo(), sample=1)
    assert found["by_alpha"]["0.0"] == {"auc": 1.0, "pick": 1.0}


# --- answers -------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_choice_of_least_loss() -> None:
    record = cut([rivers()], 2)[0]
    found = answer([record, Retrieved(id="open", question="Who?", ctxs=record.ctxs)], OverlapLM())
    assert found[0].prediction == "the Seine"
    assert found[0].choice_losses is not None
    assert len(found[0].choice_losses) == 4
    assert found[1].choice_losses is None
    alone = answer([msgspec.structs.replace(record, ctxs=[])], OverlapLM())[0]
    assert alone.choices == RIVERS


def test_choices_are_not_shown_and_wordings_stay(candidates: list[Retrieved]) -> None:
    class Watching(OverlapLM):
        seen: list[ScoringRequest]

        def losses(self, requests: Sequence[ScoringRequest], alphas: Sequence[float]) -> list[FloatArray]:
            self.seen = list(requests)
            return super().losses(requests, alphas)

    lm = Watching()
    record = rivers()
    answer([record], lm)
    open_question = msgspec.structs.replace(record, choices=None)
    prompt = for_model("completion", lm).with_passages(open_question.question, record.ctxs, reserve=16)
    assert lm.seen[0].with_prompts == [prompt]
    assert lm.seen[0].answers == [" " + choice for choice in RIVERS]


def test_a_generator_that_cannot_score_is_named() -> None:
    with pytest.raises(ConfigError, match=r"question c0: lm is .*not a Scorer.*by their losses"):
        answer(claims(1), EchoGenerator())


def test_a_threshold_tells_claims_apart_where_the_model_always_says_no() -> None:
    train, lm = cut(selected(claims(40)), 1), SaysNo()
    before = answer(train, lm)
    assert {a.prediction for a in before} == {"No"}
    threshold = calibrate_on(before, "train")
    assert threshold.choices == ("Yes", "No")
    assert -2.0 <= threshold.value < -1.0
    test = answer(cut(selected(claims(10)), 1), lm, threshold=threshold)
    assert all(a.prediction == a.answers[0] for a in test)
    assert {a.threshold for a in test} == {threshold.value}
    turned = [msgspec.structs.replace(r, choices=["No", "Yes"]) for r in cut(selected(claims(10)), 1)]
    assert [a.prediction for a in answer(turned, lm, threshold=threshold)] == [a.prediction for a in test]


def selected(records: list[Retrieved]) -> list[Retrieved]:
    """With the second passage first."""
    return [msgspec.structs.replace(record, ctxs=record.ctxs[::-1]) for record in records]


def test_the_threshold_is_the_quantile_of_the_margin() -> None:
    questions = claims(4)
    losses = [[4.0, 1.0], [5.0, 1.0], [2.0, 1.0], [3.0, 1.0]]  # margins -3, -4, -1, -2
    found = calibrate(questions, losses)
    assert found is not None
    assert found.value == -2.5  # half of them are Yes: the median
    said = [decide(["Yes", "No"], own, found) for own in losses]
    assert said == ["No", "No", "Yes", "Yes"]
    questions[0].choices = ["Yes", "No", "Perhaps"]
    assert calibrate(questions, losses) is None
    assert decide(["Red", "Blue"], [1.0, 9.0], Threshold(("Yes", "No"), 100.0, 4)) == "Red"  # not of these choices


# --- measures ------------------------------------------------------------------------------------------------------


def test_of_choices_only_accuracy_counts() -> None:
    questions = [rivers(), msgspec.structs.replace(rivers(), id="s")]
    right = [to_answer(q, "the Seine") for q in questions]
    wrong = [to_answer(q, "the long river Thames") for q in questions]
    found = evaluate({"right": right, "wrong": wrong}, resamples=50).overall
    assert found.score == "accuracy"
    assert found.systems["wrong"].metrics["accuracy"].value == found.systems["wrong"].metrics["f1"].value == 0.0
    assert found.difference("right", "wrong", "accuracy").value == 1.0
    table = text_table(evaluate({"right": right, "wrong": wrong}, resamples=50), baseline="wrong")
    assert "accuracy" in table
    assert "F1" not in table


def to_answer(question: Retrieved, text: str) -> Answer:
    return Answer(
        id=question.id, question=question.question, answers=question.answers, choices=question.choices, prediction=text
    )


def test_the_auc_of_the_margin_needs_no_threshold() -> None:
    answers = answer(cut(selected(claims(20)), 1), SaysNo())
    found = evaluate({"no": answers}, resamples=50).overall.systems["no"]
    assert found.metrics["accuracy"].value == 0.5
    assert found.auc is not None
    assert (found.auc.value, found.auc.low, found.auc.high) == (1.0, 1.0, 1.0)
    one_class = [a for a in answers if a.answers == ["No"]]
    assert evaluate({"no": one_class}, resamples=50).overall.systems["no"].auc is None


def test_gold_recall_is_of_all_candidates_whatever_was_read() -> None:
    records = claims(4)
    assert [r.gold_ranks for r in cut(records, 1)] == [[2]] * 4
    assert {tuple(r.gold_ranks or ()) for r in select(records, OverlapSelector(), k=1)} == {(1,)}
    lists = {"first": cut(records, 1), "second": cut(selected(records), 1), "none": [no_passages(r) for r in records]}
    found = evaluate({name: answer(own, SaysNo()) for name, own in lists.items()}, resamples=50).overall
    assert found.systems["first"].metrics["gold@1"].value == 0.0
    assert found.systems["first"].metrics["gold@5"].value == found.systems["second"].metrics["gold@1"].value == 1.0
    assert "gold@1" not in found.systems["none"].metrics
    assert found.difference("second", "first", "gold@1").value == 1.0
    with pytest.raises(ConfigError, match="gold@1"):
        found.difference("first", "none", "gold@1")


def no_passages(record: Retrieved) -> Retrieved:
    return msgspec.structs.replace(record, ctxs=[])


def test_choices_are_those_of_every_system() -> None:
    one = to_answer(rivers(), "the Seine")
    with pytest.raises(DataError, match="choices are not those"):
        evaluate({"a": [one], "b": [msgspec.structs.replace(one, choices=None)]}, resamples=10)


def test_regret_of_choices_is_in_normalised_gain() -> None:
    class First:
        def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
            return -np.arange(len(passages), dtype=np.float64)

    records = synthesize(claims(2), SaysNo(), alpha=0.5)
    own = targets(records[0], "choice", 0.0)
    assert plain_regret(First(), records) == pytest.approx((own[1] - own[0]) / 2)


# --- whole runs ----------------------------------------------------------------------------------------------------

CONFIG = """
[run]
diagnose = 0
pseudo = false

[train]
kind = "cross-encoder"
epochs = 1
only_kept = false
max_length = 32

[tune]
labels = ["gain", "choice"]
seeds = 2

[[dataset]]
name = "stones"
train = "train.jsonl"
test = "test.jsonl"
"""


def test_a_run_on_claims(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="no", dtype="float32", device="cpu": SaysNo())
    write(tmp_path / "train.jsonl", claims(48))
    test = claims(10)
    for record in test:
        record.id, record.question = f"test-{record.id}", record.question.replace("gem", "ruby")
    write(tmp_path / "test.jsonl", test)
    (tmp_path / "config.toml").write_text(CONFIG.replace("[train]", f'[train]\nbase = "{tiny}"\nvalidation = 0.3'))
    config = read_config(tmp_path / "config.toml", stages.STAGES)
    found = stages.run(config, tmp_path / "out", **config.table("run"))
    assert list(found.overall.systems) == ["no retrieval", "retrieved top-1", "GainRAG", "oracle"]
    thresholds = json.loads((tmp_path / "out" / "thresholds.json").read_text())["stones"]
    assert list(thresholds) == list(found.overall.systems)
    answers = list(read(tmp_path / "out" / "answers" / "oracle.jsonl", Answer))
    assert {a.threshold for a in answers} == {thresholds["oracle"]["value"]}
    assert found.overall.systems["oracle"].metrics["accuracy"].value == 1.0
    assert found.overall.systems["retrieved top-1"].metrics["gold@1"].value == 0.0
    assert all(ctx.origin == "corpus" for a in answers for ctx in a.ctxs)
    trials = json.loads((tmp_path / "out" / "selector.meta.json").read_text())["summary"]["trials"]
    assert [trial["settings"] for trial in trials] == [{}, {"labels": "choice"}]
    assert "accuracy" in (tmp_path / "out" / "table.txt").read_text()
    main(["report", str(tmp_path / "out")])
    data = ["--data", str(tmp_path)]
    assert main(["share", str(tmp_path / "out"), "-o", str(tmp_path / "shared"), *data]) == 0
    assert main(["restore", str(tmp_path / "shared"), "-o", str(tmp_path / "again"), *data]) == 0  # to the same bytes
    with gzip.open(tmp_path / "shared" / "answers" / "oracle.jsonl.gz") as stream:
        assert {type(json.loads(line)["prediction"]) for line in stream} == {int}
    assert "accuracy in percent on 10 test questions" in (tmp_path / "out" / "report.md").read_text()


class TellsMore(SaysNo):
    """It writes a passage to every claim."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return ["Stones are many."] * len(prompts)


@pytest.mark.parametrize("kind", ["cross-encoder", "features"])
def test_a_run_on_claims_with_two_seeds(
    kind: str, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each seed of a system has its own threshold, and the AUC is the mean over them."""
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="more", dtype="float32", device="cpu": TellsMore())
    write(tmp_path / "train.jsonl", claims(24))
    test = claims(8)
    for record in test:
        record.question = record.question.replace("gem", "ruby")
    write(tmp_path / "test.jsonl", test)
    text = CONFIG[: CONFIG.index("[tune]")] + CONFIG[CONFIG.index("[[dataset]]") :]
    text = text.replace("pseudo = false", "seeds = 2")
    text = text.replace("[train]", '[train]\nlabels = "choice"\nvalidation = 0.3')
    if kind == "features":
        text = text.replace('"cross-encoder"\nepochs = 1', '"features"').replace("max_length = 32\n", "")
    else:
        text = text.replace("[train]", f'[train]\nbase = "{tiny}"\nlearning_rate = 0.1')
    (tmp_path / "config.toml").write_text(text)
    config = read_config(tmp_path / "config.toml", stages.STAGES)
    found = stages.run(config, tmp_path / "out", **config.table("run")).overall
    trained = ["GainRAG", "GainRAG without pseudo-passage"]
    assert [name for name, scores in found.systems.items() if scores.runs == 2] == trained[::-1]
    thresholds = json.loads((tmp_path / "out" / "thresholds.json").read_text())["stones"]
    for name in trained:
        runs = []
        for seed in (0, 1):
            answers = list(read(tmp_path / "out" / "answers" / f"{file_name(seeded(name, seed))}.jsonl", Answer))
            assert {a.threshold for a in answers} == {thresholds[seeded(name, seed)]["value"]}
            runs.append(evaluate({name: answers}, resamples=10).overall.systems[name])
        scores = found.systems[name]
        for mean, parts in (
            (scores.metrics["accuracy"], [run.metrics["accuracy"].value for run in runs]),
            (scores.auc, [run.auc.value for run in runs if run.auc]),
        ):
            assert mean is not None
            assert mean.value == pytest.approx(np.mean(parts))
            assert mean.sd == pytest.approx(np.std(parts, ddof=1))
    ranked = list(read(tmp_path / "out" / "scores" / "gainrag.jsonl", Retrieved))
    alone = tmp_path / "out" / "scores" / "gainrag_without_pseudo_passage.jsonl"
    assert alone.exists() == (kind == "features")  # its scores are of all candidates together
    if alone.exists():
        assert all(len(a.ctxs) == len(b.ctxs) - 1 for a, b in zip(read(alone, Retrieved), ranked, strict=True))
    main(["report", str(tmp_path / "out")])
    assert "Where it is lost" in (tmp_path / "out" / "report.md").read_text()


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gainrag.lms.open_lm", lambda *, model="no", dtype="float32", device="cpu": SaysNo())
    monkeypatch.setattr("gainrag.models.identity.identity", lambda name: None)
    write(tmp_path / "train.jsonl", cut(selected(claims(20)), 1))
    write(tmp_path / "test.jsonl", cut(selected(claims(6)), 1))
    for split, more in (("train", []), ("test", ["--calibrate", str(tmp_path / "train.answers.jsonl")])):
        out = str(tmp_path / f"{split}.answers.jsonl")
        assert main(["answer", str(tmp_path / f"{split}.jsonl"), "--llm", "no", "-o", out, *more]) == 0
    assert "by 20 training questions" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "test.answers.jsonl"), "-o", str(tmp_path / "evaluation.json")]) == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["overall"]["systems"]["test.answers"]["auc"]
    assert "100.0 [100.0, 100.0]" in capsys.readouterr().err
