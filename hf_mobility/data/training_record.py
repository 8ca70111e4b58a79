"""Which records a model was trained on, as a sample of hashes: enough to tell whether others are among them.

A hash is of a person's id and a record of theirs, salted and cut to 32 bits. No id can be read from it, but whoever has
the file and guesses a person and the second of a visit can test the guess. So a push does not send it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.clock import epoch_seconds
from .weeks import WeekTable

FILE = "training_record.json"
SAMPLE = 16_384  # hashes that are kept of each kind, the smallest
LEAST = 50  # of other records that must be comparable with a sample: their share is then known to a few percent
KINDS = ("records", "people")
_EVERY = 1 << 32  # above every hash


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """What a model was trained on, and what was left out for its test.

    salt: of the hashes. hashes: kind (`records`, `people`) -> ascending uint32, the `SAMPLE` smallest. system,
    test_fraction, seed: of the split, see `split_records`.

    Example:
        >>> record = TrainingRecord.of([visits], system="samoe", test_fraction=0.2, seed=0)  # doctest: +SKIP
        >>> record.share_of(others)["records"]  # doctest: +SKIP
        0.0
    """

    salt: str
    hashes: dict[str, np.ndarray]
    system: str = ""
    test_fraction: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, tables: Sequence[Any], *, earlier: TrainingRecord | None = None, **split: Any) -> TrainingRecord:
        """Of canonical frames or `WeekTable`s, and of what the model had been trained on before."""
        salt = secrets.token_hex(16) if earlier is None else earlier.salt
        parts = [] if earlier is None else [earlier.hashes]
        parts += [{kind: found[:SAMPLE] for kind, found in _hashes(table, salt).items()} for table in tables]
        return cls(salt, {kind: _merged([part[kind] for part in parts]) for kind in KINDS}, **split)

    def share_of(self, records: Any) -> dict[str, float]:
        """Of other records, the share that was trained on, 0..1, by kind; NaN where the sample cannot tell."""
        return {kind: self._share(kind, found) for kind, found in _hashes(records, self.salt).items()}

    def _share(self, kind: str, found: np.ndarray) -> float:
        kept = self.hashes[kind]
        comparable = found[found <= _top(kept)]
        enough = len(comparable) >= (LEAST if len(kept) >= SAMPLE else 1)
        return float(np.isin(comparable, kept).mean()) if enough else float("nan")

    def save(self, folder: str | Path) -> None:
        text = {kind: base64.b64encode(kept.astype("<u4").tobytes()).decode() for kind, kept in self.hashes.items()}
        split = {"system": self.system, "test_fraction": self.test_fraction, "seed": self.seed}
        Path(folder, FILE).write_text(json.dumps({"salt": self.salt, **split, **text}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> TrainingRecord | None:
        """None where there is none.

        Raises:
            ValueError: a damaged file.
        """
        path = Path(folder, FILE)
        if not path.is_file():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            hashes = {
                kind: np.frombuffer(base64.b64decode(saved.pop(kind), validate=True), "<u4").astype(np.uint32)
                for kind in KINDS
            }
            return cls(hashes=hashes, **_checked(saved))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no record of a training: {error}.") from error


def _checked(saved: dict[str, Any]) -> dict[str, Any]:
    if len(bytes.fromhex(saved["salt"])) != 16:
        raise ValueError("its salt is not of 16 bytes")
    if not 0 <= saved["test_fraction"] < 1:
        raise ValueError(f"its test_fraction is {saved['test_fraction']!r}")
    return saved


def _merged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sample of all records from the samples of their parts."""
    return np.unique(np.concatenate(parts))[:SAMPLE]


def _top(kept: np.ndarray) -> int:
    """Up to which hash a sample is complete."""
    return int(kept[-1]) if len(kept) >= SAMPLE else _EVERY


def _hashes(records: Any, salt: str) -> dict[str, np.ndarray]:
    """Kind -> ascending uint32 without repeats."""
    found = _of_weeks(records, salt) if isinstance(records, WeekTable) else _of_frame(records, salt)
    return {kind: np.unique((values >> np.uint64(32)).astype(np.uint32)) for kind, values in found.items()}


def _of_frame(records: pd.DataFrame, salt: str) -> dict[str, np.ndarray]:
    """A record is a person, a second, and the degree of latitude and longitude, which tells cities apart whose people
    have the same ids, whatever happens to the places in between."""
    person = _of_texts(records["user_id"], salt)
    degree = np.rint(records["lat"].to_numpy()) * 1000 + np.rint(records["lon"].to_numpy())
    person ^= _mixed(degree.astype(np.int64))
    second = epoch_seconds(records["time"]).astype(np.int64)
    return {"records": _mixed(person ^ _mixed(second)), "people": _mixed(person)}


def _of_weeks(weeks: WeekTable, salt: str) -> dict[str, np.ndarray]:
    person = np.zeros(len(weeks), np.uint64) if weeks.user_id is None else _of_texts(weeks.user_id, salt)
    rows = np.ascontiguousarray(weeks.cells, dtype="<i4")
    week = np.array([_digest(row.tobytes(), salt) for row in rows], np.uint64)
    people = _mixed(person) if weeks.user_id is not None else np.zeros(0, np.uint64)
    return {"records": _mixed(person ^ week), "people": people}


def _of_texts(values: Any, salt: str) -> np.ndarray:
    codes, distinct = pd.factorize(np.asarray(values, dtype=object))
    return np.array([_digest(str(value).encode(errors="replace"), salt) for value in distinct], np.uint64)[codes]


def _digest(data: bytes, salt: str) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, salt=bytes.fromhex(salt)).digest(), "little")


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64, each bit of the result depending on each bit of the value."""
    return pd.util.hash_array(values)
