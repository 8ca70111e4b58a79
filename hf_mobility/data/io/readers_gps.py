"""Public GPS formats to canonical points frames: GeoLife and Cabspotting.

As in :mod:`hf_mobility.data.io.readers`, rows that cannot be used are left out and counted in
`frame.attrs["read_report"]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ...tokenization.clock import LATEST_EPOCH_SECOND
from ...tokenization.errors import DataError
from ...tokenization.table_files import text_blocks
from ...tokenization.text_lines import LineCount
from ..frames import validate_points
from .readers import Rejections

__all__ = ["read_cabspotting", "read_geolife"]

_PLT_HEADER_LINES = 6
_DATE_TIME = "%Y-%m-%d %H:%M:%S"
_LABEL_TIME = "%Y/%m/%d %H:%M:%S"


def read_geolife(
    folder: str | Path, *, users: Collection[str] | None = None, modes: bool = True, skip_copies: bool = False
) -> pd.DataFrame:
    """GeoLife 1.3 (`<user>/Trajectory/*.plt`): points, with the column `mode` from `<user>/labels.txt`.

    Args:
        folder: the set's `Data` folder, or one that holds it. User ids are the folder names, such as "010".
        users: folder names to read; None reads all 182 (24 million points).
        modes: add `mode` (object: str or None), the label whose interval holds the point; the later start wins where
            labels overlap.
        skip_copies: leave out files that are byte copies of an earlier one. Some 850 files are, most of them under
            another user, which makes a random split by user leak.

    Times are GMT. The altitude is not read.

    Raises:
        DataError: no track is found, or no row can be used.
    """
    root = Path(folder)
    root = root / "Data" if (root / "Data").is_dir() else root
    tracks = sorted(root.glob("*/Trajectory/*.plt"))
    tracks = [path for path in tracks if users is None or path.parent.parent.name in users]
    if not tracks:
        raise DataError(f"No file <user>/Trajectory/*.plt of the wanted users lies below {root}.")
    count = Rejections()
    tables = _plt_tables(tracks, count, skip_copies=skip_copies)
    points = count.finish(tables, root, number_users=False)
    if modes:
        labels = _read_labels(root, points["user_id"].unique(), count)
        points["mode"] = pd.Series(_modes(points, labels), dtype=object)
    points = validate_points(points, keep=["mode"] if modes else ())
    points.attrs["read_report"] = count.report()
    return points


def read_cabspotting(folder: str | Path) -> pd.DataFrame:
    """Cabspotting, San Francisco 2008 (`new_<cab>.txt`): points with `occupied` (int64, 1 = with a passenger).

    Each line holds latitude, longitude, the flag and epoch seconds; user ids are the cabs' names. A cab is a vehicle
    with several drivers, not a person.

    Raises:
        DataError: the folder holds no such file, or no row can be used.
    """
    folder = Path(folder)
    files = sorted(folder.glob("new_*.txt"))
    if not files:
        raise DataError(f"No file new_*.txt lies in {folder}.")
    count = Rejections()
    points = count.finish((_read_cab(path, count) for path in files), folder)
    points = validate_points(points, keep=["occupied"])
    points.attrs["read_report"] = count.report()
    return points


def _plt_tables(tracks: list[Path], count: Rejections, *, skip_copies: bool) -> Iterator[pd.DataFrame]:
    seen: set[bytes] = set()
    for path in tracks:
        content = path.read_bytes()
        digest = hashlib.sha256(content).digest()
        lines = _lines(content)[_PLT_HEADER_LINES:]
        rows = [line.split(",") for line in lines if line.strip()]
        count.rows_read += len(rows)
        if skip_copies and digest in seen:
            count.rejected["copy of another file"] += len(rows)
            continue
        seen.add(digest)
        whole = [row for row in rows if len(row) == 7]
        if len(whole) < len(rows):
            count.rejected["wrong number of fields"] += len(rows) - len(whole)
        if whole:
            table = pd.DataFrame(whole, columns=["lat", "lon", "zero", "altitude", "day", "date", "clock"])
            table["time"] = pd.to_datetime(
                table["date"] + " " + table["clock"], format=_DATE_TIME, errors="coerce", utc=True
            )
            table["user_id"] = path.parent.parent.name
            yield count.keep_usable(table[["user_id", "time", "lat", "lon"]])


def _lines(content: bytes) -> list[str]:
    """Lines end with a newline; other signs that Python takes for line ends are characters of a line."""
    return [line.rstrip("\r") for line in content.decode("ascii", errors="replace").split("\n")]


def _read_labels(root: Path, users: Collection[str], count: Rejections) -> pd.DataFrame:
    """Intervals of transport modes: user_id, start, end (UTC), mode."""
    tables = []
    for user in users:
        path = root / user / "labels.txt"
        if path.exists():
            lines = LineCount()  # of labels, which are no rows of the frame
            blocks = list(text_blocks(path, ["start", "end", "mode"], count=lines, header=True))
            if lines.rejected:
                count.rejected["unusable label"] += lines.rejected.total()
            if not blocks:
                continue
            table = pd.concat(blocks, ignore_index=True)
            for name in ("start", "end"):
                table[name] = pd.to_datetime(table[name], format=_LABEL_TIME, errors="coerce", utc=True)
            usable = table[["start", "end", "mode"]].notna().all(axis=1) & (table["end"] >= table["start"])
            tables.append(count.drop(table, ~usable, "unusable label").assign(user_id=user))
    empty = pd.DataFrame({"start": [], "end": [], "mode": [], "user_id": []})
    return pd.concat(tables, ignore_index=True) if tables else empty


def _modes(points: pd.DataFrame, labels: pd.DataFrame) -> np.ndarray:
    """Mode of each point, None outside every labelled interval."""
    modes = np.full(len(points), None, dtype=object)
    instants = points["time"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    rows_of = points.groupby("user_id").indices
    for user, own in labels.groupby("user_id"):
        rows = rows_of[user]
        own = own.sort_values(["start", "end"])
        start, end = (own[name].astype("datetime64[us, UTC]").astype("int64").to_numpy() for name in ("start", "end"))
        latest = np.searchsorted(start, instants[rows], side="right") - 1
        inside = (latest >= 0) & (instants[rows] <= end[np.maximum(latest, 0)])
        modes[rows[inside]] = own["mode"].to_numpy(dtype=object)[latest[inside]]
    return modes


def _read_cab(path: Path, count: Rejections) -> pd.DataFrame:
    rows = [line.split() for line in _lines(path.read_bytes()) if line.strip()]
    count.rows_read += len(rows)
    whole = [row for row in rows if len(row) == 4]
    if len(whole) < len(rows):
        count.rejected["wrong number of fields"] += len(rows) - len(whole)
    table = pd.DataFrame(whole, columns=["lat", "lon", "occupied", "time"], dtype=object)
    seconds = pd.to_numeric(table["time"], errors="coerce")
    table["time"] = seconds.where(seconds.abs() < LATEST_EPOCH_SECOND)
    table["user_id"] = path.stem.removeprefix("new_")
    table = count.drop(table, ~table["occupied"].isin(["0", "1"]), "unreadable occupied flag")
    return count.keep_usable(table).astype({"occupied": "int64"})
