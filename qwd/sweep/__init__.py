"""Sweeps: a grid of trainings that share their seeds, each reported, all compared.

====================  ==========================================================================
`read`, `begin`       what is asked for, from options, variables and files; the grid it makes
`cells_of`            the trainings of a grid, refused where settings contradict each other
`sweep`               train what is missing, report every cell, compare them
`qwd.sweep.search`    learning rate, decay and momentum drawn from ranges, the best found
`Executor`            what trains cells; registered in `qwd.registry.EXECUTORS`
====================  ==========================================================================

The package itself is callable: ``qwd.sweep({"wd": [1e-5, 1e-4], "seeds": 8}, out=...)`` is
`qwd.sweep.session.sweep`. Importing it does not import torch.
"""

from qwd.callable_package import make_callable
from qwd.sweep.cells import Cell, cells_of
from qwd.sweep.design import Design
from qwd.sweep.executor import Executor, Outcome, Task
from qwd.sweep.reading import Given, begin, read

__all__ = ["Cell", "Design", "Executor", "Given", "Outcome", "Task", "begin", "cells_of", "read"]

make_callable(__name__, "qwd.sweep.session:sweep")
