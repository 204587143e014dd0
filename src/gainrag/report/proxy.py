"""How far a proxy's labels, which the selector learned from, agree with those of the model that answers."""

from __future__ import annotations

from gainrag.report import cells
from gainrag.report.cases import Plain, share
from gainrag.report.parts import Section, Table


def section(data: Plain) -> Section | None:
    """What the two models' labels have in common, on training questions that both labelled; None without a proxy."""
    found = data["agreement"]
    if not found:
        return None
    rho, same, regret = found["rank_correlation"], found["same_silver"], found["regret"]
    one, other = found["levels"]
    rows = [
        ["questions", "Spearman", "the same silver passage, percent", "regret, nats", "random choice"],
        [
            str(found["questions"]),
            cells.interval(rho),
            cells.share(share(same["k"], same["n"])),
            cells.interval(regret),
            f"{regret['chance']:.2f}",
        ],
    ]
    text = [
        f"Another model than the one that answers made the labels (the proxy; its labels are {one}, the answering "
        f"model's own {other}). On {found['questions']} training questions both did: Spearman's rank correlation of "
        "their gains within a question; the share of questions where both have the same silver passage; and the "
        "regret, by how many nats of the answering model's gain the proxy's silver passage falls short of the best "
        "candidate (random choice: a candidate drawn at random).",
    ]
    if rho["undefined"]:
        text.append(f"The correlation is not defined on {rho['undefined']} questions and is not counted there.")
    return Section("proxy", "Does the proxy agree?", text, [Table("Agreement of the labels of two models", rows)])
