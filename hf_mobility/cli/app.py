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
from typer.core import TyperCommand

from ..version import __version__
from . import files
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
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # of click, or of typer's own copy of it
EXAMPLES = {  # of values, where a sentence of the library names an argument
    **{"timezone": "Europe/Berlin", "city": "places.parquet", "unknown": "nearest", "horizon": "2"},
    **{"bounds": "48.0,11.4,48.2,11.7", "coverage": "0.99", "cell_km": "0.5", "min_known": "0.3", "fill_hours": "2"},
    **{"top_k": "5", "steps": "200", "batch_size": "32", "learning_rate": "0.0003", "epochs": "3", "size": "small"},
    **{"test_fraction": "0.2", "min_users": "5", "number": "1000", "start": "2024-01-01", "end": "2024-01-15"},
    **{"codec": "my-codec", "observe": "0.5", "days": "28", "seed": "0", "pooling": "mean", "device": "cpu"},
}


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
    """A command that says at once that it works, as imports alone take seconds, and whose faults in data and arguments
    end in one sentence and exit code 1."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        files.doing(f"{function.__name__} begins")
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
    """The library speaks of arguments; which of them the command has as options, each with a value."""
    spoken = set(re.findall(r"\b([a-z_]+)(?:=| must\b)", sentence)) & set(inspect.signature(function).parameters)
    options = [f"--{name.replace('_', '-')} {EXAMPLES.get(name, '')}".strip() for name in sorted(spoken)]
    options += [f"--column {role}=NAME" for role in re.findall(r"as in (\w+)='my_column'", sentence)]
    missing = [option for option in options if option.split()[0] not in sentence or "NAME" in option]
    return f" (Here: {', '.join(missing)}.)" if missing else ""


class _WithExample(TyperCommand):
    """A command that, where it was written wrongly, is shown as it is written rightly."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            example = re.search(r"^ *(hf-mobility \w+ .*)$", self.help or "", flags=re.MULTILINE)
            if example is not None:
                error.message = f"{error.message} For example: {example[1]}".strip()
            raise


for _function in COMMANDS:
    app.command(cls=_WithExample)(_in_one_sentence(with_reading(_function)))


if __name__ == "__main__":
    app()
