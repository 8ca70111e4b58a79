"""How a user lives in a week, in ten traits, and a distribution of them that can be drawn from and moved.

The traits are read from a diary (`diaries`): clock hours of arrival at work and of leaving, days at work, distance to
work, places, lunches, evenings, weekend outings, and the clock hours at which lunches and evening outings begin. Each
has a few classes. `TraitModel` is a mixture of groups of users in which traits are independent. It lists no user. It
stays such a mixture when its means are moved (exponential tilting) or when its classes are matched to those of a few
users (iterative proportional fitting).

Days 5 and 6 of a week are the days off, so that weeks begin on the first working day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .diaries import WORK, Stays
from .errors import DataError, listing

DAY = 24
WORKDAY, LUNCH, EVENING = slice(9, 17), slice(11, 15), slice(18, 24)
DUSK = 17  # evening outings begin from this hour on
DAYS_OFF = 5  # and 6
LEAST_KNOWN = 0.25  # of the hours that a count is raised by
EM_STEPS = 200
NEWTON_STEPS = 100
CLOSE = 1e-6  # of moved means, in units of the trait
SWEEPS = 100  # of iterative proportional fitting over all traits


@dataclass(frozen=True)
class Trait:
    """name, unit, and the edges between its classes (the upper class holds the edge). `optional`: users without it, as
    the arrival of those who do not work, have class 0 of their own."""

    name: str
    unit: str
    edges: tuple[float, ...]
    optional: bool = False

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.edges) + 1 + self.optional

    def classes(self, values: np.ndarray) -> np.ndarray:
        """(N,) values in the unit, NaN where a user has none -> (N,) int64 classes below `size`."""
        found = np.digitize(values, self.edges)
        return np.where(np.isnan(values), 0, found + 1) if self.optional else found


TRAITS = (
    Trait("arrival", "clock hour", (6.5, 7.25, 7.75, 8.25, 8.75, 9.25, 9.75, 10.5, 12.0, 15.0), optional=True),
    Trait("leaving", "clock hour", (13.0, 14.5, 15.5, 16.25, 16.75, 17.25, 17.75, 18.5, 20.0), optional=True),
    Trait("days_at_work", "days", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
    Trait("commute_km", "km", (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0), optional=True),
    Trait("places", "places", (3.0, 5.0, 7.0, 9.0, 11.0, 14.0)),
    Trait("lunches", "days", (1.0, 2.0, 3.0, 4.0)),
    Trait("evenings", "days", (1.0, 2.0, 3.0, 4.0)),
    Trait("weekend_outings", "stays", (1.0, 2.0, 3.0, 5.0)),
    Trait("lunch_hour", "clock hour", (11.5, 12.0, 12.5, 13.0, 13.5, 14.0), optional=True),
    Trait("evening_hour", "clock hour", (18.0, 18.5, 19.0, 19.5, 20.0, 20.5, 21.0, 21.5), optional=True),
)
NAMES = tuple(trait.name for trait in TRAITS)
TRAIT_SIZES = [trait.size for trait in TRAITS]
COMMUTE = NAMES.index("commute_km")


def measure_traits(slots: np.ndarray, commute_km: np.ndarray) -> np.ndarray:
    """Diaries of whole weeks -> the ten traits, (N, 10) float64 in their units, NaN where a user has none.

    Where hours are unknown, counts of days and stays are raised by the share of the hours in question that is known.

    Args:
        slots: (N, 168) integers, -1 = unknown, from the first working day on.
        commute_km: (N,) distance of home and work; not read where nobody is at work.
    """
    by_day = slots.reshape(len(slots), -1, DAY)
    at_work, out = by_day == WORK, by_day > WORK
    days = at_work.any(axis=2)
    with np.errstate(invalid="ignore"):
        arrival = np.where(days, at_work.argmax(axis=2), 0).sum(axis=1) / days.sum(axis=1)
        leaving = np.where(days, DAY - at_work[:, :, ::-1].argmax(axis=2), 0).sum(axis=1) / days.sum(axis=1)
    stays = Stays.of_weeks(slots)
    known = by_day >= 0
    daytime, lunch, evening, off = (
        1 / np.maximum(hours.mean(axis=(1, 2)), LEAST_KNOWN)
        for hours in (
            known[:, :DAYS_OFF, WORKDAY],
            known[:, :DAYS_OFF, LUNCH],
            known[:, :, EVENING],
            known[:, DAYS_OFF:],
        )
    )
    begins, day = stays.first % DAY, stays.first // DAY
    away = stays.value > WORK
    outing, late = away & (day >= DAYS_OFF), away & (begins >= DUSK)
    midday = away & days[stays.row, day] & (LUNCH.start <= begins) & (begins < LUNCH.stop)

    def mean_begin(chosen: np.ndarray) -> np.ndarray:
        row = stays.row[chosen]
        return np.bincount(row, begins[chosen], minlength=len(slots)) / np.bincount(row, minlength=len(slots))

    with np.errstate(invalid="ignore"):
        lunch_hour, evening_hour = mean_begin(midday), mean_begin(late)
    return np.stack(
        [
            arrival,
            leaving,
            days.sum(axis=1) * daytime,
            np.where(days.any(axis=1), commute_km, np.nan),
            _places(slots, stays),
            (days & out[:, :, LUNCH].any(axis=2)).sum(axis=1) * lunch,
            out[:, :, EVENING].any(axis=2).sum(axis=1) * evening,
            np.bincount(stays.row[outing], minlength=len(slots)) * off,
            lunch_hour,
            evening_hour,
        ],
        axis=1,
    )


def _places(slots: np.ndarray, stays: Stays) -> np.ndarray:
    """(N,) different places: those of slots 0 to 6, and every stay at a single one."""
    lasting = np.unique(np.stack([stays.row, stays.value])[:, stays.value <= 6], axis=1)[0]
    count = len(slots)
    return np.bincount(lasting, minlength=count) + np.bincount(stays.row[stays.value > 6], minlength=count)


def trait_classes(measured: np.ndarray) -> np.ndarray:
    """(N, 10) measured traits -> (N, 10) int64 classes, each below its entry of `TRAIT_SIZES`."""
    return np.stack([trait.classes(values) for trait, values in zip(TRAITS, measured.T)], axis=1)


@dataclass(frozen=True, eq=False)
class TraitModel:
    """A mixture of G groups of users.

    share: (G,) float64, sums to 1. tables: (G, 10, K) float64, of each group and trait the distribution over its
    classes (0 beyond its size). values: (10, K) float64, mean of each class in its unit, NaN where a class has none.
    """

    share: np.ndarray
    tables: np.ndarray
    values: np.ndarray

    @classmethod
    def fit(
        cls,
        measured: np.ndarray,
        *,
        users: np.ndarray | None = None,
        groups: int = 24,
        min_users: int = 5,
        seed: int = 0,
    ) -> TraitModel:
        """Expectation-maximisation from random starts of the groups.

        Args:
            measured: (N, 10), what `measure_traits` returned for training weeks.
            users: (N,) whose weeks these are; each another user's by default.
            groups: G; fewer where there are fewer than ten times `min_users` users for each.
            min_users: classes of a trait that fewer users have are left out, and a group leans on all groups together
                as if so many more users with their average were in it.
            seed: of the start.

        Raises:
            DataError: fewer users than `min_users`.
        """
        one_hot, weight, person = _weighted(measured, users)
        number = int(person.max(initial=-1)) + 1
        if number < min_users:
            raise DataError(f"traits of {number} users cannot be fitted with min_users={min_users}: give more users.")
        pooled = _shared_only(one_hot, weight, person, min_users)
        groups = max(1, min(groups, number // (10 * min_users)))
        near = np.random.default_rng(seed).dirichlet(np.ones(groups), len(one_hot))
        for _ in range(EM_STEPS):
            counts = np.einsum("ng,njk->gjk", near * weight[:, None], one_hot) * (pooled > 0) + min_users * pooled
            tables = counts / counts.sum(axis=2, keepdims=True)
            share = (near * weight[:, None]).sum(axis=0)
            score = np.log(share / share.sum() + 1e-12) + np.einsum("njk,gjk->ng", one_hot, np.log(tables + 1e-12))
            near = np.exp(score - score.max(axis=1, keepdims=True))
            near /= near.sum(axis=1, keepdims=True)
        kept = np.argsort(-share, kind="stable")[: int((share >= min_users).sum())]
        return cls(share[kept] / share[kept].sum(), tables[kept], _values(measured, one_hot, weight, pooled > 0))

    def means(self) -> dict[str, float]:
        """Mean of each trait over the users who have it."""
        moments = [self._moments(column, 0.0, 0.0) for column in range(len(TRAITS))]
        totals = [(float(self.share @ mean), float(self.share @ has)) for _, mean, _, has in moments]
        return {name: total / has if has else float("nan") for name, (total, has) in zip(NAMES, totals)}

    def moved(self, means: Mapping[str, float]) -> TraitModel:
        """The nearest distribution (in relative entropy) with these means, by exponential tilting.

        Args:
            means: of some of the traits (`TRAITS`), each over the users who have it, in its unit.

        Raises:
            DataError: an unknown trait, or a mean that no mixture of its classes has.
        """
        unknown = sorted(set(means) - set(NAMES))
        if unknown:
            raise DataError(f"unknown trait(s) {listing(unknown)}; there are {listing(NAMES)}.")
        if not means:
            return self
        columns = [NAMES.index(name) for name in means]
        wanted = [float(value) for value in means.values()]
        for name, goal in zip(means, wanted):
            if not self.reaches(name, goal):
                known = self._values_in_use(name)
                span = f"{known.min():.2f} to {known.max():.2f}" if len(known) else "nothing"
                raise DataError(f"a mean {name} of {goal:g} is out of reach: classes have means of {span}.")
        tilt = np.zeros(len(columns))
        for _ in range(NEWTON_STEPS):
            share, mean, spread = self._tilted_moments(columns, wanted, tilt)
            gap = share @ mean
            if np.abs(gap).max(initial=0.0) < CLOSE:
                break
            curve = np.einsum("g,gi,gj->ij", share, mean, mean) - np.outer(gap, gap) + np.diag(share @ spread)
            step = np.linalg.solve(curve + 1e-9 * np.eye(len(gap)), gap)
            tilt -= step * min(1.0, 1.0 / np.abs(step).max())
        share, _, _ = self._tilted_moments(columns, wanted, tilt)
        tables = self.tables.copy()
        for column, goal, power in zip(columns, wanted, tilt):
            lifted = tables[:, column] * _tilt(power, np.nan_to_num(self.values[column] - goal))
            tables[:, column] = lifted / lifted.sum(axis=1, keepdims=True)
        return replace(self, share=share, tables=tables)

    def matched(
        self, measured: np.ndarray, *, users: np.ndarray | None = None, min_users: int = 5, prior_users: float = 3.0
    ) -> TraitModel:
        """The nearest distribution (in relative entropy) in which the shares of the classes of each trait are those of
        these users, by iterative proportional fitting (Csiszar 1975, https://doi.org/10.1214/aop/1176996454). How
        traits depend on each other is kept.

        Args:
            measured: (N, 10), what `measure_traits` returned for weeks of a few users.
            users: (N,) whose weeks these are; each another user's by default.
            min_users: classes of fewer of these users are counted together with the next rarest, until so many users
                have any of them. Only the sum of these is matched, and shared as before.
            prior_users: above 0, this distribution counts as so many more users.

        Raises:
            DataError: `prior_users` of 0 or less.
        """
        if prior_users <= 0:
            raise DataError(f"prior_users must be above 0, not {prior_users:g}: a class must not become impossible.")
        one_hot, weight, person = _weighted(measured, users)
        before = self.share @ self.tables.swapaxes(0, 1)  # (10, K)
        own = np.einsum("n,njk->jk", weight, one_hot) * (before > 0)
        rare = _counted_together(one_hot, person, min_users)
        of_rare = before * rare
        left = np.where(rare, own, 0.0).sum(axis=1, keepdims=True)
        own = np.where(rare, left * of_rare / np.maximum(of_rare.sum(axis=1, keepdims=True), 1e-12), own)
        goal = own + prior_users * before
        goal /= goal.sum(axis=1, keepdims=True)
        share, tables = self.share, self.tables.copy()
        for _ in range(SWEEPS):
            for column, wanted in enumerate(goal):
                lifted = tables[:, column] * (wanted / np.maximum(share @ tables[:, column], 1e-300))
                total = lifted.sum(axis=1)
                tables[:, column] = lifted / np.maximum(total, 1e-300)[:, None]
                share = share * total / (share @ total)
        return replace(self, share=share, tables=tables)

    def reaches(self, name: str, mean: float) -> bool:
        """Whether a mixture of the classes of this trait has this mean."""
        known = self._values_in_use(name)
        return bool(known.min(initial=np.inf) < mean < known.max(initial=-np.inf))

    def _values_in_use(self, name: str) -> np.ndarray:
        """Mean values of the classes of a trait that some group has."""
        column = NAMES.index(name)
        in_use = (self.tables[:, column] > 0).any(axis=0) & ~np.isnan(self.values[column])
        return np.asarray(self.values[column][in_use])

    def draw(self, n: int, rng: np.random.Generator, *, commute: np.ndarray | None = None) -> np.ndarray:
        """(n, 10) int64 classes of n users; with `commute`, (n,) their classes of `commute_km`, the other traits given
        these."""
        if commute is None:
            group = rng.choice(len(self.share), n, p=self.share)
        else:
            near = (self.share[:, None] * (self.tables[:, COMMUTE] + 1e-9))[:, commute].T
            group = (rng.random((n, 1)) * near.sum(axis=1, keepdims=True) >= near.cumsum(axis=1)).sum(axis=1)
        edges = self.tables[group].cumsum(axis=2)
        classes = (rng.random((n, len(TRAITS), 1)) * edges[:, :, -1:] >= edges).sum(axis=2)
        if commute is not None:
            classes[:, COMMUTE] = commute
        return classes

    def _tilted_moments(
        self, columns: list[int], wanted: list[float], tilt: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shares (G,) of the tilted groups, and of each trait its mean less the wanted one and its variance (G, J)."""
        parts = [self._moments(column, goal, power) for column, goal, power in zip(columns, wanted, tilt)]
        log_total = np.log(self.share + 1e-300) + sum(np.log(total) for total, _, _, _ in parts)
        share = np.exp(log_total - log_total.max())
        mean = np.stack([mean for _, mean, _, _ in parts], axis=1)
        square = np.stack([square for _, _, square, _ in parts], axis=1)
        return share / share.sum(), mean, square - mean**2

    def _moments(self, column: int, goal: float, power: float) -> tuple[np.ndarray, ...]:
        """Of each group (G,): the sum of the tilted table, then under it the mean of value - goal, of its square, and
        the share of users who have the trait."""
        distance = np.nan_to_num(self.values[column] - goal)
        lifted = self.tables[:, column] * _tilt(power, distance)
        total = lifted.sum(axis=1)
        has = lifted @ ~np.isnan(self.values[column]) / total
        return total, lifted @ distance / total, lifted @ distance**2 / total, has

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For the table of a city's files."""
        names = ("trait_share", "trait_tables", "trait_values")
        return dict(zip(names, (np.float32(x) for x in (self.share, self.tables, self.values))))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> TraitModel | None:
        """What `to_arrays` made; None where there is nothing.

        Raises:
            DataError: arrays of other shapes, or that are no distributions.
        """
        if "trait_share" not in arrays:
            return None
        share, tables, values = (
            arrays[name].astype(np.float64) for name in ("trait_share", "trait_tables", "trait_values")
        )
        shape = (len(TRAITS), max(TRAIT_SIZES))
        fits = share.ndim == 1 and len(share) > 0 and tables.shape == (len(share), *shape) and values.shape == shape
        if not fits or (tables < 0).any() or (share < 0).any() or not np.allclose(tables.sum(axis=2), 1, atol=1e-4):
            raise DataError(f"the traits are no distributions over {shape[0]} traits of at most {shape[1]} classes.")
        return cls(share / share.sum(), tables / tables.sum(axis=2, keepdims=True), values)


def _tilt(power: float, distance: np.ndarray) -> np.ndarray:
    """exp(power distance), finite."""
    return np.asarray(np.exp(np.clip(power * distance, -500, 500)))


def _weighted(measured: np.ndarray, users: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes of weeks as (N, 10, K) 0 and 1, weights (N,) by which each user counts once, users (N,) as numbers."""
    one_hot = np.eye(max(TRAIT_SIZES))[trait_classes(measured)]
    person = np.arange(len(one_hot)) if users is None else np.unique(users, return_inverse=True)[1].reshape(-1)
    return one_hot, 1.0 / np.bincount(person)[person], person


def _users_of_classes(one_hot: np.ndarray, person: np.ndarray) -> np.ndarray:
    """(10, K) number of users who have each class in some week."""
    row, trait, column = np.nonzero(one_hot)
    had = np.unique(np.stack([trait, column, person[row]]), axis=1)
    count = np.zeros(one_hot.shape[1:], np.int64)
    np.add.at(count, (had[0], had[1]), 1)
    return count


def _counted_together(one_hot: np.ndarray, person: np.ndarray, min_users: int) -> np.ndarray:
    """(10, K) bool: classes of fewer than `min_users` users, and as many of the next rarest as it takes until so many
    users have any of them."""
    count = _users_of_classes(one_hot, person)
    together = count < min_users
    for trait in range(len(TRAITS)):
        for column in np.argsort(count[trait], kind="stable"):
            having = len(np.unique(person[(one_hot[:, trait] * together[trait]).any(axis=1)]))
            if not having or having >= min_users:
                break
            together[trait, column] = True
    return together


def _shared_only(one_hot: np.ndarray, weight: np.ndarray, person: np.ndarray, min_users: int) -> np.ndarray:
    """(10, K) distribution of each trait over all users, without classes that fewer than `min_users` of them have."""
    pooled = np.einsum("n,njk->jk", weight, one_hot) * (_users_of_classes(one_hot, person) >= min_users)
    total = pooled.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise DataError(f"fewer than {min_users} users share any class of {NAMES[int(np.argmin(total))]}.")
    return pooled / total


def _values(measured: np.ndarray, one_hot: np.ndarray, weight: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(10, K) mean of each class that is kept; NaN for the others and for users without the trait."""
    has = ~np.isnan(measured)
    total = np.einsum("n,nj,njk->jk", weight, np.nan_to_num(measured), one_hot)
    count = np.einsum("n,nj,njk->jk", weight, has.astype(np.float64), one_hot)
    return np.where(kept & (count > 0), total / np.maximum(count, 1e-12), np.nan)
