"""`hf-mobility`: the verbs of the package as commands, files in and files out.

A command reads, calls one verb and writes. What is wrong with data or arguments is said by the library, in its one
sentence on stderr, with exit code 1; 2 is a command that was written wrongly. Heavy packages are imported inside the
commands, so that `--help` is quick.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from ..version import __version__
from .benchmark import benchmark
from .convert import convert
from .evaluate import audit, evaluate
from .export import export
from .predict import embed, forecast, generate, predict
from .prepare import prepare
from .push import info, push
from .reading import with_reading
from .train import adapt, train

app = typer.Typer(
    name="hf-mobility",
    help="Models of human mobility: next places, synthetic weeks, embeddings. Files are .parquet, .csv or .geoparquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    *(prepare, train, adapt, predict, forecast, generate, embed),
    *(evaluate, benchmark, audit, info, push, convert, export),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-mobility {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Models of human mobility: next places, synthetic weeks, embeddings. Files are .parquet, .csv or .geoparquet."""


def _in_one_sentence(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose faults in data and arguments end in one sentence and exit code 1."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except BrokenPipeError:  # the reader of `-o -` has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to write at exit
            raise typer.Exit(0) from None
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"hf-mobility: {error}{_as_options(str(error), function)}", err=True)
            raise typer.Exit(1) from error

    return command


def _as_options(sentence: str, function: Callable[..., None]) -> str:
    """The library speaks of arguments; which of them the command has as options."""
    spoken = set(re.findall(r"\b([a-z_]+)(?:=| must\b)", sentence)) & set(inspect.signature(function).parameters)
    options = [f"--{name.replace('_', '-')}" for name in sorted(spoken)]
    options += [f"--column {role}=NAME" for role in re.findall(r"as in (\w+)='my_column'", sentence)]
    missing = [option for option in options if option not in sentence]
    return f" (Here: {', '.join(missing)}.)" if missing else ""


for _function in COMMANDS:
    app.command()(_in_one_sentence(with_reading(_function)))


if __name__ == "__main__":
    app()
