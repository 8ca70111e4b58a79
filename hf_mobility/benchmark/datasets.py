"""Data sets that users can get, and how they are read. Nothing is downloaded unless it is asked for.

Most of them carry no open licence, so none lies in the package. Files come from a folder that the user names
(`folder=`, `--data` or the environment variable HF_MOBILITY_DATA). A file with another checksum than the protocol's is
refused, because its results could not be compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.frames import validate_points, validate_visits
from ..data.io.readers import read_foursquare_tist2015, read_foursquare_tsmc2014, read_gowalla, read_yjmob100k
from ..data.io.readers_gps import read_cabspotting, read_geolife
from ..data.simulation.cities import simulate_cities, simulate_city
from ..data.weeks import read_weeks
from ..tokenization.errors import DataError
from .datasets_more import read_labelled_cells, read_massive_steps, read_swarm, simulated_city_points
from .flow_areas import read_areas
from .protocol import ProtocolSet

VARIABLE = "HF_MOBILITY_DATA"


@dataclass(frozen=True)
class PublicSet:
    """reader: a key of `READERS`. files: their names as published. page: where they are had. options: of the reader.
    terms: of use, in a few words. repository: of the Hub, where the set lies there.
    """

    reader: str
    files: tuple[str, ...]
    page: str
    terms: str
    options: dict[str, Any] = field(default_factory=dict)
    repository: str = ""


FOURSQUARE = "https://sites.google.com/site/yangdingqi/home/foursquare-dataset"
SWARM = "https://github.com/SHiftLin/Swarm_Check-in_Data"
NO_LICENCE = "published for research, no licence stated"
SWARM_TERMS = "CC BY-SA 4.0"
STEPS_ZONES = {
    "Bandung": "Asia/Jakarta",
    "Beijing": "Asia/Shanghai",
    "Istanbul": "Europe/Istanbul",
    "Jakarta": "Asia/Jakarta",
    "Kuwait-City": "Asia/Kuwait",
    "Melbourne": "Australia/Melbourne",
    "Moscow": "Europe/Moscow",
    "New-York": "America/New_York",
    "Palembang": "Asia/Jakarta",
    "Petaling-Jaya": "Asia/Kuala_Lumpur",
    "Sao-Paulo": "America/Sao_Paulo",
    "Shanghai": "Asia/Shanghai",
    "Sydney": "Australia/Sydney",
    "Tangerang": "Asia/Jakarta",
    "Tokyo": "Asia/Tokyo",
}


def _massive_steps(city: str, zone: str) -> PublicSet:
    repository = f"CRUISEResearchGroup/Massive-STEPS-{city}"
    return PublicSet(
        reader="massive-steps",
        files=(f"{city.lower().replace('-', '_')}_checkins.csv",),
        page=f"https://huggingface.co/datasets/{repository}",
        terms="Apache-2.0",
        options={"timezone": zone},
        repository=repository,
    )


PUBLIC: dict[str, PublicSet] = {
    "tsmc2014-nyc": PublicSet("tsmc2014", ("dataset_TSMC2014_NYC.txt",), FOURSQUARE, NO_LICENCE),
    "tsmc2014-tky": PublicSet("tsmc2014", ("dataset_TSMC2014_TKY.txt",), FOURSQUARE, NO_LICENCE),
    "tist2015": PublicSet(
        "tist2015", ("dataset_TIST2015_Checkins.txt", "dataset_TIST2015_POIs.txt"), FOURSQUARE, NO_LICENCE
    ),
    "gowalla": PublicSet(
        "gowalla",
        ("loc-gowalla_totalCheckins.txt.gz",),
        "https://snap.stanford.edu/data/loc-Gowalla.html",
        NO_LICENCE,
    ),
    "brightkite": PublicSet(
        "gowalla",
        ("loc-brightkite_totalCheckins.txt.gz",),
        "https://snap.stanford.edu/data/loc-Brightkite.html",
        NO_LICENCE,
    ),
    "geolife": PublicSet(
        "geolife",
        ("Geolife Trajectories 1.3",),
        "https://www.microsoft.com/en-us/download/details.aspx?id=52367",
        "Microsoft Research licence, non-commercial research",
        {"skip_copies": True},
    ),
    "cabspotting": PublicSet(
        "cabspotting", ("cabspottingdata",), "https://ieee-dataport.org/open-access/crawdad-epflmobility", NO_LICENCE
    ),
    "yjmob100k": PublicSet(
        "yjmob100k", ("yjmob100k-dataset1.csv.gz",), "https://zenodo.org/records/10836269", "CC BY 4.0"
    ),
    **{f"massive-steps-{city.lower()}": _massive_steps(city, zone) for city, zone in STEPS_ZONES.items()},
    **{f"swarm-{city}": PublicSet("swarm", (f"{city}.txt",), SWARM, SWARM_TERMS) for city in ("hk", "nyc", "sfo")},
}

READERS: dict[str, Callable[..., Any]] = {
    "visits": validate_visits,
    "points": validate_points,
    "weeks": read_weeks,
    "days": lambda days, places, **options: read_weeks(days, cells=places, **options),
    "simulated": simulate_city,
    "simulated cities": simulate_cities,
    "simulated points": simulated_city_points,
    "labelled cells": read_labelled_cells,
    "commuting areas": read_areas,
    "tsmc2014": read_foursquare_tsmc2014,
    "tist2015": read_foursquare_tist2015,
    "gowalla": read_gowalla,
    "geolife": read_geolife,
    "cabspotting": read_cabspotting,
    "yjmob100k": read_yjmob100k,
    "massive-steps": read_massive_steps,
    "swarm": read_swarm,
}


def data_folder(folder: str | Path | None) -> Path:
    """The folder that was named, or that of the environment variable, or the present one."""
    return Path(folder if folder is not None else os.environ.get(VARIABLE, "."))


def load_public(name: str, folder: str | Path | None = None, *, download: bool = False, **options: Any) -> pd.DataFrame:
    """A public set as a canonical frame of visits or points.

    Args:
        name: a key of `PUBLIC`, such as "tsmc2014-nyc".
        folder: that holds the files as published; by default HF_MOBILITY_DATA.
        download: fetch the files from the Hub where they lie there (Massive-STEPS) and are not in the folder.
        options: of the reader, such as `bounds` or `timezone`.

    Raises:
        DataError: an unknown name.
        FileNotFoundError: a file that is not there; the sentence says where it is had.

    Example:
        >>> load_public("tsmc2014-nyc", "downloads")  # doctest: +SKIP
    """
    if name not in PUBLIC:
        raise DataError(f"There is no public set {name!r}; there are {', '.join(PUBLIC)}.")
    known, root = PUBLIC[name], data_folder(folder)
    paths = [root / file for file in known.files]
    if download and known.repository and not all(path.exists() for path in paths):
        from huggingface_hub import hf_hub_download

        paths = [Path(hf_hub_download(known.repository, file, repo_type="dataset")) for file in known.files]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: get {name} from {known.page} ({known.terms}).")
    return READERS[known.reader](*paths, **{**known.options, **options})


def file_hashes(one: ProtocolSet, folder: Path, where: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of each file of a set; of a simulated set, that of its options.

    Raises:
        FileNotFoundError: a file that is not there; the sentence says where the data are had.
        DataError: a file with another checksum than the protocol's.
    """
    if not one.files:
        return {f"{one.reader}: {one.name}": hashlib.sha256(repr(sorted(one.options.items())).encode()).hexdigest()}
    found = {}
    for name, wanted in one.files.items():
        path = folder / name
        if not path.exists():
            told = f"; see {', '.join(where)}" if where else ""
            raise FileNotFoundError(f"{path} does not exist: name the data folder with --data or {VARIABLE}{told}.")
        found[name] = _digest(path)
        if wanted is not None and found[name] != wanted:
            raise DataError(
                f"{name} has the SHA-256 {found[name][:12]}..., the protocol names {wanted[:12]}...: it is another "
                "file, and results could not be compared."
            )
    return found


def read_set(one: ProtocolSet, folder: Path) -> Any:
    """The data of a set, as its reader gives them.

    Raises:
        DataError: an unknown reader, or what the reader raises.
    """
    if one.reader not in READERS:
        raise DataError(f"{one.name}: there is no reader {one.reader!r}; there are {', '.join(READERS)}.")
    return READERS[one.reader](*(folder / name for name in one.files), **one.options)


def joint_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 of several."""
    return hashlib.sha256("\n".join(f"{name} {one}" for name, one in sorted(hashes.items())).encode()).hexdigest()


def _digest(path: Path) -> str:
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): _digest(file) for file in path.rglob("*") if file.is_file()}
        return joint_hash(files)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
