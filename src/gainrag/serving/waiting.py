"""One thread that works, and a bounded queue before it: requests that wait together are worked on together.

A request that finds the queue full, or that would wait beyond its deadline, is refused at once, with the time after
which to come back: whoever waits behind a full queue waits in vain. The thread outlives whatever goes wrong in the
work; one request that cannot be done does not take the others of its batch with it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gainrag.serving.refusals import Refused

A = TypeVar("A")
R = TypeVar("R")

_log = logging.getLogger(__name__)
# The longest time after which a refused client is asked to come back, in seconds.
LONGEST = 60


@dataclass(eq=False)
class Job(Generic[A, R]):
    """A request that waits.

    kind: jobs of one kind are worked on together; None of a job that is alone.
    size: how much work it is, in the queue's unit.
    deadline, since: by the monotonic clock, in seconds.
    """

    asked: A
    kind: Hashable
    size: int
    deadline: float
    since: float = field(default_factory=time.monotonic)
    future: Future[R] = field(default_factory=Future)


class Worker(Generic[A, R]):
    """A thread and its queue.

    Args:
        work: does jobs, all of one kind; one result for each.
        capacity: how much may wait, in units of size.
        together: how much is worked on at a time at the most; a larger job goes alone.
        unit: what the size counts, for messages.
        seen: is told of each batch: the jobs, and how long each waited, in seconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[A]], Sequence[R]],
        *,
        capacity: int,
        together: int,
        unit: str,
        seen: Callable[[Sequence[Job[A, R]], Sequence[float]], None] = lambda jobs, waited: None,
    ) -> None:
        self._work, self.capacity, self._together, self._unit, self._seen = work, capacity, together, unit, seen
        self._jobs: deque[Job[A, R]] = deque()
        self._there = threading.Condition()
        self._closed = False
        self.waiting = 0  # units that wait
        self.running = 0  # units that are worked on
        self.done_at = -math.inf  # when work last went well
        self._pace: float | None = None  # seconds a unit, of late
        self._thread = threading.Thread(target=self._run, name="gainrag-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def submit(self, asked: A, *, kind: Hashable, size: int, within: float, first: bool = False) -> Future[R]:
        """Let a job wait for its turn.

        Args:
            within: seconds after which it is not begun any more.
            first: before all others, and whether or not the queue is full: for checks of health.

        Raises:
            Refused: 429 where the queue is full, 503 where the worker has stopped.
        """
        job: Job[A, R] = Job(asked, kind, size, time.monotonic() + within)
        with self._there:
            if self._closed or not self.alive:
                raise Refused(503, "the server is stopping", retry_after=1)
            if not first:
                self._admit(size, within)
            self._jobs.appendleft(job) if first else self._jobs.append(job)
            self.waiting += size
            self._there.notify()
        return job.future

    def _admit(self, size: int, within: float) -> None:
        """Raise where a job of this size has no place."""
        if not self.waiting:
            return
        expected = (self.waiting + self.running) * (self._pace or 0.0)
        after = min(LONGEST, max(1, math.ceil(expected)))
        if self.waiting + size > self.capacity:
            what = f"the queue is full: {self.waiting} {self._unit} wait, {self.capacity} may"
            raise Refused(429, what, hint=f"come back in {after} s", retry_after=after)
        if expected > within:
            what = f"the wait would be about {expected:.0f} s, and {within:g} s are allowed"
            raise Refused(429, what, hint=f"come back in {after} s", retry_after=after)

    def close(self, within: float = 10.0) -> None:
        """Finish what waits, then stop."""
        with self._there:
            self._closed = True
            self._there.notify()
        self._thread.join(within)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._do(batch)

    def _next(self) -> list[Job[A, R]] | None:
        """The jobs to do now; None at the end."""
        with self._there:
            while not self._jobs:
                if self._closed:
                    return None
                self._there.wait()
            first = self._jobs.popleft()
            batch, size = [first], first.size
            others: list[Job[A, R]] = []
            while first.kind is not None and self._jobs and size < self._together:
                job = self._jobs.popleft()
                if job.kind == first.kind and size + job.size <= self._together:
                    batch.append(job)
                    size += job.size
                else:
                    others.append(job)
                    if job.kind == first.kind:  # what comes later does not overtake it
                        break
            self._jobs.extendleft(reversed(others))
            self.waiting -= size
            self.running = size
            return batch

    def _do(self, batch: list[Job[A, R]]) -> None:
        began = time.monotonic()
        jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
        for job in [job for job in jobs if job.deadline < began]:
            jobs.remove(job)
            job.future.set_exception(Refused(503, "the request waited too long", retry_after=1))
        try:
            if jobs:
                self._seen(jobs, [began - job.since for job in jobs])
                self._finish(jobs)
        except Exception:  # of whoever is told; the work's own are the jobs'
            _log.exception("the worker goes on after an error")
        finally:
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(Refused(500, "the request got no result"))
            with self._there:
                if size := sum(job.size for job in jobs):
                    pace = (time.monotonic() - began) / size
                    self._pace = pace if self._pace is None else 0.7 * self._pace + 0.3 * pace
                self.running = 0

    def _finish(self, jobs: list[Job[A, R]]) -> None:
        """Give every job its result or its error."""
        try:
            found = self._work([job.asked for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            # Which of them it was shows when each is alone.
            for job in jobs:
                self._finish([job])
            return
        for job, result in zip(jobs, found, strict=True):
            job.future.set_result(result)
        self.done_at = time.monotonic()
