"""Users of a city for whom weeks are generated: traits, homes and works, from what is known of the city."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..tokenization.diaries import HOME, WORK
from ..tokenization.errors import SHOWN, DataError
from ..tokenization.tables import coordinate_columns, counts_column
from ..tokenization.traits import COMMUTE, TRAITS, TraitModel
from .placing import choose_work

EDGES = np.array([0.0, *TRAITS[COMMUTE].edges, np.inf])  # km of the classes from 1 on


@dataclass(frozen=True, eq=False)
class Residents:
    """n users: home and work (n,) int64 rows of the city's places, work -1 = none; traits (n, 10) int64 classes."""

    home: np.ndarray
    work: np.ndarray
    traits: np.ndarray


class Population:
    """The users of one city.

    Args:
        tokenizer: a `MstarSlotTokenizer` with traits.
        head: `model.places`. places: what its `read_city` made of the city.
        population: residents by position, a frame with `lat`, `lon`, `population` and, for `flows`, `region_id`; each
            place belongs to the nearest row. By default homes follow the places' categories alone.
        flows: commuters between the regions of `population`, a frame with `origin`, `destination`, `flow`. By default
            works follow the place head and the class of the commute.
        means: of traits of this city, see `TraitModel.moved`.

    Raises:
        DataError: a tokenizer without traits; missing columns, negative or missing numbers; flows of other regions.
    """

    def __init__(
        self,
        tokenizer: Any,
        head: Any,
        places: Any,
        *,
        population: pd.DataFrame | None = None,
        flows: pd.DataFrame | None = None,
        means: Mapping[str, float] | None = None,
    ) -> None:
        if tokenizer.traits is None:
            raise DataError("the tokenizer knows no traits of users: call fit_traits(training_weeks) first.")
        if flows is not None and population is None:
            raise DataError("flows need population with region_id, lat and lon: they say where the regions are.")
        self.traits: TraitModel = tokenizer.traits.moved(means) if means else tokenizer.traits
        self.tokenizer, self.head, self.places = tokenizer, head, places
        appeal = {kind: head.appeals(places, kind).cpu().numpy() for kind in (HOME, WORK)}
        self.home_share, self.regions = appeal[HOME], None
        if population is not None:
            _check_columns(population, "population", ("lat", "lon", "population"))
            at = coordinate_columns(population, "lat", "lon")
            nearest = _nearest(tokenizer, *at)
            residents = counts_column(population, "population", "residents")
            self.home_share = _spread(nearest, residents, appeal[HOME], tokenizer, *at)
            if flows is not None:
                self.regions = _Regions.read(flows, population, nearest, appeal[WORK])

    def draw(self, n: int, *, seed: int) -> Residents:
        """n users; the same seed gives the same ones."""
        rng = np.random.default_rng(seed)
        source = torch.Generator().manual_seed(int(rng.integers(2**63)))
        traits = self.traits.draw(n, rng)
        home = rng.choice(len(self.home_share), n, p=self.home_share)
        work = np.full(n, -1, np.int64)
        workers = np.flatnonzero(traits[:, COMMUTE] > 0)
        if self.regions is not None:
            work[workers] = self.regions.works(home[workers], rng)
            found = workers[work[workers] >= 0]
            commute = traits[:, COMMUTE].copy()
            commute[workers] = 0
            commute[found] = self._commute_classes(home[found], work[found])
            traits = self.traits.draw(n, rng, commute=commute)
        elif len(workers):
            band = traits[workers, COMMUTE]
            work[workers] = choose_work(self.head, self.places, home[workers], EDGES[band - 1], EDGES[band], source)
        return Residents(home, work, traits)

    def _commute_classes(self, home: np.ndarray, work: np.ndarray) -> np.ndarray:
        km = self.places.km.cpu().numpy()
        return TRAITS[COMMUTE].classes(np.hypot(*(km[home] - km[work]).T))


@dataclass(frozen=True, eq=False)
class _Regions:
    """Where works are by region. of_place (P,) the region of each place; shares (R, R) of the works of each region's
    commuters, rows sum to 1 or 0; members, edges: places of each region and the cumulative sums of their appeal."""

    of_place: np.ndarray
    shares: np.ndarray
    members: list[np.ndarray]
    edges: list[np.ndarray]

    @classmethod
    def read(cls, flows: pd.DataFrame, population: pd.DataFrame, nearest: np.ndarray, appeal: np.ndarray) -> _Regions:
        if "region_id" not in population:
            raise DataError("population has no column 'region_id', which flows need.")
        if not population["region_id"].is_unique:
            raise DataError("population has more than one row of a region_id; flows need one row of each.")
        number = pd.Series(np.arange(len(population)), index=population["region_id"].to_numpy())
        _check_columns(flows, "flows", ("flow", "origin", "destination"))
        for name in ("origin", "destination"):
            strange = flows[name][~flows[name].isin(number.index)].unique()
            if len(strange):
                raise DataError(
                    f"flows: {len(strange)} values of {name} are no region_id (first {strange[:SHOWN].tolist()})."
                )
        members = [np.flatnonzero(nearest == region) for region in range(len(population))]
        shares = np.zeros((len(population), len(population)))
        rows, columns = number[flows["origin"]].to_numpy(), number[flows["destination"]].to_numpy()
        np.add.at(shares, (rows, columns), counts_column(flows, "flow", "commuters"))
        shares[:, [not len(member) for member in members]] = 0.0  # nobody can work where there is no place
        total = shares.sum(axis=1, keepdims=True)
        return cls(nearest, shares / np.where(total > 0, total, 1.0), members, [np.cumsum(appeal[m]) for m in members])

    def works(self, home: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(B,) rows of places, not the home itself; -1 where the home's region sends nobody."""
        work = np.full(len(home), -1, np.int64)
        edges = self.shares[self.of_place[home]].cumsum(axis=1)
        region = (rng.random((len(home), 1)) >= edges).sum(axis=1)
        for number in np.unique(region[region < len(self.members)]):
            rows, places, steps = np.flatnonzero(region == number), self.members[number], self.edges[number]
            drawn = places[
                np.searchsorted(steps, rng.random(len(rows)) * steps[-1], side="right").clip(max=len(places) - 1)
            ]
            again = places[(np.searchsorted(places, drawn) + 1) % len(places)]
            work[rows] = np.where(drawn == home[rows], again, drawn)
        return np.where(work == home, -1, work)


def _check_columns(frame: pd.DataFrame, what: str, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise DataError(f"{what} has no column {missing[0]!r}; it needs {', '.join(names)}.")


def _nearest(tokenizer: Any, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """(P,) the row of the population that is nearest to each place."""
    from scipy.spatial import cKDTree

    points = tokenizer.places.to_km(lat, lon)
    return np.asarray(cKDTree(points).query(tokenizer.places.km)[1], np.int64)


def _spread(
    nearest: np.ndarray, residents: np.ndarray, appeal: np.ndarray, tokenizer: Any, lat: np.ndarray, lon: np.ndarray
) -> np.ndarray:
    """(P,) share of the homes at each place: the residents of each row among its places by their appeal; where a row
    has no place, at the place nearest to it."""
    inside = np.bincount(nearest, appeal, len(residents))
    share = residents[nearest] * appeal / inside[nearest]
    alone = np.flatnonzero((inside == 0) & (residents > 0))
    if len(alone):
        at = tokenizer.places.nearest(lat[alone], lon[alone])
        np.add.at(share, at, residents[alone])
    if not share.sum() > 0:
        raise DataError("population sums to 0: nobody lives in this city.")
    return share / share.sum()
