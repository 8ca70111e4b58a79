"""What a trained model answers: `predict`, `forecast`, `generate` and `embed`, one pipeline each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import files, parts
from .options import (
    BatchSize,
    CellKm,
    Device,
    Model,
    NewCity,
    Output,
    Points,
    Pooling,
    Seed,
    Unknown,
    UserPooling,
    check_counting,
)
from .reading import Reading

_FOR_SYSTEMS = {"top_k": ["SAMoE"], "unknown": ["SAMoE"], "horizon": ["RAW"]}
_USERS, _REGIONS = "users", "regions (--regions, --cell-km)"
_FOR_WHOM = {"pooling": [_REGIONS], "min_users": [_REGIONS], "user_pooling": [_USERS]}


def predict(
    model: Model,
    records: Annotated[Path, typer.Argument(help="File, or folder of files, of visits (SAMoE) or points (RAW).")],
    output: Output,
    top_k: Annotated[int | None, typer.Option(help="SAMoE: places per user.", show_default="5")] = None,
    horizon: Annotated[str | None, typer.Option(help="RAW: hours ahead, or as in 90min.", show_default="2")] = None,
    city: NewCity = None,
    unknown: Annotated[
        Unknown | None, typer.Option(help="SAMoE: places that the city does not list.", show_default="error")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    *,
    reading: Reading,
) -> None:
    """The next place of every user (SAMoE), or their positions in the next hours (RAW).

    \b
    hf-mobility predict my-city visits.parquet -o next.csv --top-k 3
    hf-mobility predict checkpoints/samoe-small visits.csv --city visits.csv --timezone Europe/Paris -o -
    hf-mobility predict checkpoints/raw-released-small points.parquet --horizon 2 -o positions.parquet
    hf-mobility predict my-city 'visits/*.parquet' -o next/
    """
    _check(output, device, records)
    reading.check(parts.one_of(records), city)
    files.doing(f"loading {model}")
    from ..checkpoints.evaluate import kind_of

    system = "RAW" if kind_of(model) == "mobility_raw" else "SAMoE"
    check_counting({"top_k": top_k, "unknown": unknown, "horizon": horizon}, _FOR_SYSTEMS, system)
    verb: dict[str, Any]
    if system == "RAW":
        from ..pipelines.trajectory_prediction import TrajectoryPredictionPipeline as Pipeline

        verb = {"horizon": _hours(horizon or "2")}
    else:
        from ..pipelines.next_location import NextLocationPipeline as Pipeline  # type: ignore[assignment]

        verb = {"top_k": 5 if top_k is None else top_k, "unknown": unknown or "error"}
    place = reading.city(city)
    pipe = Pipeline.from_pretrained(model, city=place, device=device, batch_size=batch_size)
    verb |= {"timezone": reading.timezone, "progress": files.bars()}
    told = "{rows:,} rows for {users:,} users"
    parts.answer(lambda data: pipe.predict(data, **verb), records, output, reading=reading, told=told)


def forecast(
    model: Model,
    visits: Annotated[Path, typer.Argument(help="File, or folder of files, of visits.")],
    output: Output,
    steps: Annotated[int, typer.Option(help="Visits per user.")] = 5,
    city: NewCity = None,
    unknown: Annotated[Unknown, typer.Option(help="Places that the city does not list.")] = "error",
    device: Device = None,
    batch_size: BatchSize = None,
    *,
    reading: Reading,
) -> None:
    """The next visits of every user, one after the other: where, and when they begin (SAMoE).

    \b
    hf-mobility forecast my-city visits.parquet --steps 3 -o visits-ahead.csv
    """
    _check(output, device, visits)
    reading.check(parts.one_of(visits), city)
    files.doing(f"loading {model}")
    from ..pipelines.next_location import NextLocationPipeline

    place = reading.city(city)
    pipe = NextLocationPipeline.from_pretrained(model, city=place, device=device, batch_size=batch_size)
    options: dict[str, Any] = {"steps": steps, "unknown": unknown, "timezone": reading.timezone}
    options["progress"] = files.bars()
    told = "{rows:,} visits of {users:,} users"
    parts.answer(lambda data: pipe.forecast(data, **options), visits, output, reading=reading, told=told)


def generate(
    model: Model,
    output: Output,
    number: Annotated[int, typer.Option("--number", "-n", help="Number of weeks to generate.")] = 1000,
    start: Annotated[str, typer.Option(help="Local date of the first hour.")] = "2024-01-01",
    device: Device = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
) -> None:
    """Synthetic weeks of hourly cells, one row per hour (M-STAR).

    \b
    hf-mobility generate checkpoints/mstar-cells-small -n 1000 --seed 0 -o weeks.parquet
    hf-mobility generate checkpoints/mstar-cells-small -n 100000 -o weeks/
    """
    _check(output, device)
    files.doing(f"loading {model}")
    from ..pipelines.trajectory_generation import TrajectoryGenerationPipeline

    pipe = TrajectoryGenerationPipeline.from_pretrained(model, device=device, batch_size=batch_size)
    frames = pipe.frames(number, seed=seed, start=start, progress=files.bars())
    if parts.is_folder(output):
        parts.write(parts.joined(frames), output)
    else:
        files.write_frames(frames, output)
    files.done(f"{number:,} weeks", output)


def embed(
    model: Model,
    points: Points,
    output: Output,
    regions: Annotated[Path | None, typer.Option(help="GeoJSON: embed regions instead of users.")] = None,
    cell_km: CellKm = None,
    cell_metres: Annotated[float | None, typer.Option(hidden=True)] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="How the users of a region are combined.", show_default="sum")
    ] = None,
    user_pooling: Annotated[
        UserPooling | None, typer.Option(help="How a user's slots are combined.", show_default="the model's")
    ] = None,
    min_users: Annotated[
        int | None, typer.Option(help="Regions with fewer users are left out.", show_default="5")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day that is read, as in 2024-01-01.")] = None,
    end: Annotated[str | None, typer.Option(help="First day that is no longer read.")] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    *,
    reading: Reading,
) -> None:
    """Vectors of users, or of regions (with --regions or --cell-km) by who was there (RAW).

    \b
    hf-mobility embed checkpoints/raw-released-small points.parquet -o users.parquet --start 2024-01-01 --end 2024-01-15
    hf-mobility embed checkpoints/raw-released-small points/ -o users/ --start 2024-01-01 --end 2024-01-15
    hf-mobility embed checkpoints/raw-released-small points.parquet --cell-km 1 -o cells.parquet
    """
    side = cell_km if cell_metres is None else cell_metres / 1000
    if regions is not None and side is not None:
        raise typer.BadParameter("give either --regions or --cell-km")
    how = {"pooling": pooling, "min_users": min_users, "user_pooling": user_pooling}
    of_users = regions is None and side is None
    check_counting(how, _FOR_WHOM, _USERS if of_users else _REGIONS)
    _check(output, device, points)
    if parts.wanted(points, output):
        if not of_users:
            raise ValueError(
                "A region is made of all its users at one time: give one file of points and a file to write."
            )
        if start is None or end is None:
            raise ValueError("Users in several parts need the same days: give --start and --end.")
    files.check_inputs(regions)
    reading.check(parts.one_of(points))
    files.doing(f"loading {model}")
    from ..pipelines.embedding import MobilityEmbeddingPipeline
    from ..tokenization.grid import SquareGrid

    pipe = MobilityEmbeddingPipeline.from_pretrained(model, device=device, batch_size=batch_size)
    days: dict[str, Any] = {"start": start, "end": end, "progress": files.bars()}
    if of_users:
        days |= {"timezone": reading.timezone, "user_pooling": user_pooling}
        told = "{rows:,} vectors"
        parts.answer(lambda data: pipe.embed_users(data, **days), points, output, reading=reading, told=told)
        return
    frame = reading.visits(points)
    where: Any = regions
    if side is not None:
        where = SquareGrid.around(frame["lat"], frame["lon"], cell_km=side)
    table = pipe.embed_regions(
        frame, where, pooling=pooling or "sum", min_users=5 if min_users is None else min_users, **days
    )
    files.write_frame(table, output)
    files.done(f"{len(table):,} vectors", output)


def _check(output: Path, device: str | None, source: Path | None = None) -> None:
    """What can be wrong before a model is loaded."""
    parts.check_output(output, source)
    if device is not None:
        from ..hub.device import check_device

        check_device(device)


def _hours(horizon: str) -> Any:
    """A number of hours, or a text that pandas reads as a time span."""
    try:
        return float(horizon)
    except ValueError:
        return horizon
