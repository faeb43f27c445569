"""The trials of a search in an Optuna study, which several processes and machines share.

A trial is RUNNING while a process trains it, COMPLETE with
its int8 validation accuracy, PRUNED where it diverged, which is a result, and FAIL where it came
to nothing; failed ones do not count, and another is drawn for each.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from qwd.errors import StorageError, UsageError
from qwd.files import sole_user
from qwd.sweep.claims import alone, claimed, is_busy
from qwd.sweep.layout import claim_folder
from qwd.sweep.search_optuna import (
    BEAT,
    GRACE,
    FrozenTrial,
    Seeded,
    TrialState,
    connected,
    guarded,
    optuna,
    shown,
)
from qwd.sweep.search_space import Range, Space

ONE_MINUS = "1 - momentum"
"""what is drawn, evenly in the logarithm, where momentum is"""
SETTINGS, FOLDER, ERROR, FLOAT = "qwd", "folder", "error", "float_accuracy"
"""attributes: the search's settings; of a trial its folder's mark, error and float accuracy"""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of the study, whoever trained it."""

    number: int
    values: Mapping[str, float]
    """of the settings that are drawn"""
    int8_accuracy: float | None
    """on the validation split; None where it has not ended, or diverged"""
    float_accuracy: float | None
    diverged: str | None
    """the error"""
    running: bool
    """whether somebody trains it"""
    mine: bool
    """whether its run folder is in this search's folder"""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.int8_accuracy is not None or self.diverged is not None

    @property
    def id(self) -> str:
        """The name of its run folder."""
        return f"t{self.number}"


class SharedStudy:
    """A study in a storage, as one folder of a search sees it.

    ``mark`` tells the trials of the folder from those of other ones. Every method raises
    StorageError where the storage fails.
    """

    def __init__(self, storage: str, name: str, folder: Path, mark: str, space: Space, trials: int):
        self.folder, self.mark, self.space, self.trials = folder, mark, space, trials
        self._url = storage
        with guarded(self._url):
            self._storage = connected(storage)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                direction="maximize",
                sampler=Seeded(space.sampler, space.seed),
                load_if_exists=True,
            )
            self._check_settings(name)

    def _check_settings(self, name: str) -> None:
        """UsageError where the study is another's; the first process writes what it is of."""
        asked = _plain(self.space)
        # In this order: whoever began has written the settings before the first trial.
        untouched = not self._study.get_trials(deepcopy=False)
        stored = self._study.user_attrs.get(SETTINGS)
        if stored is None and untouched:
            self._study.set_user_attr(SETTINGS, asked)
            return
        if stored is None or self._study.direction != optuna.study.StudyDirection.MAXIMIZE:
            raise UsageError(
                f"--storage {shown(self._url)}: its study {name!r} is no search of qwd; choose "
                "another --name"
            )
        for key in dict.fromkeys((*stored, *asked)):
            if stored.get(key) != asked.get(key):
                raise UsageError(
                    f"the study {name!r} in {shown(self._url)} is a search with {key} "
                    f"{stored.get(key, 'not given')}, not {asked.get(key, 'not given')}; choose "
                    "another --name"
                )

    def all(self) -> tuple[Trial, ...]:
        """All trials but failed ones, in order of their numbers."""
        # To look whether a lock is free is to hold it for a moment.
        with alone(self.folder), guarded(self._url):
            return tuple(
                self._trial(t)
                for t in self._study.get_trials(deepcopy=False)
                if t.state != TrialState.FAIL
            )

    def left(self) -> int:
        """How many trials nobody has begun, or nobody trains any more."""
        with alone(self.folder), guarded(self._url):
            self._give_up()
            found = self._study.get_trials(deepcopy=False)
            alive = [t for t in found if t.state == TrialState.RUNNING and not self._dead(t)]
            return max(self.trials - sum(t.state in ENDED for t in found) - len(alive), 0)

    @contextlib.contextmanager
    def next(self) -> Iterator[Trial | None]:
        """A trial to train, which is this process's own inside; None where none is left.

        One of this folder whose process died comes first, then a new one.
        """
        with contextlib.ExitStack() as held:
            with alone(self.folder), guarded(self._url):
                trial = self._taken_over(held) or self._drawn(held)
            yield trial

    def _taken_over(self, held: contextlib.ExitStack) -> Trial | None:
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for found in running:
            if self._dead(found) and self._is_mine(found) and self._claim(found.number, held):
                if len(found.params) == len(self.space.drawn):
                    self.beat(found.number)
                    return self._trial(found)
                # Its process died while it was drawn.
                self._fail(found.number, "its process ended")
        return None

    def _give_up(self) -> None:
        """Trials that nobody trains and nobody will take over: of folders without a sign of life.

        Those of this folder are taken over, however long ago their process died.
        """
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for own in filter(self._is_mine, running):
            self.beat(own.number)
        optuna.storages.fail_stale_trials(self._study)
        for orphan in running:
            if FOLDER not in orphan.user_attrs and _old(orphan):
                self._fail(orphan.number, "its process ended")

    def _drawn(self, held: contextlib.ExitStack) -> Trial | None:
        self._give_up()
        if self._counted() >= self.trials:
            return None
        asked = self._study.ask()
        asked.set_user_attr(FOLDER, self.mark)
        self.beat(asked.number)
        # Two machines may have drawn the last one at once.
        if self._counted(before=asked.number) >= self.trials:
            self._fail(asked.number, "one more than were asked for")
            return None
        if not self._claim(asked.number, held):
            raise StorageError(f"{claim_folder(self.folder, f't{asked.number}')} is in use")
        for name, found in self.space.drawn.items():
            asked.suggest_float(*_as_drawn(name, found), log=True)
        return self._trial(self._frozen(asked.number))

    def _counted(self, before: int | None = None) -> int:
        states = (*ENDED, TrialState.RUNNING)
        found = self._study.get_trials(deepcopy=False, states=states)
        return sum(before is None or trial.number < before for trial in found)

    def ended(self, number: int, int8_accuracy: float, float_accuracy: float) -> bool:
        """Keep the result of a trial; whether it was not given up meanwhile."""
        return self._tell(number, int8_accuracy, TrialState.COMPLETE, {FLOAT: float_accuracy})

    def diverged(self, number: int, error: str) -> bool:
        """Keep a divergence, which is a result: the worst there is."""
        return self._tell(number, None, TrialState.PRUNED, {ERROR: error})

    def failed(self, number: int, error: str) -> bool:
        """Give a trial up."""
        return self._tell(number, None, TrialState.FAIL, {ERROR: error})

    def beat(self, number: int) -> None:
        """A sign of life of a trial, for those who do not see its process."""
        with guarded(self._url):
            self._storage.record_heartbeat(self._id(number))

    @contextlib.contextmanager
    def alive(self, number: int) -> Iterator[None]:
        """Signs of life of a trial, as long as this lasts."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with contextlib.suppress(StorageError):  # the next one may come through
                    self.beat(number)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=10)

    def _fail(self, number: int, error: str) -> None:
        self._tell(number, None, TrialState.FAIL, {ERROR: error})

    def _tell(
        self, number: int, value: float | None, state: TrialState, attributes: Mapping[str, Any]
    ) -> bool:
        with guarded(self._url):
            if self._frozen(number).state.is_finished():
                return False
            try:
                for key, content in attributes.items():
                    self._storage.set_trial_user_attr(self._id(number), key, content)
                self._study.tell(number, value, state)
            except (ValueError, RuntimeError):  # given up in between
                return False
            return True

    def _trial(self, found: FrozenTrial) -> Trial:
        diverged = found.state == TrialState.PRUNED
        return Trial(
            number=found.number,
            values={n: _as_used(n, found.params) for n in self.space.drawn if _has(n, found)},
            int8_accuracy=found.value if found.state == TrialState.COMPLETE else None,
            float_accuracy=found.user_attrs.get(FLOAT),
            diverged=found.user_attrs.get(ERROR, "diverged") if diverged else None,
            running=found.state == TrialState.RUNNING and not self._dead(found),
            mine=self._is_mine(found),
        )

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get(FOLDER) == self.mark

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether this folder's process that trained it is no more."""
        return self._is_mine(trial) and not claimed(claim_folder(self.folder, f"t{trial.number}"))

    def _claim(self, number: int, held: contextlib.ExitStack) -> bool:
        try:
            held.enter_context(sole_user(claim_folder(self.folder, f"t{number}")))
        except StorageError as error:
            if is_busy(error):
                return False
            raise
        return True


def _plain(space: Space) -> dict[str, Any]:
    """What all that share a study must have in common, as JSON."""
    from qwd.config import MACHINE_SETTINGS

    content = {n: v for n, v in space.to_dict().items() if n not in MACHINE_SETTINGS}
    return json.loads(json.dumps(content))


def _old(trial: FrozenTrial) -> bool:
    began = trial.datetime_start
    return began is not None and datetime.now() - began > timedelta(seconds=GRACE)


def _as_drawn(name: str, found: Range) -> tuple[str, float, float]:
    if name == "momentum":
        return ONE_MINUS, 1 - found.high, 1 - found.low
    return name, found.low, found.high


def _as_used(name: str, params: Mapping[str, float]) -> float:
    return 1 - params[ONE_MINUS] if name == "momentum" else params[name]


def _has(name: str, trial: FrozenTrial) -> bool:
    return (ONE_MINUS if name == "momentum" else name) in trial.params
