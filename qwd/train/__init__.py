"""Training: data, models, schedules, one readable loop, run folders.

The package itself is callable: ``qwd.train(config, out=..., resume=...)`` is
`qwd.train.session.train`.
"""

from qwd.callable_package import make_callable

make_callable(__name__, "qwd.train.session:train")
