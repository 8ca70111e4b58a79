"""How unusual each visit of a user is: for the model, beside what others do, and by the distance from own places.

The score is a log-likelihood ratio, "another user of the city" against "this user" (Neyman and Pearson 1933,
doi:10.1098/rsta.1933.0009), plus the distance from the user's own places. It was chosen on source cities; see
docs/results/anomalies.md.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..data.tasks import NextLocationTask
from ..tokenization.grid import haversine_km
from ..tokenization.tokenization_samoe import NUM_SPECIAL, SamoeTokenizer

SCORE_COLUMNS = [
    *("user_id", "time", "location_id", "surprisal", "expected_surprisal", "p_value"),
    *("surprisal_others", "new_place", "distance_km", "score"),
]
DISTANCE_KM = 0.1  # a new place so far away adds ln 2 to the score
FLOOR = 1e-12  # probability of a place that the model excludes: 27.6 nats


def visits_task(
    frame: pd.DataFrame, tokenizer: SamoeTokenizer, unknown: str, *, following: bool = False
) -> tuple[NextLocationTask, np.ndarray]:
    """All visits but the first of each user as targets, in canonical order, and the (U,) users.

    With `following` the one target of a user is a visit after the last. Its place and time, those of the last visit,
    mean nothing.
    """
    read = tokenizer.encode_visits(frame, unknown=unknown)
    offsets = read["offsets"]
    user = np.repeat(np.arange(len(read["users"])), np.diff(offsets))
    rows, target = np.arange(len(user)), np.ones(len(user), dtype=bool)
    target[offsets[:-1]] = False
    if following:
        rows = np.insert(rows, offsets[1:], offsets[1:] - 1)
        target = np.insert(np.zeros(len(user), dtype=bool), offsets[1:], True)
    place = read["input_ids"][rows] - NUM_SPECIAL
    visits = pd.DataFrame(
        {
            "user_id": user[rows],
            "time": pd.to_datetime(read["utc"][rows], unit="s", utc=True).astype("datetime64[us, UTC]"),
            "location_id": tokenizer.location_ids[place],
            "lat": tokenizer.lat[place],
            "lon": tokenizer.lon[place],
        }
    )
    return NextLocationTask(tokenizer.city, visits, place, user[rows], target), read["users"]


def score_table(
    task: NextLocationTask, users: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """`SCORE_COLUMNS` of every visit of the task.

    Args:
        task: of `visits_task`.
        users: (U,) ids of its users.
        parts: (rows (m,), probabilities (m, N)), as `NextLocationPipeline.probabilities` yields them.
    """
    surprisal, expected = np.full(len(task.visits), np.nan), np.full(len(task.visits), np.nan)
    for rows, p in parts:
        nats = -np.log(np.maximum(p.astype(np.float64), FLOOR))
        surprisal[rows] = nats[np.arange(len(rows)), task.location[rows]]
        expected[rows] = (p * nats).sum(axis=1)
    new = new_places(task)
    others, distance = surprisal_of_others(task), distance_from_own(task, new)
    return pd.DataFrame(
        {
            "user_id": users[task.user],
            "time": task.visits["time"],
            "location_id": task.visits["location_id"],
            "surprisal": surprisal,
            "expected_surprisal": expected,
            "p_value": conformal_p_values(task.user, surprisal),
            "surprisal_others": others,
            "new_place": new,
            "distance_km": distance,
            "score": surprisal - others + np.log1p(distance / DISTANCE_KM),
        }
    )


def conformal_p_values(user: np.ndarray, surprisal: np.ndarray) -> np.ndarray:
    """Share of a user's surprisals so far, this one included, that are at least as large; (n,), NaN where none is.

    If a user's visits were exchangeable, p <= a would come up with probability a at most (Vovk et al. 2005).
    """
    out = np.full(len(surprisal), np.nan)
    known = np.flatnonzero(~np.isnan(surprisal))
    earlier: list[float] = []
    owner = -1
    for row in known:
        if user[row] != owner:
            owner, earlier = user[row], []
        smaller = bisect_left(earlier, surprisal[row])
        out[row] = (len(earlier) - smaller + 1) / (len(earlier) + 1)
        insort(earlier, surprisal[row])
    return out


def surprisal_of_others(task: NextLocationTask) -> np.ndarray:
    """-ln of the share of the other users' visits that are at the place, one visit added to each place; (n,)."""
    places = len(task.city.location_ids)
    pair = pd.DataFrame({"user": task.user, "place": task.location})
    own = pair.groupby(["user", "place"])["place"].transform("size").to_numpy()
    visits = pair.groupby("user")["place"].transform("size").to_numpy()
    there = np.bincount(task.location, minlength=places)[task.location]
    return -np.log((there - own + 1) / (len(pair) - visits + places))


def new_places(task: NextLocationTask) -> np.ndarray:
    """bool (n,): the user has not been at the place before."""
    return ~pd.DataFrame({"user": task.user, "place": task.location}).duplicated().to_numpy()


def distance_from_own(task: NextLocationTask, new: np.ndarray) -> np.ndarray:
    """Kilometres to the nearest place that the user has visited before; (n,), 0 for a known place, NaN at first.

    `new` is what `new_places` returned.
    """
    out = np.zeros(len(new))
    rows = np.flatnonzero(new)
    lat, lon = task.visits["lat"].to_numpy(), task.visits["lon"].to_numpy()
    for own in np.split(rows, np.flatnonzero(np.diff(task.user[rows])) + 1):
        out[own[0]] = np.nan
        for number, row in enumerate(own[1:], start=1):
            before = own[:number]
            out[row] = haversine_km(lat[row], lon[row], lat[before], lon[before]).min()
    return out
