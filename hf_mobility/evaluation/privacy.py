"""What a set of generated weeks, a table of visits, or the city of a checkpoint reveals about the users behind it.

`audit` of weeks compares with held-out users: a generated week is near some training week because people are alike, so
the question is whether it is nearer than the weeks of users who were not trained on. `audit` of visits compares with
published figures, where there are any. A good result is no proof of privacy. A bad one is a reason not to publish.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from ..data.frames import validate_visits
from ..data.io.exports import week_matrix
from ..data.io.records import as_records
from ..data.io.streams import are_many
from ..data.week_arrays import check_weeks
from ..data.weeks import WeekTable
from ..tokenization.errors import DataError, renamed_argument
from ..tokenization.weeks import home_and_work
from .fidelity import hide_hours
from .fidelity_movement import copied_share, nearest_overlap
from .listed import ListedCity

COLUMNS = ["measure", "value", "reference", "compared_with", "sentence"]
SAMPLE = 1000  # weeks whose nearest neighbour is searched, people whose points are drawn
NEAR = 0.05  # the quantile that stands for the nearest weeks
POINTS = (2, 3, 4)
# Unique traces among 1.5 million phone users, hourly antennas (de Montjoye et al. 2013, doi:10.1038/srep01376).
PHONE_USERS = {2: 0.5, 4: 0.95}


@renamed_argument("min_people", "min_users")
def audit(
    data: Any,
    *,
    train: Any = None,
    held_out: Any = None,
    train_users: Any = None,
    slots_per_day: int = 24,
    min_users: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure what could be learned about single people.

    Args:
        data: generated weeks, integer (N, L) with -1 = unknown hour, or the long frame that
            `TrajectoryGenerationPipeline.generate` returns; the folder of a checkpoint (or of a `City`); or else
            visits, as `validate_visits` takes them with their default column names, or a folder or pattern of Parquet
            files of them.
        train, held_out: for weeks: (M, L) that the generator was fitted on, and (H, L) real weeks of other people.
        train_users: (M,) whose the training weeks are; by default each is another person's.
        slots_per_day: of weeks; column 0 is midnight of a Monday.
        min_users: for visits and folders: what fewer users share counts as rare (k of k-anonymity).
        seed: of every draw.

    Returns:
        One row per measure: `measure`; `value`; `reference`, the value of what it is `compared_with` (NaN where there
        is none); `sentence`.

        For weeks. Copies: share of the generated weeks with a move that equal a training week. Distance: share of
        known hours in which a week differs from the training week nearest to it, median and 5 % quantile over at most
        1,000 weeks. Nearer: the chance that a generated week is nearer to the training weeks than a held-out one is,
        ties counting half. Pairs: share of the weeks whose home and work (`home_and_work`) are together
        those of exactly one training person. Each of them beside the same of the held-out weeks.

        For visits. Rare locations: share of the locations with fewer than `min_users` people, and of the people who
        were at one. Unicity: share of at most 1,000 people whom 2, 3 and 4 random points of theirs (location and UTC
        hour) single out among all people; people with fewer points are left out.

        For a folder, numbers in place of shares. Places that its city lists, and those with a level of popularity.
        Homes (per group), pairs of home and work and movement classes of M-STAR, each with those of fewer than
        `min_users` people; where the files do not say of how many people, weeks are counted.

    Raises:
        DataError: faulty weeks or visits, or a folder without a city.
        ValueError: weeks without `train` or `held_out`, visits or a folder with them, min_users below 2.

    Example:
        >>> audit("checkpoints/mstar-cells-small")["sentence"].tolist()  # doctest: +SKIP
    """
    if min_users < 2:
        raise ValueError(f"min_users must be at least 2, not {min_users}.")
    is_long = isinstance(data, pd.DataFrame) and {"trajectory_id", "slot", "cell"} <= set(data.columns)
    if is_long or (hasattr(data, "ndim") and data.ndim == 2 and not isinstance(data, pd.DataFrame)):
        if train is None or held_out is None:
            raise ValueError("Weeks are compared with others: give train= and held_out=, real weeks of other people.")
        cells = week_matrix(data)[1] if is_long else data
        return _audit_weeks(cells, train, held_out, users=train_users, slots_per_day=slots_per_day, seed=seed)
    if train is not None or held_out is not None or train_users is not None:
        raise ValueError(
            "train, held_out and train_users belong to weeks; a table of visits or a folder is audited alone."
        )
    if isinstance(data, (str, Path)) and Path(data).is_dir() and not any(Path(data).glob("*.parquet")):
        return _audit_folder(Path(data), min_users=min_users)
    return _audit_visits(data, min_users=min_users, seed=seed)


def nearest_distance(weeks: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Share of its known hours in which each week (N, L) differs from the training week (M, L) nearest to it; float64
    (N,), NaN for a week without a known hour."""
    return 1 - nearest_overlap(weeks, train)


def unique_pairs(weeks: np.ndarray, train: np.ndarray, users: np.ndarray, *, slots_per_day: int = 24) -> np.ndarray:
    """bool (N,): the week's home and work are together those of exactly one person of the training weeks."""
    theirs = np.stack(home_and_work(train, slots_per_day=slots_per_day), axis=1)
    own = np.stack(home_and_work(weeks, slots_per_day=slots_per_day), axis=1)
    pair = np.unique(np.concatenate([theirs, own]), axis=0, return_inverse=True)[1].ravel()
    person = np.unique(users, return_inverse=True)[1]
    known = np.unique(np.stack([pair[: len(train)], person], axis=1)[theirs[:, 0] >= 0], axis=0)
    people = np.bincount(known[:, 0], minlength=pair.max() + 1)
    return people[pair[len(train) :]] == 1


def unicity(user: np.ndarray, point: np.ndarray, *, points: int, seed: int = 0) -> tuple[float, int]:
    """Share of the people whom some random points of theirs single out, and of how many people that is.

    Args:
        user, point: int64 (n,), codes from 0; rows may repeat.
        points: how many of a person's distinct points are known. People with fewer are left out.
        seed: of people and points; more points of one seed hold the fewer.
    """
    pairs = np.unique(np.stack([user, point], axis=1), axis=0)
    people = int(user.max()) + 1
    rng = np.random.default_rng(seed)
    pairs = pairs[np.lexsort((rng.random(len(pairs)), pairs[:, 0]))]
    starts = np.searchsorted(pairs[:, 0], np.arange(people + 1))
    able = np.flatnonzero(np.diff(starts) >= points)
    chosen = rng.permutation(able)[:SAMPLE]
    if not len(chosen):
        return float("nan"), 0
    has = sparse.csc_array((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])))
    holders = has[:, pairs[starts[chosen], 1]]
    for rank in range(1, points):
        holders = holders.multiply(has[:, pairs[starts[chosen] + rank, 1]])
    return float((np.asarray(holders.sum(axis=0)) == 1).mean()), len(chosen)


def _audit_weeks(
    generated: Any, train: Any, held_out: Any, *, users: Any, slots_per_day: int, seed: int
) -> pd.DataFrame:
    train = check_weeks(train, name="train")
    length = train.shape[1]
    real = check_weeks(held_out, name="held_out", length=length)
    made = check_weeks(generated, name="data", length=length)
    users = np.arange(len(train)) if users is None else np.asarray(users)
    if users.shape != (len(train),):
        raise DataError(f"train_users has shape {users.shape}; give one person for each of the {len(train)} weeks.")
    # Gaps of the data must not make the real weeks look farther away, or nearer, than complete ones.
    shown = made if (made < 0).any() else hide_hours(made, real)

    rng = np.random.default_rng(seed)
    near, far = (nearest_distance(_draw(weeks, rng), train) for weeks in (shown, real))
    near, far = near[np.isfinite(near)], far[np.isfinite(far)]
    if not len(near) or not len(far):
        raise DataError("No hour is known in the generated or in the held-out weeks; there is nothing to compare.")
    copied, copied_real = (copied_share(weeks, train, moving=True) for weeks in (made, real))
    pairs, pairs_real = (unique_pairs(x, train, users, slots_per_day=slots_per_day).mean() for x in (made, real))
    ordered = np.sort(far)
    below, upto = (np.searchsorted(ordered, near, side=side) for side in ("left", "right"))
    nearer = float(1 - (below + upto).mean() / 2 / len(far))
    rows: list[tuple[str, float, float, str]] = [
        ("copied weeks", copied, copied_real, f"{_percent(copied)} of the generated weeks with a move are copies"),
    ]
    for name, share in (("median", 0.5), ("nearest 5 %", NEAR)):
        value, reference = float(np.quantile(near, share)), float(np.quantile(far, share))
        text = f"generated weeks differ from the nearest training week in {_percent(value)} of the hours ({name})"
        rows.append((f"distance to training, {name}", value, reference, text))
    text = f"a generated week is nearer to the training weeks than an unseen person's in {_percent(nearer)} of pairs"
    rows.append(("nearer than held-out", nearer, 0.5, text))
    text = f"{_percent(pairs)} of the generated weeks have the home and work of one single training person"
    rows.append(("unique home and work", float(pairs), float(pairs_real), text))
    table = pd.DataFrame(rows, columns=["measure", "value", "reference", "sentence"])
    table["compared_with"] = np.where(table["measure"] == "nearer than held-out", "chance", "held-out weeks")
    return _finished(table)


def _audit_visits(visits: Any, *, min_users: int, seed: int) -> pd.DataFrame:
    frame = as_records(visits) if are_many(visits) else validate_visits(visits)
    if isinstance(frame, WeekTable) or "location_id" not in frame:
        raise DataError("Column 'location_id' is missing; give each row a place or a cell (see assign_cells).")
    user, users = pd.factorize(frame["user_id"])
    place, places = pd.factorize(frame["location_id"])
    people = np.bincount(np.unique(np.stack([place, user], axis=1), axis=0)[:, 0])
    rare = people < min_users
    exposed = len(np.unique(user[rare[place]])) / len(users)
    none = "k-anonymous data"
    few = f"{rare.sum():,} of {len(places):,} locations were visited by fewer than {min_users} people"
    who = f"{_percent(exposed)} of {len(users):,} people were at a location of fewer than {min_users} people"
    rows: list[tuple[str, float, float, str, str]] = [
        ("rare locations", float(rare.mean()), 0.0, none, few),
        ("people at rare locations", exposed, 0.0, none, who),
    ]
    hour = frame["time"].dt.floor("h")
    point = pd.MultiIndex.from_arrays([frame["location_id"], hour]).factorize()[0]
    for number in POINTS:
        value, counted = unicity(user, point, points=number, seed=seed)
        text = f"{number} random points (location and hour) single out {_percent(value)} of {counted:,} people"
        known = number in PHONE_USERS
        against = "1.5 million phone users (de Montjoye et al. 2013)" if known else ""
        rows.append((f"unicity, {number} points", value, PHONE_USERS.get(number, np.nan), against, text))
    return _finished(pd.DataFrame(rows, columns=["measure", "value", "reference", "compared_with", "sentence"]))


def _audit_folder(folder: Path, *, min_users: int) -> pd.DataFrame:
    city = ListedCity.of_folder(folder)
    if city is None:
        raise DataError(
            f"{folder} holds no city (city.json and city.safetensors): nothing in it lists people's places."
        )
    rows: list[tuple[str, int, str]] = [
        ("places", city.places, f"the city lists {city.places:,} places by id and coordinates"),
        ("visited places", city.visited, f"{city.visited:,} of the places have a level of how often they were visited"),
    ]
    what = "people" if city.knows_people else "weeks, the files do not say of how many people"
    for kind, people in city.people.items():
        few = int((people < min_users).sum())
        rows.append((kind, len(people), f"the conditions list {len(people):,} {kind}"))
        rows.append((f"rare {kind}", few, f"{few:,} of {len(people):,} {kind} are of fewer than {min_users} {what}"))
    if city.people:
        rows.append(("typical weeks", city.weeks, f"{city.weeks:,} typical weeks are each the week of one person"))
    table = pd.DataFrame(rows, columns=["measure", "value", "sentence"])
    rare = table["measure"].str.startswith("rare ")
    table["reference"] = np.where(rare, 0.0, np.nan)
    table["compared_with"] = np.where(rare, "k-anonymous files", "")
    table["sentence"] = [f"{text[0].upper()}{text[1:]}." for text in table["sentence"]]
    return table.astype({"value": np.float64})[COLUMNS]


def _draw(weeks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return weeks if len(weeks) <= SAMPLE else weeks[np.sort(rng.choice(len(weeks), SAMPLE, replace=False))]


def _finished(table: pd.DataFrame) -> pd.DataFrame:
    """Whole sentences: the value, and what it is compared with."""
    sentences = []
    for text, against, reference in zip(table["sentence"], table["compared_with"], table["reference"]):
        beside = f"; {against}: {_percent(reference)}" if against else ""
        sentences.append(f"{text[0].upper()}{text[1:]}{beside}.")
    return table.assign(sentence=sentences)[COLUMNS]


def _percent(share: Any) -> str:
    return "no share" if np.isnan(share) else f"{100 * share:.1f} %"
