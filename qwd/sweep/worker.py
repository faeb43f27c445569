"""The process that computes cells, one after another: ``python -m qwd.sweep.worker``.

Lines of JSON on stdin: first what to set up, then a task each, or several to be trained in one
program or measured; a line on stdout answers each of them.
At the end of stdin, which is also that of the parent however it dies, the process ends at once:
every file of a run is replaced as a whole, so that half a training can be resumed.
"""

import json
import os
import queue
import sys
import threading
import warnings
from dataclasses import asdict
from typing import Any, BinaryIO


def main() -> None:
    """Answer tasks until stdin ends."""
    # What a user's model prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, tasks), daemon=True).start()
    setup = tasks.get()
    # What the parent can import, a cell can.
    sys.path[:] = setup["path"]
    warnings.simplefilter("ignore")

    from qwd.sweep.executor import Task
    from qwd.sweep.work import compute

    while True:
        content = tasks.get()
        if "together" in content:
            from qwd.sweep.together import train_together

            notes: list[str] = []
            given = [Task.of_dict(each) for each in content["together"]]
            why = train_together(given, notes.append)
            answer: dict[str, Any] = {"why": why, "notes": notes}
        elif "calibrate" in content:
            from qwd.sweep.calibration import measured

            answer = asdict(measured([Task.of_dict(each) for each in content["calibrate"]]))
        else:
            answer = asdict(compute(Task.of_dict(content)))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _listen(stdin: BinaryIO, tasks: "queue.Queue[dict[str, Any]]") -> None:
    for line in stdin:
        tasks.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
