"""Read a visitor's table of visits: its separator and its columns are recognized, each fault is one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hf_mobility import validate_visits
from hf_mobility.data import DataError

MAX_BYTES, MAX_ROWS, MAX_PLACES = 20_000_000, 200_000, 20_000
SEPARATORS = (",", ";", "\t", "|")
NEEDED, OPTIONAL = ("user_id", "time", "lat", "lon"), ("location_id", "name", "category")
ROUNDED = 3  # digits of the degrees that name a place where no column does: about 100 m

# Usual names of each column, in small letters and without signs between the words; the likeliest first.
ALIASES = {
    "user_id": "userid user uid person personid agent agentid device deviceid participant individual traveller id",
    "time": "time timestamp datetime utctime localtime checkintime arrivaltime arrival starttime start startedat begin "
    "date",
    "lat": "lat latitude gpslat locationlat startlat y",
    "lon": "lon lng long longitude gpslon gpslng locationlon startlon x",
    "location_id": "locationid location placeid place venueid venue poiid poi locid loc spotid spot stopid cell",
    "name": "name placename venuename locationname poiname title label address",
    "category": "category categoryname venuecategory venuecategoryname poicategory placetype type kind amenity purpose",
}


def read_table(path: str | Path) -> pd.DataFrame:
    """The file as text columns.

    Raises:
        DataError: it is too large, is no table, or its first line holds no names.
    """
    if Path(path).stat().st_size > MAX_BYTES:
        raise DataError(f"The file is larger than {MAX_BYTES // 10**6} MB; upload a part of it.")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().rstrip("\r\n")
    if not header:
        raise DataError("The file is empty, or its first line is: it must hold the names of the columns.")
    separator = max(SEPARATORS, key=header.count)
    if separator not in header:
        raise DataError("The first line holds one column only; separate columns by comma, semicolon, tab or |.")
    if sum(_is_value(name) for name in header.split(separator)) > 1:
        raise DataError("The first line holds values; it must hold the names of the columns.")
    try:
        table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig", encoding_errors="replace")
    except ValueError as error:
        raise DataError(f"The file is no table: {error}") from error
    if len(table) > MAX_ROWS:
        raise DataError(f"The file has {len(table):,} rows, the page reads at most {MAX_ROWS:,}; upload a part of it.")
    return table


def guess_columns(table: pd.DataFrame) -> dict[str, str | None]:
    """The column of each role by its name; None where none looks like it. No column serves two roles."""
    by_name = {re.sub(r"[\W_]+", "", str(column)).lower(): str(column) for column in reversed(table.columns)}
    found: dict[str, str | None] = {}
    for role, aliases in ALIASES.items():
        taken = set(found.values())
        named = (by_name[alias] for alias in aliases.split() if alias in by_name)
        found[role] = next((column for column in named if column not in taken), None)
    return found


def missing(columns: Mapping[str, str | None]) -> list[str]:
    """The needed roles without a column."""
    return [role for role in NEEDED if not columns.get(role)]


def visits_of_table(
    table: pd.DataFrame, columns: Mapping[str, str | None], timezone: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Canonical visits, and what each place is called: `location_id` -> name and category.

    Args:
        table: what `read_table` returned.
        columns: role -> column of the table, or None. Without `location_id`, rounded coordinates name the places, and
            rows of a user at one place that follow one another are one visit.
        timezone: IANA name for times without a zone.

    Raises:
        DataError: a column is missing or holds values that cannot be used; there are too many places.
    """
    if absent := missing(columns):
        raise DataError(f"No column is chosen for {', '.join(absent)}: choose one of {', '.join(table.columns)}.")
    chosen = {role: column for role, column in columns.items() if column and role != "name"}
    table = table.assign(**{chosen[role]: _numbers(table[chosen[role]]) for role in ("time", "lat", "lon")})
    visits = validate_visits(table, timezone=timezone, **chosen)
    if "location_id" not in visits:
        visits = _one_visit_each(visits)
    places = visits["location_id"].nunique()
    if places > MAX_PLACES:
        raise DataError(f"The file has {places:,} places, the page shows at most {MAX_PLACES:,}; upload a part of it.")
    return visits, _names(table, columns)


def zone_warning(visits: pd.DataFrame, timezone: str) -> str:
    """A sentence where the clock of the time zone is hours away from the sun over the places, else nothing."""
    offset = visits["time"].iloc[0].tz_convert(timezone).utcoffset().total_seconds() / 3600
    hours = (offset - visits["lon"].median() / 15 + 12) % 24 - 12
    if abs(hours) < 4:
        return ""
    return f"Choose the time zone of these places: {timezone} is about {abs(hours):.0f} hours from their sun."


# -------------------------------------------------------------------------------------------------------------- helpers


def _is_value(text: str) -> bool:
    return re.fullmatch(r'"?[-+]?\d+([.,:/T -]\d+)*Z?"?', text.strip()) is not None


def _numbers(column: pd.Series) -> pd.Series:
    """A column of numbers, with decimal comma or point; any other column as it is."""
    numbers = pd.to_numeric(column.str.strip().str.replace(",", ".", regex=False), errors="coerce")
    return numbers if numbers.notna().equals(column.notna()) else column


def _one_visit_each(points: pd.DataFrame) -> pd.DataFrame:
    corner = points["lat"].map(f"{{:.{ROUNDED}f}}".format) + ", " + points["lon"].map(f"{{:.{ROUNDED}f}}".format)
    visits = points.assign(location_id=corner)
    moved = (visits[["user_id", "location_id"]] != visits[["user_id", "location_id"]].shift()).any(axis=1)
    return visits[moved].reset_index(drop=True)


def _names(table: pd.DataFrame, columns: Mapping[str, str | None]) -> dict[str, str]:
    """The first name and category that the table gives for a place."""
    told = [column for role in ("name", "category") if (column := columns.get(role))]
    if not told or not columns.get("location_id"):
        return {}
    first = table.groupby(columns["location_id"])[told].first()
    return {str(place): ", ".join(text for text in row if isinstance(text, str)) for place, *row in first.itertuples()}
