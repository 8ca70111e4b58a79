"""Files in and out of the command line: Parquet, CSV and GeoParquet by their suffix, and how far a command has got.

Unusual: nothing is checked here. What a file must hold is the library's business, and its sentence is the answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

SUFFIXES = ".parquet, .csv, .csv.gz or .geoparquet"
GEO = ".geoparquet"
WEEK_COLUMNS = {"trajectory_id", "slot", "cell"}  # of what `generate` writes


def column_names(pairs: list[str]) -> dict[str, str]:
    """`["user_id=uid"]` -> `{"user_id": "uid"}`."""
    named = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(named) < len(pairs):
        raise typer.BadParameter("write each as ROLE=NAME, once per role, for example --column user_id=uid")
    return named


def read_visits(path: Path, *, timezone: str | None, columns: dict[str, str]) -> Any:
    """A canonical visits frame; of generated weeks, each is a person."""
    from ..data.frames import validate_visits
    from ..data.io import interop

    if "user_id" not in columns and holds_weeks(path):
        columns = {**columns, "user_id": "trajectory_id"}
    if path.suffix == GEO:
        return interop.from_geo(path, timezone=timezone, **columns)
    return validate_visits(path, timezone=timezone, **columns)


def holds_weeks(path: Path) -> bool:
    """Whether a file is what `generate` writes."""
    names = set(_header(path))
    return names >= WEEK_COLUMNS and "user_id" not in names


def _header(path: Path) -> list[str]:
    """The names of the columns; none where the file cannot be read, which its reader tells."""
    import pandas as pd
    import pyarrow.parquet as pq

    if not path.is_file():
        return []
    if path.suffix in (".parquet", GEO):
        return list(pq.read_schema(path).names)
    return list(pd.read_csv(path, nrows=0).columns) if ".csv" in path.suffixes else []


def read_cities(paths: list[Path], timezones: list[str], *, columns: dict[str, str]) -> list[tuple[str, Any, str]]:
    """Name, canonical visits and time zone of each file."""
    return [
        (stem(path), read_visits(path, timezone=zone, columns=columns), zone) for path, zone in zip(paths, timezones)
    ]


def read_source(
    path: Path,
    reader: str,
    *,
    places: Path | None,
    box: Any,
    anchor: Any,
    start: str,
    cell_km: float | None,
    timezone: str | None,
    columns: dict[str, str],
) -> Any:
    """Visits of a public format; of a GPS set its stays in cells, or its points where `cell_km` is None."""
    from .. import data

    if (reader == "tist2015") != (places is not None):
        raise typer.BadParameter("--places is the second file of --reader tist2015, which needs it")
    if (reader == "yjmob100k") != (anchor is not None):
        raise typer.BadParameter("--anchor is for --reader yjmob100k, which needs it")
    if box is not None and reader not in ("tsmc2014", "tist2015", "gowalla"):
        raise typer.BadParameter(f"--box is for check-ins, not for --reader {reader}")
    if columns and reader != "table":
        raise typer.BadParameter(f"--column is for tables, not for --reader {reader}")
    if reader == "table":
        return data.read_table(path, timezone=timezone, **columns)
    if reader == "tist2015":
        return data.read_foursquare_tist2015(path, str(places), box=box)
    if reader == "yjmob100k":
        return data.read_yjmob100k(path, anchor=anchor, start=start)
    if reader in ("tsmc2014", "gowalla"):
        read = data.read_foursquare_tsmc2014 if reader == "tsmc2014" else data.read_gowalla
        return read(path, box=box)
    points = data.read_geolife(path) if reader == "geolife" else data.read_cabspotting(path)
    if cell_km is None:
        return points
    stays = data.detect_stays(points)
    if not len(stays):
        raise data.DataError("Nobody stays anywhere for ten minutes; keep the points with --points.")
    grid = data.SquareGrid.around(stays["lat"], stays["lon"], cell_km=cell_km)
    return data.stays_to_visits(stays, grid)


def simulated(people: int, card: Path | None, **options: Any) -> Any:
    """Visits of a simulated city, and its card."""
    from ..data.simulation.cities import simulate_city
    from ..hub.cards import dataset_card

    made = simulate_city(people, **options)
    if card is not None:
        options.pop("timezone", None)  # the card reads it off the city
        card.write_text(str(dataset_card(made, **options)).rstrip("\n") + "\n", encoding="utf-8")
    return made.visits


def numbers(text: str | None, count: int) -> tuple[float, ...] | None:
    """`"48.1,11.5"` -> (48.1, 11.5)."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count:
        raise typer.BadParameter(f"{text!r} must be {count} numbers with commas between them")
    return found


def read_frame(path: Path, *, text: str = "location_id") -> Any:
    """A file as it is; ids in the column `text` stay text."""
    import pandas as pd

    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix in (".parquet", GEO):
        return pd.read_parquet(path)
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        return pd.read_csv(path, dtype={text: str})
    raise ValueError(f"Cannot read {path.name}: the known file types are {SUFFIXES}.")


def read_city(path: Path, *, timezone: str | None, columns: dict[str, str]) -> Any:
    """The places of a file of visits, or of a file of places (without a time)."""
    from ..tokenization.city import City
    from ..tokenization.errors import DataError

    if timezone is None:
        raise DataError("The time zone of a new city is missing: give --timezone, such as Europe/Berlin.")
    table = read_frame(path, text=columns.get("location_id", "location_id"))
    table = table.rename(columns={name: role for role, name in columns.items()})
    if "time" in table:
        visits = read_visits(path, timezone=timezone, columns=columns)
        return City.from_visits(visits, timezone=timezone, name=stem(path))
    return City.from_pois(table, timezone=timezone, name=stem(path))


def read_week_cells(path: Path, *, city: str | None, timezone: str | None, columns: dict[str, str]) -> tuple[Any, Any]:
    """(N, L) cells and the (N,) people, or None: generated weeks, a table of weeks, or visits with the city's grid."""
    import numpy as np

    from ..data.io.exports import week_matrix
    from ..data.weeks import read_weeks
    from ..tokenization.tokenization_mstar import MstarTokenizer

    names = set(_header(path))
    if names >= WEEK_COLUMNS:
        return week_matrix(read_frame(path))[1], None
    if city is not None and names >= {columns.get(name, name) for name in ("lat", "lon")}:
        weeks = MstarTokenizer.from_pretrained(city).weeks(read_visits(path, timezone=timezone, columns=columns))
        return weeks.cells, np.asarray(weeks.user_id)
    table = read_weeks(read_frame(path))
    return table.cells, table.user_id


def write_frame(frame: Any, path: Path) -> None:
    """Write by suffix; the folder is made. GeoParquet needs the columns `lat` and `lon`.

    Raises:
        ValueError: another suffix, or no coordinates for GeoParquet.
        ImportError: GeoParquet without geopandas.
    """
    check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == GEO:
        write_geo(frame, path)
    elif path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def check_suffix(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is not None and path.suffix not in (".parquet", ".csv", GEO) and not path.name.endswith(".csv.gz"):
        raise ValueError(f"Cannot write {path.name}: end its name in {SUFFIXES}.")


def write_geo(frame: Any, path: Path) -> None:
    from ..data.io.interop import with_geometry

    missing = [name for name in ("lat", "lon") if name not in frame]
    if missing:
        raise ValueError(f"The result has no column(s) {', '.join(missing)}: write it as .parquet or .csv.")
    with_geometry(frame, "geometry").to_parquet(path, index=False)


def facts_of(target: str) -> dict[str, Any]:
    """A few lines about a file of visits, or about a model's folder or Hub id; no weight is read."""
    path = Path(target)
    if path.is_file():
        frame = read_visits(path, timezone="UTC", columns={})
        span = f"{frame['time'].min():%Y-%m-%d} to {frame['time'].max():%Y-%m-%d}"
        facts = {"rows": f"{len(frame):,}", "people": f"{frame['user_id'].nunique():,}", "time": span}
        places = {"places": f"{frame['location_id'].nunique():,}"} if "location_id" in frame else {}
        return facts | places | {"columns": ", ".join(frame.columns)}
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import find_adapter_config_file

    from ..hub.requests import loading

    with loading(target):
        if find_adapter_config_file(target) is not None:
            from peft import PeftConfig

            config: Any = PeftConfig.from_pretrained(target)
            facts = {"adapter": config.peft_type.value, "base": config.base_model_name_or_path}
        else:
            config = AutoConfig.from_pretrained(target)
            facts = {"model": ", ".join(config.architectures or ["not saved with a model"]), "type": config.model_type}
        tokenizer = AutoTokenizer.from_pretrained(target)
    local = {"tokenizer": type(tokenizer).__name__, "city": getattr(tokenizer, "name", ""), "zone": tokenizer.timezone}
    size = getattr(tokenizer, "num_cells", None) or len(getattr(tokenizer, "location_ids", ()))
    return facts | local | ({"places": f"{size:,}"} if size else {})


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def done(what: str, path: Path | None = None) -> None:
    typer.echo(what if path is None else f"{what} -> {path}", err=path is not None)
