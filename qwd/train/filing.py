"""What a session leaves in its run folder: at its start, after epochs, and at its end."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwd.config import MACHINE_SETTINGS, TrainConfig
from qwd.errors import UsageError
from qwd.setting import option_name
from qwd.train import layout, run

if TYPE_CHECKING:
    from qwd.train.session import Session


def settings_to_resume(folder: Path, asked: TrainConfig) -> TrainConfig:
    """The stored settings of the run in ``folder``, on the machine that is asked for.

    Raises InputError where they cannot be read, UsageError where others are asked for.
    """
    stored = run.read_config(folder)
    machine = {name: getattr(asked, name) for name in MACHINE_SETTINGS}
    for name, value in vars(asked).items():
        # Normalisation that is not asked for is the one computed when the run began.
        if name in MACHINE_SETTINGS or (name in ("mean", "std") and value is None):
            continue
        if value != getattr(stored, name):
            raise UsageError(
                f"{option_name(name)} {value!r}: the run in {folder} has "
                f"{getattr(stored, name)!r}; resume it with that, or choose another --out"
            )
    return replace(stored, **machine)


def begin(session: "Session", folder: Path, resume: bool, replicas: int = 1) -> None:
    """Write the start of a run folder, or go back to the state that is stored there.

    ``replicas`` is how many sessions are trained in one program.
    """
    state = run.read_checkpoint(folder) if resume else None
    if state is not None:
        session.restore(state, folder)
    else:
        compiled = session.forward.compiled
        about = session.config, session.device, session.audit
        run.write_start(folder, *about, compiled=compiled, replicas=replicas)


def store(session: "Session", folder: Path) -> None:
    """Write what a run that ends here can be resumed from, and weights that are kept."""
    epoch, every = len(session.history), session.config.keep_every
    if every is not None and epoch % every == 0:
        run.write_model(folder / layout.epoch_weights(epoch), session.network)
    run.write_checkpoint(folder, session.state())
    run.write_metrics(folder, session.history)


def finish(session: "Session", folder: Path) -> None:
    """Write the trained weights of a session that has ended."""
    # Again, for a run that was killed between its last checkpoint and these.
    run.write_metrics(folder, session.history)
    session.stopping.restore(session.model)
    if session.config.qat:
        run.write_grids(folder, session.awareness.grids())
    # The last file: with it a run is finished.
    run.write_model(folder / layout.WEIGHTS, session.network)
