"""The executor of one machine: a process per core, cells handed out as cores free up."""

import contextlib
import functools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

from qwd.errors import reason
from qwd.sweep.executor import Note, Outcome, Task, Unit, cores, unheard

FAULT = 70
MEMORY = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(1 << 30))
"""glibc keeps what is freed: else every step has the kernel clear the pages of its tensors anew"""


class Processes:
    """Each cell is computed by `qwd.train` in one of several processes.

    A process has as many threads as the cells ask for, one unless that is said. The processes are
    new ones, not forks: they inherit no threads of torch, and end with this one however it ends.
    """

    summary = "one single-threaded process per core; the weights of `qwd train`, bitwise"
    tolerance = 0.0

    def __init__(self) -> None:
        self.why: str | None = None
        self.note: Note = unheard

    def jobs(self, tasks: Sequence[Task], asked: int | None) -> int:
        """As many as cores for their threads; no more than tasks."""
        threads = max((task.config.threads or 1 for task in tasks), default=1)
        return max(1, min(asked or cores() // threads, len(tasks)))

    def units(self, tasks: Sequence[Task], asked: int | None) -> list[Unit]:
        """A cell at a time."""
        return [(task,) for task in tasks]

    def run(self, tasks: Sequence[Task], asked: int | None = None) -> Iterator[Outcome]:
        """Compute the tasks; see `qwd.sweep.executor.Executor`."""
        return handed_out(self.units(tasks, asked), self.jobs(tasks, asked), self.note)


def handed_out(units: Sequence[Unit], jobs: int, note: Note) -> Iterator[Outcome]:
    """The outcomes of all tasks, computed by so many processes.

    A unit of several tasks is trained in one program first, and its tasks are then computed one by
    one: reported, or trained where that was not possible. ``note`` hears the reason, and what a
    program has to say.
    """
    left = deque(units)
    outcomes: queue.SimpleQueue[Outcome | str] = queue.SimpleQueue()
    changed = threading.Condition()
    busy = 0
    stopped = threading.Event()
    workers: list[Worker] = []

    def taken() -> Unit | None:
        """The next unit; None once there is none and nobody can add any."""
        nonlocal busy
        with changed:
            while not left and busy and not stopped.is_set():
                changed.wait(timeout=1)
            if stopped.is_set() or not left:
                return None
            unit = left.popleft()
            busy += len(unit) > 1
            return unit

    def trained(unit: Unit, why: str | None) -> None:
        """Leave the tasks of a unit to be computed one by one; ``why`` they were not trained."""
        nonlocal busy
        with changed:
            # What has been trained anew is not to be thrown away, what was there before is.
            alone = [replace(task, anew=task.anew and why is not None) for task in reversed(unit)]
            left.extendleft((task,) for task in alone)
            busy -= 1
            changed.notify_all()

    def heard(unit: Unit, text: str) -> None:
        """What a user should know of a unit of several tasks."""
        outcomes.put(f"--model {unit[0].config.model}: {text}")

    def work() -> None:
        """Hand one unit after another to a worker, a new one where it died."""
        worker: Worker | None = None
        while (unit := taken()) is not None:
            why: str | None = None
            outcome: Outcome | None = None
            try:
                if worker is None:
                    worker = Worker(unit[0].config.threads or 1)
                    workers.append(worker)
                    if stopped.is_set():
                        break
                if len(unit) > 1:
                    why = worker.train_together(unit, functools.partial(heard, unit))
                else:
                    outcome = worker.compute(unit[0])
            except (OSError, ValueError) as error:
                said = worker.last_words() if worker else reason(error)
                worker = None
                why = f"its process ended{said and f': {said}'}"
                outcome = Outcome(cell=unit[0].cell, status="failed", error=why, exit_code=FAULT)
            if len(unit) == 1:
                assert outcome is not None
                outcomes.put(outcome)
                continue
            if why is not None and not stopped.is_set():
                heard(unit, f"processes, not fused: {why}")
            trained(unit, why)
        if worker is not None:
            worker.end()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs if units else 0)]
    for thread in threads:
        thread.start()
    said: set[str] = set()
    try:
        ended, of = 0, sum(len(unit) for unit in units)
        while ended < of:
            outcome = outcomes.get()
            if isinstance(outcome, Outcome):
                ended += 1
                yield outcome
            elif outcome not in said:  # parts of one group say the same
                said.add(outcome)
                note(outcome)
    finally:
        stopped.set()
        with changed:
            left.clear()
            changed.notify_all()
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
            env={**MEMORY, **os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", **limits},
            # Ctrl-C in a terminal is for this process, which then ends its workers.
            start_new_session=True,
        )
        self._send({"path": sys.path})

    def compute(self, task: Task) -> Outcome:
        """The outcome of a task; OSError or ValueError where the process died."""
        answer = self._asked(task.to_dict())
        return Outcome(**{**answer, "notes": tuple(answer["notes"])})

    def train_together(self, tasks: Sequence[Task], note: Note) -> str | None:
        """Train them in one program; why not, where that is so. Raises as `compute` does."""
        answer = self._asked({"together": [task.to_dict() for task in tasks]})
        for text in answer["notes"]:
            note(text)
        return answer["why"]

    def calibrate(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What `qwd.sweep.calibration.measured` says of them. Raises as `compute` does."""
        return self._asked({"calibrate": [task.to_dict() for task in tasks]})

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

    def _asked(self, content: dict[str, Any]) -> dict[str, Any]:
        self._send(content)
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _send(self, content: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(content).encode() + b"\n")
        self._process.stdin.flush()
