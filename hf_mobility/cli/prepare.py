"""`prepare`: public formats, tables or a simulation -> one checked table of visits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import files
from .options import Bounds, CellKm, Columns, OldBox, Output, Reader, Seed, Sep, TimeFormat, Timezone

CHECKINS = ("tsmc2014", "tist2015", "gowalla")
GPS = ("geolife", "cabspotting")


def prepare(
    output: Output,
    source: Annotated[Path | None, typer.Argument(help="File (or folder of a GPS set) to read.")] = None,
    reader: Annotated[Reader, typer.Option(help="Public format of the source.")] = "table",
    places: Annotated[Path | None, typer.Option(help="Second file of tist2015: the POIs.")] = None,
    bounds: Bounds = None,
    box: OldBox = None,
    anchor: Annotated[str | None, typer.Option(metavar="LAT,LON", help="Of yjmob100k, whose place is hidden.")] = None,
    start: Annotated[str, typer.Option(help="First day of yjmob100k or of a simulation.")] = "2024-01-01",
    points: Annotated[bool, typer.Option("--points", help="Keep GPS points as they are; else stays in cells.")] = False,
    cell_km: CellKm = None,
    simulate: Annotated[int | None, typer.Option(metavar="USERS", help="Simulate a city instead of reading.")] = None,
    days: Annotated[int, typer.Option(help="Of a simulation.")] = 56,
    observe: Annotated[float, typer.Option(help="Share of simulated visits that are kept.")] = 1.0,
    card: Annotated[Path | None, typer.Option(help="Where to write a dataset card of a simulation.")] = None,
    seed: Seed = 0,
    timezone: Timezone = None,
    column: Columns = [],  # noqa: B006
    sep: Sep = None,
    time_format: TimeFormat = None,
) -> None:
    """Public formats, tables or a simulation -> one checked table of visits.

    \b
    hf-mobility prepare checkins.csv -o visits.parquet --timezone Europe/Paris --column user_id=uid
    hf-mobility prepare dataset_TSMC2014_NYC.txt --reader tsmc2014 -o nyc.parquet
    hf-mobility prepare Geolife/Data --reader geolife -o beijing.parquet --cell-km 0.5
    hf-mobility prepare --simulate 200 --days 28 --seed 1 -o simville.parquet --card README.md
    """
    edges = files.bounds_of(bounds, box)
    if (source is None) == (simulate is None):
        raise typer.BadParameter("give either a source to read or --simulate USERS")
    if card is not None and simulate is None:
        raise typer.BadParameter("--card describes a simulation; give --simulate USERS as well")
    files.check_output(output)
    if simulate is not None:
        zone = {"timezone": timezone} if timezone else {}
        frame = _simulated(simulate, card, num_days=days, seed=seed, observe=observe, start=start, **zone)
    elif source is not None:
        given = {"--places": places, "--bounds": edges, "--anchor": anchor, "--cell-km": cell_km, "--column": column}
        given |= {"--sep": sep, "--time-format": time_format}
        _check_reader(reader, given, points=points)
        files.check_inputs(source, places)
        if reader == "table":
            frame = _table(source, timezone=timezone, column=column, sep=sep, time_format=time_format)
        elif reader in GPS:
            frame = _gps(source, reader, cell_km=None if points else cell_km or 0.5)
        else:
            frame = _public(source, reader, places=places, bounds=edges, anchor=anchor, start=start)
    files.write_frame(frame, output)
    rejected = frame.attrs.get("read_report", {}).get("rejected")
    left_out = f"; left out: {rejected}" if rejected else ""
    files.done(f"{len(frame):,} rows of {frame['user_id'].nunique():,} users{left_out}", output)


def _check_reader(reader: str, given: dict[str, Any], *, points: bool) -> None:
    """Which options belong to which format."""
    owners = {"--places": ("tist2015",), "--anchor": ("yjmob100k",), "--bounds": CHECKINS, "--cell-km": GPS}
    owners |= dict.fromkeys(("--column", "--sep", "--time-format"), ("table",))
    for option, readers in owners.items():
        if given[option] and reader not in readers:
            raise typer.BadParameter(f"{option} is for --reader {' or '.join(readers)}, not for --reader {reader}")
    for option, needing in (("--places", "tist2015"), ("--anchor", "yjmob100k")):
        if not given[option] and reader == needing:
            raise typer.BadParameter(f"--reader {needing} needs {option}")
    if points and (reader not in GPS or given["--cell-km"]):
        raise typer.BadParameter(f"--points keeps the points of --reader {' or '.join(GPS)}, without --cell-km")


def _table(source: Path, *, timezone: str | None, column: list[str], **csv: str | None) -> Any:
    from ..data import read_table

    if any(csv.values()):
        return files.visits_frame(source, timezone=timezone, column=column, **csv)
    return read_table(source, timezone=timezone, **files.column_names(column))


def _public(source: Path, reader: str, *, places: Path | None, bounds: Any, anchor: str | None, start: str) -> Any:
    """Visits of a public set."""
    from .. import data

    if reader == "tist2015":
        return data.read_foursquare_tist2015(source, str(places), bounds=bounds)
    if reader == "yjmob100k":
        return data.read_yjmob100k(source, anchor=files.numbers(anchor, 2), start=start)  # type: ignore[arg-type]
    read = data.read_foursquare_tsmc2014 if reader == "tsmc2014" else data.read_gowalla
    return read(source, bounds=bounds)


def _gps(source: Path, reader: str, *, cell_km: float | None) -> Any:
    """Stays of a GPS set in cells, or its points where `cell_km` is None."""
    from .. import data

    points = data.read_geolife(source) if reader == "geolife" else data.read_cabspotting(source)
    if cell_km is None:
        return points
    stays = data.detect_stays(points)
    if not len(stays):
        raise data.DataError("Nobody stays anywhere for ten minutes; keep the points with --points.")
    grid = data.SquareGrid.around(stays["lat"], stays["lon"], cell_km=cell_km)
    return data.stays_to_visits(stays, grid)


def _simulated(users: int, card: Path | None, **options: Any) -> Any:
    """Visits of a simulated city, and its card."""
    from ..data.simulation.cities import simulate_city
    from ..hub.cards import dataset_card
    from ..tokenization.whole_files import whole_file

    made = simulate_city(users, **options)
    if card is not None:
        options.pop("timezone", None)  # the card reads it off the city
        with whole_file(card) as file:
            file.write_text(str(dataset_card(made, **options)).rstrip("\n") + "\n", encoding="utf-8")
    return made.visits
