"""Synthetic weeks of a city as a table: how many are wanted in, a long frame of hours out; and incomplete weeks made
whole.

Unusual: conditions (home, second place, movement attribute) are drawn by the tokenizer from fitted distributions, never
copied from a person. Weeks are made batch by batch; `batches` hands them over one batch at a time, so that a million
weeks need no more memory than one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.frames import DataError
from ..hub.loading import fetching, load_model
from ..hub.push import SavedWithCard, loading
from ..tokenization.tokenization_mstar import MstarTokenizer
from ..tokenization.weeks_mstar import Weeks

RESULT_COLUMNS = ["trajectory_id", "slot", "time", "cell", "lat", "lon"]
Progress = Callable[[int, int], Any]


class TrajectoryGenerationPipeline(SavedWithCard):
    """Generate and complete weeks of hourly cells.

    Args:
        model: a `MstarForTrajectoryGeneration`, or anything with its `generate`, `config` and `device`.
        tokenizer: the city, after `fit_conditions` (not needed where all conditions are given).
        batch_size: weeks generated at one time.

    Raises:
        DataError: if the city's cells, hours or classes are not those of the model.
    """

    def __init__(self, model: Any, tokenizer: MstarTokenizer, *, batch_size: int = 256) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self._check_shapes()

    def _check_shapes(self) -> None:
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

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, batch_size: int = 256, **kwargs: Any) -> Any:
        """Load model and city from one folder or Hub id; `kwargs` (`revision`, `token`, `dtype`, ...) go to the model's
        `from_pretrained`, those about the Hub to the tokenizer's too."""
        from ..modeling.modeling_mstar import MstarForTrajectoryGeneration

        model = load_model(MstarForTrajectoryGeneration, name_or_path, reader=cls.__name__, kwargs=kwargs)
        with loading(name_or_path):
            tokenizer = MstarTokenizer.from_pretrained(str(name_or_path), **fetching(kwargs))
        return cls(model, tokenizer, batch_size=batch_size)

    def generate(
        self,
        n: int,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        to: str = "frame",
        start: Any = "2024-01-01",
        progress: Progress | None = None,
        home_ids: Any = None,
        commute_ids: Any = None,
        attribute_ids: Any = None,
        **options: Any,
    ) -> Any:
        """Generate `n` weeks.

        Args:
            seed: the same seed, batch size, model and versions give the same weeks. The batch size matters by rounding
                only.
            batch_size: weeks at one time; the pipeline's by default.
            to: `frame` for the long table, `weeks` for (n, L) int32 cells.
            start: local date of the first hour, a Monday where windows are whole weeks.
            progress: called with (weeks done, n) after every batch.
            home_ids, commute_ids: (n,) cells instead of drawn ones; both or neither. attribute_ids: (n,) classes.
            options: passed on to the model's `generate`, such as `top_k`, `temperature`, `smoothing_window`.

        Returns:
            `trajectory_id` (0..n-1), `slot` (hour 0..L-1), `time` (aware, in the city's zone; an hour that a clock
            change leaves out becomes the next one), `cell`, `lat`, `lon` (degrees, the cell's centre), sorted by the
            first two; or the array.

        Raises:
            DataError: n below 1, an unknown `to`, conditions that do not fit, or a city without fitted conditions.
        """
        self._check_to(to)
        given = {"home_ids": home_ids, "commute_ids": commute_ids, "attribute_ids": attribute_ids}
        made = self.batches(n, seed=seed, batch_size=batch_size, progress=progress, **given, **options)
        cells = np.concatenate(list(made))
        return cells if to == "weeks" else self._frame(cells, start=start)

    def batches(
        self,
        n: int,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        progress: Progress | None = None,
        home_ids: Any = None,
        commute_ids: Any = None,
        attribute_ids: Any = None,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """The weeks of `generate` one batch after the other, (b, L) int32 each; arguments as there. Conditions are
        checked and drawn before the first batch is asked for."""
        with _as_data_errors():
            drawn = self._conditions(n, seed, home_ids, commute_ids, attribute_ids)

        def inputs_of(rows: slice) -> dict[str, np.ndarray]:
            return {name: ids[rows] for name, ids in drawn.items()}

        return self._run(n, inputs_of, seed=seed, batch_size=batch_size, progress=progress, options=options)

    def complete(
        self,
        weeks: Any,
        *,
        seed: int = 0,
        batch_size: int | None = None,
        to: str = "frame",
        start: Any = None,
        progress: Progress | None = None,
        home_ids: Any = None,
        commute_ids: Any = None,
        attribute_ids: Any = None,
        **options: Any,
    ) -> Any:
        """Fill the unknown hours of weeks; known hours stay exactly as they are.

        Args:
            weeks: (N, L) cells with -1 = unknown, what `MstarTokenizer.weeks` returns, or a frame of records that it
                reads with its default options (weeks known by less than half are left out).
            start: local date of the first hour; by default that of the records, else 2024-01-01.
            home_ids, commute_ids, attribute_ids: (N,) instead of what the known hours tell.
            seed, batch_size, to, progress, options: as in `generate`.

        Returns:
            As `generate`, and with `to="frame"` also `user_id` (row number for an array) and `known` (bool: the hour
            was given).

        Raises:
            DataError: weeks of another length or grid, or without any known hour.
        """
        self._check_to(to)
        given = {"home_ids": home_ids, "commute_ids": commute_ids, "attribute_ids": attribute_ids}
        with _as_data_errors():
            table = weeks if isinstance(weeks, Weeks) else self._as_weeks(weeks)
            before = self.tokenizer.as_cells(table)
            if any(ids is None for ids in given.values()):
                self.tokenizer.home_and_commute(before)  # one message for all weeks of which nothing is known
            told = {name: ids for name, ids in given.items() if ids is not None}
            self.tokenizer.checked_conditions(len(before), **told)

        def inputs_of(rows: slice) -> dict[str, np.ndarray]:
            own = {name: None if ids is None else np.asarray(ids)[rows] for name, ids in given.items()}
            with _as_data_errors():
                batch = dict(self.tokenizer(before[rows], **own))
            return batch | {"prefix_ids": batch.pop("input_ids"), "prefix_mask": batch.pop("attention_mask")}

        made = self._run(len(before), inputs_of, seed=seed, batch_size=batch_size, progress=progress, options=options)
        cells = np.concatenate(list(made))
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
        progress: Progress | None,
        options: dict[str, Any],
    ) -> Iterator[np.ndarray]:
        device = self.model.device
        # One source for all batches, on the CPU: what M-STAR draws depends on neither batch size nor device.
        source = torch.Generator().manual_seed(seed)
        for rows in self._slices(n, batch_size):
            inputs = {name: torch.from_numpy(values).to(device) for name, values in inputs_of(rows).items()}
            with torch.no_grad():
                made = self.model.generate(**inputs, generator=source, **options)
            yield made.cpu().numpy().astype(np.int32)
            if progress is not None:
                progress(min(rows.stop, n), n)

    def _conditions(self, n: int, seed: int, home: Any, commute: Any, attribute: Any) -> dict[str, np.ndarray]:
        if (home is None) != (commute is None):
            raise DataError("home_ids and commute_ids are given together or not at all: one of them is missing.")
        if home is not None and attribute is not None:
            return self.tokenizer.checked_conditions(n, home_ids=home, commute_ids=commute, attribute_ids=attribute)
        drawn = self.tokenizer.sample_conditions(n, seed=seed, home_ids=home, commute_ids=commute)
        if attribute is not None:
            drawn |= self.tokenizer.checked_conditions(n, attribute_ids=attribute)
        return drawn

    def _as_weeks(self, weeks: Any) -> Weeks:
        if isinstance(weeks, (np.ndarray, torch.Tensor, list, tuple)):
            cells = self.tokenizer.as_cells(weeks)
            return Weeks(cells, np.arange(len(cells)), np.full(len(cells), "NaT", "datetime64[D]"), {})
        return self.tokenizer.weeks(weeks)

    def _slices(self, n: int, batch_size: int | None) -> list[slice]:
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise DataError(f"batch_size must be at least 1, not {size}.")
        return [slice(first, first + size) for first in range(0, n, size)]

    def _check_to(self, to: str) -> None:
        if to not in ("frame", "weeks"):
            raise DataError(f"to must be 'frame' or 'weeks', not {to!r}.")

    def _frame(self, cells: np.ndarray, *, start: Any) -> pd.DataFrame:
        with _as_data_errors():
            frame = pd.DataFrame(self.tokenizer.to_frame(cells, start=start))
        clock = frame["time"].dt
        first_reading = np.ones(len(frame), dtype=bool)
        frame["time"] = clock.tz_localize(self.tokenizer.timezone, ambiguous=first_reading, nonexistent="shift_forward")
        return frame[RESULT_COLUMNS]


@contextmanager
def _as_data_errors() -> Iterator[None]:
    """The tokenizer works without this package and raises ValueError; here a fault of the data is a DataError."""
    try:
        yield
    except ValueError as error:
        raise DataError(str(error)) from error
