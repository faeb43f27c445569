"""`qwd train`."""

import os
from pathlib import Path
from typing import Any

import click

from qwd import config as settings
from qwd.errors import UsageError
from qwd_cli.options import given, setting_options


@click.command("train")
@setting_options()
@click.option("--out", metavar="DIR", help="the run's own folder [runs/MODEL-DATA-wdWD-sSEED]")
@click.option("--resume", is_flag=True, help="go on with the run in its folder")
@click.option("--config", "config_file", metavar="FILE", help="settings from a YAML file")
@click.option("--print-config", is_flag=True, help="print the settings as YAML and stop")
def command(
    out: str | None, resume: bool, config_file: str | None, print_config: bool, **options: Any
) -> None:
    """Train one model with a weight decay.

    Progress goes to stderr; the last line of stdout is the run folder.
    """
    typed = given(options)
    if out is not None and not out.strip():
        raise UsageError("--out '': expected a folder")
    if resume and out is not None:
        config = _resumed(Path(out), config_file, typed)
    else:
        file = settings.load_yaml(config_file) if config_file else {}
        config = settings.from_layers(typed, os.environ, file)
    if print_config:
        click.echo(config.to_yaml(), nl=False)
        return

    from qwd.train.session import train
    from qwd_cli.progress import TrainingProgress

    with TrainingProgress() as progress:
        run = train(config, out=out, resume=resume, watcher=progress)
    click.echo(f"next: qwd quantize-report {run.path}", err=True)
    click.echo(run.path)


def _resumed(folder: Path, config_file: str | None, typed: dict[str, Any]) -> settings.TrainConfig:
    """The run's own settings; options that contradict them are refused."""
    if config_file:
        raise UsageError(f"--config {config_file}: with --resume the settings are the run's own")
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"--resume: {folder} is no run folder; leave --resume out to start one")
    stored = settings.from_layers({}, {}, settings.load_yaml(folder / "config.yaml"))
    for name, raw in typed.items():
        field = next(f for f in settings.fields() if f.name == name)
        value = settings.read(field, raw)
        if value != getattr(stored, name):
            raise UsageError(
                f"{settings.option_name(name)} {raw!r}: the run in {folder} has "
                f"{getattr(stored, name)!r}; resume it without this option, or choose another --out"
            )
    return stored
