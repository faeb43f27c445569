"""A process that trains trials of a search until none is left.

``python -m qwd.sweep.search_worker``. A line of JSON on stdin says what to search; the end of each
trial is a line of JSON on stdout. At the end of stdin, which is also that of the parent however it
dies, the process ends at once: half a training can be resumed, and the trial is taken over by
whoever asks next.
"""

import json
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULT = 70


def main() -> None:
    """Train until no trial is left, or one fails."""
    # What a user's model prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # What the parent can import, a trial can.
    sys.path[:] = setup["path"]
    warnings.simplefilter("ignore")

    def say(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    from qwd.errors import QwdError, reason

    try:
        work(setup, say)
    except QwdError as error:
        say(failed=str(error), exit_code=error.exit_code)
    except OSError as error:
        say(failed=f"{error.strerror or reason(error)}", exit_code=4)
    except Exception as error:  # of a model or data set that anyone may have written
        say(failed=f"{type(error).__name__}: {reason(error)}", exit_code=FAULT)


def work(setup: dict[str, Any], say: Callable[..., None]) -> None:
    """Train trials of the search in ``setup["folder"]``, and say what becomes of each."""
    from qwd.errors import DivergedError
    from qwd.report.subject import Subjects
    from qwd.sweep.found import write_divergence
    from qwd.sweep.layout import cell_folder
    from qwd.sweep.search_folder import opened
    from qwd.sweep.search_objective import score

    folder = Path(setup["folder"])
    search = opened(folder)
    study, subjects = search.study(setup["storage"], setup["trials"]), Subjects({})
    while True:
        with study.next() as trial:
            if trial is None:
                return
            config = search.space.config(trial.values)
            run = cell_folder(folder, trial.id)
            say(began=trial.number)
            try:
                with study.alive(trial.number):
                    found = score(run, config, search.space.calibration_n, subjects)
            except DivergedError as error:
                write_divergence(run, config, str(error))
                kept = study.diverged(trial.number, str(error))
            except Exception as error:
                study.failed(trial.number, f"{type(error).__name__}: {error}"[:300])
                say(in_trial=trial.number)
                raise
            else:
                kept = study.ended(trial.number, found.int8_accuracy, found.float_accuracy)
            say(ended=trial.number, kept=kept)


def _end_with_the_parent() -> None:
    # Not through sys.stdin, whose lock must be free when the interpreter ends.
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
