"""What a week is conditioned on: home, second place ("commute") and movement attribute; how they are read from weeks
and how new ones are drawn (M-STAR, spec 3 and 6.3).

Unusual: a drawn home and second place are not those of a person. Homes come from the distribution of their own group
(second place at home or not), second places from a table that backs off from the home cell to ever coarser cells around
it and to the whole city. Everything is estimated on the weeks that are given, which should be training weeks only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .attributes_mstar import blocks, distinct_cells, first_positions, fit_medoids, nearest_medoid
from .city_mstar import GridCity

METHODS = ("none", "medoids", "distinct_cells")


def most_frequent(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N,) int64: the commonest known cell of each row, on ties the one visited first; -1 = none."""
    found = np.full(len(cells), -1, np.int64)
    if cells.shape[1] == 0:
        return found
    for rows in blocks(len(cells)):
        block = cells[rows]
        first = first_positions(block) + np.arange(len(block))[:, None] * block.shape[1]
        counts = np.bincount(first[block >= 0], minlength=block.size).reshape(block.shape)
        # argmax takes the first of equal counts, and counts stand where a cell was first seen.
        best = counts.argmax(axis=1)
        found[rows] = np.where(counts.any(axis=1), block[np.arange(len(block)), best], -1)
    return found


def slot_masks(
    num_slots: int,
    interval_minutes: int,
    *,
    home_hours: tuple[int, int],
    commute_hours: tuple[int, int],
    commute_days: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Which slots of a week tell the home and which the second place, two bool (L,).

    Hours and days count from 0 and exclude their ends: (0, 8) are hours 0..7, (0, 5) Monday to Friday. Windows that are
    no whole weeks have no weekdays: there every day counts.
    """
    minutes = np.arange(num_slots) * interval_minutes
    hour, day = minutes // 60 % 24, minutes // 1440 % 7
    home = (hour >= home_hours[0]) & (hour < home_hours[1])
    commute = (hour >= commute_hours[0]) & (hour < commute_hours[1])
    if num_slots * interval_minutes % (7 * 1440) == 0:
        commute &= (day >= commute_days[0]) & (day < commute_days[1])
    return home, commute


def home_and_commute(cells: np.ndarray, home: np.ndarray, commute: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) cells and the masks of `slot_masks` -> home and second place of each week, two (N,) int64.

    Home is the commonest known cell of its slots; where none of them is known, the commonest of the whole week. The
    second place is the commonest known cell of its slots, else the home. -1 for weeks without any known slot.
    """
    home_ids = most_frequent(cells[:, home])
    home_ids = np.where(home_ids < 0, most_frequent(cells), home_ids)
    commute_ids = most_frequent(cells[:, commute])
    return home_ids, np.where(commute_ids < 0, home_ids, commute_ids)


@dataclass(frozen=True)
class ConditionTables:
    """Counts of weeks from which conditions are drawn.

    same_share: share of weeks whose second place is the home.
    home_counts: (2, C) int64 weeks by home cell; row 0 = second place elsewhere, row 1 = at home.
    pairs: (P, 3) int32: home, second place (another cell), weeks.
    attribute_counts: (2, K) int64 weeks by class, rows as above.
    smoothing: weeks that each coarser estimate of the second place is worth.
    """

    same_share: float
    home_counts: np.ndarray
    pairs: np.ndarray
    attribute_counts: np.ndarray
    smoothing: float

    @classmethod
    def fit(
        cls,
        home_ids: np.ndarray,
        commute_ids: np.ndarray,
        attribute_ids: np.ndarray,
        *,
        num_cells: int,
        num_attributes: int,
        smoothing: float = 5.0,
        min_count: int = 1,
    ) -> ConditionTables:
        """Count weeks.

        Args:
            home_ids, commute_ids, attribute_ids: (N,), without unknowns.
            smoothing: see the class; 0 = the raw table, which gives back pairs of real people only.
            min_count: homes (per group) and pairs of fewer weeks are not stored; such second places are left to the
                coarser estimate. Raise it where the tables are to be published.

        Raises:
            ValueError: no weeks, a negative smoothing, or nothing left after `min_count`.
        """
        if len(home_ids) == 0:
            raise ValueError("conditions cannot be fitted on no weeks.")
        if smoothing < 0 or min_count < 1:
            raise ValueError(f"smoothing must be >= 0 and min_count >= 1, got {smoothing} and {min_count}.")
        same = (home_ids == commute_ids).astype(np.int64)
        home_counts = np.bincount(same * num_cells + home_ids, minlength=2 * num_cells).reshape(2, num_cells)
        home_counts[home_counts < min_count] = 0
        codes, weeks = np.unique((home_ids * num_cells + commute_ids)[same == 0], return_counts=True)
        codes, weeks = codes[weeks >= min_count], weeks[weeks >= min_count]
        lost = [
            name for row, name in ((0, "elsewhere"), (1, "at home")) if (same == row).any() > home_counts[row].any()
        ]
        if lost or (len(codes) == 0 and (same == 0).any()):
            raise ValueError(
                f"min_count={min_count} leaves no home or no pair of places of {len(home_ids)} weeks; lower it."
            )
        attribute_counts = np.bincount(same * num_attributes + attribute_ids, minlength=2 * num_attributes)
        return cls(
            same_share=float(same.mean()),
            home_counts=home_counts.astype(np.int64),
            pairs=np.stack([codes // num_cells, codes % num_cells, weeks], axis=1).astype(np.int32).reshape(-1, 3),
            attribute_counts=attribute_counts.reshape(2, num_attributes).astype(np.int64),
            smoothing=float(smoothing),
        )

    def commute_probabilities(self, home: int, cell_map: np.ndarray) -> np.ndarray:
        """(C,) float64: distribution of the second place of a home in cell `home`, given that it is another cell.

        From the whole city to the home cell, each estimate is mixed with the coarser one before it:
        `p = (weeks + smoothing * p_coarser) / (sum of weeks + smoothing)`; the home itself gets 0.
        """
        homes, places, weeks = self.pairs.T
        num_cells = len(cell_map)
        city = p = np.bincount(places, weeks, num_cells) / max(weeks.sum(), 1)
        for level in cell_map.T:
            near = level[homes] == level[home]
            counts = np.bincount(places[near], weeks[near], num_cells)
            total = counts.sum() + self.smoothing
            p = (counts + self.smoothing * p) / total if total > 0 else p
        elsewhere = np.arange(num_cells) != home
        # Without smoothing all near pairs may lead to this very home: then the city's places, else any other cell.
        p = next(q for q in (p * elsewhere, city * elsewhere, elsewhere * 1.0) if q.sum() > 0)
        return p / p.sum()

    def sample(self, n: int, *, seed: int, cell_map: np.ndarray) -> dict[str, np.ndarray]:
        """Draw `home_ids`, `commute_ids`, `attribute_ids`, (n,) int64 each."""
        rng = np.random.default_rng(seed)
        same = (rng.random(n) < self.same_share).astype(np.int64)
        home_ids = np.zeros(n, np.int64)
        for group in (0, 1):
            rows = np.flatnonzero(same == group)
            home_ids[rows] = _draw(self.home_counts[group], rng.random(len(rows)))
        commute_ids = home_ids.copy()
        away = np.flatnonzero(same == 0)
        uniform = rng.random(len(away))
        homes, back = np.unique(home_ids[away], return_inverse=True)
        for index, home in enumerate(homes.tolist()):
            rows = back == index
            commute_ids[away[rows]] = _draw(self.commute_probabilities(home, cell_map), uniform[rows])
        attribute_ids = self.sample_attributes(home_ids, commute_ids, seed=int(rng.integers(2**31)))
        return {"home_ids": home_ids, "commute_ids": commute_ids, "attribute_ids": attribute_ids}

    def sample_attributes(self, home_ids: np.ndarray, commute_ids: np.ndarray, *, seed: int) -> np.ndarray:
        """Draw the class of each week given whether its second place is the home, (n,) int64."""
        uniform = np.random.default_rng(seed).random(len(home_ids))
        same = home_ids == commute_ids
        attribute_ids = np.zeros(len(home_ids), np.int64)
        for group in (0, 1):
            counts = self.attribute_counts[group]
            rows = same == group
            # A group that training never saw has the classes of everybody.
            attribute_ids[rows] = _draw(counts if counts.any() else self.attribute_counts.sum(axis=0), uniform[rows])
        return attribute_ids

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For the tokenizer's safetensors file; `same_share` and `smoothing` go to its JSON file."""
        return {"home_counts": self.home_counts, "pairs": self.pairs, "attribute_counts": self.attribute_counts}

    @classmethod
    def from_arrays(cls, arrays: Any, *, same_share: float, smoothing: float) -> ConditionTables:
        names = ("home_counts", "pairs", "attribute_counts")
        return cls(same_share=same_share, smoothing=smoothing, **{name: arrays[name] for name in names})


class ConditionedCity(GridCity):
    """A city that reads conditions from weeks and draws new ones.

    home_hours, commute_hours, commute_days: see `slot_masks`. attribute_method: `none` (before `fit_conditions`),
    `medoids` or `distinct_cells`. num_attributes: K. medoids: (K, L) int16, relabelled weeks. conditions: the tables.
    """

    home_hours: tuple[int, int]
    commute_hours: tuple[int, int]
    commute_days: tuple[int, int]

    def _take_city(self, city: dict[str, Any]) -> None:
        super()._take_city(city)
        self.attribute_method = str(city.get("attribute_method", "none"))
        self.num_attributes = int(city.get("num_attributes", 1))
        medoids = city.get("medoids")
        self.medoids = np.zeros((0, self.num_hours), np.int16) if medoids is None else np.asarray(medoids, np.int16)
        self.conditions: ConditionTables | None = city.get("conditions")
        if self.attribute_method not in METHODS or self.medoids.shape[1:] != (self.num_hours,):
            raise ValueError(
                f"attribute_method must be one of {METHODS} and medoids (K, {self.num_hours}), got "
                f"{self.attribute_method!r} and {self.medoids.shape}."
            )

    def home_and_commute(self, data: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """Home and second place of each week, two (N,) int64: the commonest known cell of hours 0..7 of all days, and
        of hours 10..17 of Monday to Friday (or as configured); on ties the one visited first.

        A week without a known hour there falls back to its commonest cell (home) or to its home (second place).

        Raises:
            ValueError: weeks in which nothing is known.
        """
        cells = self.as_cells(data, **options)
        empty = np.flatnonzero((cells < 0).all(axis=1))
        if len(empty):
            raise ValueError(
                f"{len(empty)} of {len(cells)} weeks have no known hour (first weeks {empty[:5].tolist()}), so nobody "
                "knows their home: drop them, or give home_ids, commute_ids and attribute_ids."
            )
        home, commute = slot_masks(
            self.num_hours,
            self.interval_minutes,
            home_hours=self.home_hours,
            commute_hours=self.commute_hours,
            commute_days=self.commute_days,
        )
        return home_and_commute(cells, home, commute)

    def attributes(self, data: Any, *, workers: int = 1, **options: Any) -> np.ndarray:
        """Movement class of each week, (N,) int64: nearest medoid (`attributes_mstar`), or number of distinct cells,
        at most K, less one; 0 for all before `fit_conditions`."""
        cells = self.as_cells(data, **options)
        return _classes(cells, self.attribute_method, self.medoids, self.num_attributes, workers)

    def _conditions(self, cells: np.ndarray, home: Any, commute: Any, attribute: Any) -> dict[str, np.ndarray]:
        if (home is None) != (commute is None):
            raise ValueError("home_ids and commute_ids are given together or not at all: one of them is missing.")
        if home is None:
            home, commute = self.home_and_commute(cells)
        attribute = self.attributes(cells) if attribute is None else attribute
        return self.checked_conditions(len(cells), home_ids=home, commute_ids=commute, attribute_ids=attribute)

    def checked_conditions(self, n: int, **ids: Any) -> dict[str, np.ndarray]:
        """Given conditions as int64 (n,).

        Raises:
            ValueError: which one has another length or values outside its range.
        """
        _check_number(n)
        checked = {}
        for name, given in ids.items():
            values = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
            limit = self.num_attributes if name == "attribute_ids" else self.num_cells
            if values.shape != (n,) or values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= limit:
                raise ValueError(f"{name} must be {n} integers in 0..{limit - 1}, one for each week.")
            checked[name] = values.astype(np.int64)
        return checked

    def fit_conditions(
        self,
        data: Any,
        *,
        num_attributes: int | None = 8,
        method: str = "medoids",
        sample: int = 5_000,
        seed: int = 0,
        smoothing: float = 5.0,
        min_count: int = 1,
        workers: int = 1,
    ) -> dict[str, Any]:
        """Learn movement classes and the distributions of conditions from training weeks, and keep them.

        Args:
            data: weeks as `__call__` takes them. Training weeks only: test weeks would leak (spec 6.3.20).
            num_attributes: classes K; `None` chooses 2 to 16 by the medoid silhouette.
            method: `medoids`, or `distinct_cells` = number of different cells of the week, at most K (cheap, needs no
                further package).
            sample: weeks that the medoids are fitted on; cost grows with its square.
            smoothing, min_count: of the tables, see `ConditionTables`; raise `min_count` before publishing the city.
            workers: processor cores for distances, -1 = all.

        Returns:
            `weeks`, `num_attributes`, `silhouette` (None without medoids), `same_share`, `weeks_per_attribute`.

        Raises:
            ValueError: too few weeks or patterns; options that contradict.
        """
        cells = self.as_cells(data)
        if method not in METHODS[1:] or (num_attributes is not None and num_attributes < 1):
            raise ValueError(f"method must be one of {METHODS[1:]} and num_attributes positive, got {method!r}.")
        if method == "distinct_cells" and num_attributes is None:
            raise ValueError("num_attributes=None chooses a number of medoids; give a number for 'distinct_cells'.")
        home_ids, commute_ids = self.home_and_commute(cells)
        medoids, silhouette = np.zeros((0, self.num_hours), np.int16), None
        if method == "medoids":
            medoids, silhouette = fit_medoids(
                cells, num_attributes=num_attributes, sample=sample, seed=seed, workers=workers
            )
            num_attributes = len(medoids)
        attribute_ids = _classes(cells, method, medoids, num_attributes, workers)
        conditions = ConditionTables.fit(
            home_ids,
            commute_ids,
            attribute_ids,
            num_cells=self.num_cells,
            num_attributes=num_attributes,
            smoothing=smoothing,
            min_count=min_count,
        )
        self.medoids, self.attribute_method, self.num_attributes = medoids, method, num_attributes
        self.conditions = conditions  # only now, as a fit that fails changes nothing
        return {
            "weeks": len(cells),
            "num_attributes": num_attributes,
            "silhouette": silhouette,
            "same_share": conditions.same_share,
            "weeks_per_attribute": np.bincount(attribute_ids, minlength=num_attributes).tolist(),
        }

    def sample_conditions(
        self, n: int, *, seed: int, home_ids: Any = None, commute_ids: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw `home_ids`, `commute_ids`, `attribute_ids`, (n,) int64 each, from the fitted distributions (spec 3).

        With `home_ids` and `commute_ids` (both or neither) only the attributes are drawn.

        Raises:
            ValueError: before `fit_conditions`, for n < 1, or for one of the two places alone.
        """
        if self.conditions is None:
            raise ValueError("there are no distributions to draw from: call fit_conditions(training_weeks) first.")
        _check_number(n)
        if (home_ids is None) != (commute_ids is None):
            raise ValueError("home_ids and commute_ids are given together or not at all: one of them is missing.")
        if home_ids is None:
            return self.conditions.sample(n, seed=seed, cell_map=self.cell_map)
        drawn = self.checked_conditions(n, home_ids=home_ids, commute_ids=commute_ids)
        return {**drawn, "attribute_ids": self.conditions.sample_attributes(*drawn.values(), seed=seed)}


def _check_number(n: int) -> None:
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n must be at least 1 and an integer, got {n}.")


def _classes(cells: np.ndarray, method: str, medoids: np.ndarray, num_attributes: int, workers: int) -> np.ndarray:
    if method == "medoids":
        return nearest_medoid(cells, medoids, workers=workers)
    if method == "distinct_cells":
        return np.clip(distinct_cells(cells), 1, num_attributes) - 1
    return np.zeros(len(cells), np.int64)


def _draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Index of each draw by inversion, never one of weight 0."""
    total = np.cumsum(weights, dtype=np.float64)
    drawn = np.searchsorted(total, uniform * total[-1], side="right")
    return np.minimum(drawn, np.flatnonzero(weights)[-1]) if len(uniform) else drawn
