"""The `qwd` command: which subcommands there are, and what becomes of an error.

Nothing here imports torch: help and errors in options answer at once.
"""

import importlib
import os
import signal
import sys
import warnings
from types import FrameType
from typing import Any, NoReturn

import click

from qwd.errors import QwdError, StorageError

COMMANDS = {
    "train": "Train one model with a weight decay.",
    "sweep": "Train a grid of decays and seeds, and give a verdict with its uncertainty.",
    "quantize-report": "Quantize runs or checkpoints to 8 bits and report on them.",
    "export": "Write a checked int8 model: ONNX, torch.export (.pt2) or safetensors.",
    "compare": "Compare two reports, with limits for CI.",
    "dose": "What weight decays will do in a training, without running it.",
    "find-lr": "Find a learning rate by a range test, with a plot.",
    "cross-validate": "Choose a weight decay by stratified k-fold cross-validation.",
    "list": "List what can be named: models, data, decay forms, schedules, backends.",
}

FAULT = 70
INTERRUPTED, TERMINATED = ("interrupted", 130), ("terminated", 143)
LONGEST = 1000
"""characters of an error"""
_signalled: list[tuple[str, int]] = []
"""signals that came: torch, while it is imported, loses their exceptions and then fails itself"""


class LazyGroup(click.Group):
    """Imports a subcommand's module (``qwd_cli.<name>``) only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"qwd_cli.{cmd_name.replace('-', '_')}")
        return module.command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from qwd.registry import suggestion

        if args and args[0] not in COMMANDS:
            ctx.fail(f"unknown command {args[0]!r}: {suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qwd", message="qwd %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks and third-party warnings.")
def cli(debug: bool) -> None:
    """Train with a weight decay, quantize to 8 bits with scale = (b-a)/255, and see whether the
    decay helped the int8 model."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code; errors are one line on stderr."""
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args
    # Accepted in any position, like --help.
    args = (["--debug"] if debug else []) + [arg for arg in args if arg != "--debug"]
    if not debug:
        warnings.simplefilter("ignore")
        # Deprecations that C++ code prints around Python's warning filters.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _signalled.clear()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, _interrupt)
    if hasattr(signal, "SIGPIPE"):
        # A reader that leaves (`| head`) ends the command as it ends any other.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        code = cli.main(args, prog_name="qwd", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        code = 2
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort):
        code = _fail(*INTERRUPTED, debug=False)
    except SystemExit:
        if not _signalled:
            raise
        code = _fail(*_signalled[0], debug=False)
    except QwdError as error:
        code = _fail(str(error), error.exit_code, debug)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        code = _fail(f"{error.strerror or error}{where}", StorageError.exit_code, debug)
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        what = f"a fault of qwd itself, {what} (--debug shows where)"
        code = _fail(*(_signalled or [(what, FAULT)])[0], debug)
    sys.exit(code)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"qwd: error: {_shown(message)}", err=True)
    return code


def _shown(message: str) -> str:
    """On one line; of a value too long to read the middle is left out, not what would be right."""
    from qwd.printable import printable

    line = printable(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}...{line[-LONGEST // 2 :]}"


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    _signalled.append(INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    _signalled.append(TERMINATED)
    raise SystemExit(TERMINATED[1])
