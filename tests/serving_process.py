"""A server in a process of its own, whose selector takes as long as the question says: what faults are tried on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.serving import server
from gainrag.serving.app import Limits, create_app
from gainrag.serving.loaded import Shelf
from gainrag.testing import OverlapSelector

# Seconds in which headers and a body must have come: short for a test, long for a machine that does much else.
WITHIN = 5.0


class Slow(OverlapSelector):
    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        if question.isdigit():
            print("begun", flush=True)
            time.sleep(float(question))
        return super().score(question, passages)


def main() -> None:
    server.HEADERS = WITHIN
    listening = server.listen("127.0.0.1", 0)
    app = create_app(Shelf({"slow": "slow"}, lambda path: Slow()), limits=Limits(body=WITHIN))
    port = listening.getsockname()[1]
    server.run(app, listening, drain=30, started=lambda: print(port, flush=True))


if __name__ == "__main__":
    main()
