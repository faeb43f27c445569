"""The executor of one machine: a process per core, cells handed out as cores free up."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO

from qwd.errors import reason
from qwd.sweep.executor import Outcome, Task, cores

FAULT = 70


class Processes:
    """Each cell is computed by `qwd.train` in one of several processes.

    A process has as many threads as the cells ask for, one unless that is said. The processes are
    new ones, not forks: they inherit no threads of torch, and end with this one however it ends.
    """

    summary = "one single-threaded process per core; the weights of `qwd train`, bitwise"
    tolerance = 0.0

    def jobs(self, tasks: Sequence[Task], asked: int | None) -> int:
        """As many as cores for their threads; no more than tasks."""
        threads = max((task.config.threads or 1 for task in tasks), default=1)
        return max(1, min(asked or cores() // threads, len(tasks)))

    def run(self, tasks: Sequence[Task], asked: int | None = None) -> Iterator[Outcome]:
        """Compute the tasks; see `qwd.sweep.executor.Executor`."""
        left = deque(tasks)
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        stopped = threading.Event()
        workers: list[Worker] = []

        def work() -> None:
            """Hand one task after another to a worker, a new one where it died."""
            worker: Worker | None = None
            while not stopped.is_set():
                try:
                    task = left.popleft()
                except IndexError:
                    break
                try:
                    if worker is None:
                        worker = Worker(task.config.threads or 1)
                        workers.append(worker)
                        if stopped.is_set():
                            break
                    outcome = worker.compute(task)
                except (OSError, ValueError) as error:
                    said = worker.last_words() if worker else reason(error)
                    worker = None
                    outcome = Outcome(
                        cell=task.cell,
                        status="failed",
                        error=f"its process ended{said and f': {said}'}",
                        exit_code=FAULT,
                    )
                outcomes.put(outcome)
            if worker is not None:
                worker.end()

        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(self.jobs(tasks, asked))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in tasks:
                yield outcomes.get()
        finally:
            stopped.set()
            left.clear()
            for worker in workers:
                worker.end()
            for thread in threads:
                thread.join(timeout=10)
            for worker in workers:  # one may have come up meanwhile
                worker.end()


class Worker:
    """A process of `qwd.sweep.worker`."""

    def __init__(self, threads: int):
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as the process
        self._said: list[str] = []
        self._closing = threading.Lock()
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            # -P: a file in the current folder must not stand for a module of the same name.
            [sys.executable, "-P", "-m", "qwd.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", **limits},
            # Ctrl-C in a terminal is for this process, which then ends its workers.
            start_new_session=True,
        )
        self._send({"path": sys.path})

    def compute(self, task: Task) -> Outcome:
        """The outcome of a task; OSError or ValueError where the process died."""
        self._send(task.to_dict())
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        return Outcome(**{**answer, "notes": tuple(answer["notes"])})

    def last_words(self) -> str:
        """How the process ended, which it has."""
        self.end()
        code = self._process.returncode
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ", ".join([ended, *self._said[-1:]])[:300]

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        with self._closing:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    # What was not sent any more is of no interest.
                    with contextlib.suppress(OSError):
                        stream.close()
            if not self._errors.closed:
                self._errors.seek(0)
                self._said = self._errors.read().decode(errors="replace").strip().splitlines()
                self._errors.close()

    def _send(self, content: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content).encode() + b"\n")
        self._process.stdin.flush()
