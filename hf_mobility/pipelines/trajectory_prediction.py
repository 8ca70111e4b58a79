"""Future positions as a table: a frame of points in, one row per user and step out (RAW, "Regions are Who Walk Them").

A user's series ends at the slot of their own last record, and the roll-out starts there: each predicted point is the
next input. It reads one window of whole local days, the last ones of the user. When the window is full, the point
behind it is still predicted from it; then the oldest day is dropped, so that a slot's position stays its time of day.

A window begins on any day of the week. A model without `time_features` that was trained on windows from Monday on may
have learned weekdays by position; it reads them shifted here, and users with few days of records suffer most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..modeling.generation_raw import roll_out, roll_windows
from ..modeling.layers import finite
from ..modeling.modeling_raw import RawForTrajectoryPrediction
from ..tokenization.clock import DAY_SECONDS, to_local
from ..tokenization.errors import DataError
from ..tokenization.grid import Box
from ..tokenization.series_raw import SlotAxis, fill_rule, fill_slots, last_seconds
from ..tokenization.tokenization_raw import RawTokenizer
from .base import MobilityPipeline, read_records
from .direct_prediction import DirectPredictionPipeline
from .embedding import READ, check_slots
from .horizons import slots_of

RESULT_COLUMNS = ["user_id", "time", "horizon", "lat", "lon", "spread_km"]


class TrajectoryPredictionPipeline(MobilityPipeline):
    """Predict where users will be.

    `from_pretrained` makes a `DirectPredictionPipeline` of a folder that holds RAW's `extended` variant.

    Args:
        model: a `RawForTrajectoryPrediction`.
        tokenizer: the city.
        batch_size: series that the model reads at one time (64).

    Raises:
        DataError: if the tokenizer's windows are longer than the model's, or its slots of another length.
    """

    model_class, tokenizer_class, verb = RawForTrajectoryPrediction, RawTokenizer, "predict"
    default_batch_size = 64

    @classmethod
    def _form_of(cls, config: Any) -> Any:
        return DirectPredictionPipeline if config.variant == "extended" else cls

    def _check_city(self) -> None:
        check_slots(self.model.config, self.tokenizer)

    @torch.no_grad()
    def predict(
        self,
        points: Any,
        *,
        horizon: Any = "2h",
        spread_samples: int = 8,
        seed: int = 0,
        outside: str = "keep",
        fill: str | None = None,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """Positions of every user after their last record, which is the end of their last stay where durations are
        known. A user's rows depend on nobody else's records.

        Args:
            points: points or visits (stays with a `duration`), as `MobilityEmbeddingPipeline.embed_users` takes them.
            horizon: how far ahead: hours, or a text or time delta such as "2h"; every slot up to it gets a row. A list
                of them gives rows at these horizons only. Whole slots of the model (15 minutes).
            spread_samples: roll-outs of a user that `spread_km` is made from; 0 leaves it NaN and saves their time.
            seed: of the draws behind `spread_km`, of models with a mixture only.
            outside, fill: as in `RawTokenizer.encode_points`.
            timezone: IANA name for naive times.
            batch_size: series at one time; the pipeline's by default.
            progress: show a bar on stderr.
            columns: other column names, as in `user_id="uid"`.

        Returns:
            `user_id`; `time` (datetime64[us, UTC]), the beginning of the slot; `horizon` (float64 hours after the slot
            of the last record); `lat`, `lon` (float64 degrees); `spread_km` (float64), sorted by user and horizon.

            `spread_km` is a root mean square distance. With `mixture_components`: of paths drawn from the mixture to
            the predicted point. Otherwise: of the model's own roll-outs, begun at the same time of day on the user's
            last days, to where the user then was; NaN where nothing was recorded at that time.

        Raises:
            DataError: for faults in the frame, a horizon that is no whole number of slots, points that lie elsewhere.

        Example:
            >>> pipe = TrajectoryPredictionPipeline.from_pretrained("checkpoints/raw-released-small")
            >>> pipe.predict(points, horizon=[0.5, 2, 6])
        """
        if spread_samples < 0:
            raise DataError(f"spread_samples must be at least 0, not {spread_samples}.")
        size = self._checked_size(batch_size)
        ahead = slots_of(horizon, self.tokenizer.interval_minutes)
        frame = read_records(points, timezone=timezone, columns=columns, names=READ)
        histories = self._histories(frame, outside=outside, fill=fill)
        times, at = self._slots_at(histories, ahead)
        whole = _Starts(np.arange(len(histories.users)), histories.length)
        made = self._roll_outs(histories, whole, int(at.max()), size, progress=progress)
        predicted = np.take_along_axis(made, at[..., None] - 1, axis=1)
        spread = self._spread(histories, at, predicted, spread_samples, seed, size, progress=progress)
        places = self.tokenizer.decode(predicted)
        table = {
            "user_id": np.repeat(histories.users, len(ahead)),
            "time": pd.to_datetime(times.reshape(-1), unit="s", utc=True).astype("datetime64[us, UTC]"),
            "horizon": np.tile(ahead * self.tokenizer.interval_minutes / 60, len(histories.users)),
            "lat": places["lat"],
            "lon": places["lon"],
            "spread_km": spread.reshape(-1),
        }
        return pd.DataFrame(table)[RESULT_COLUMNS]

    # Records -> histories

    def _histories(self, frame: pd.DataFrame, *, outside: str, fill: str | None) -> _Histories:
        """Every user's last window, as `RawTokenizer.encode_points` fills it, from a checked frame."""
        tokenizer, seconds = self.tokenizer, 60 * self.tokenizer.interval_minutes
        units = tokenizer.normalize(frame["lat"].to_numpy(), frame["lon"].to_numpy())
        sides = (frame["lat"].to_numpy(), frame["lon"].to_numpy(), ("lat", "lon"))
        strange = Box(*tokenizer.city.bounds).check_inside(units, *sides, outside=outside)
        if outside == "drop":
            frame, units = frame[~strange], units[~strange]
        users, user = np.unique(frame["user_id"].to_numpy(), return_inverse=True)
        begin = end = frame["time"].to_numpy("datetime64[s]").astype(np.int64)
        if "duration" in frame:
            end = last_seconds(begin, frame["duration"].to_numpy())
        first, last = to_local(begin, tokenizer.timezone), to_local(end, tokenizer.timezone)
        last = np.maximum(first, last)
        rule = fill_rule(tokenizer.fill if fill is None else fill, stays="duration" in frame)

        window = tokenizer.model_max_length
        final = _per_user(np.maximum, last, user)
        oldest = final // DAY_SECONDS - window // tokenizer.slots_per_day + 1
        midnight = np.maximum(_per_user(np.minimum, first, user) // DAY_SECONDS, oldest) * DAY_SECONDS
        filled = fill_slots(
            SlotAxis(num_slots=window, window=window),
            user=user,
            order=begin,
            first=(first - midnight[user]) // seconds,
            last=(last - midnight[user]) // seconds,
            ties=(units[:, 0], units[:, 1]),
            rule=rule,
        )
        shape = (len(users), window)
        return _Histories(
            users=users,
            coordinates=units.astype(np.float32)[filled.source].reshape(*shape, 2),
            observed=filled.observed.reshape(shape),
            length=(final - midnight) // seconds + 1,
            midnight=midnight,
            last_record=_per_user(np.maximum, end, user),
        )

    def _slots_at(self, histories: _Histories, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(U, H) int64: UTC epoch seconds of the horizons, and how many slots after the history's last one they lie on
        the local clock. Hours that a clock change repeats share their slots, hours that it skips leave theirs out."""
        seconds, zone = 60 * self.tokenizer.interval_minutes, self.tokenizer.timezone
        start = histories.last_record - to_local(histories.last_record, zone) % seconds
        times = start[:, None] + ahead * seconds
        slot = self.tokenizer.local_slots(times) - histories.midnight[:, None] // seconds
        return times, np.maximum(slot - histories.length[:, None] + 1, 1)

    # Roll-outs

    def _roll_outs(
        self,
        histories: _Histories,
        starts: _Starts,
        steps: int,
        size: int | None,
        *,
        noise: torch.Tensor | None = None,
        progress: bool,
    ) -> np.ndarray:
        """(S, steps, 2) float32 box units: the points behind every start; drawn where there is `noise` (n, steps, 3),
        whose rows repeat from start to start."""
        order = np.argsort(starts.length, kind="stable")  # windows of one length are full at the same time
        made = np.empty((len(order), steps, 2), np.float32)
        for part in self._slices(len(order), size, unit="series", progress=progress):
            rows = order[part]
            users, lengths = starts.user[rows], starts.length[rows]
            series = [torch.from_numpy(histories.coordinates[u, :n]) for u, n in zip(users, lengths)]
            weekday = torch.from_numpy((histories.midnight[users] // DAY_SECONDS + 3) % 7)  # Monday = 0
            points = roll_windows(
                self.model.generate if noise is None else self._drawn(noise[rows % len(noise)]),
                series,
                weekday if self.model.config.time_features else None,
                steps=steps,
                window=self.tokenizer.model_max_length,
                slots_per_day=self.tokenizer.slots_per_day,
                device=self.device,
            )
            made[rows] = finite(points, self.model).numpy()
        return made

    def _drawn(self, noise: torch.Tensor) -> Callable[..., torch.Tensor]:
        """A roll-out as `generate`'s whose points are drawn by `noise` (B, steps, 3), over all its calls together."""
        draw, places = _Draw(self.model, noise.to(self.device)), self.model.config.max_position_embeddings
        return partial(roll_out, self.model.model, draw, position_ids=None, max_positions=places)

    # Spread

    def _spread(
        self,
        histories: _Histories,
        at: np.ndarray,
        predicted: np.ndarray,
        samples: int,
        seed: int,
        size: int | None,
        *,
        progress: bool,
    ) -> np.ndarray:
        """(U, H) km; see `predict`. `predicted` (U, H, 2) are the points `at` (U, H) slots ahead."""
        users = np.repeat(np.arange(len(at)), samples)
        if self.model.config.mixture_components:
            starts, steps = _Starts(users, histories.length[users]), int(at.max())
            # The same draws for everybody: no user's spread depends on the others.
            source = torch.Generator().manual_seed(seed)
            uniform = torch.rand(samples, steps, 1, generator=source)
            normal = torch.randn(samples, steps, 2, generator=source)
            noise = torch.cat([uniform, normal], dim=-1)
            target, counted = predicted[users], np.ones((len(users), at.shape[1]), bool)
        else:
            days = np.tile(np.arange(1, samples + 1), len(at))
            length = histories.length[users] - days * self.tokenizer.slots_per_day
            users, length, noise = users[length > 0], length[length > 0], None
            starts = _Starts(users, length)
            slot = length[:, None] + at[users] - 1
            counted = slot < histories.length[users, None]
            slot = np.where(counted, slot, 0)
            counted &= histories.observed[users[:, None], slot]
            target = histories.coordinates[users[:, None], slot]
        if not counted.any():
            return np.full(at.shape, np.nan)
        steps = int(at[users].max())
        made = self._roll_outs(histories, starts, steps, size, noise=noise, progress=progress)
        deviation = (np.take_along_axis(made, at[users][..., None] - 1, axis=1) - target).astype(np.float64)
        square = np.square(deviation * self.tokenizer.metres_per_unit() / 1000).sum(-1)
        total, number = np.zeros(at.shape), np.zeros(at.shape)
        np.add.at(total, users, np.where(counted, square, 0.0))
        np.add.at(number, users, counted)
        return np.sqrt(np.divide(total, number, out=np.full(at.shape, np.nan), where=number > 0))


@dataclass(frozen=True)
class _Histories:
    """Users' last windows: users (U,), sorted; coordinates (U, W, 2) float32 box units and observed (U, W) bool, of
    which the first length (U,) int64 slots are known; midnight (U,) int64 local civil seconds of slot 0; last_record
    (U,) int64 epoch seconds.
    """

    users: np.ndarray
    coordinates: np.ndarray
    observed: np.ndarray
    length: np.ndarray
    midnight: np.ndarray
    last_record: np.ndarray


@dataclass(frozen=True)
class _Starts:
    """Where roll-outs begin: behind the first `length` (S,) slots of the history of `user` (S,)."""

    user: np.ndarray
    length: np.ndarray


class _Draw:
    """Draws the next points from a model's mixture by given random numbers (B, steps, 3): one of 0..1 for the
    component, two standard normal ones for the point. Called once a step."""

    def __init__(self, model: Any, noise: torch.Tensor) -> None:
        self.model, self.noise = model, iter(noise.unbind(1))

    def __call__(self, hidden: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        uniform, *normal = next(self.noise).unsqueeze(1).unbind(-1)  # (B, 1) each
        mixture = self.model._predict(hidden, points)[1]
        above = uniform.unsqueeze(-1) > mixture.log_weights.exp().cumsum(-1)  # (B, 1, k)
        chosen = above.sum(-1, keepdim=True).clamp(max=above.shape[-1] - 1)
        pair = chosen.unsqueeze(-1).expand(*chosen.shape, 2)
        mean, scale = (values.gather(-2, pair).squeeze(-2) for values in (mixture.means, mixture.scales))
        slope = mixture.correlations.gather(-1, chosen).squeeze(-1)
        step = torch.stack([normal[0], slope * normal[0] + (1 - slope**2).sqrt() * normal[1]], dim=-1)
        return mean + scale * step


def _per_user(extreme: Any, values: np.ndarray, user: np.ndarray) -> np.ndarray:
    """(U,) the least or greatest value of each user; the rows are sorted by user."""
    return extreme.reduceat(values, np.flatnonzero(np.diff(user, prepend=-1)))
