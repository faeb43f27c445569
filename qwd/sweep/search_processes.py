"""Several processes that train trials of one search side by side."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FAULT = 70


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a process says: a trial began or ended, or the process came to its end by an error."""

    began: int | None = None
    ended: int | None = None
    kept: bool = True
    """False: others had given the trial up, and its result is not counted"""
    failed: str | None = None
    exit_code: int = 0
    in_trial: int | None = None
    """the trial that an error belongs to"""


def side_by_side(
    folder: Path, storage: str, trials: int, processes: int, threads: int
) -> Generator[Event, None, None]:
    """Train until nothing is left to do, and yield what happens.

    Closing the iterator stops all processes at once; what is half done can be resumed.
    """
    heard: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    setup = {"path": sys.path, "folder": str(folder), "storage": storage, "trials": trials}
    workers = [_Worker(setup, threads, heard) for _ in range(processes)]
    try:
        left = len(workers)
        while left:
            event = heard.get()
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process of `qwd.sweep.search_worker`."""

    def __init__(
        self, setup: dict[str, Any], threads: int, heard: "queue.SimpleQueue[Event | None]"
    ):
        self._heard = heard
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as the process
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            # -P: a file in the current folder must not stand for a module of the same name.
            [sys.executable, "-P", "-m", "qwd.sweep.search_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", **limits},
            # Ctrl-C in a terminal is for the parent, which then ends its workers.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(setup).encode() + b"\n")
        self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        in_trial, said_why = None, False
        assert self._process.stdout is not None
        for line in self._process.stdout:
            content = json.loads(line)
            in_trial = content.get("in_trial", in_trial)
            if "in_trial" not in content:
                event = Event(**content, in_trial=in_trial if "failed" in content else None)
                said_why = event.failed is not None
                self._heard.put(event)
        code = self._process.wait()
        if code and not said_why:
            self._heard.put(Event(failed=self._last_words(code), exit_code=FAULT))
        self._heard.put(None)

    def _last_words(self, code: int) -> str:
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return ", ".join([f"a process ended: {ended}", *said[-1:]])[:300]

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._listener.join(timeout=10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._errors.close()
