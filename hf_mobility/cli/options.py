"""The options that several commands share, with their help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Model = Annotated[str, typer.Argument(help="Folder or Hub id.")]
Visits = Annotated[
    Path, typer.Argument(help="File, or folder of files, of visits: user_id, time, location_id, lat, lon.")
]
Points = Annotated[
    Path, typer.Argument(help="File, or folder of files, of points (user_id, time, lat, lon) or visits.")
]
Records = Annotated[
    Path, typer.Argument(help="File, or folder of files, of visits, points or, for M-STAR, weeks of cells.")
]
NewCity = Annotated[Path | None, typer.Option("--city", help="Another city: a folder, or a file of visits or places.")]

Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="File to write, by its suffix, or folder of parts; - writes CSV to stdout."),
]
MaybeOutput = Annotated[Path | None, typer.Option("--output", "-o", help="File to write as well; - is stdout (CSV).")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")]

Bounds = Annotated[
    str | None, typer.Option(metavar="S,W,N,E", help="Box of the city: south,west,north,east in degrees.")
]
OldBox = Annotated[str | None, typer.Option("--box", hidden=True)]
CellKm = Annotated[float | None, typer.Option(help="Side of a square cell in km.")]
Coverage = Annotated[float | None, typer.Option(help="Central share of the records that the box must hold, e.g. 0.99.")]
SharedBy = Annotated[
    int | None,
    typer.Option(
        "--min-users",
        help="M-STAR: save only homes, pairs and classes that at least so many users share.",
        show_default="5",
    ),
]
MinKnown = Annotated[float | None, typer.Option(help="Least share of known hours of a week; 0.5 by default.")]
FillHours = Annotated[float | None, typer.Option(help="Fill gaps of at most so many hours in one and the same cell.")]

TestFraction = Annotated[float, typer.Option(help="Left out, for `evaluate` with the same fraction and seed.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; train takes the GPU by default, all else the CPU.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows that the model reads at one time.")]

Reader = Literal["table", "tsmc2014", "tist2015", "gowalla", "yjmob100k", "geolife", "cabspotting"]
System = Literal["samoe", "mstar-codec", "mstar", "raw"]
Strength = Literal["auto", "none", "weak", "strong"]
Unknown = Literal["error", "nearest", "drop"]
Pooling = Literal["sum", "mean", "log", "slots"]
UserPooling = Literal["mean", "last", "last_day", "day_parts"]


def check_counting(given: Mapping[str, Any], counts_for: Mapping[str, Sequence[str]], case: str) -> None:
    """Refuse an option that would be ignored.

    Args:
        given: parameter -> its value; None, False or nothing in a list where the option was not given.
        counts_for: parameter -> the cases that it is for.
        case: that of this call.

    Raises:
        typer.BadParameter: naming the option and its cases.
    """
    for name, cases in counts_for.items():
        absent = given[name] is None or given[name] is False or given[name] == []  # 0 is given
        if not absent and case not in cases:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} is for {' or '.join(cases)}, not for {case}")
