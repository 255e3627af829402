"""One thread per appliance that makes every libguestfs call, so that a wait can be ended.

libguestfs restarts its system calls on signals: called from the main thread, a launch or a mount
would hold back Ctrl-C and SIGTERM until it returns, which a hostile filesystem can put off for
ever.  Here the caller waits on a lock, which signals and a timeout can end; it then kills the
appliance, the call returns with an error, and everything is cleaned up.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from imgtools.errors import ApplianceError

T = TypeVar("T")

ABORT_WAIT = 15.0


class Job(Generic[T]):
    """A call that was started."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: T
        self.error: BaseException | None = None

    def run(self) -> None:
        """Make the call, in the worker's thread."""
        try:
            self.result = self.function()
        except BaseException as error:  # noqa: BLE001 (raised again in the waiting thread)
            self.error = error
        self.done.set()


class Worker:
    """Runs calls one after the other in its thread; ``kill`` must make a running call return."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self._kill = kill
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="imgtools-appliance", daemon=True)
        self._thread.start()
        self.stuck = False
        self.patience: float | None = None
        """Seconds without `touch` after which a call is given up; None for no such bound."""
        self._touched = 0.0

    def touch(self) -> None:
        """The running call shows that it is alive."""
        self._touched = time.monotonic()

    def call(self, function: Callable[[], T], *, timeout: float, what: str) -> T:
        """Run ``function`` and return its result.

        After ``timeout`` seconds, or if the wait is interrupted, the appliance is killed.
        Raises ApplianceError for the timeout, else whatever ``function`` raised.
        """
        return self.finish(self.start(function), timeout=timeout, what=what)

    def start(self, function: Callable[[], T]) -> Job[T]:
        """Let ``function`` begin, and go on; `finish` waits for it."""
        job = Job(function)
        self._touched = time.monotonic()
        self._jobs.put(job)
        return job

    def finish(self, job: Job[T], *, timeout: float, what: str) -> T:
        """Wait for what `start` began, as `call` does."""
        begin = time.monotonic()
        try:
            finished = self._wait(job, begin + timeout)
        except BaseException:
            self._abort(job)
            raise
        if not finished:
            self._abort(job)
            passed = time.monotonic() - begin
            raise ApplianceError(
                f"the appliance did not finish {what} within {passed:.0f} s and was stopped",
                hint="imgtools doctor; a slow machine may need a larger IMGTOOLS_TIMEOUT",
            )
        if job.error is not None:
            raise job.error
        return job.result

    def stop(self) -> None:
        """End the thread when its queue is empty."""
        self._jobs.put(None)
        if not self.stuck:
            self._thread.join(ABORT_WAIT)

    def _wait(self, job: Job[Any], deadline: float) -> bool:
        """Wait for the job; False when its time is over, or it has been silent for too long."""
        while True:
            limit = deadline
            if self.patience is not None:
                limit = min(deadline, self._touched + self.patience)
            left = limit - time.monotonic()
            if left <= 0:
                return job.done.is_set()
            # In short steps where a sign of life, or the end of our patience, may change the limit.
            if job.done.wait(left if self.patience is None else min(left, 0.5)):
                return True

    def _abort(self, job: Job[Any]) -> None:
        # The process to kill may not exist yet (supermin runs before qemu): keep at it.
        waited = 0.0
        while not job.done.is_set() and waited < ABORT_WAIT:
            self._kill()
            job.done.wait(0.1)
            waited += 0.1
        self.stuck = not job.done.is_set()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
