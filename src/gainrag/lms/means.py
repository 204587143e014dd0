"""What keeps a GPU busy, each on its own, so that a benchmark can say what each is worth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Means:
    """How packs are made and run on a GPU. All are off on a CPU, where none of them helps.

    beside: rows of like length stand beside one another, padded to a few shapes (gainrag.lms.batches), and what they
        predict is projected and reduced for many questions at once (gainrag.lms.reduction). The others need it.
    ahead: prompts are tokenized and batches laid out in a thread, while the GPU works.
    compiled: the layers are compiled, which makes one kernel of many small ones (gainrag.lms.graphs).
    graphs: a pass that comes again in the same shape is a CUDA graph: started at once, not kernel by kernel.
    measured: batches are as large as the memory allows that a first pass shows to be needed (gainrag.lms.memory).
    shared: what all prompts of a window begin with is run once a batch.
    """

    beside: bool = False
    ahead: bool = False
    compiled: bool = False
    graphs: bool = False
    measured: bool = False
    shared: bool = False

    @classmethod
    def of(cls, device: str) -> Means:
        """What is used on a device. Compiling takes most of a minute a process, so it is not used until
        benchmarks/gpu.py has said what it is worth."""
        if device == "cpu":
            return cls()
        cuda = device.startswith("cuda")
        return cls(beside=True, ahead=True, graphs=cuda, measured=cuda, shared=True)
