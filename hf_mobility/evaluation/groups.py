"""Groups of targets, as `subsets` of `summarize`: for whom, and where, does a model serve?

Every group is made from what precedes the targets, except the place of the target itself. Groups of one kind leave no
target out and share none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..data.tasks import NextLocationTask
from ..tokenization.clock import epoch_seconds
from ..tokenization.grid import to_km, unwrapped
from .ranking import new_place_mask

Groups = dict[str, np.ndarray]
HISTORY_BOUNDS = (15, 40, 100)  # visits
DAY = 86_400.0


def groups(task: NextLocationTask) -> Groups:
    """All groups below: by history, activity, distance from the centre, and whether the place is new to the user.

    Returns:
        name -> bool (number of targets,), in order of `task.rows`.

    Example:
        >>> summarize(results, subsets=groups(task))  # doctest: +SKIP
    """
    new = new_place_mask(task)
    return {
        **by_history(task),
        **by_activity(task),
        **by_centre(task),
        "known place": ~new,
        "new place": new,
    }


def by_history(task: NextLocationTask, bounds: Sequence[int] = HISTORY_BOUNDS) -> Groups:
    """By the visits that are known of the user before the first target: "history < 15", .., "history >= 100".

    A user is in one group with all targets.
    """
    known = _known_visits(task)[task.user[task.rows]]
    names = [f"history < {bounds[0]}"]
    names += [f"history {low}-{high - 1}" for low, high in pairwise(bounds)]
    return _named(np.searchsorted(bounds, known, side="right"), [*names, f"history >= {bounds[-1]}"])


def by_activity(task: NextLocationTask) -> Groups:
    """By the user's visits a day before the first target: "activity low", "middle" and "high", a third of users each.

    The days are those from the first to the last known visit, at least one.
    """
    known, first = _known_visits(task), task.user_starts[:-1]
    seconds = epoch_seconds(task.visits["time"])
    days = np.maximum((seconds[first + known - 1] - seconds[first]) / DAY, 1.0)
    rate = known / days
    third = np.searchsorted(np.quantile(rate, (1 / 3, 2 / 3)), rate, side="left")
    return _named(third[task.user[task.rows]], ["activity low", "activity middle", "activity high"])


def by_centre(task: NextLocationTask) -> Groups:
    """By the target's distance from the centre of the city's visits: "centre", "between", "periphery".

    The centre is the median latitude and longitude of the visits that are no targets. The bounds are the thirds of
    their distances from it, so the groups of targets need not be of equal size.
    """
    lat, lon = task.visits["lat"].to_numpy(), unwrapped(task.visits["lon"].to_numpy())
    centre = float(np.median(lat[~task.target])), float(np.median(lon[~task.target]))
    km = np.hypot(*to_km(lat, lon, origin=centre))
    third = np.searchsorted(np.quantile(km[~task.target], (1 / 3, 2 / 3)), km[task.rows], side="left")
    return _named(third, ["centre", "between", "periphery"])


def _known_visits(task: NextLocationTask) -> np.ndarray:
    """int64 (U,): visits of each user before the first target; all of them where there is no target."""
    stops = np.append(task.rows, len(task.visits))
    first_target = np.minimum(stops[np.searchsorted(task.rows, task.user_starts[:-1])], task.user_starts[1:])
    return first_target - task.user_starts[:-1]


def _named(group: np.ndarray, names: Sequence[str]) -> Groups:
    return {name: group == number for number, name in enumerate(names)}
