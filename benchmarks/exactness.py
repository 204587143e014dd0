"""The contrastive loss against one forward pass a passage and alias, on real triples of a gain or candidates file.

    python benchmarks/exactness.py candidates.jsonl [--triples 50] [--seed 0]

Prints the largest difference in nats per token at alpha 0 and 0.5 (float32), and exits 1 above 1e-4.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from gainrag.files.streams import read
from gainrag.lms import open_lm
from gainrag.lms.local import LocalLM
from gainrag.prompts import for_model
from gainrag.protocols import ScoringRequest
from gainrag.records import Retrieved

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.plain_loss import plain_loss


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("candidates", type=Path)
    parser.add_argument("--triples", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    records = rng.sample(list(read(arguments.candidates, Retrieved)), arguments.triples)
    lm = open_lm(dtype="float32")
    assert isinstance(lm, LocalLM)
    prompts = for_model("completion", lm)
    worst = {0.0: 0.0, 0.5: 0.0}
    for record in records:
        at, alias = rng.randrange(len(record.ctxs)), rng.randrange(len(record.answers))
        # All passages and aliases are scored together, as synthesis does; one triple of them is compared.
        asked = ScoringRequest(
            [prompts.with_passages(record.question, [passage], reserve=64) for passage in record.ctxs],
            prompts.without(record.question),
            [prompts.scored_answer(answer) for answer in record.answers],
        )
        found = lm.losses([asked], list(worst))[0][at, alias]
        for alpha, loss in zip(worst, found, strict=True):
            plain = plain_loss(lm, asked.with_prompts[at], asked.without_prompt, asked.answers[alias], alpha)
            worst[alpha] = max(worst[alpha], abs(loss - plain))
    for alpha, difference in worst.items():
        print(f"alpha {alpha}: at most {difference:.1e} nats a token apart on {len(records)} triples")
    return 0 if max(worst.values()) <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
