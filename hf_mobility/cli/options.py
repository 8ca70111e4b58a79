"""The options that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(help="Folder or Hub id.")]
Visits = Annotated[Path, typer.Argument(help="File of visits: user_id, time, location_id, lat, lon.")]
Points = Annotated[Path, typer.Argument(help="File of points (user_id, time, lat, lon) or visits.")]
Records = Annotated[Path, typer.Argument(help="File of visits, points or, for M-STAR, weeks of cells.")]
NewCity = Annotated[Path | None, typer.Option("--city", help="Another city: a folder, or a file of visits or places.")]

Output = Annotated[Path, typer.Option("--output", "-o", help="File to write, by its suffix; - writes CSV to stdout.")]
MaybeOutput = Annotated[Path | None, typer.Option("--output", "-o", help="File to write as well; - is stdout (CSV).")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")]

Timezone = Annotated[str | None, typer.Option(help="IANA name, for naive times and for a new city.")]
Columns = Annotated[list[str], typer.Option("--column", metavar="ROLE=NAME", help="A column's name in the file.")]
Sep = Annotated[str | None, typer.Option(help="Separator of a CSV file; a comma by default.")]
TimeFormat = Annotated[str | None, typer.Option(help="Format of the times in a CSV file, as in '%d.%m.%Y %H:%M'.")]

Bounds = Annotated[str | None, typer.Option(metavar="S,W,N,E", help="Edges in degrees; a box around a city.")]
OldBox = Annotated[str | None, typer.Option("--box", hidden=True)]
CellKm = Annotated[float | None, typer.Option(help="Side of a square cell in km.")]
Coverage = Annotated[float | None, typer.Option(help="Central share of the records that the box must hold, e.g. 0.99.")]
MinKnown = Annotated[float | None, typer.Option(help="Least share of known hours of a week; 0.5 by default.")]
FillHours = Annotated[float | None, typer.Option(help="Fill gaps of at most so many hours in one and the same cell.")]

TestFraction = Annotated[float, typer.Option(help="Left out, for `evaluate` with the same fraction and seed.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default what the verb of the library takes.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows that the model reads at one time.")]

Reader = Literal["table", "tsmc2014", "tist2015", "gowalla", "yjmob100k", "geolife", "cabspotting"]
System = Literal["samoe", "mstar-codec", "mstar", "raw"]
Strength = Literal["auto", "none", "weak", "strong"]
Unknown = Literal["error", "nearest", "drop"]
Pooling = Literal["sum", "mean", "log"]
