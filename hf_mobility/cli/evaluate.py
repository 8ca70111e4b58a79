"""`evaluate` and `audit`: what a model is worth, and what data give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import files
from .options import (
    BatchSize,
    Columns,
    Device,
    FillHours,
    MaybeOutput,
    MinKnown,
    Model,
    NewCity,
    Records,
    Seed,
    Sep,
    TimeFormat,
    Timezone,
)


def evaluate(
    model: Model,
    data: Records,
    output: MaybeOutput = None,
    city: NewCity = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(help="Of each user's visits (SAMoE), or of the users; by default as in training, or 0.2."),
    ] = None,
    min_known: MinKnown = None,
    fill_hours: FillHours = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split and of everything random; by default as in training, or 0.")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
    sep: Sep = None,
    time_format: TimeFormat = None,
) -> None:
    """Evaluate a model on records that it was not trained on, baselines first.

    SAMoE: ranking of every user's last visits. M-STAR: fidelity of generated weeks to those of a part of the users.
    RAW: positions of a part of the users. What a model was trained on is no test of it, and is refused.

    \b
    hf-mobility evaluate checkpoints/samoe-small visits.parquet --city visits.parquet --timezone Europe/Paris
    hf-mobility evaluate my-raw points.parquet -o results.csv
    """
    files.check_output(output)
    files.check_inputs(data, city)
    from ..checkpoints.evaluate import evaluate_checkpoint
    from ..training.fit import check_device

    check_device(device)
    table = evaluate_checkpoint(
        model,
        files.records(data, timezone=timezone, column=column, sep=sep, time_format=time_format),
        city=files.read_city(city, timezone=timezone, column=column, sep=sep),
        test_fraction=test_fraction,
        min_known=min_known,
        fill_hours=fill_hours,
        seed=seed,
        timezone=timezone,
        device=device,
        batch_size=batch_size,
    )
    main = table[table.attrs["main"]]
    files.say(main.round(4).to_string(index=False), output=output)
    for note in table.attrs.get("notes", ()):
        typer.echo(f"hf-mobility: {note}", err=True)
    if output is not None:
        files.write_frame(table, output)
        files.done("all measures", output)


def audit(
    data: Annotated[Path, typer.Argument(help="Generated weeks, or visits.")],
    output: MaybeOutput = None,
    train: Annotated[Path | None, typer.Option(help="What the generator was trained on.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Weeks or visits of other real users.")] = None,
    city: Annotated[str | None, typer.Option(help="Generator whose grid turns visits into weeks.")] = None,
    min_users: Annotated[
        int, typer.Option("--min-users", "--min-people", help="Places with fewer users count as rare.")
    ] = 5,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
    sep: Sep = None,
    time_format: TimeFormat = None,
) -> None:
    """What visits, or generated weeks, give away about single users.

    \b
    hf-mobility audit visits.parquet -o audit.csv
    hf-mobility audit weeks.parquet --train train.parquet --held-out others.parquet --city checkpoints/mstar-small
    """
    files.check_output(output)
    files.check_inputs(data, train, held_out)
    reading: dict[str, Any] = {"timezone": timezone, "column": column, "sep": sep, "time_format": time_format}
    if (train is None) != (held_out is None) or (train is None and files.holds_weeks(data)):
        raise typer.BadParameter("weeks are compared with others: give both --train and --held-out")
    from ..evaluation import audit as measure

    if train is None or held_out is None:
        table = measure(files.visits_frame(data, **reading), min_users=min_users, seed=seed)
    else:
        tables = (_week_cells(path, city, reading) for path in (data, train, held_out))
        (made, _), (known, users), (other, _) = tables
        table = measure(made, train=known, held_out=other, train_users=users, seed=seed)
    for sentence in table["sentence"]:
        files.say(sentence, output=output)
    if output is not None:
        files.write_frame(table, output)
        files.done(f"{len(table)} measures", output)


def _week_cells(path: Path, city: str | None, reading: dict[str, Any]) -> tuple[Any, Any]:
    """(N, L) cells and the (N,) users, or None: generated weeks, a table of weeks, or visits with the city's grid."""
    from ..data.cutting import weeks_on
    from ..data.io.exports import week_matrix
    from ..data.weeks import WeekTable, read_weeks
    from ..tokenization.tokenization_mstar import MstarTokenizer

    if files.holds_weeks(path):
        return week_matrix(files.read_frame(path))[1], None
    data = files.records(path, **reading) if city is not None else read_weeks(files.read_frame(path))
    if isinstance(data, WeekTable):
        return data.cells, data.user_id
    frame = files.visits_frame(path, **reading)
    cells, users, _ = weeks_on(MstarTokenizer.from_pretrained(str(city)), frame)
    return cells, users
