"""The executor that trains cells together: one program for all that differ in numbers alone."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType

from qwd.sweep.executor import Note, Outcome, Task, Unit, unheard
from qwd.sweep.processes import Processes, handed_out
from qwd.train.devices import device_called
from qwd.train.fused.fitting import kind, obstacle


class Fused:
    """Cells of one kind are trained in one program, see `qwd.train.fused`, and reported singly.

    On a CPU the cells of a kind are shared out among as many processes as `Processes` has, on a GPU
    they are one program. What cannot be carried is left to `Processes`, and ``note`` hears why.
    ``apart``: kinds that are left to them too. ``factors``: time of a step in one program, of its
    time alone, where that was measured.
    """

    summary = "replicas of a model trained in one program; tolerance 0.05 in float32, see the docs"
    tolerance = 0.05

    def __init__(
        self,
        apart: frozenset[Hashable] = frozenset(),
        factors: Mapping[Hashable, float] = MappingProxyType({}),
    ):
        self.apart = apart
        self.factors = factors
        self.why: str | None = None
        self.note: Note = unheard

    def jobs(self, tasks: Sequence[Task], asked: int | None) -> int:
        """How many processes there are; each may train many cells."""
        return Processes().jobs(tasks, asked)

    def run(self, tasks: Sequence[Task], asked: int | None = None) -> Iterator[Outcome]:
        """Compute the tasks; see `qwd.sweep.executor.Executor`."""
        for text in self.not_carried(tasks):
            self.note(text)
        return handed_out(self.units(tasks, asked), self.jobs(tasks, asked), self.note)

    def not_carried(self, tasks: Sequence[Task]) -> list[str]:
        """A line for each reason why cells are left to processes."""
        counted: dict[str, int] = defaultdict(int)
        for task in tasks:
            if (why := obstacle(task.config)) is not None:
                counted[why] += 1
        return [f"{n} cells by processes, not fused: {why}" for why, n in counted.items()]

    def units(self, tasks: Sequence[Task], asked: int | None) -> list[Unit]:
        """What each process is given at once, in the order of the first cell of each unit."""
        jobs = self.jobs(tasks, asked)
        units: list[Unit] = []
        for group in groups(tasks):
            first = group[0].config
            if len(group) == 1 or obstacle(first) or kind(first) in self.apart:
                units += [(task,) for task in group]
            else:
                units += shared_out(group, 1 if on_gpu(group[0]) else jobs)
        places = {task.cell: place for place, task in enumerate(tasks)}
        return sorted(units, key=lambda unit: places[unit[0].cell])


def groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks by kind."""
    found: dict[Hashable, list[Task]] = defaultdict(list)
    for task in tasks:
        found[kind(task.config)].append(task)
    return list(found.values())


def shared_out(group: Sequence[Task], parts: int) -> list[Unit]:
    """Neighbours together, cells of one seed as far as can be: they share their batches."""
    size = -(-len(group) // parts)
    return [tuple(group[start : start + size]) for start in range(0, len(group), size)]


def on_gpu(task: Task) -> bool:
    """Whether a cell is trained on one."""
    return device_called(task.config.device).type == "cuda"
