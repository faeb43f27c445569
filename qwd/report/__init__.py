"""Reports: from runs, checkpoints or networks to figures, comparison and text.

The package itself is callable: ``qwd.report(model_or_path, data=None)`` is
`qwd.report.entry.report`.
"""

from qwd.callable_package import make_callable

make_callable(__name__, "qwd.report.entry:report")
