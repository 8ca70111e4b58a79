"""Synthetic weeks of a city as a long frame of hours, and completion of partly known weeks (M-STAR).

The tokenizer draws conditions (home, work, movement class) from distributions of the training users. Nearly all of its
pairs of home and work are therefore pairs of training users, and a generated week can be like one of theirs: `audit`
measures how like. Weeks are generated batch by batch; `batches` yields one batch at a time, so that many weeks need the
memory of one batch and of all conditions (24 bytes a week).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.times import aware_times
from ..data.week_arrays import commonest
from ..data.weeks import WeekTable, is_week_table, read_weeks
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..tokenization.errors import DataError, renamed_argument
from ..tokenization.tables import open_table
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.weeks import Weeks
from .base import MobilityPipeline, check_count, read_records
from .copied_days import copied_days
from .slot_generation import SlotGenerationPipeline

RESULT_COLUMNS = ["trajectory_id", "slot", "time", "cell", "lat", "lon"]
_READ = ("user_id", "time", "location_id", "lat", "lon", "duration")
_HOURS = ("slot", "cell", "trajectory_id")  # columns of frames whose rows are hours, beside those of records
_CONDITIONS = ("home_ids", "work_ids", "attribute_ids")
_PREFIX = ("prefix_ids", "prefix_mask", "filled_ids")


class TrajectoryGenerationPipeline(MobilityPipeline):
    """Generate and complete weeks of hourly cells. `from_pretrained` of a model of slots, which generates weeks in any
    city, returns a `SlotGenerationPipeline`.

    Args:
        model: a `MstarForTrajectoryGeneration`, or anything with its `generate`, `config` and `device`.
        tokenizer: the city, after `fit_conditions` (not needed where all conditions are given).
        batch_size: weeks generated at one time (256).

    Raises:
        DataError: if the city's cells, hours or classes are not those of the model.
    """

    model_class, tokenizer_class, verb = MstarForTrajectoryGeneration, MstarTokenizer, "generate"
    default_batch_size = 256

    @classmethod
    def _form_of(cls, config: Any) -> Any:
        return SlotGenerationPipeline if config.num_poi_features else cls

    def _check_city(self) -> None:
        codec, tokenizer = self.model.config.codec_config, self.tokenizer
        pairs = {
            "cells per resolution": (list(codec.cells_per_resolution), tokenizer.cells_per_resolution),
            "hours": (codec.level_lengths[-1], tokenizer.num_hours),
        }
        for what, (wanted, given) in pairs.items():
            if wanted != given:
                raise DataError(f"The model's {what} are {wanted}, the city's are {given}; they must be the same.")
        if tokenizer.num_attributes > self.model.config.num_attributes:
            raise DataError(
                f"The city has {tokenizer.num_attributes} movement attributes, the model knows "
                f"{self.model.config.num_attributes}."
            )

    @renamed_argument("commute_ids", "work_ids")
    def generate(
        self,
        n: int,
        *,
        seed: int = 0,
        to: str = "frame",
        start: Any = "2024-01-01",
        home_ids: Any = None,
        work_ids: Any = None,
        attribute_ids: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """Generate `n` weeks.

        Args:
            seed: the same seed, batch size, model and versions give the same weeks. The batch size matters by rounding
                only.
            to: `frame` for the long table, `weeks` for (n, L) int32 cells.
            start: local date of the first hour, a Monday where windows are whole weeks.
            home_ids, work_ids: (n,) cells instead of drawn ones; both or neither. attribute_ids: (n,) classes.
            batch_size: weeks at one time; the pipeline's by default.
            progress: show a bar on stderr.
            options: passed on to the model's `generate`, such as `top_k`, `temperature`, `smoothing_window`.

        Returns:
            `trajectory_id` (0..n-1), `slot` (hour 0..L-1), `time` (aware, in the city's zone; an hour that a clock
            change leaves out becomes the next one), `cell`, `lat`, `lon` (degrees, the cell's centre), sorted by the
            first two; or the array.

        Raises:
            ValueError: n below 1, an unknown `to` or option, conditions that do not fit, or a city without fitted
                conditions.

        Example:
            >>> pipe = TrajectoryGenerationPipeline.from_pretrained("checkpoints/mstar-cells-small")
            >>> pipe.generate(1000, seed=0, start="2024-03-04")
        """
        self._check_to(to)
        given = {"home_ids": home_ids, "work_ids": work_ids, "attribute_ids": attribute_ids}
        made = self.batches(n, seed=seed, batch_size=batch_size, progress=progress, **given, **options)
        cells = np.concatenate(list(made))
        return cells if to == "weeks" else self._frame(cells, start=start)

    def batches(
        self,
        n: int,
        *,
        seed: int = 0,
        home_ids: Any = None,
        work_ids: Any = None,
        attribute_ids: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """The weeks of `generate` one batch after the other, (b, L) int32 each; arguments as there. Conditions are
        checked and drawn before the first batch is asked for."""
        _check_options(options)
        drawn = self._conditions(n, seed, home_ids, work_ids, attribute_ids)

        def inputs_of(rows: slice) -> dict[str, np.ndarray]:
            return {name: ids[rows] for name, ids in drawn.items()}

        return self._run(n, inputs_of, seed=seed, batch_size=batch_size, progress=progress, options=options)

    def frames(self, n: int, *, start: Any = "2024-01-01", **options: Any) -> Iterator[pd.DataFrame]:
        """The table of `generate` one batch after the other, in the memory of one batch and of all conditions;
        arguments as there, but for `to`.

        Example:
            >>> for frame in pipe.frames(100_000, seed=0):  # doctest: +SKIP
            ...     frame.to_csv("weeks.csv", mode="a", header=frame["trajectory_id"].iloc[0] == 0, index=False)
        """
        return self._numbered(self.batches(n, **options), start)

    @renamed_argument("commute_ids", "work_ids")
    def complete(
        self,
        weeks: Any,
        *,
        draws: int = 1,
        copy_days: bool = True,
        seed: int = 0,
        to: str = "frame",
        start: Any = None,
        home_ids: Any = None,
        work_ids: Any = None,
        attribute_ids: Any = None,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Any:
        """Fill the unknown hours of weeks; known hours stay exactly as they are.

        Args:
            weeks: (N, L) cells with -1 = unknown; what `MstarTokenizer.weeks` or `read_weeks` returned; or a frame,
                Arrow table, dataset or path. Its rows are weeks (a list column `cells`, or `h0`, `h1`, ...), hours
                (`slot` and `cell`), visits or points. Of the last three, weeks known by less than half are left out.
            draws: completions of each week, with the seeds `seed`, `seed + 1` and so on; an hour takes the cell that
                most of them have.
            copy_days: codes of which some hours are known read a copy of other days (`CommonHour`) in the rest. Fewer
                hours are drawn wrongly; completions differ less from each other. Only windows of whole weeks are
                copied.
            start: local date of the first hour; by default that of the weeks, else 2024-01-01.
            home_ids, work_ids, attribute_ids: (N,) instead of what the known hours tell.
            timezone: IANA name for naive times of visits or points.
            seed, to, batch_size, progress, options: as in `generate`; column names of a frame, too, as in
                `user_id="uid"`.

        Returns:
            As `generate`, and with `to="frame"` also `user_id` (row number for an array) and `known` (bool: the hour
            was given).

        Raises:
            DataError: weeks of another length or grid, or without any known hour.
            ValueError: an unknown option, or conditions that do not fit.

        Example:
            >>> pipe.complete(visits, timezone="Europe/Berlin")
        """
        self._check_to(to)
        self._checked_size(batch_size)
        check_count("draws", draws)
        columns = {name: options.pop(name) for name in (*_READ, *_HOURS) if name in options}
        _check_options(options)
        given = {"home_ids": home_ids, "work_ids": work_ids, "attribute_ids": attribute_ids}
        table = self._as_weeks(weeks, timezone=timezone, columns=columns)
        before = self.tokenizer.as_cells(table)
        if any(ids is None for ids in given.values()):
            self.tokenizer.home_and_work(before)  # one message for all weeks of which nothing is known
        told = {name: ids for name, ids in given.items() if ids is not None}
        self.tokenizer.checked_conditions(len(before), **told)

        per_day = 1440 // self.tokenizer.interval_minutes
        weekly = per_day > 1 and before.shape[1] % (7 * per_day) == 0
        filled = copied_days(before, slots_per_day=per_day) if copy_days and weekly else None

        def inputs_of(rows: slice) -> dict[str, np.ndarray]:
            own = {name: None if ids is None else np.asarray(ids)[rows] for name, ids in given.items()}
            batch = dict(self.tokenizer(before[rows], **own))
            batch |= {"prefix_ids": batch.pop("input_ids"), "prefix_mask": batch.pop("attention_mask")}
            if filled is not None:
                batch["filled_ids"] = self.tokenizer(filled[rows], conditions=False)["input_ids"]
            return batch

        run: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "options": options}
        cells = np.concatenate(list(self._run(len(before), inputs_of, seed=seed, draws=draws, **run)))
        changed = int(((before >= 0) & (cells != before)).sum())
        if changed:
            raise RuntimeError(f"{type(self.model).__name__}.generate changed {changed} hours that were known.")
        if to == "weeks":
            return cells
        if start is None:
            start = table.start if not np.isnat(table.start).any() else "2024-01-01"
        frame = self._frame(cells, start=start)
        frame["user_id"] = np.repeat(table.user_id, cells.shape[1])
        frame["known"] = (before >= 0).reshape(-1)
        return frame

    # Steps

    def _run(
        self,
        n: int,
        inputs_of: Callable[[slice], dict[str, np.ndarray]],
        *,
        seed: int,
        batch_size: int | None,
        progress: bool,
        options: dict[str, Any],
        draws: int = 1,
    ) -> Iterator[np.ndarray]:
        # A source of each draw for all batches, on the CPU: what M-STAR draws depends on neither batch size nor device.
        sources = [torch.Generator().manual_seed(seed + draw) for draw in range(draws)]
        for rows in self._slices(n, batch_size, unit="weeks", progress=progress):
            inputs = {name: torch.from_numpy(values).to(self.device) for name, values in inputs_of(rows).items()}
            conditions = [inputs.pop(name) for name in _CONDITIONS]
            with torch.no_grad():
                made = [self.model.generate(*conditions, **inputs, generator=one, **options) for one in sources]
            yield commonest(np.stack([cells.cpu().numpy().astype(np.int32) for cells in made]))

    def _numbered(self, batches: Iterator[np.ndarray], start: Any) -> Iterator[pd.DataFrame]:
        first = 0
        for cells in batches:
            yield self._frame(cells, start=start, first=first)
            first += len(cells)

    def _conditions(self, n: int, seed: int, home: Any, work: Any, attribute: Any) -> dict[str, np.ndarray]:
        if (home is None) != (work is None):
            raise DataError("home_ids and work_ids are given together or not at all: one of them is missing.")
        if home is not None and attribute is not None:
            return self.tokenizer.checked_conditions(n, home_ids=home, work_ids=work, attribute_ids=attribute)
        drawn = self.tokenizer.sample_conditions(n, seed=seed, home_ids=home, work_ids=work)
        if attribute is not None:
            drawn |= self.tokenizer.checked_conditions(n, attribute_ids=attribute)
        return drawn

    def _as_weeks(self, weeks: Any, *, timezone: Any, columns: dict[str, str]) -> Weeks:
        """Whatever `complete` takes -> weeks of this city."""
        if isinstance(weeks, (Weeks, WeekTable, np.ndarray, torch.Tensor, list, tuple)):
            if columns:
                raise DataError(f"{sorted(columns)} name columns, but {type(weeks).__name__} has none to name.")
            return _dated(weeks, self.tokenizer.as_cells(getattr(weeks, "cells", weeks)))
        if isinstance(weeks, Mapping):
            return self.tokenizer.weeks(weeks, **columns)
        user_id = columns.get("user_id", "user_id")
        found, read = open_table(weeks, {"user_id": user_id})
        if is_week_table(found):
            table = read_weeks(read(found), user_id=columns.get("user_id"))
            return _dated(table, self.tokenizer.as_cells(table.cells))
        if {columns.get(name, name) for name in ("slot", "cell")} & set(found):
            return self.tokenizer.weeks(read(found), **columns)
        return self.tokenizer.weeks(read_records(weeks, timezone=timezone, columns=columns, names=_READ))

    def _check_to(self, to: str) -> None:
        if to not in ("frame", "weeks"):
            raise DataError(f"to must be 'frame' or 'weeks', not {to!r}.")

    def _frame(self, cells: np.ndarray, *, start: Any, first: int = 0) -> pd.DataFrame:
        """The long table of weeks that are numbered from `first` on."""
        numbers = np.arange(first, first + len(cells))
        frame = pd.DataFrame(self.tokenizer.to_frame(cells, start=start, trajectory_id=numbers))
        frame["time"] = aware_times(frame["time"], self.tokenizer.timezone)
        return frame[RESULT_COLUMNS]


def _dated(weeks: Any, cells: np.ndarray) -> Weeks:
    """Checked cells (N, L) with the users and days of the weeks that they came from, where these have any."""
    users, start = getattr(weeks, "user_id", None), getattr(weeks, "start", None)
    users = np.arange(len(cells)) if users is None else users
    return Weeks(cells, users, np.full(len(cells), "NaT", "datetime64[D]") if start is None else start, {})


def _check_options(options: dict[str, Any]) -> None:
    """Raises a `DataError` for what `MstarForTrajectoryGeneration.generate` does not take."""
    taken = set(inspect.signature(MstarForTrajectoryGeneration.generate).parameters)
    taken -= {"self", "generator", "batch_size", "progress", "return_codes", *_PREFIX, *_CONDITIONS}
    unknown = sorted(set(options) - taken)
    if unknown:
        raise DataError(f"Unknown option(s) {unknown}; those of the model are {', '.join(sorted(taken))}.")
