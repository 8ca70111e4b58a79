"""Users and regions as vectors: a frame of points in, a frame of embeddings out (RAW, "Regions are Who Walk Them").

A region is made of the users who were there, so its vector can tell who they are. Regions with few visitors are left
out of what is returned, and regions that overlap are refused. This is no proof of privacy: the vectors of two regions
that nearly the same users visit can be subtracted. Users' vectors are personal data: keep them as you keep their
points.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.regions import Visitors, count_visitors
from ..modeling.configuration_raw import DAY_PARTS, USER_POOLINGS
from ..modeling.layers import finite
from ..modeling.modeling_raw import RawModel
from ..modeling.regions_raw import pool_visitors, visitor_matrix
from ..modeling.users_raw import pool_users
from ..tokenization.errors import DataError
from ..tokenization.tokenization_raw import RawSeries, RawTokenizer
from .base import MobilityPipeline, read_records
from .region_vectors import check_apart, pool_slots, region_table, slots_in_regions, with_columns

POOLINGS = ("sum", "mean", "log", "slots")
READ = ("user_id", "time", "lat", "lon", "duration")


class MobilityEmbeddingPipeline(MobilityPipeline):
    """Embed users and regions.

    Args:
        model: a `RawModel`, or a model around one (its encoder is used).
        tokenizer: the city.
        batch_size: windows that the model reads at one time (64).

    Raises:
        DataError: if the tokenizer's windows are longer than the model's, or its slots of another length.
    """

    model_class, tokenizer_class, verb = RawModel, RawTokenizer, "embed_users"
    default_batch_size = 64

    def __init__(self, model: Any, tokenizer: RawTokenizer, *, batch_size: int | None = None) -> None:
        super().__init__(getattr(model, "model", model), tokenizer, batch_size=batch_size)

    def _check_city(self) -> None:
        check_slots(self.model.config, self.tokenizer)

    def embed_users(
        self,
        points: Any,
        *,
        user_pooling: str | None = None,
        start: Any = None,
        end: Any = None,
        outside: str = "keep",
        fill: str | None = None,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **columns: str,
    ) -> pd.DataFrame:
        """One vector per user.

        A user with several windows gets their mean, each weighted by its number of slots; with `user_pooling="mean"`
        that is the mean over all slots. Windows of one user can only be averaged where they begin at the same kind of
        day for everybody: windows of whole weeks, or one window.

        Args:
            points: points or visits (stays with a `duration`): anything that `validate_visits` takes, also naive times
                with `timezone`. Row order leaves no trace.
            user_pooling: in place of the model's: `mean`, `last`, `last_day` or `day_parts` (the means over night,
                morning, afternoon and evening side by side, 4 D columns).
            start, end: first day, and first day no longer wanted, of everybody's windows; see
                `RawTokenizer.encode_points`, also for `outside` and `fill`.
            timezone: IANA name for naive times.
            batch_size: windows at one time; the pipeline's by default.
            progress: show a bar on stderr.
            columns: other column names, as in `lat="y"`.

        Returns:
            `user_id`, `e0` .. `e<D-1>` (float32), ascending by user. `attrs["windows"]` is their number,
            `attrs["points_outside"]` that of points outside the city's box.

        Raises:
            DataError: for faults in the frame, points that lie elsewhere, an unknown pooling, or a batch size below 1.

        Example:
            >>> pipe = MobilityEmbeddingPipeline.from_pretrained("checkpoints/raw-released-small")
            >>> pipe.embed_users(points, start="2024-01-01", end="2024-01-08")
        """
        if user_pooling not in (None, *USER_POOLINGS):
            raise DataError(f"user_pooling must be one of {USER_POOLINGS}, not {user_pooling!r}.")
        slots = self.model.config.slots_per_day
        if user_pooling == "day_parts" and slots % DAY_PARTS:
            raise DataError(f"user_pooling='day_parts' needs days of slots in fours, not of {slots}.")
        self._checked_size(batch_size)
        frame = read_records(points, timezone=timezone, columns=columns, names=READ)
        encoding = {"start": start, "end": end, "outside": outside, "fill": fill}
        return self._embed(frame, user_pooling=user_pooling, batch_size=batch_size, progress=progress, **encoding)

    def _embed(
        self,
        frame: pd.DataFrame,
        *,
        user_pooling: str | None = None,
        batch_size: int | None,
        progress: bool,
        **encoding: Any,
    ) -> pd.DataFrame:
        """`embed_users` of a checked frame."""
        series = self.tokenizer.encode_points(frame, **encoding)
        slices = self._slices(len(series), batch_size, unit="windows", progress=progress)
        parts = [self._encode(series.part(rows), user_pooling) for rows in slices]
        users, row = np.unique(series.user_index, return_inverse=True)
        slots = np.diff(series.offsets).astype(np.float64)
        weight = slots / np.bincount(row, slots)[row]
        table = torch.zeros(len(users), parts[0].shape[1], dtype=torch.float64)
        weighted = finite(torch.cat(parts), self.model).double() * torch.from_numpy(weight)[:, None]
        table.index_add_(0, torch.from_numpy(row), weighted)
        embeddings = with_columns({"user_id": series.users[users]}, table.float().numpy())
        embeddings.attrs = {"windows": len(series), "points_outside": series.num_outside}
        return embeddings

    def embed_regions(
        self,
        points: Any,
        regions: Any,
        *,
        pooling: str = "sum",
        min_visits: int = 1,
        min_users: int = 5,
        user_embeddings: pd.DataFrame | None = None,
        timezone: Any = None,
        batch_size: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> pd.DataFrame:
        """One vector per region, of the distinct users who have a point in it.

        Args:
            points: as in `embed_users`; None where `regions` and `user_embeddings` say everything.
            regions: see `hf_mobility.data.regions.visitors`: a `SquareGrid`, `H3Cells`, `Discs`, `Polygons`, GeoJSON or
                its path, a list of shapely areas; or what `visitors` returned, found once for several poolings.
            pooling: `sum` of the users' vectors (the paper; it grows with their number), their `mean`, or `log` =
                the mean and a last column `log1p_users`. `slots` leaves the users' vectors aside: the states of the
                recorded slots that were spent in the region are added up, and the signed logarithm is taken.
            min_visits: users with fewer points (`slots`: recorded slots) in the region do not count.
            min_users: regions with fewer users are left out: their vectors tell who was there. Regions that overlap
                are refused, because the difference of two vectors is that of the few users in one of them only. Such
                a difference is no less telling where two regions apart have nearly the same users, or between two
                calls: publish one set of regions, and none if they have most users in common. 1 keeps all visited
                regions and allows overlaps; choose that only for data of users who agreed, or simulated ones.
            user_embeddings: what `embed_users` returned, made once for many regions; never changed. It may hold more
                users than the points.
            timezone, batch_size, progress: as in `embed_users`.
            options: column names; `start`, `end`, `outside` and `fill` of `embed_users`, where the embeddings are made
                here.

        Returns:
            `region_id`, `users` (int64), `e0` .. `e<D-1>` (float32), in the order of the regions.
            `attrs["left_out"]` = {"min_users", "regions" (visited, but by too few people), "unvisited", "reason"}.

        Raises:
            DataError: for faults in points, regions or options; where regions overlap and `min_users` is not 1; where
                users in a region have no embedding, or every region would be left out.

        Example:
            >>> pipe.embed_regions(points, SquareGrid.around(points["lat"], points["lon"], cell_km=1))
        """
        if pooling not in POOLINGS:
            raise DataError(f"pooling must be one of {POOLINGS}, not {pooling!r}.")
        if min_users < 1:
            raise DataError(f"min_users must be at least 1, not {min_users}.")
        self._checked_size(batch_size)
        encoding = {name: options.pop(name) for name in ("start", "end", "outside", "fill") if name in options}
        if encoding and user_embeddings is not None:
            raise DataError(f"{sorted(encoding)} are options of embed_users, but user_embeddings are given.")
        if points is not None:
            points = read_records(points, timezone=timezone, columns=options, names=READ)
        elif not isinstance(regions, Visitors) or user_embeddings is None:
            raise DataError("points are missing; they may be None where both Visitors and user_embeddings are given.")
        if pooling == "slots":
            if user_embeddings is not None:
                raise DataError("pooling='slots' pools states of slots, not users: leave user_embeddings out.")
            return self._embed_slots(
                points, regions, min_visits, min_users, batch_size=batch_size, progress=progress, **encoding
            )
        if isinstance(regions, Visitors):
            there = _at_least(regions, min_visits)
        else:
            there = count_visitors(points, regions, min_visits=min_visits)
        check_apart(there, min_users)
        if user_embeddings is None:
            user_embeddings = self._embed(points, batch_size=batch_size, progress=progress, **encoding)
        matrix = _matrix_of(user_embeddings)
        row = pd.Index(user_embeddings["user_id"]).get_indexer(pd.Index(there.users))
        unknown = np.unique(there.user[row[there.user] < 0])
        if len(unknown):
            raise DataError(
                f"{len(unknown)} of {len(there.users)} users of the points have no embedding (first: "
                f"{there.users[unknown][:5].tolist()}); embed the same points, or leave these users out."
            )
        pairs = np.stack([there.region, row[there.user]], axis=1)
        sparse = visitor_matrix(
            torch.from_numpy(pairs), num_regions=len(there.region_ids), num_users=len(matrix), min_visits=1
        )
        pooled, counts = pool_visitors(sparse, torch.from_numpy(matrix), pooling=pooling)
        values = pooled.numpy()
        table = region_table(there, counts.numpy(), values[:, : matrix.shape[1]], min_users=min_users)
        if pooling == "log":
            table["log1p_users"] = np.log1p(table["users"].to_numpy(np.float32))
        return table

    def _embed_slots(
        self,
        points: pd.DataFrame,
        regions: Any,
        min_visits: int,
        min_users: int,
        *,
        batch_size: int | None,
        progress: bool,
        **encoding: Any,
    ) -> pd.DataFrame:
        """`embed_regions` of a checked frame with the pooling `slots`."""
        areas = regions.regions if isinstance(regions, Visitors) else regions
        series = self.tokenizer.encode_points(points, **encoding)
        there, slot, region = slots_in_regions(series, self.tokenizer, areas, min_visits=min_visits)
        check_apart(there, min_users)
        slices = self._slices(len(series), batch_size, unit="windows", progress=progress)
        number = len(there.region_ids)
        values = pool_slots(series, slot, region, num_regions=number, slices=slices, states_of=self._states)
        users = np.bincount(there.region, minlength=number)
        return region_table(there, users, values, min_users=min_users)

    def _states(self, series: RawSeries) -> torch.Tensor:
        """(slots, D) float32 on the CPU, the slots of all rows one after the other."""
        output, batch = self._read(series)
        return finite(output.last_hidden_state[batch["attention_mask"].bool()].float().cpu(), self.model)

    def _encode(self, series: RawSeries, user_pooling: str | None) -> torch.Tensor:
        """(rows, D) float32 on the CPU."""
        output, batch = self._read(series)
        if user_pooling is None:
            return output.user_embedding.float().cpu()
        read = output.last_hidden_state, batch["attention_mask"], batch["position_ids"]
        slots = self.model.config.slots_per_day
        return pool_users(*read, pooling=user_pooling, slots_per_day=slots).float().cpu()

    @torch.inference_mode()
    def _read(self, series: RawSeries) -> tuple[Any, Any]:
        """What the model says of the rows, and the batch of their T slots at most."""
        batch = self.tokenizer.to_batch(series, padding=True, return_tensors="pt").to(self.device)
        return self.model(**batch, use_cache=False), batch


def check_slots(config: Any, tokenizer: RawTokenizer) -> None:
    """Raises a `DataError` where the city's windows and slots are not those of a RAW model."""
    if tokenizer.model_max_length > config.max_position_embeddings:
        raise DataError(
            f"The city's windows have {tokenizer.model_max_length} slots, the model knows "
            f"{config.max_position_embeddings}; they must not be longer."
        )
    if tokenizer.slots_per_day != config.slots_per_day:
        raise DataError(
            f"The city's days have {tokenizer.slots_per_day} slots, the model's {config.slots_per_day}; they must be "
            "the same."
        )


def _at_least(there: Visitors, min_visits: int) -> Visitors:
    if min_visits < 1:
        raise DataError(f"min_visits must be at least 1, not {min_visits}.")
    kept = there.count >= min_visits
    return replace(there, region=there.region[kept], user=there.user[kept], count=there.count[kept])


def _matrix_of(embeddings: pd.DataFrame) -> np.ndarray:
    """(U, D) float32 copy of the columns `e0`, `e1`, ..."""
    names = [name for name in embeddings.columns if str(name).startswith("e") and str(name)[1:].isdigit()]
    if "user_id" not in embeddings or names != [f"e{i}" for i in range(len(names))] or not names:
        raise DataError("user_embeddings must have the columns user_id, e0, e1, ...: pass what embed_users returned.")
    twice = embeddings["user_id"].duplicated()
    if twice.any():
        first = embeddings["user_id"][twice].tolist()[:5]
        raise DataError(f"user_embeddings hold {int(twice.sum())} users twice (first: {first}); keep one row each.")
    return embeddings[names].to_numpy(dtype=np.float32, copy=True)
