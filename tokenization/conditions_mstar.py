"""What a week of M-STAR is conditioned on: home, work and movement attribute. They are read from weeks, and new ones
are drawn.

The movement attribute of a week is the nearest of a few typical weeks (medoids of training weeks). Weeks are compared
by Levenshtein distance after their cells are numbered in the order of the first visit (home 0, office 1, ...), so that
the attribute says how somebody moves and not where. An unknown hour has a symbol of its own: it counts as one edit
against any known hour and keeps the hours after it in their place. rapidfuzz reads such a week as text, one character
per hour.

Homes are drawn from the distribution of their own group (work at home or not), works from a table that backs off from
the home cell to ever coarser cells around it and to the whole city. Everything is estimated on the weeks that are
given, which should be training weeks only. Nearly every drawn pair of home and work is one of the table, and so of
training users. The tables in memory hold all pairs, also those of one user; files hold what several share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .city_mstar import GridCity, whole
from .errors import DataError, renamed_argument, renamed_method
from .weeks import Weeks, blocks, first_hour_of_cell

METHODS = ("none", "medoids", "distinct_cells")
MAX_CLASSES = 16  # tried when the number of classes is to be chosen
MAX_ATTRIBUTES = 10_000
MAX_WEEKS = 2**40  # that a table counts
TABLES = ("home_counts", "pairs", "attribute_counts")
PEOPLE = ("home_users", "pair_users", "attribute_users")


@dataclass(frozen=True)
class ConditionTables:
    """Counts of weeks from which conditions are drawn, and of the people behind each count.

    same_share: share of weeks whose work is the home.
    home_counts: (2, C) int64 weeks by home cell; row 0 = work elsewhere, row 1 = at home.
    pairs: (P, 3) int32: home, work (another cell), weeks.
    pair_levels: (P,) int64, which column of the cell map the home is a cell of. By default the last: the home is a
        finest cell. A coarser home is written as the first finest cell in it; -1 = anywhere in the city.
    attribute_counts: (2, K) int64 weeks by class, rows as above.
    smoothing: weeks that each coarser estimate of the work is worth.
    home_users, pair_users, attribute_users: (2, C), (P,), (2, K) int64 people behind these weeks. None where nobody
        knows whose the weeks are; each then counts as another person's.
    pair_members: (M, 2) int64, row of `pairs` and person; in memory only, after a fit.
    """

    same_share: float
    home_counts: np.ndarray
    pairs: np.ndarray
    attribute_counts: np.ndarray
    smoothing: float
    home_users: np.ndarray | None = None
    pair_users: np.ndarray | None = None
    attribute_users: np.ndarray | None = None
    pair_levels: np.ndarray | None = None
    pair_members: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        home_ids: np.ndarray,
        work_ids: np.ndarray,
        attribute_ids: np.ndarray,
        *,
        num_cells: int,
        num_attributes: int,
        users: Any = None,
        smoothing: float = 5.0,
    ) -> ConditionTables:
        """Count weeks and people.

        Args:
            home_ids, work_ids, attribute_ids: (N,), without unknowns.
            users: (N,) whose each week is; by default each is another person's.
            smoothing: see the class; 0 = the raw table, which gives back pairs of real people only.

        Raises:
            ValueError: no weeks, users of another number, or a negative smoothing.
        """
        if len(home_ids) == 0:
            raise ValueError("conditions cannot be fitted on no weeks.")
        if smoothing < 0:
            raise ValueError(f"smoothing must be >= 0, got {smoothing}.")
        if users is not None and len(users) != len(home_ids):
            raise ValueError(f"users names {len(users)} people for {len(home_ids)} weeks; give one for each week.")
        person = None if users is None else np.unique(np.asarray(users), return_inverse=True)[1].reshape(-1)
        same = (home_ids == work_ids).astype(np.int64)
        away = same == 0
        homes, home_users = _counted(same * num_cells + home_ids, person, 2 * num_cells)
        kinds, attribute_users = _counted(same * num_attributes + attribute_ids, person, 2 * num_attributes)
        codes, pair = np.unique((home_ids * num_cells + work_ids)[away], return_inverse=True)
        weeks, pair_users = _counted(pair.reshape(-1), None if person is None else person[away], len(codes))
        each = np.arange(len(home_ids)) if person is None else person
        tables = cls(
            same_share=float(same.mean()),
            home_counts=homes.reshape(2, num_cells),
            pairs=np.stack([codes // num_cells, codes % num_cells, weeks], axis=1).astype(np.int32).reshape(-1, 3),
            attribute_counts=kinds.reshape(2, num_attributes),
            smoothing=float(smoothing),
            pair_members=np.unique(np.stack([pair.reshape(-1), each[away]], axis=1), axis=0),
        )
        if home_users is not None and attribute_users is not None:
            by_group = home_users.reshape(2, num_cells), attribute_users.reshape(2, num_attributes)
            tables = replace(tables, home_users=by_group[0], pair_users=pair_users, attribute_users=by_group[1])
        return tables

    @property
    def knows_people(self) -> bool:
        """Whether the people behind the weeks were counted."""
        return self.pair_users is not None

    def people(self) -> dict[str, np.ndarray]:
        """Behind each count of `home_counts`, `pairs` and `attribute_counts`; weeks, where nobody knows whose."""
        weeks = self.home_counts, self.pairs[:, 2], self.attribute_counts
        users = self.home_users, self.pair_users, self.attribute_users
        return dict(zip(TABLES, (known if counted is None else counted for known, counted in zip(weeks, users))))

    def shared_by(self, min_users: int, cell_map: np.ndarray) -> ConditionTables:
        """The tables without homes (per group), pairs and classes that fewer than `min_users` people have.

        The weeks of such pairs are counted together where their homes lie in one coarser cell, or in the city, and
        enough people have that work. Each week is in one count only, so that no difference of two tells of fewer
        people. Tables of files know their people no more, only how many: there such pairs are left to the coarser
        estimates. Homes of a group without any are drawn from those of the other group. Where a group has neither
        homes nor classes left, `same_share` leaves it out too.

        Args:
            cell_map: (C, R) coarse to fine.

        Raises:
            ValueError: nothing is left to draw from, or `min_users` below 1.
        """
        if not isinstance(min_users, (int, np.integer)) or min_users < 1:
            raise ValueError(f"min_users must be a whole number from 1 on, got {min_users}.")
        people = self.people()
        homes = np.where(people["home_counts"] >= min_users, self.home_counts, 0)
        classes = np.where(people["attribute_counts"] >= min_users, self.attribute_counts, 0)
        tables = self._with_shared_pairs(min_users, cell_map)
        if not homes.any() or (len(self.pairs) and not len(tables.pairs)):
            most = {name: int(counts.max(initial=0)) for name, counts in people.items()}
            behind = "people" if self.knows_people else "weeks (nobody knows of how many people)"
            raise ValueError(
                f"min_users={min_users} leaves no home or no pair of home and work to draw from: at most "
                f"{most['home_counts']} {behind} share a home and {most['pairs']} a pair. Take more people, larger "
                "cells, or a lower min_users; 1 lists everybody, which is for simulated people only."
            )
        listed = np.asarray(homes.any(axis=1) | classes.any(axis=1))
        return replace(
            tables,
            same_share=self.same_share if listed.all() else float(listed[1]),
            home_counts=homes,
            attribute_counts=classes,
            home_users=None if self.home_users is None else np.where(homes > 0, self.home_users, 0),
            attribute_users=None if self.attribute_users is None else np.where(classes > 0, self.attribute_users, 0),
        )

    def _with_shared_pairs(self, min_users: int, cell_map: np.ndarray) -> ConditionTables:
        """With the pairs that enough people have, from homes in finest cells to homes anywhere in the city."""
        levels = self._levels(cell_map)
        if self.pair_members is None:
            kept = np.asarray(self.people()["pairs"] >= min_users)
            its_users = None if self.pair_users is None else self.pair_users[kept]
            return replace(self, pairs=self.pairs[kept], pair_users=its_users, pair_levels=levels[kept])
        (row, person), left, total = self.pair_members.T, np.ones(len(self.pairs), bool), 0
        pairs: list[np.ndarray] = []
        users, pair_levels, members = [], [], []  # of them
        for level in range(cell_map.shape[1] - 1, -2, -1):
            rows = np.flatnonzero(left & (levels >= level))
            home = _first_cells(cell_map, level)[self.pairs[rows, 0]]
            codes, pool = np.unique(home * len(cell_map) + self.pairs[rows, 1], return_inverse=True)
            pool_of = np.full(len(self.pairs), -1)
            pool_of[rows] = pool.reshape(-1)
            each = np.unique(np.stack([pool_of[row], person], axis=1)[pool_of[row] >= 0], axis=0)
            count = np.bincount(each[:, 0], minlength=len(codes))
            kept = count >= min_users
            weeks = np.bincount(pool.reshape(-1), self.pairs[rows, 2], len(codes)).astype(np.int64)
            pairs.append(np.stack([codes // len(cell_map), codes % len(cell_map), weeks], axis=1)[kept])
            users.append(count[kept])
            pair_levels.append(np.full(kept.sum(), level))
            number = total + np.cumsum(kept) - 1
            members.append(np.stack([number[each[:, 0]], each[:, 1]], axis=1)[kept[each[:, 0]]])
            left[rows[kept[pool.reshape(-1)]]] = False
            total += kept.sum()
        return replace(
            self,
            pairs=np.concatenate(pairs).astype(np.int32),
            pair_users=np.concatenate(users) if self.knows_people else None,
            pair_levels=np.concatenate(pair_levels),
            pair_members=np.concatenate(members),
        )

    def _levels(self, cell_map: np.ndarray) -> np.ndarray:
        finest = np.full(len(self.pairs), cell_map.shape[1] - 1)
        return finest if self.pair_levels is None else self.pair_levels

    def check(self, *, num_cells: int, num_attributes: int) -> None:
        """Raises a `DataError` for tables of another city, or counts that no weeks give."""
        by_home, by_class, pairs = (2, num_cells), (2, num_attributes), len(self.pairs)
        shapes: dict[str, tuple[int, ...]] = dict(zip(TABLES, (by_home, (pairs, 3), by_class)))
        shapes |= dict(zip(PEOPLE, (by_home, (pairs,), by_class))) | {"pair_levels": (pairs,)}
        for name, shape in shapes.items():
            table = getattr(self, name)
            if table is None:
                continue
            if table.shape != shape or table.dtype.kind not in "iu":
                raise DataError(f"{name} is {table.dtype} of shape {table.shape}, not integers of shape {shape}.")
            least = -1 if name == "pair_levels" else 0
            if table.size and (table.min() < least or table.max() > MAX_WEEKS):
                raise DataError(f"{name} holds {table.min()}..{table.max()}, which are no numbers of weeks or cells.")
        weeks = self.home_counts, self.pairs[:, 2], self.attribute_counts
        for name, counted, known in zip(PEOPLE, weeks, self.people().values()):
            if ((known > counted) | ((known > 0) != (counted > 0))).any():
                raise DataError(f"{name} counts more people than weeks, or people without weeks.")
        if len(self.pairs) and self.pairs[:, :2].max() >= num_cells:
            raise DataError(f"pairs names cell {self.pairs[:, :2].max()}, the city has {num_cells} cells.")
        shares = {"same_share": 1.0, "smoothing": float(MAX_WEEKS)}
        for name, most in shares.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise DataError(f"{name} must lie in 0..{most:g}, got {value!r}.")

    def work_probabilities(self, home: int, cell_map: np.ndarray) -> np.ndarray:
        """(C,) float64: distribution of the work of a home in cell `home`, given that it is another cell.

        From the whole city to the home cell, each estimate is mixed with the coarser one before it:
        `p = (weeks + smoothing * p_coarser) / (sum of weeks + smoothing)`; the home itself gets 0.
        """
        homes, places, weeks = self.pairs.T
        num_cells = len(cell_map)
        city = p = np.bincount(places, weeks, num_cells) / max(weeks.sum(), 1)
        for number, level in enumerate(cell_map.T):
            near = (level[homes] == level[home]) & (self._levels(cell_map) >= number)
            counts = np.bincount(places[near], weeks[near], num_cells)
            total = counts.sum() + self.smoothing
            p = (counts + self.smoothing * p) / total if total > 0 else p
        elsewhere = np.arange(num_cells) != home
        # Without smoothing all near pairs may lead to this very home: then the city's places, else any other cell.
        p = next(q for q in (p * elsewhere, city * elsewhere, elsewhere * 1.0) if q.sum() > 0)
        return p / p.sum()

    def sample(self, n: int, *, seed: int, cell_map: np.ndarray) -> dict[str, np.ndarray]:
        """Draw `home_ids`, `work_ids`, `attribute_ids`, (n,) int64 each."""
        rng = np.random.default_rng(seed)
        same = (rng.random(n) < self.same_share).astype(np.int64)
        home_ids = np.zeros(n, np.int64)
        for group in (0, 1):
            rows = np.flatnonzero(same == group)
            homes = self.home_counts[group]
            homes = homes if homes.any() else self.home_counts.sum(axis=0)
            home_ids[rows] = _draw(homes, rng.random(len(rows)))
        work_ids = home_ids.copy()
        away = np.flatnonzero(same == 0)
        uniform = rng.random(len(away))
        homes, back = np.unique(home_ids[away], return_inverse=True)
        for index, home in enumerate(homes.tolist()):
            rows = back == index
            work_ids[away[rows]] = _draw(self.work_probabilities(home, cell_map), uniform[rows])
        attribute_ids = self.sample_attributes(home_ids, work_ids, seed=int(rng.integers(2**31)))
        return {"home_ids": home_ids, "work_ids": work_ids, "attribute_ids": attribute_ids}

    def sample_attributes(self, home_ids: np.ndarray, work_ids: np.ndarray, *, seed: int) -> np.ndarray:
        """Draw the class of each week given whether its work is the home, (n,) int64."""
        uniform = np.random.default_rng(seed).random(len(home_ids))
        same = home_ids == work_ids
        attribute_ids = np.zeros(len(home_ids), np.int64)
        for group in (0, 1):
            counts = self.attribute_counts[group]
            rows = same == group
            # A group of which no class is known has those of everybody, where none at all is known each alike.
            everybody = self.attribute_counts.sum(axis=0)
            known = next(weights for weights in (counts, everybody, np.ones_like(counts)) if weights.any())
            attribute_ids[rows] = _draw(known, uniform[rows])
        return attribute_ids

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For the tokenizer's safetensors file; `same_share` and `smoothing` go to its JSON file."""
        arrays = {name: getattr(self, name) for name in (*TABLES, *PEOPLE, "pair_levels")}
        return {name: array for name, array in arrays.items() if array is not None}

    @classmethod
    def from_contents(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> ConditionTables | None:
        """Of a city's files; None where they hold no conditions. Files of earlier releases know no people."""
        if "same_share" not in header:
            return None
        missing = [name for name in TABLES if name not in arrays]
        missing += [name for name in PEOPLE if name not in arrays and not set(arrays).isdisjoint(PEOPLE)]
        if missing:
            raise DataError(f"the tables lack {', '.join(missing)}, which same_share announces.")
        found: dict[str, Any] = {name: arrays[name] for name in (*TABLES, *PEOPLE, "pair_levels") if name in arrays}
        shares: dict[str, Any] = {name: header.get(name) for name in ("same_share", "smoothing")}
        return cls(**shares, **found)


# Movement attributes


def relabel(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N, L) int16: 0 for the first cell of the week, 1 for the next new one, ...; -1 stays unknown."""
    labels = np.empty(cells.shape, np.int16)
    for rows in blocks(len(cells)):
        first = first_hour_of_cell(cells[rows])
        known = cells[rows] >= 0
        new = (first == np.arange(cells.shape[1])) & known
        rank = np.cumsum(new, axis=1) - 1
        labels[rows] = np.where(known, np.take_along_axis(rank, first, axis=1), -1)
    return labels


def distinct_cells(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N,) int64: how many different cells the known hours hold."""
    return relabel(cells).max(axis=1, initial=-1).astype(np.int64) + 1


def edit_distances(first: np.ndarray, second: np.ndarray | None = None, *, workers: int = 1) -> np.ndarray:
    """Levenshtein distances of relabelled weeks, (N, L), (M, L) -> (N, M) int32; of `first` to itself without `second`.

    Raises:
        ImportError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist
    except ImportError as error:
        raise ImportError("movement attributes need rapidfuzz: pip install rapidfuzz") from error
    texts = _as_text(first)
    others = texts if second is None else _as_text(second)
    return cdist(texts, others, scorer=Levenshtein.distance, dtype=np.int32, workers=workers)


def nearest_medoid(cells: np.ndarray, medoids: np.ndarray, *, workers: int = 1) -> np.ndarray:
    """(N, L) cells, (K, L) relabelled medoids -> (N,) int64 class; the first of equally near ones."""
    found = np.empty(len(cells), np.int64)
    for rows in blocks(len(cells)):
        labels, back = np.unique(relabel(cells[rows]), axis=0, return_inverse=True)
        found[rows] = edit_distances(labels, medoids, workers=workers).argmin(axis=1)[back.reshape(-1)]
    return found


def fit_medoids(
    cells: np.ndarray, *, num_attributes: int | None, sample: int, seed: int, workers: int = 1
) -> tuple[np.ndarray, float]:
    """K typical weeks of training weeks, and the mean medoid silhouette (-1..1) of the sample.

    Args:
        cells: (N, L) finest cells, -1 = unknown.
        num_attributes: K; `None` tries 2 to 16 and takes the one with the highest mean medoid silhouette (Lenssen and
            Schubert 2024).
        sample: weeks drawn without replacement; cost grows with its square (5,000 weeks: about a minute on one core).
        seed: of the draw and of the start of FasterPAM.

    Returns:
        (K, L) int16, relabelled, from the least to the most varied week; silhouette.

    Raises:
        ImportError: kmedoids or rapidfuzz is not installed.
        ValueError: fewer different patterns in the sample than classes.
    """
    try:
        import kmedoids  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "fitting movement attributes needs kmedoids (GPL-3): pip install kmedoids; or pass method='distinct_cells'."
        ) from error
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(cells), min(sample, len(cells)), replace=False))
    labels, back = np.unique(relabel(cells[rows]), axis=0, return_inverse=True)
    wanted = [num_attributes] if num_attributes is not None else list(range(2, min(MAX_CLASSES, len(labels)) + 1))
    if not wanted or wanted[-1] > len(labels):
        raise ValueError(
            f"{len(rows)} weeks hold only {len(labels)} different patterns of movement, too few for "
            f"{num_attributes or 2} classes: pass a smaller num_attributes or more weeks."
        )
    back = back.reshape(-1)
    between = edit_distances(labels, workers=workers)[np.ix_(back, back)]
    fits = []
    for classes in wanted:
        start = rng.choice(np.unique(back, return_index=True)[1], classes, replace=False).astype(np.uint64)
        medoids = kmedoids.fasterpam(between, start, n_cpu=1).medoids.astype(np.int64)
        silhouette = float(kmedoids.medoid_silhouette(between, medoids)[0]) if classes > 1 else 0.0
        fits.append((silhouette, medoids))
    silhouette, medoids = max(fits, key=lambda fit: fit[0])
    patterns = labels[back[medoids]]
    moves = (np.diff(patterns, axis=1) != 0).sum(axis=1)
    return np.ascontiguousarray(patterns[np.lexsort((moves, patterns.max(axis=1)))]), silhouette


def _as_text(labels: np.ndarray) -> list[str]:
    """(N, L) labels from -1 -> N strings of L characters. Character 0 is left out: numpy cuts it off at ends."""
    codes = np.ascontiguousarray(labels.astype("<u4") + np.uint32(2))
    return codes.view(f"<U{labels.shape[1]}").reshape(-1).tolist() if len(codes) else []


# Conditions of a city


class ConditionedCity(GridCity):
    """A city that reads conditions from weeks and draws new ones.

    attribute_method: `none` (before `fit_conditions`),
    `medoids` or `distinct_cells`. num_attributes: K. medoids: (K, L) int16, relabelled weeks. conditions: the tables.
    """

    def _take_city(self, city: dict[str, Any]) -> None:
        super()._take_city(city)
        self.attribute_method = str(city.get("attribute_method", "none"))
        self.num_attributes = whole({"num_attributes": 1, **city}, "num_attributes")
        medoids = city.get("medoids")
        self.medoids = np.zeros((0, self.num_hours), np.int16) if medoids is None else np.asarray(medoids, np.int16)
        self.conditions: ConditionTables | None = city.get("conditions")
        if self.attribute_method not in METHODS or self.medoids.shape[1:] != (self.num_hours,):
            raise DataError(
                f"attribute_method must be one of {METHODS} and medoids (K, {self.num_hours}), got "
                f"{self.attribute_method!r} and {self.medoids.shape}."
            )
        known = len(self.medoids) if self.attribute_method == "medoids" else self.num_attributes
        in_range = not self.medoids.size or (self.medoids.min() >= -1 and self.medoids.max() < self.num_hours)
        if not 1 <= self.num_attributes <= MAX_ATTRIBUTES or known != self.num_attributes or not in_range:
            raise DataError(
                f"num_attributes must lie in 1..{MAX_ATTRIBUTES:,} and count the medoids, whose labels are "
                f"-1..{self.num_hours - 1}; got {self.num_attributes} and {len(self.medoids)}."
            )
        if self.conditions is not None:
            self.conditions.check(num_cells=self.num_cells, num_attributes=self.num_attributes)

    home_and_commute = renamed_method("home_and_commute", "home_and_work")

    def attributes(self, data: Any, *, workers: int = 1, **options: Any) -> np.ndarray:
        """Movement class of each week, (N,) int64: nearest medoid, or number of distinct cells,
        at most K, less one; 0 for all before `fit_conditions`."""
        cells = self.as_cells(data, **options)
        return _classes(cells, self.attribute_method, self.medoids, self.num_attributes, workers)

    def _conditions(self, cells: np.ndarray, home: Any, work: Any, attribute: Any) -> dict[str, np.ndarray]:
        if (home is None) != (work is None):
            raise ValueError("home_ids and work_ids are given together or not at all: one of them is missing.")
        if home is None:
            home, work = self.home_and_work(cells)
        attribute = self.attributes(cells) if attribute is None else attribute
        return self.checked_conditions(len(cells), home_ids=home, work_ids=work, attribute_ids=attribute)

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

    @renamed_argument("min_count", "min_users")
    def fit_conditions(
        self,
        data: Any,
        *,
        users: Any = None,
        num_attributes: int | None = 8,
        method: str = "medoids",
        sample: int = 5_000,
        seed: int = 0,
        smoothing: float = 5.0,
        min_users: int = 1,
        workers: int = 1,
    ) -> dict[str, Any]:
        """Learn movement classes and the distributions of conditions from training weeks, and keep them.

        Args:
            data: weeks as `__call__` takes them. Training weeks only: test weeks would leak (spec 6.3.20).
            users: (N,) whose each week is. Records and what `weeks` returned say it themselves. For arrays without
                `users`, each week counts as another person's.
            num_attributes: classes K; `None` chooses 2 to 16 by the medoid silhouette.
            method: `medoids`, or `distinct_cells` = number of different cells of the week, at most K (cheap, needs no
                further package).
            sample: weeks that the medoids are fitted on; cost grows with its square.
            smoothing: of the tables, see `ConditionTables`.
            min_users: homes, pairs and classes that fewer people have are left out of memory, too. Files leave out
                those of fewer than 5 in any case, see `save_pretrained`.
            workers: processor cores for distances, -1 = all.

        Returns:
            `weeks`, `users` (None where nobody knows), `num_attributes`, `silhouette` (None without medoids),
            `same_share`, `weeks_per_attribute`.

        Raises:
            ValueError: too few weeks or patterns; options that contradict.
        """
        data = self.weeks(data) if self._is_records(data) else data
        users = data.user_id if users is None and isinstance(data, Weeks) else users
        cells = self.as_cells(data)
        if method not in METHODS[1:] or (num_attributes is not None and num_attributes < 1):
            raise ValueError(f"method must be one of {METHODS[1:]} and num_attributes positive, got {method!r}.")
        if method == "distinct_cells" and num_attributes is None:
            raise ValueError("num_attributes=None chooses a number of medoids; give a number for 'distinct_cells'.")
        home_ids, work_ids = self.home_and_work(cells)
        medoids, silhouette = np.zeros((0, self.num_hours), np.int16), None
        if method == "medoids":
            medoids, silhouette = fit_medoids(
                cells, num_attributes=num_attributes, sample=sample, seed=seed, workers=workers
            )
            num_attributes = len(medoids)
        attribute_ids = _classes(cells, method, medoids, num_attributes, workers)
        conditions = ConditionTables.fit(
            home_ids,
            work_ids,
            attribute_ids,
            num_cells=self.num_cells,
            num_attributes=num_attributes,
            users=users,
            smoothing=smoothing,
        ).shared_by(min_users, self.cell_map)
        self.medoids, self.attribute_method, self.num_attributes = medoids, method, num_attributes
        self.conditions = conditions  # only now, as a fit that fails changes nothing
        return {
            "weeks": len(cells),
            "users": None if users is None else len(np.unique(np.asarray(users))),
            "num_attributes": num_attributes,
            "silhouette": silhouette,
            "same_share": conditions.same_share,
            "weeks_per_attribute": np.bincount(attribute_ids, minlength=num_attributes).tolist(),
        }

    @renamed_argument("commute_ids", "work_ids")
    def sample_conditions(
        self, n: int, *, seed: int, home_ids: Any = None, work_ids: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw `home_ids`, `work_ids`, `attribute_ids`, (n,) int64 each, from the fitted distributions (spec 3).

        With `home_ids` and `work_ids` (both or neither) only the attributes are drawn.

        Raises:
            ValueError: before `fit_conditions`, for n < 1, or for one of the two places alone.
        """
        if self.conditions is None:
            raise ValueError("there are no distributions to draw from: call fit_conditions(training_weeks) first.")
        if (home_ids is None) != (work_ids is None):
            raise ValueError("home_ids and work_ids are given together or not at all: one of them is missing.")
        if home_ids is None:
            _check_number(n)
            return self.conditions.sample(n, seed=seed, cell_map=self.cell_map)
        drawn = self.checked_conditions(n, home_ids=home_ids, work_ids=work_ids)
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


def _first_cells(cell_map: np.ndarray, level: int) -> np.ndarray:
    """(C,) the first finest cell of the coarser cell around each one; level -1 is the whole city."""
    if level < 0:
        return np.zeros(len(cell_map), np.int64)
    first, back = np.unique(cell_map[:, level], return_index=True, return_inverse=True)[1:]
    return first[back.reshape(-1)]


def _counted(codes: np.ndarray, person: np.ndarray | None, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(size,) int64 weeks of each code, and the people whose they are."""
    weeks = np.bincount(codes, minlength=size).astype(np.int64)
    if person is None:
        return weeks, None
    each = np.unique(np.stack([codes, person]), axis=1)[0]
    return weeks, np.bincount(each, minlength=size).astype(np.int64)


def _draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Index of each draw by inversion, never one of weight 0."""
    total = np.cumsum(weights, dtype=np.float64)
    drawn = np.searchsorted(total, uniform * total[-1], side="right")
    return np.minimum(drawn, np.flatnonzero(weights)[-1]) if len(uniform) else drawn
