"""`evaluate` and `audit`: what a model is worth, and what data give away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import files, parts
from .options import (
    BatchSize,
    Device,
    FillHours,
    MaybeOutput,
    MinKnown,
    Model,
    NewCity,
    Records,
    Seed,
    check_counting,
)
from .reading import Reading

_FILES = ["visits", "weeks"]
_FOR_DATA = {"min_users": ["visits", "a folder"], "city": ["weeks"], "timezone": _FILES, "column": _FILES}
_FOR_DATA |= {"sep": _FILES, "time_format": _FILES}


def evaluate(
    model: Model,
    data: Records,
    output: MaybeOutput = None,
    city: NewCity = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(help="Of each user's visits (SAMoE), or of the users; by default as in training, or 0.2."),
    ] = None,
    groups: Annotated[
        bool, typer.Option("--groups", help="Also by history, activity, centre and new places (SAMoE).")
    ] = False,
    min_known: MinKnown = None,
    fill_hours: FillHours = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the split and of everything random; by default as in training, or 0.")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    *,
    reading: Reading,
) -> None:
    """Evaluate a model on records that it was not trained on, baselines first.

    SAMoE: ranking of every user's last visits, per visit and per user (`user_`). M-STAR: generated weeks beside those
    of a part of the users, as distributions and user by user. RAW: positions of a part of the users. What a model was
    trained on is no test of it, and is refused.

    \b
    hf-mobility evaluate checkpoints/samoe-small visits.parquet --city visits.parquet --timezone Europe/Paris
    hf-mobility evaluate my-raw points.parquet -o results.csv
    """
    files.check_output(output)
    reading.check(parts.one_of(data), city)
    from ..checkpoints.evaluate import evaluate_checkpoint
    from ..hub.device import check_device

    check_device(device)
    records, place = reading.records(data), reading.city(city)
    files.doing(f"comparing {model} with baselines")
    table = evaluate_checkpoint(
        model,
        records,
        city=place,
        test_fraction=test_fraction,
        groups=groups,
        min_known=min_known,
        fill_hours=fill_hours,
        seed=seed,
        timezone=reading.timezone,
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
    data: Annotated[Path, typer.Argument(help="Weeks or visits, a file or a folder of files; or a checkpoint.")],
    output: MaybeOutput = None,
    train: Annotated[Path | None, typer.Option(help="What the generator was trained on.")] = None,
    held_out: Annotated[Path | None, typer.Option(help="Weeks or visits of other real users.")] = None,
    city: Annotated[str | None, typer.Option(help="Generator whose grid turns visits into weeks.")] = None,
    min_users: Annotated[
        int | None,
        typer.Option("--min-users", "--min-people", help="What fewer users share counts as rare.", show_default="5"),
    ] = None,
    seed: Seed = 0,
    *,
    reading: Reading,
) -> None:
    """What visits, generated weeks, or the city of a checkpoint give away about single users.

    \b
    hf-mobility audit my-city
    hf-mobility audit visits.parquet -o audit.csv
    hf-mobility audit weeks.parquet --train train.parquet --held-out others.parquet --city checkpoints/mstar-cells-small
    """
    files.check_output(output)
    folder = data.is_dir() and not parts.holds_parts(data)
    case = "a folder" if folder else "visits" if train is None else "weeks"
    read = {name: getattr(reading, name) or None for name in ("timezone", "column", "sep", "time_format")}
    check_counting({"min_users": min_users, "city": city, **read}, _FOR_DATA, case)
    tables = (train, held_out) if folder else (data, train, held_out)
    reading.check(*(parts.one_of(path) for path in tables if path is not None))
    if folder and train is not None:
        raise typer.BadParameter("--train and --held-out are for weeks, not for a folder")
    if (train is None) != (held_out is None) or (train is None and not folder and reading.holds_weeks(data)):
        raise typer.BadParameter("weeks are compared with others: give both --train and --held-out")
    from ..evaluation import audit as measure

    if train is None or held_out is None:
        given = data if folder else reading.visits(data)
        table = measure(given, min_users=5 if min_users is None else min_users, seed=seed)
    else:
        (made, _), (known, users), (other, _) = (_weeks(path, city, reading) for path in (data, train, held_out))
        table = measure(made, train=known, held_out=other, train_users=users, seed=seed)
    for sentence in table["sentence"]:
        files.say(sentence, output=output)
    if output is not None:
        files.write_frame(table, output)
        files.done(f"{len(table)} measures", output)


def _weeks(path: Path, city: str | None, reading: Reading) -> tuple[Any, Any]:
    """(N, L) cells and the (N,) users, or None: of weeks, or of visits with the city's grid."""
    if reading.holds_weeks(path):
        table = reading.weeks(path)
        return table.cells, table.user_id
    if city is None:
        raise typer.BadParameter(f"{path.name} holds no weeks; give the generator whose grid makes some as --city")
    from ..data.cutting import weeks_on
    from ..tokenization.tokenization_mstar import MstarTokenizer

    cells, users, _ = weeks_on(MstarTokenizer.from_pretrained(city), reading.visits(path))
    return cells, users
