"""The two files of a city: `city.json` (names and numbers) and `city.safetensors` (arrays), format 2.

Every tokenizer and `City.save` write them, each with its `kind` and with fields of its own beside those of the city.
`content_hash` covers both files and is checked whenever they are read. Format 1, which had no hash (but for cities
saved alone), is read as if it were format 2.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .errors import DataError
from .poi import NEVER_SEEN
from .whole_files import whole_file

FORMAT_VERSION = 2
MIN_USERS = 5  # who must share what the files count of people
CITY_FILE, TABLE_FILE = "city.json", "city.safetensors"
CITY_FIELDS = ("name", "timezone", "bounds", "rows", "columns", "location_ids", "poi_names")
CITY_ARRAYS = ("lat", "lon", "poi", "popularity")
Contents = tuple[dict[str, Any], dict[str, np.ndarray]]


def content_hash(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over all fields but `content_hash`, and over name, dtype, shape and values of each array."""
    fields = {name: value for name, value in header.items() if name != "content_hash"}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_city_files(
    city_file: str | Path, table_file: str | Path, *, kind: str, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write both files. `header` holds what JSON knows, `arrays` go into the table."""
    header = {"format_version": FORMAT_VERSION, "kind": kind, **header}
    header = {"content_hash": content_hash(header, arrays), **header}
    with whole_file(city_file) as new_header, whole_file(table_file) as new_table:  # neither where one fails
        new_header.write_text(json.dumps(header, ensure_ascii=False, indent=0), encoding="utf-8")
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, new_table)


def read_city_files(city_file: str | Path, table_file: str | Path, *, kinds: Sequence[str] = ()) -> Contents:
    """Header and arrays of format 2, whatever format the files have.

    Args:
        kinds: those that the reader can use; all by default.

    Raises:
        DataError: files that cannot be read, are of another kind or format, or do not match their hash. One sentence
            that names the file.
    """
    header, arrays = read_json(city_file), _arrays_of(table_file)
    version, kind = header.get("format_version"), str(header.get("kind", "samoe"))
    if version not in (1, FORMAT_VERSION):
        raise DataError(f"{city_file} has format version {version}; this release reads 1 and {FORMAT_VERSION}.")
    if kinds and kind not in kinds:
        raise DataError(
            f"{city_file} is of kind {kind!r}; this tokenizer reads {' and '.join(map(repr, kinds))} "
            "(City.load reads all of them)."
        )
    try:
        found = _format_1_hash(header, arrays) if version == 1 else content_hash(header, arrays)
        contents = _from_format_1(header, arrays) if version == 1 else (header, arrays)
        missing = [name for name in CITY_FIELDS if name not in contents[0]]
        missing += [name for name in CITY_ARRAYS if name not in contents[1]]
    except (KeyError, TypeError, ValueError) as error:
        found, missing = "", [error.args[0]]
    if missing:
        raise DataError(f"{city_file} and {Path(table_file).name} lack {missing}: they are no city's files.")
    if header.get("content_hash", found if version == 1 else None) != found:
        raise DataError(
            f"{city_file} and {Path(table_file).name} do not match their content_hash; one of the two was changed or "
            "is another city's."
        )
    faults = _faults(*contents)
    if faults:
        raise DataError(f"{city_file} and {Path(table_file).name} are damaged: {'; '.join(faults)}.")
    return contents


@contextmanager
def of_file(path: str | Path | None) -> Iterator[None]:
    """Name the file in a `DataError` about what was read from it."""
    try:
        yield
    except DataError as error:
        if path is None or str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


def _faults(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[str]:
    """What is not of the type or shape that a city is made of; values are the city's to check."""
    lists = ("location_ids", "poi_names")
    fine = {name: isinstance(header[name], str) for name in ("name", "timezone")}
    fine |= {name: isinstance(header[name], list) and set(map(type, header[name])) <= {str} for name in lists}
    fine["bounds"] = header["bounds"] is None or _are_numbers(header["bounds"], 4)
    fine["rows and columns"] = _are_sides(header["rows"], header["columns"], header["bounds"])
    faults = [f"{name} in the JSON is of another type" for name, is_fine in fine.items() if not is_fine]
    if faults:
        return faults
    n, columns = (len(header[name]) for name in lists)
    shapes = {"lat": ("f", (n,)), "lon": ("f", (n,)), "poi": ("f", (n, columns)), "popularity": ("iu", (n,))}
    for name, (kinds, shape) in shapes.items():
        array = arrays[name]
        if array.dtype.kind not in kinds or array.shape != shape:
            faults.append(f"{name} is {array.dtype} of shape {array.shape}, not {shape}")
    return faults


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(value, (int, float)) and abs(value) < 1e9 and math.isfinite(value) for value in values)


def _are_sides(rows: Any, columns: Any, bounds: Any) -> bool:
    """Of a grid, which has bounds, or both None."""
    if rows is None and columns is None:
        return True
    return bounds is not None and all(type(side) is int and 1 <= side < 2**31 for side in (rows, columns))


def read_json(path: str | Path) -> dict[str, Any]:
    """The object of a JSON file. Raises a `DataError` where it holds none."""
    try:
        header = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no readable JSON: {error}.") from error
    if not isinstance(header, dict):
        raise DataError(f"{path} must hold one JSON object, not a {type(header).__name__}.")
    return header


def _arrays_of(path: str | Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, KeyError) as error:  # a KeyError for a dtype that numpy does not have
        raise DataError(f"{path} is no readable safetensors file: {error}.") from error


# Format 1


def _from_format_1(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Contents:
    """SAMoE's cities lacked bounds and grid. M-STAR's had the cells' centres as `lat` and `lon` and no places; without
    a box, the cells themselves are the places."""
    bounds, rows, columns = header.get("box"), header.get("rows"), header.get("columns")
    header = {**header, "bounds": bounds, "rows": rows, "columns": columns}
    if header.get("kind") != "mstar":
        return {**header, "kind": "samoe"}, arrays
    cells = 0 if bounds is not None else len(arrays["lat"])
    places = {
        "lat": arrays["lat"][:cells],
        "lon": arrays["lon"][:cells],
        "poi": np.zeros((cells, 0), np.float16),
        "popularity": np.full(cells, NEVER_SEEN, np.int8),
    }
    return {**header, "location_ids": [str(cell) for cell in range(cells)], "poi_names": []}, {**arrays, **places}


def _format_1_hash(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """The hash of a `City` that was saved alone; tokenizers wrote none."""
    if "content_hash" not in header:
        return ""
    names = [header["name"], header["timezone"], header["location_ids"], header["poi_names"]]
    digest = hashlib.sha256(json.dumps(names).encode())
    for name, dtype in (("lat", "<f8"), ("lon", "<f8"), ("poi", "<f4"), ("popularity", "<i8")):
        digest.update(np.ascontiguousarray(arrays[name], dtype=dtype).tobytes())
    return digest.hexdigest()
