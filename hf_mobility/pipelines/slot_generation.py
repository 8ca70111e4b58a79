"""Weeks of users in any city, from M-STAR's weeks of slots: no week of the city is needed.

A user gets traits, a home and mostly a work (`population`); the model writes diaries for these traits; the place head
chooses the other places (`placing`). Weeks of one user share home, work and recurring places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from ..data.times import aware_times
from ..data.week_arrays import commonest
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..tokenization.clock import local_dates
from ..tokenization.diaries import HOME, KIND_OF_SLOT, KINDS, WORK, to_slots
from ..tokenization.errors import DataError
from ..tokenization.tokenization_mstar_slots import NUM_HOURS, MstarSlotTokenizer, check_slots
from .base import MobilityPipeline, check_count, read_records
from .copied_days import copied_days
from .placing import place_weeks
from .population import Population, Residents

RESULT_COLUMNS = ["user_id", "trajectory_id", "slot", "time", "location_id", "lat", "lon", "activity"]
_READ = ("user_id", "time", "location_id", "lat", "lon", "duration")


class SlotGenerationPipeline(MobilityPipeline):
    """Generate and complete weeks in a city that the model has never seen.

    Args:
        model: a `MstarForTrajectoryGeneration` of slots, with its place head.
        tokenizer: the city.
        batch_size: weeks that are generated at one time (256).
        population, flows, means: see `for_city`.

    Raises:
        DataError: a model of other weeks, or without a place head.
    """

    model_class, tokenizer_class, verb = MstarForTrajectoryGeneration, MstarSlotTokenizer, "generate"
    options = ("population", "flows", "means")
    default_batch_size = 256

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        population: pd.DataFrame | None = None,
        flows: pd.DataFrame | None = None,
        means: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, batch_size=batch_size)
        self.population, self.flows, self.means = population, flows, means
        with torch.no_grad():
            self._places = model.places.read_city(tokenizer.location_features.to(self.device))
        self._users: Population | None = None
        if population is not None or flows is not None or means is not None:
            self._population()  # what is wrong with these is said at once

    def _check_city(self) -> None:
        check_slots(self.model.config)
        if self.model.places is None:
            raise DataError("this model has no place head: it was made without num_poi_features.")

    def for_city(
        self,
        city: Any,
        *,
        population: pd.DataFrame | None = None,
        flows: pd.DataFrame | None = None,
        means: Mapping[str, float] | None = None,
        days_off: tuple[int, int] | None = None,
    ) -> Self:
        """The same weights in another `City` with places.

        Args:
            population: residents by position, a frame with `lat`, `lon`, `population` (and `region_id` for `flows`).
            flows: commuters, a frame with `origin`, `destination`, `flow` in these region ids, as
                `hf_mobility.flows.predict_flows` returns.
            means: of this city's users, any of `arrival`, `leaving` (clock hours), `days_at_work`, `commute_km`,
                `places`, `lunches`, `evenings` (a week), `weekend_outings`, `lunch_hour`, `evening_hour` (clock hours).
            days_off: the two weekdays without work (Monday = 0); those of the old city by default.

        Raises:
            DataError: a city without places; frames that cannot be used; means out of reach.
        """
        old = self.tokenizer
        days = old.days_off if days_off is None else days_off
        tokenizer = MstarSlotTokenizer.from_city(city, self.model.config, traits=old.traits, days_off=days)
        given: dict[str, Any] = {"population": population, "flows": flows, "means": means}
        return type(self)(self.model, tokenizer, batch_size=self.batch_size, **given)

    @classmethod
    def _tokenizer_of(cls, city: Any, model: Any, old: Any) -> Any:
        if old is None:
            raise DataError("traits of users are saved with the tokenizer, and this folder has none.")
        return MstarSlotTokenizer.from_city(city, model.config, traits=old.traits, days_off=old.days_off)

    def generate(
        self,
        people: int,
        *,
        weeks: int = 1,
        seed: int = 0,
        to: str = "frame",
        start: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """Weeks of `people` users.

        Args:
            people: number of users. weeks: of each user, one after the other.
            seed: the same seed, model and versions give the same weeks.
            to: `frame` for the long table, `places` for (people * weeks, 168) int32 rows of the city's places.
            start: local date of the first hour, the first working day; by default the first such day of 2024.
            batch_size: weeks at one time; the pipeline's by default.
            progress: show a bar on stderr.
            options: of the model's `generate`, such as `temperature`.

        Returns:
            `user_id` (0..people-1), `trajectory_id` (week), `slot` (hour 0..167), `time` (aware), `location_id`, `lat`,
            `lon`, `activity` (home, work, recurring, single), sorted by the first three; or the array.

        Raises:
            DataError: a number below 1, an unknown `to`, or a start on another weekday.

        Example:
            >>> pipe = TrajectoryGenerationPipeline.from_pretrained("checkpoints/mstar-small")
            >>> pipe.for_city(city, means={"commute_km": 6.0}).generate(1000, weeks=2)
        """
        if to not in ("frame", "places"):
            raise DataError(f"to must be 'frame' or 'places', not {to!r}.")
        made = list(self._batches(people, weeks, seed, batch_size, progress, options))
        slots, places = (np.concatenate(parts) for parts in zip(*made))
        return places if to == "places" else self._frame(slots, places, weeks, start)

    def frames(self, people: int, *, weeks: int = 1, start: Any = None, **options: Any) -> Iterator[pd.DataFrame]:
        """The table of `generate` for some users after the other, in the memory of one batch; arguments as there, but
        for `to`."""
        seed, size = options.pop("seed", 0), options.pop("batch_size", None)
        progress = options.pop("progress", False)
        first = 0
        for slots, places in self._batches(people, weeks, seed, size, progress, options):
            yield self._frame(slots, places, weeks, start, first=first)
            first += len(places) // weeks

    def residents(self, people: int, *, seed: int = 0) -> Residents:
        """The users of `generate` with the same seed: homes, works and traits."""
        check_count("people", people)
        return self._population().draw(people, seed=seed)

    def _population(self) -> Population:
        if self._users is None:
            given: dict[str, Any] = {"population": self.population, "flows": self.flows, "means": self.means}
            self._users = Population(self.tokenizer, self.model.places, self._places, **given)
        return self._users

    def _batches(
        self, people: int, weeks: int, seed: int, batch_size: int | None, progress: bool, options: dict[str, Any]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(slots, places) of whole users, (b * weeks, 168) each."""
        check_count("weeks", weeks)
        residents = self.residents(people, seed=seed)
        source, placing = (torch.Generator().manual_seed(seed + number) for number in range(2))
        size = max(1, (self._checked_size(batch_size) or people) // weeks)
        for rows in self._slices(people, size, unit="users", progress=progress):
            conditions = self.tokenizer.conditions_of(residents.traits[rows])
            conditions["work_ids"] = np.where(residents.work[rows] >= 0, WORK, HOME)
            given = {name: torch.from_numpy(np.repeat(ids, weeks, axis=0)) for name, ids in conditions.items()}
            with torch.no_grad():
                made = self.model.generate(**given, generator=source, **options).cpu().numpy()
            home, work = residents.home[rows], residents.work[rows]
            placed = place_weeks(
                self.model.places, self._places, made.reshape(len(home), -1), home=home, work=work, source=placing
            )
            yield made, placed.reshape(made.shape)

    def complete(
        self,
        weeks: Any,
        *,
        draws: int = 1,
        copy_days: bool = True,
        seed: int = 0,
        to: str = "frame",
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """Fill the unknown hours of weeks; known hours stay as they are.

        Args:
            weeks: (N, 168) rows of the city's places, -1 = unknown; what `MstarSlotTokenizer.weeks` returned; or a
                table of visits or points.
            draws: completions of each week, with the seeds `seed`, `seed + 1` and so on; an hour takes the place that
                most of them have.
            copy_days: codes of which some hours are known read a copy of other days (`CommonHour`) in the rest. Fewer
                hours are drawn wrongly; completions differ less from each other.
            timezone: IANA name for naive times.
            seed, batch_size, progress, options: as in `generate`; column names of a table, too.

        Returns:
            As `generate`, `user_id` that of the weeks (row number for an array), and `known` (bool).

        Raises:
            DataError: weeks of another length, or without any known hour.
        """
        if to not in ("frame", "places"):
            raise DataError(f"to must be 'frame' or 'places', not {to!r}.")
        check_count("draws", draws)
        columns = {name: options.pop(name) for name in _READ if name in options}
        if not isinstance(weeks, np.ndarray) and not hasattr(weeks, "cells"):
            table = read_records(weeks, timezone=timezone, columns=columns, names=_READ)
            weeks = self.tokenizer.weeks(table)
        before = self.tokenizer.as_cells(weeks)
        home, work = self.tokenizer.home_and_work(before)
        slots = to_slots(before, home, work)
        conditions = self.tokenizer.conditions_of(self.tokenizer.traits_of(slots, home, work))
        inputs = conditions | self._prefix(before, slots, home, work, copy_days)
        second = np.where(work != home, work, -1)
        places = before.copy()
        sources = [torch.Generator().manual_seed(seed + draw) for draw in range(draws)]
        for rows in self._slices(len(before), batch_size, unit="weeks", progress=progress):
            given = {name: torch.from_numpy(ids[rows]) for name, ids in inputs.items()}
            users: dict[str, Any] = {"home": home[rows], "work": second[rows], "known": before[rows]}
            found = []
            for source in sources:
                with torch.no_grad():
                    made = self.model.generate(**given, generator=source, **options).cpu().numpy()
                found.append(place_weeks(self.model.places, self._places, made, source=source, **users))
            places[rows] = np.where(before[rows] >= 0, before[rows], commonest(np.stack(found)))
        if to == "places":
            return places
        start = getattr(weeks, "start", None)
        frame = self._frame(to_slots(places, home, work), places, 1, start)
        user_id = getattr(weeks, "user_id", np.arange(len(places)))
        frame["user_id"] = np.repeat(np.asarray(user_id), NUM_HOURS)
        return frame.assign(known=(before >= 0).reshape(-1))

    def _prefix(
        self, before: np.ndarray, slots: np.ndarray, home: np.ndarray, work: np.ndarray, copy_days: bool
    ) -> dict[str, np.ndarray]:
        """What the model is given of weeks of places and their slots. A copy has its own slots, for known hours too: a
        place may be recurring there that was seen once."""
        guess = to_slots(copied_days(before), home, work) if copy_days else slots
        encoded = self.tokenizer.encode_slots(np.where(before >= 0, guess, -1))
        prefix = {"prefix_ids": encoded["input_ids"], "prefix_mask": encoded["attention_mask"]}
        return prefix | {"filled_ids": self.tokenizer.encode_slots(guess)["input_ids"]} if copy_days else prefix

    def _frame(self, slots: np.ndarray, places: np.ndarray, weeks: int, start: Any, first: int = 0) -> pd.DataFrame:
        count, city = len(places), self.city
        number = np.arange(count)
        days = self._start_days(start, number % weeks, count)
        hours = np.tile(np.arange(NUM_HOURS, dtype=np.int32), count)
        clock = np.repeat(days.astype("datetime64[s]"), NUM_HOURS) + hours.astype("timedelta64[h]")
        row = places.reshape(-1)
        frame = pd.DataFrame(
            {
                "user_id": np.repeat(first + number // weeks, NUM_HOURS),
                "trajectory_id": np.repeat(first * weeks + number, NUM_HOURS),
                "slot": hours,
                "time": clock,
                "location_id": city.location_ids[row],
                "lat": city.lat[row],
                "lon": city.lon[row],
                "activity": np.array(KINDS, object)[KIND_OF_SLOT[slots.reshape(-1)]],
            }
        )
        frame["time"] = aware_times(frame["time"], self.tokenizer.timezone)
        return frame[RESULT_COLUMNS]

    def _start_days(self, start: Any, week: np.ndarray, count: int) -> np.ndarray:
        """(count,) local date of the first hour of each week; `week` counts those of a user."""
        if start is None:
            monday = np.datetime64("2024-01-01", "D")
            start = monday + self.tokenizer.first_weekday
        days = np.broadcast_to(local_dates(start), count)
        self.tokenizer._shape.check_starts(days[~np.isnat(days)])
        return days + 7 * week
