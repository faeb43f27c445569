"""`qwd train`."""

import os
from pathlib import Path
from typing import Any

import click

from qwd import layers
from qwd.config import TrainConfig
from qwd.errors import UsageError
from qwd.train import layout
from qwd_cli.options import Command, config_option, given, setting_options, settings_in


@click.command("train", cls=Command)
@setting_options()
@click.option("--out", metavar="DIR", help="the run's own folder [runs/MODEL-DATA-wdWD-sSEED]")
@click.option("--resume", is_flag=True, help="go on with the run in its folder")
@config_option
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
    if resume and config_file:
        raise UsageError(f"--config {config_file}: with --resume the settings are the run's own")
    stored = Path(out or "") / layout.CONFIG
    if resume and out and stored.is_file():
        config = layers.from_layers(typed, {}, layers.load_yaml(stored))
    else:
        file = settings_in(config_file)
        given_settings = layers.values_from(typed, os.environ, file)
        if given_settings.get("from_"):
            from qwd.train.start import continued

            config = continued(given_settings)
        else:
            config = TrainConfig(**given_settings)
    if print_config:
        click.echo(config.to_yaml(), nl=False)
        return

    from qwd.train.session import train
    from qwd_cli.progress import TrainingProgress

    with TrainingProgress() as progress:
        run = train(config, out=out, resume=resume, watcher=progress)
    click.echo(f"next: qwd quantize-report {run.path}", err=True)
    click.echo(run.path)
