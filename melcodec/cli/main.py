"""The entry point: adds the commands, and turns expected failures into one line, a hint and exit status 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from melcodec.cli._console import say_error
from melcodec.cli._examples import epilog, flowed, walk_commands
from melcodec.cli._standard import Closed, clean_up, mend_streams, send_outputs
from melcodec.cli.bench import bench
from melcodec.cli.compare import compare
from melcodec.cli.config import config_app
from melcodec.cli.convert import export_xtts, import_xtts
from melcodec.cli.corpus import corpus_app
from melcodec.cli.decode import decode
from melcodec.cli.encode import encode
from melcodec.cli.evaluate import evaluate
from melcodec.cli.export_onnx import export_onnx
from melcodec.cli.info import info
from melcodec.cli.mel_stats import mel_stats
from melcodec.cli.plot import plot_app
from melcodec.cli.preprocess import preprocess
from melcodec.cli.prior import prior_app
from melcodec.cli.roundtrip import roundtrip
from melcodec.cli.sweep import sweep
from melcodec.cli.train import train
from melcodec.cli.vocoder import vocoder_app
from melcodec.errors import MelcodecError, from_os
from melcodec.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Speech to discrete codes and back: 21.5 codes a second, 215 bit/s, exact with XTTS.",
)


HelpWords = Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Command to explain.", show_default=False)]


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"melcodec {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options before the command."""


PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Use": (encode, decode, roundtrip, preprocess, info),
    "Judge": (evaluate, compare, bench),
    "Train": (train, sweep, mel_stats),
    "Exchange": (import_xtts, export_xtts, export_onnx),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(command)
app.add_typer(plot_app, name="plot", rich_help_panel="Use")
app.add_typer(prior_app, name="prior", rich_help_panel="Train")
app.add_typer(config_app, name="config", rich_help_panel="Train")
app.add_typer(vocoder_app, name="vocoder", rich_help_panel="Train")
app.add_typer(corpus_app, name="corpus", rich_help_panel="Use")


@app.command("help", rich_help_panel="Use")
def show_help(words: HelpWords = None) -> None:
    """Show what a command does: melcodec help encode, melcodec help plot mel."""
    whole_command()([*(words or []), "--help"], prog_name="melcodec")


def whole_command() -> Any:
    """All commands, each with its help reflowed, in words and not in types of Python, and with its examples at the end."""
    whole = typer.main.get_command(app)
    for name, each in walk_commands(whole):
        each.help = flowed(each.help or "")
        each.epilog = epilog(name)
        for parameter in each.params:
            if parameter.param_type_name == "argument" or parameter.is_flag:  # else <list[Path]> and <bool> stand beside them
                parameter.display_type_rich = lambda ctx: ""
    return whole


def main() -> None:
    """Run the command line."""
    mend_streams()
    try:
        try:
            whole_command()(prog_name="melcodec")
        except SystemExit as end:
            if not end.code:
                send_outputs()
            raise
        finally:
            flush_stdout()
    except MelcodecError as error:
        say_error(error)
        sys.exit(1)
    except KeyboardInterrupt:  # where typer does not catch it, such as while modules are imported
        sys.exit(130)
    except BrokenPipeError:  # the program that reads our stdout ended: as typer does, exit with 1 and no message
        sys.exit(1)
    except OSError as error:
        say_error(from_os(error))
        sys.exit(1)
    finally:
        clean_up()


def flush_stdout() -> None:
    """Write what is still in the buffer, so that a closed pipe or a full disk is found here and not by Python at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        if isinstance(sys.stdout, Closed):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
