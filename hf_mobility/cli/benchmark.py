"""`benchmark`: a model, ours or not, ranked beside the baselines of a named protocol."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from . import files


def benchmark(
    protocol: Annotated[str, typer.Option(help="Name of a protocol, or a .json file of your own.")] = "",
    model: Annotated[
        str | None, typer.Option(help="Folder, Hub id, or entry point: my_model.py:MyModel. Its code is run.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data files; HF_MOBILITY_DATA by default.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of results; what lies there is not made again.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Make all results again.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show the protocols and what they need, and end.")] = False,
) -> None:
    """Rank a model beside the baselines of a named protocol.

    The model is one of this package, or any class with the method of the task (docs/how-to/benchmark.md). Without
    --model the baselines are ranked alone.

    \b
    hf-mobility benchmark --list
    hf-mobility benchmark --protocol simulated-city --model checkpoints/samoe-small
    hf-mobility benchmark --protocol checkins-crosscity --model my_model.py:MyModel --data ~/checkins -o results
    """
    if listed:
        _show_protocols()
        return
    if not protocol:
        raise typer.BadParameter("name a protocol, as in --protocol simulated-city; --list shows them")
    if output is not None:
        files.check_folder(output)
    from ..benchmark import Protocol
    from ..benchmark import benchmark as run
    from ..benchmark.tables import difference_lines, for_terminal

    known = Protocol.load(protocol)
    results = run(
        known,
        model,
        data=data,
        output=output,
        again=again,
        command=_command(protocol, model),
        progress=lambda text: typer.echo(text, err=True),
    )
    typer.echo(for_terminal(results, known))
    for line in difference_lines(results, known):
        typer.echo(line)
    for note in known.notes:
        typer.echo(f"hf-mobility: {note}", err=True)
    if output is not None:
        files.done(f"{len(results)} results", output / known.name)


def _show_protocols() -> None:
    from ..benchmark.protocol import Protocol, protocol_names

    for name in protocol_names():
        known = Protocol.load(name)
        needed = [file for one in known.sets for file in one.files]
        typer.echo(f"{name} ({known.task}, {len(needed) or 'no'} data file{'' if len(needed) == 1 else 's'})")
        typer.echo(f"  {known.question}")


def _command(protocol: str, model: str | None) -> str:
    """Without paths of this machine."""
    words = ["hf-mobility", "benchmark", "--protocol", Path(protocol).name]
    if model is not None:
        words += ["--model", model if not Path(model).is_absolute() else Path(model).name]
    return shlex.join(words)
