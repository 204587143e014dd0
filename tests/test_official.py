"""The official releases, as small files written by hand in each one's own form, and what `ingest` makes of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gainrag import cli
from gainrag.errors import ConfigError, DataError
from gainrag.ingestion import RELEASES, Ingested, ingest, read_passages, read_questions
from gainrag.records import Passage, to_builtins

RIVERS = ["Rivers", ["Rivers flow.", " Some are long."]]
SEINE = ["Seine", ["The Seine flows through Paris.", " It ends at Le Havre."]]
HOTPOT: list[dict[str, Any]] = [
    {
        "_id": "5a7a06935542990198eaf050",
        "answer": "Le Havre",
        "question": "Where does the river of Paris end?",
        "supporting_facts": [["Seine", 0], ["Seine", 1]],
        "context": [SEINE, RIVERS],
        "type": "bridge",
        "level": "medium",
    },
    {
        "_id": "5a879ab05542996e4f30887e",
        "answer": "yes",
        "question": "Are the Seine and the Spree rivers?",
        "supporting_facts": [["Spree", 0], ["Seine", 0]],
        "context": [["Spree", ["The Spree flows through Berlin."]], SEINE],
        "type": "comparison",
        "level": "hard",
    },
]
TWO_WIKI: list[dict[str, Any]] = [
    {
        "_id": "8813f87c0bdd11eba7f7acde48001122",
        "type": "compositional",
        "question": "Where does the river of Paris end?",
        "context": [["Seine", ["The Seine flows through Paris.", "It ends at Le Havre."]], ["Empty", []]],
        "entity_ids": "Q1471_Q90",
        "supporting_facts": [["Seine", 1]],
        "evidences": [["Seine", "mouth", "Le Havre"]],
        "answer": "Le Havre",
        "evidences_id": [["Q1471", "mouth", "Q42810"]],
        "answer_id": "Q42810",
    },
    {
        "_id": "cdbb82ec0baf11ebab90acde48001122",
        "type": "comparison",
        "question": "Is the Spree longer than the Seine?",
        "context": [["Spree", ["The Spree flows through Berlin."]]],
        "supporting_facts": [["Spree", 0]],
        "evidences": [],
        "answer": "no",
        "answer_id": None,
    },
]
ALIASES: list[dict[str, Any]] = [
    {"Q_id": "Q42810", "aliases": ["Havre", "Le Havre"], "demonyms": ["Havrais"]},
    {"Q_id": "Q90", "aliases": ["City of Light"], "demonyms": ["Parisian"]},
]
NQ: list[dict[str, Any]] = [
    {"question": "which river flows through paris", "answer": ["Seine", "the Seine", "Seine"]},
    {"question": "which river flows through berlin", "answer": ["Spree"]},
    {"question": "which river flows through paris", "answer": ["River Seine"]},
]
TRIVIA: dict[str, Any] = {
    "Data": [
        {
            "Answer": {
                "Aliases": ["River Seine", "La Seine "],
                "MatchedWikiEntityName": "Seine",
                "NormalizedAliases": ["river seine", "la seine"],
                "NormalizedValue": "seine",
                "Type": "WikipediaEntity",
                "Value": "Seine",
            },
            "EntityPages": [{"DocSource": "TagMe", "Filename": "Seine.txt", "Title": "Seine"}],
            "Question": "Which river flows through Paris?",
            "QuestionId": "tc_1",
            "QuestionSource": "http://quiz.example/",
            "SearchResults": [],
        }
    ],
    "Domain": "Web",
    "VerifiedEval": False,
    "Version": 1.0,
}
WEB: list[dict[str, Any]] = [
    {
        "url": "http://www.freebase.com/view/en/paris",
        "targetValue": '(list (description "Seine River") (description Bièvre) (description "\\"Canal\\" (Paris)"))',
        "utterance": "what rivers are in paris?",
    }
]
SQUAD: dict[str, Any] = {
    "data": [
        {
            "title": "River_Seine",
            "paragraphs": [
                {
                    "context": "The Seine flows through Paris. It ends at Le Havre.",
                    "qas": [
                        {
                            "answers": [
                                {"answer_start": 42, "text": "Le Havre"},
                                {"answer_start": 39, "text": "at Le Havre"},
                                {"answer_start": 42, "text": "Le Havre"},
                            ],
                            "question": "Where does the Seine end? ",
                            "id": "56be4db0acb8001400a502ec",
                        },
                        {
                            "answers": [{"answer_start": 24, "text": "Paris"}],
                            "question": "Which city does the Seine flow through?",
                            "id": "56be4db0acb8001400a502ed",
                        },
                    ],
                }
            ],
        },
        {"title": "Beyonc%C3%A9", "paragraphs": [{"context": "A singer.", "qas": []}]},
    ],
    "version": "1.1",
}


def lines(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


# A file of every data set, under its official name, and how many questions and passages are in it.
OFFICIAL: dict[str, tuple[str, str, int, int]] = {
    "hotpotqa": ("hotpot_train_v1.1.json", json.dumps(HOTPOT), 2, 3),
    "2wikimultihopqa": ("train.json", json.dumps(TWO_WIKI), 2, 2),
    "nq": ("NQ-open.train.jsonl", lines(NQ), 3, 0),
    "triviaqa": ("unfiltered-web-train.json", json.dumps(TRIVIA, indent=4), 1, 0),
    "webquestions": ("webquestions.examples.train.json", json.dumps(WEB, indent=2), 1, 0),
    "squad": ("train-v1.1.json", json.dumps(SQUAD), 2, 2),
}

Save = Callable[[str, Any], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, content: Any) -> Path:
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return tmp_path / name

    return write


def plain(found: Ingested, split: str = "") -> list[dict[str, Any]]:
    return [to_builtins(question) for question in found.questions[split]]


def fails(call: Callable[[], object], *parts: str, kind: type[Exception] = DataError) -> None:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_file_and_the_folder_it_lies_in_give_the_same_records(name: str, packed: str, save: Save) -> None:
    official, text, questions, passages = OFFICIAL[name]
    file = save(official + packed, text)
    alone = ingest(name, file)
    assert (len(alone.questions[""]), len(alone.passages)) == (questions, passages)
    found = ingest(name, file.parent, split="train")
    assert plain(found, "train") == plain(alone)
    assert found.passages == alone.passages
    assert all(question.answers for question in found.questions["train"])


@pytest.mark.parametrize("name", RELEASES)
def test_what_the_command_writes_is_what_the_stages_read(name: str, save: Save, tmp_path: Path) -> None:
    official, text, questions, passages = OFFICIAL[name]
    out = tmp_path / "out"
    assert cli.main(["ingest", name, "--source", str(save(official, text)), "--gz", "-o", str(out)]) == 0
    assert len(read_questions(out / "questions.jsonl.gz", need_answers=True)) == questions
    assert (out / "corpus.jsonl.gz").exists() == bool(passages)
    if passages:
        assert len(list(read_passages(out / "corpus.jsonl.gz"))) == passages
    assert set(json.loads((out / "questions.meta.json").read_text())["inputs"]) == {"source"}


def test_several_splits_share_one_corpus(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save("hotpot_train_v1.1.json", HOTPOT[:1])
    save("hotpot_dev_distractor_v1.json", HOTPOT[1:])
    argv = ["ingest", "hotpotqa", "--source", str(tmp_path), "--split", "train", "--split", "dev"]
    assert cli.main([*argv, "-o", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.jsonl")) == ["corpus.jsonl", "dev.jsonl", "train.jsonl"]
    titles = [p.title for p in read_passages(tmp_path / "out" / "corpus.jsonl")]
    assert titles == ["Seine", "Rivers", "Spree"]
    shown = capsys.readouterr().err
    assert "1 train questions\n1 dev questions\n3 passages\n1 duplicate passages merged" in shown


def test_hotpotqa_keeps_its_annotations_and_joins_its_sentences(save: Save) -> None:
    found = ingest("hotpotqa", save("h.json", HOTPOT))
    assert plain(found)[1] == {
        "id": "5a879ab05542996e4f30887e",
        "question": "Are the Seine and the Spree rivers?",
        "answers": ["yes"],
        "question_type": "comparison",
        "level": "hard",
        "supporting_facts": [("Spree", 0), ("Seine", 0)],
        "gold_titles": ["Spree", "Seine"],
    }
    assert found.passages[0].text == "The Seine flows through Paris. It ends at Le Havre."
    assert found.counts == {"duplicate passages merged": 1}


def test_2wiki_is_read_with_evidences_and_aliases(save: Save) -> None:
    file = save("train.json", TWO_WIKI)
    found = ingest("2wikimultihopqa", file)
    first, second = found.questions[""]
    assert first.extra["evidences"] == [["Seine", "mouth", "Le Havre"]]
    assert found.passages[0].text == "The Seine flows through Paris. It ends at Le Havre."
    assert found.counts == {"passages without text left out": 1}

    aliased = ingest("2wikimultihopqa", file, aliases=str(save("id_aliases.json", lines(ALIASES))))
    assert aliased.questions[""][0].answers == ["Le Havre", "Havre", "Havrais"]
    assert aliased.questions[""][1].answers == second.answers == ["no"]
    assert aliased.counts["answers added from the aliases"] == 2


def test_aliases_that_cannot_be_used_are_an_error(save: Save) -> None:
    aliases = str(save("id_aliases.json", lines(ALIASES)))
    without = [{key: value for key, value in TWO_WIKI[0].items() if not key.endswith("_id") or key == "_id"}]
    fails(lambda: ingest("2wikimultihopqa", save("t.json", without), aliases=aliases), "record 1", "answer_id")
    fails(lambda: ingest("nq", save("n.jsonl", lines(NQ)), aliases=aliases), "no aliases", kind=ConfigError)
    broken = str(save("b.json", lines([ALIASES[0], {"Q_id": "Q1"}])))
    fails(lambda: ingest("2wikimultihopqa", save("t.json", TWO_WIKI), aliases=broken), "b.json:2", "aliases")


def test_questions_without_ids_get_them_from_their_text(save: Save) -> None:
    paris, berlin, again = ingest("nq", save("n.jsonl", lines(NQ))).questions[""]
    assert paris.answers == ["Seine", "the Seine"]
    assert again.id == f"{paris.id}-2"
    alone = ingest("nq", save("m.jsonl", lines(NQ[1:2]))).questions[""]
    assert alone[0].id == berlin.id


def test_triviaqa_answers_are_value_and_aliases(save: Save) -> None:
    assert plain(ingest("triviaqa", save("t.json", TRIVIA))) == [
        {
            "id": "tc_1",
            "question": "Which river flows through Paris?",
            "answers": ["Seine", "River Seine", "La Seine"],
            "question_source": "http://quiz.example/",
        }
    ]


def test_webquestions_in_its_official_and_its_common_form(save: Save) -> None:
    official = ingest("webquestions", save("w.json", WEB))
    answers = ["Seine River", "Bièvre", '"Canal" (Paris)']
    assert official.questions[""][0].answers == answers
    common = [{"url": WEB[0]["url"], "question": WEB[0]["utterance"], "answers": answers}]
    assert plain(ingest("webquestions", save("array.json", common))) == plain(official)
    assert plain(ingest("webquestions", save("lines.jsonl", lines(common)))) == plain(official)


def test_squad_questions_name_their_paragraph(save: Save) -> None:
    found = ingest("squad", save("s.json", SQUAD))
    assert found.passages[0] == Passage(
        id=found.questions[""][0].extra["gold_passage"],
        title="River Seine",
        text="The Seine flows through Paris. It ends at Le Havre.",
    )
    assert found.passages[1].title == "Beyoncé"
    assert found.questions[""][0].question == "Where does the Seine end?"
    assert found.questions[""][0].answers == ["Le Havre", "at Le Havre"]


def test_unanswered_questions_are_never_dropped_in_silence(save: Save) -> None:
    paragraph = SQUAD["data"][0]["paragraphs"][0]
    impossible = {"question": "Where does the Nile end?", "id": "x", "answers": [], "is_impossible": True}
    version2 = {"data": [{"title": "Seine", "paragraphs": [{**paragraph, "qas": [*paragraph["qas"], impossible]}]}]}
    file = save("train-v2.0.json", version2)
    fails(lambda: ingest("squad", file), "train-v2.0.json: record 1, question 'x'", "no answer", "--unanswered skip")
    skipped = ingest("squad", file, unanswered="skip")
    assert len(skipped.questions[""]) == 2
    assert skipped.counts == {"questions without an answer left out": 1}
    kept = ingest("squad", file, unanswered="keep")
    assert kept.questions[""][-1].answers == []
    assert kept.counts == {"questions without an answer kept": 1}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("hotpotqa", {"_id": "a", "question": "Who?", "context": [SEINE]}),
        ("2wikimultihopqa", {**TWO_WIKI[0], "answer": "", "supporting_facts": [], "evidences": []}),
        ("triviaqa", {"QuestionId": "a", "Question": "Who?", "QuestionSource": "x", "EntityPages": []}),
    ],
)
def test_test_files_have_no_answers(name: str, entry: dict[str, Any], save: Save) -> None:
    file = save("test.json", {"Data": [entry]} if name == "triviaqa" else [entry])
    fails(lambda: ingest(name, file), "no answer")
    fails(lambda: ingest(name, file, unanswered="skip"), "none of the 1 questions has an answer")
    assert len(ingest(name, file, unanswered="keep").questions[""]) == 1


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("hotpotqa", [HOTPOT[0], {**HOTPOT[1], "context": [["Spree", "One text."]]}], ["record 2", "$.context[0][1]"]),
        ("hotpotqa", [HOTPOT[0], HOTPOT[0]], ["record 2", "duplicate", "record 1"]),
        ("hotpotqa", [{**HOTPOT[0], "question": " "}], ["record 1", "field question is empty"]),
        ("hotpotqa", {"data": HOTPOT}, ["h.json:1", "`_id`", "hotpot_train_v1.1.json"]),
        ("hotpotqa", json.dumps(HOTPOT)[:-1], ["h.json", "no JSON"]),
        ("hotpotqa", "", ["h.json", "empty"]),
        ("hotpotqa", [], ["h.json", "empty"]),
        ("2wikimultihopqa", [{**TWO_WIKI[0], "supporting_facts": [["Seine"]]}], ["record 1", "$.supporting_facts[0]"]),
        ("nq", lines([NQ[0], {"question": "who", "answer": "Spree"}]), ["h.json:2", "$.answer"]),
        ("nq", lines([NQ[0]]) + "{broken", ["h.json:2", "no JSON"]),
        ("nq", lines([NQ[0], {"answer": ["Spree"]}]), ["h.json:2", "`question`"]),
        ("triviaqa", TRIVIA["Data"], ["h.json", "Expected `object`"]),
        ("triviaqa", {"data": []}, ["h.json", "'Data'"]),
        ("triviaqa", {"Data": [{**TRIVIA["Data"][0], "Answer": {"Aliases": []}}]}, ["record 1", "`Value`"]),
        ("webquestions", [{**WEB[0], "targetValue": "(list (number 5))"}], ["record 1", "$.targetValue"]),
        ("webquestions", [{"utterance": "who?"}], ["record 1", "targetValue"]),
        ("squad", {"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}, ["record 1", "`context`", "paragraphs[0]"]),
    ],
)
def test_malformed_files_name_file_position_and_field(name: str, content: Any, parts: list[str], save: Save) -> None:
    fails(lambda: ingest(name, save("h.json", content)), *parts)


def test_a_cut_off_file(save: Save, tmp_path: Path) -> None:
    save("h.json.gz", HOTPOT)
    (tmp_path / "h.json.gz").write_bytes((tmp_path / "h.json.gz").read_bytes()[:-20])
    fails(lambda: ingest("hotpotqa", tmp_path / "h.json.gz"), "h.json.gz: ", "cannot be read")


def test_what_to_read_must_be_clear(save: Save, tmp_path: Path) -> None:
    fails(lambda: ingest("hotpot", tmp_path), "did you mean 'hotpotqa'?", kind=ConfigError)
    fails(lambda: ingest("nq", tmp_path, split="test"), "unknown split 'test'", "dev, train", kind=ConfigError)
    fails(lambda: ingest("nq", tmp_path), "no split is named", "train, dev", kind=ConfigError)
    fails(lambda: ingest("nq", tmp_path, split="dev"), f"{tmp_path}: no NQ-open.dev.jsonl", "google-research-datasets")
    fails(lambda: ingest("nq", tmp_path / "none.jsonl"), "none.jsonl", "no such file")
    save("NQ-open.dev.jsonl.gz", lines(NQ))
    file = save("NQ-open.dev.jsonl", lines(NQ))
    fails(lambda: ingest("nq", tmp_path, split="dev"), "both NQ-open.dev.jsonl and NQ-open.dev.jsonl.gz")
    fails(lambda: ingest("nq", file, split=["train", "dev"]), "one file for 2 splits", kind=ConfigError)


def hub_rows(name: str) -> list[dict[str, Any]]:
    """The same entries in the hub's form, from its data set cards."""
    if name in ("hotpotqa", "2wikimultihopqa"):
        return [
            {
                "id": e["_id"],
                "question": e["question"],
                "answer": e["answer"],
                "type": e["type"],
                "level": e.get("level"),
                "supporting_facts": {
                    "title": [title for title, _ in e["supporting_facts"]],
                    "sent_id": [position for _, position in e["supporting_facts"]],
                },
                "context": {
                    "title": [title for title, _ in e["context"]],
                    "sentences": [sentences for _, sentences in e["context"]],
                },
                "evidences": e.get("evidences", []),
            }
            for e in (HOTPOT if name == "hotpotqa" else TWO_WIKI)
        ]
    if name == "nq":
        return NQ
    if name == "triviaqa":
        entry: dict[str, Any] = TRIVIA["Data"][0]
        answer = {"value": entry["Answer"]["Value"], "aliases": entry["Answer"]["Aliases"]}
        question = {"question": entry["Question"], "question_id": "tc_1", "question_source": entry["QuestionSource"]}
        return [{**question, "answer": answer}]
    if name == "webquestions":
        answers = ["Seine River", "Bièvre", '"Canal" (Paris)']
        return [{"url": WEB[0]["url"], "question": WEB[0]["utterance"], "answers": answers}]
    article: dict[str, Any] = SQUAD["data"][0]
    paragraph = article["paragraphs"][0]
    return [
        {
            "id": q["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": q["question"],
            "answers": {"text": [a["text"] for a in q["answers"]], "answer_start": [0 for _ in q["answers"]]},
        }
        for q in paragraph["qas"]
    ]


@pytest.mark.parametrize("name", RELEASES)
def test_the_hub_gives_the_same_records(name: str, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(*where: Any, split: str) -> Any:
        asked.append((*where, split))
        return datasets.Dataset.from_list(hub_rows(name))

    monkeypatch.setattr("gainrag.models.hub.unreachable_hub", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    official, text, _, _ = OFFICIAL[name]
    expected, found = ingest(name, save(official, text)), ingest(name, split="train")
    assert asked == [(RELEASES[name].hub, RELEASES[name].config, "train")]
    for question in expected.questions[""]:
        question.extra.pop("answer_id", None)  # the hub's copy of 2Wiki is the release without Wikidata's ids
    assert plain(found, "train") == plain(expected)
    # The hub has no paragraphs of SQuAD without questions.
    assert found.passages == [p for p in expected.passages if p.title != "Beyoncé"]


def test_without_a_network_the_error_names_the_official_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("gainrag.models.hub.unreachable_hub", lambda: "huggingface.co")
    for name, release in RELEASES.items():
        for split in release.hub_splits:
            assert cli.main(["ingest", name, "--split", split, "-o", str(tmp_path / "out")]) == 1
            message = capsys.readouterr().err.strip()
            assert "\n" not in message
            assert "huggingface.co cannot be reached" in message
            assert release.files[split] in message
            assert "--source" in message
    assert not (tmp_path / "out").exists()


def test_a_failing_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the hub is down\nand here is why")

    monkeypatch.setattr("gainrag.models.hub.unreachable_hub", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    fails(lambda: ingest("nq", split="dev"), "nq_open (validation)", "the hub is down", "NQ-open.dev.jsonl")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"question": "Who?"}])
    fails(lambda: ingest("triviaqa", split="dev"), "row 1", "another form")


def test_the_hubs_triviaqa_marks_missing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    row = {**hub_rows("triviaqa")[0], "answer": {"value": "<unk>", "aliases": []}}
    monkeypatch.setattr("gainrag.models.hub.unreachable_hub", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [row])
    assert ingest("triviaqa", split="test", unanswered="keep").questions["test"][0].answers == []
