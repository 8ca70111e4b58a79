"""Future positions by RAW's `extended` variant: every time ahead is asked for by itself, in any city."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.record_contexts import RecordHistories
from ..modeling.layers import finite
from ..modeling.modeling_raw_extended import RawExtendedForTrajectoryPrediction
from ..tokenization.clock import to_local
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawTokenizer
from .base import MobilityPipeline, read_records
from .embedding import READ
from .horizons import slots_of

RESULT_COLUMNS = ["user_id", "time", "horizon", "lat", "lon", "spread_km", "radius50_km", "radius90_km", "stay"]
STAY_KM = 0.5
SHARES = (0.5, 0.9)
DRAWS = 200


class DirectPredictionPipeline(MobilityPipeline):
    """Predict where users will be, with `RawExtendedForTrajectoryPrediction`.

    `TrajectoryPredictionPipeline.from_pretrained` makes one of a folder that holds such a model.

    Args:
        model: a `RawExtendedForTrajectoryPrediction`.
        tokenizer: of it only the time zone and the length of a slot are used; points may lie anywhere.
        batch_size: users that the model reads at one time (128).

    Raises:
        DataError: if the tokenizer's slots are not the model's.
    """

    model_class, tokenizer_class, verb = RawExtendedForTrajectoryPrediction, RawTokenizer, "predict"
    default_batch_size = 128

    def _check_city(self) -> None:
        if self.tokenizer.slots_per_day != self.model.config.slots_per_day:
            raise DataError(
                f"The city's days have {self.tokenizer.slots_per_day} slots, the model's "
                f"{self.model.config.slots_per_day}; they must be the same."
            )

    def predict(
        self,
        points: Any,
        *,
        horizon: Any = "2h",
        seed: int = 0,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """Positions of every user after their last record, which is the end of their last stay where durations are
        known. A user's rows depend on nobody else's records.

        Args:
            points: points or visits (stays with a `duration`), as `MobilityEmbeddingPipeline.embed_users` takes them;
                four weeks of a user are enough, and more does no harm.
            horizon: as in `TrajectoryPredictionPipeline.predict`; up to a day ahead was trained.
            seed: of the draws behind the radii.
            timezone: IANA name for naive times.
            batch_size: users at one time; the pipeline's by default.
            progress: show a bar on stderr.
            columns: other column names, as in `user_id="uid"`.

        Returns:
            `user_id`; `time` (datetime64[us, UTC]), the beginning of the slot; `horizon` (float64 hours after the slot
            of the last record); `lat`, `lon` (float64 degrees), the point with the least mean distance.

            `radius50_km`, `radius90_km`: half and nine tenths of the probability lie so near that point; `spread_km`:
            the mean distance from it. `stay`: the weight of what lies within 0.5 km of the last record. Sorted by user
            and horizon.

        Raises:
            DataError: for faults in the frame, or a horizon that is no whole number of slots.

        Example:
            >>> pipe = TrajectoryPredictionPipeline.from_pretrained("checkpoints/raw-small")
            >>> pipe.predict(points, horizon=[0.5, 2, 6])
        """
        answers = self._answers(points, horizon, DRAWS, seed, timezone, batch_size, progress, columns)
        lat, lon = answers.histories.degrees(answers.points)
        distance = np.linalg.norm(answers.samples - answers.points, axis=-1)
        radii = np.quantile(distance, SHARES, axis=0)
        table = answers.keys()
        table |= {"lat": lat.reshape(-1), "lon": lon.reshape(-1), "spread_km": distance.mean(axis=0).reshape(-1)}
        table |= {"radius50_km": radii[0].reshape(-1), "radius90_km": radii[1].reshape(-1)}
        table["stay"] = answers.stay.reshape(-1)
        return pd.DataFrame(table)[RESULT_COLUMNS]

    def sample(
        self,
        points: Any,
        samples: int,
        *,
        horizon: Any = "2h",
        seed: int = 0,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """Positions that are drawn for every user and time ahead; times are drawn apart from one another, so that the
        rows of one sample are no path.

        Args:
            samples: how many.
            others: see `predict`.

        Returns:
            `user_id`, `time`, `horizon`, `sample` (int64), `lat`, `lon`, sorted by user, horizon and sample.
        """
        if samples < 1:
            raise DataError(f"samples must be at least 1, not {samples}.")
        answers = self._answers(points, horizon, samples, seed, timezone, batch_size, progress, columns)
        drawn = np.moveaxis(answers.samples, 0, 2)  # (U, H, S, 2)
        lat, lon = answers.histories.degrees(drawn)
        table = {name: np.repeat(values, samples) for name, values in answers.keys().items()}
        number = np.tile(np.arange(samples), len(table["user_id"]) // samples)
        return pd.DataFrame({**table, "sample": number, "lat": lat.reshape(-1), "lon": lon.reshape(-1)})

    @torch.no_grad()
    def _answers(
        self,
        points: Any,
        horizon: Any,
        samples: int,
        seed: int,
        timezone: Any,
        batch_size: int | None,
        progress: bool,
        columns: dict[str, str],
    ) -> _Answers:
        ahead = slots_of(horizon, self.tokenizer.interval_minutes)
        frame = read_records(points, timezone=timezone, columns=columns, names=READ)
        zone, seconds = self.tokenizer.timezone, 60 * self.tokenizer.interval_minutes
        histories = RecordHistories.of_points(frame, timezone=zone, interval_minutes=self.tokenizer.interval_minutes)
        start = histories.last - to_local(histories.last, zone) % seconds
        times = start[:, None] + ahead * seconds
        now = histories.slots[histories.offsets[1:] - 1][:, None]
        asked = torch.from_numpy(np.maximum(to_local(times, zone) // seconds, now + 1))
        made, drawn, stays = [], [], []
        for part in self._slices(len(times), batch_size, unit="users", progress=progress):
            given = histories.before(histories.offsets[1:][part] - 1, self.model.config.context_records)
            given = {name: values.to(self.device) for name, values in given.items()}
            answer = self.model(**given, target_slots=asked[part].to(self.device))
            found = answer.destinations
            made.append(finite(answer.predictions, self.model).cpu().numpy())
            drawn.append(self.model.draw(found, samples, seed).cpu().numpy())
            apart = torch.linalg.vector_norm(found.centres - given["positions"][:, None, -1:], dim=-1)
            stays.append((found.log_weights.exp() * (apart <= STAY_KM)).sum(-1).cpu().numpy())
        parts = (np.concatenate(made), np.concatenate(drawn, axis=1), np.concatenate(stays))
        return _Answers(histories, times, ahead * seconds / 3600, *parts)


class _Answers:
    """What the model said: histories of U users; times (U, H) epoch seconds; hours (H,); points (U, H, 2), samples
    (S, U, H, 2) km in the users' frames; stay (U, H) probabilities."""

    def __init__(
        self, histories: RecordHistories, times: Any, hours: Any, points: Any, samples: Any, stay: Any
    ) -> None:
        self.histories, self.times, self.hours = histories, times, hours
        self.points, self.samples, self.stay = points, samples, stay

    def keys(self) -> dict[str, Any]:
        """The first three columns."""
        return {
            "user_id": np.repeat(self.histories.users, len(self.hours)),
            "time": pd.to_datetime(self.times.reshape(-1), unit="s", utc=True).astype("datetime64[us, UTC]"),
            "horizon": np.tile(self.hours, len(self.times)),
        }
