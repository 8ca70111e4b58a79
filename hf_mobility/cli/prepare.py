"""`prepare`: public formats, tables or a simulation -> one checked table of visits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from . import files, parts
from .options import Bounds, CellKm, OldBox, Output, Reader, check_counting
from .reading import Reading

CHECKINS = ("tsmc2014", "tist2015", "gowalla")
GPS = ("geolife", "cabspotting")
START = "2024-01-01"
_SIMULATION: dict[str, Any] = {"num_days": 56, "observe": 1.0, "seed": 0, "start": START}


def _readers(*names: str) -> tuple[str, ...]:
    return tuple(f"--reader {name}" for name in names)


_COUNTS_FOR = {  # the other options are for all
    "places": _readers("tist2015"),
    "anchor": _readers("yjmob100k"),
    "bounds": _readers(*CHECKINS),
    "points": _readers(*GPS),
    "cell_km": _readers(*GPS),
    "start": (*_readers("yjmob100k"), "--simulate"),
    **dict.fromkeys(("days", "observe", "card", "seed"), ("--simulate",)),
    "timezone": (*_readers("table"), "--simulate"),
    **dict.fromkeys(("column", "sep", "time_format"), _readers("table")),
}


def prepare(
    output: Output,
    source: Annotated[Path | None, typer.Argument(help="File, or folder of files, to read.")] = None,
    reader: Annotated[Reader | None, typer.Option(help="Public format of the source.", show_default="table")] = None,
    places: Annotated[Path | None, typer.Option(help="Second file of tist2015: the POIs.")] = None,
    bounds: Bounds = None,
    box: OldBox = None,
    anchor: Annotated[
        str | None,
        typer.Option(metavar="LAT,LON", help="Where to place the yjmob100k grid, whose true position is secret."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First day of yjmob100k or of a simulation.", show_default=START)
    ] = None,
    points: Annotated[bool, typer.Option("--points", help="Keep GPS points as they are; else stays in cells.")] = False,
    cell_km: CellKm = None,
    simulate: Annotated[int | None, typer.Option(metavar="USERS", help="Simulate a city instead of reading.")] = None,
    days: Annotated[int | None, typer.Option(help="Days to simulate.", show_default="56")] = None,
    observe: Annotated[
        float | None, typer.Option(help="Share of simulated visits that are kept.", show_default="1.0")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Where to write a dataset card of a simulation.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of a simulation.", show_default="0")] = None,
    *,
    reading: Reading,
) -> None:
    """Public formats, tables or a simulation -> one checked table of visits.

    \b
    hf-mobility prepare checkins.csv -o visits.parquet --timezone Europe/Paris --column user_id=uid
    hf-mobility prepare dataset_TSMC2014_NYC.txt --reader tsmc2014 -o nyc.parquet
    hf-mobility prepare Geolife/Data --reader geolife -o beijing.parquet --cell-km 0.5
    hf-mobility prepare 'days/*.parquet' -o visits/ --timezone Europe/Paris
    hf-mobility prepare --simulate 200 --days 28 --seed 1 -o simville.parquet --card README.md
    """
    if (source is None) == (simulate is None) or (source is None and reader):
        raise typer.BadParameter("give either a source to read, and its --reader, or --simulate USERS")
    edges, form = files.bounds_of(bounds, box), reader or "table"
    given: dict[str, Any] = {"places": places, "anchor": anchor, "bounds": edges, "points": points}
    given |= {"cell_km": cell_km, "start": start, "card": card, "days": days, "observe": observe, "seed": seed}
    check_counting(given | vars(reading), _COUNTS_FOR, "--simulate" if source is None else f"--reader {form}")
    if source is not None and form == "table" and parts.wanted(source, output):
        _prepare_parts(source, output, reading)
        return
    files.check_output(output)
    if simulate is not None:
        asked = {"num_days": days, "observe": observe, "seed": seed, "start": start, "timezone": reading.timezone}
        options = _SIMULATION | {name: value for name, value in asked.items() if value is not None}
        frame = _simulated(simulate, card, **options)
    elif source is not None:
        _check_needed(form, given)
        reading.check(source)
        files.check_inputs(places)
        if form == "table":
            frame = _table(source, reading)
        elif form in GPS:
            frame = _gps(source, form, cell_km=None if points else cell_km or 0.5)
        else:
            frame = _public(source, form, places=places, bounds=edges, anchor=anchor, start=start or START)
    files.write_frame(frame, output)
    left_out = _left_out(frame.attrs.get("read_report", {}).get("rejected"))
    files.done(f"{len(frame):,} rows of {frame['user_id'].nunique():,} users{left_out}", output)


def _prepare_parts(source: Path, output: Path, reading: Reading) -> None:
    """Parquet files in any order -> parts of whole users; text ids of users stay text."""
    from ..data import read_table
    from ..data.io.streams import partition_by_user

    parts.check_output(output)
    first = parts.one_of(source)
    reading.check(first)
    columns: dict[str, Any] = reading.columns(first)
    rejected: Counter[str] = Counter()

    def tables(folder: str) -> Iterator[Any]:
        for path in partition_by_user(source, Path(folder, "users"), user_id=columns.get("user_id", "user_id")):
            table = read_table(path, timezone=reading.timezone, number_users=False, **columns)
            rejected.update(table.attrs["read_report"]["rejected"])
            yield table

    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=output) as folder:
        rows, users, number = parts.write(tables(folder), output)
    files.done(f"{rows:,} rows of {users:,} users{_left_out(rejected)} in {number} parts", output)


def _left_out(rejected: Mapping[str, int] | None) -> str:
    return f"; left out: {dict(rejected)}" if rejected else ""


def _check_needed(form: str, given: dict[str, Any]) -> None:
    """What a format cannot be read without, and what it cannot be read with."""
    for option, needing in (("places", "tist2015"), ("anchor", "yjmob100k")):
        if not given[option] and form == needing:
            raise typer.BadParameter(f"--reader {needing} needs --{option}")
    if given["points"] and given["cell_km"]:
        raise typer.BadParameter("--points keeps the points as they are: leave out --cell-km")


def _table(source: Path, reading: Reading) -> Any:
    from ..data import read_table

    if reading.sep or reading.time_format:
        return reading.visits(source)
    columns: dict[str, Any] = reading.columns(source)
    return read_table(source, timezone=reading.timezone, **columns)


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

    if card is not None:
        files.check_file(card)
    made = simulate_city(users, **options)
    if card is not None:
        options.pop("timezone", None)  # the card reads it off the city
        with whole_file(card) as file:
            file.write_text(str(dataset_card(made, **options)).rstrip("\n") + "\n", encoding="utf-8")
    return made.visits
