"""People and regions as vectors: a frame of points in, a frame of embeddings out (RAW, "Regions are Who Walk Them").

Unusual: a region is made of the people who were there, so its vector can tell who they are; regions with few visitors
are left out of what is returned. People's vectors are personal data as well: keep them as you keep their points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..data.frames import DataError, validate_visits
from ..data.regions import Visitors, visitors
from ..hub.loading import fetching, load_model
from ..hub.push import SavedWithCard, loading
from ..modeling.modeling_raw import RawModel
from ..modeling.regions_raw import pool_visitors, visitor_matrix
from ..tokenization.tokenization_raw import RawSeries, RawTokenizer

POOLINGS = ("sum", "mean", "log")
Progress = Callable[[int, int], Any]
_READ = ("user_id", "time", "lat", "lon", "duration")


class MobilityEmbeddingPipeline(SavedWithCard):
    """Embed people and regions.

    Args:
        model: a `RawModel`, or a model around one (its encoder is used).
        tokenizer: the city.
        batch_size: windows encoded at one time.
        bfloat16: autocast; the first matrix stays in float32, and so do sums. Results are float32 either way.

    Raises:
        DataError: if the tokenizer's windows are longer than the model's, or its slots of another length.
    """

    def __init__(self, model: Any, tokenizer: RawTokenizer, *, batch_size: int = 64, bfloat16: bool = False) -> None:
        self.model, self.tokenizer = getattr(model, "model", model).eval(), tokenizer
        self.batch_size, self.bfloat16 = batch_size, bfloat16
        config = self.model.config
        if tokenizer.model_max_length > config.max_position_embeddings:
            raise DataError(
                f"The city's windows have {tokenizer.model_max_length} slots, the model knows "
                f"{config.max_position_embeddings}; they must not be longer."
            )
        if tokenizer.slots_per_day != config.slots_per_day:
            raise DataError(
                f"The city's days have {tokenizer.slots_per_day} slots, the model's {config.slots_per_day}; they must "
                "be the same."
            )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, batch_size: int = 64, bfloat16: bool = False, **kwargs: Any
    ) -> MobilityEmbeddingPipeline:
        """Load the encoder and the city from one folder or Hub id; `kwargs` (`revision`, `token`, `dtype`, ...) go to
        the model's `from_pretrained`, those about the Hub to the tokenizer's too."""
        model = load_model(RawModel, name_or_path, reader=cls.__name__, kwargs=kwargs)
        with loading(name_or_path):
            tokenizer = RawTokenizer.from_pretrained(str(name_or_path), **fetching(kwargs))
        return cls(model, tokenizer, batch_size=batch_size, bfloat16=bfloat16)

    def embed_users(
        self,
        points: Any,
        *,
        batch_size: int | None = None,
        start: Any = None,
        end: Any = None,
        outside: str = "keep",
        fill: str | None = None,
        timezone: str | None = None,
        progress: Progress | None = None,
        **columns: str,
    ) -> pd.DataFrame:
        """One vector per person.

        A person with several windows gets their mean, each weighted by its number of slots; with the model's default
        `user_pooling="mean"` that is the mean over all slots. Windows of one person can only be averaged where they
        begin at the same kind of day for everybody: windows of whole weeks, or one window.

        Args:
            points: points or visits (stays with a `duration`): anything that `validate_visits` takes, also naive times
                with `timezone`; other column names by keyword, as in `lat="y"`. Row order leaves no trace.
            batch_size: windows at one time; the pipeline's by default.
            start, end: first day, and first day no longer wanted, of everybody's windows; see
                `RawTokenizer.encode_points`, also for `outside` and `fill`.
            progress: called with (windows done, windows) after every batch.

        Returns:
            `user_id`, `e0` .. `e<D-1>` (float32), ascending by person. `attrs["windows"]` is their number,
            `attrs["points_outside"]` that of points outside the city's box.

        Raises:
            DataError: for faults in the frame, points that lie elsewhere, or a batch size below 1.
        """
        frame = _points(points, timezone, columns)
        with _as_data_errors():
            series = self.tokenizer.encode_points(frame, start=start, end=end, outside=outside, fill=fill)
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise DataError(f"batch_size must be at least 1, not {size}.")
        parts = []
        for first in range(0, len(series), size):
            parts.append(self._encode(_rows(series, first, min(first + size, len(series)))))
            if progress is not None:
                progress(min(first + size, len(series)), len(series))
        users, row = np.unique(series.user_index, return_inverse=True)
        slots = np.diff(series.offsets).astype(np.float64)
        weight = slots / np.bincount(row, slots)[row]
        table = torch.zeros(len(users), parts[0].shape[1], dtype=torch.float64)
        weighted = torch.cat(parts).double() * torch.from_numpy(weight)[:, None]
        table.index_add_(0, torch.from_numpy(row), weighted)
        embeddings = _with_columns({"user_id": series.users[users]}, table.float().numpy())
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
        timezone: str | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """One vector per region, of the distinct people who have a point in it.

        Args:
            points: as in `embed_users`; None where `regions` and `user_embeddings` say everything.
            regions: see `hf_mobility.data.regions.visitors`: a `SquareGrid`, `H3Cells`, `Discs`, `Polygons`, GeoJSON or
                its path, a list of shapely areas; or what `visitors` returned, found once for several poolings.
            pooling: `sum` of the people's vectors (the paper; it grows with their number), their `mean`, or `log` =
                the mean and a last column `log1p_users`.
            min_visits: people with fewer points in the region do not count.
            min_users: regions with fewer people are left out: their vectors tell who was there. 1 keeps all visited
                regions; choose that only for data of people who agreed, or simulated ones.
            user_embeddings: what `embed_users` returned, made once for many regions; never changed. It may hold more
                people than the points.
            options: of `embed_users`, where the embeddings are made here; column names.

        Returns:
            `region_id`, `users` (int64), `e0` .. `e<D-1>` (float32), in the order of the regions.
            `attrs["left_out"]` = {"min_users", "regions" (visited, but by too few people), "unvisited", "reason"}.

        Raises:
            DataError: for faults in points, regions or options; where people in a region have no embedding, or every
                region would be left out.
        """
        if pooling not in POOLINGS:
            raise DataError(f"pooling must be one of {POOLINGS}, not {pooling!r}.")
        if min_users < 1:
            raise DataError(f"min_users must be at least 1, not {min_users}.")
        columns = {name: options.pop(name) for name in _READ if name in options}
        found = isinstance(regions, Visitors)
        if points is None and not (found and user_embeddings is not None):
            raise DataError("points are missing; they may be None where both Visitors and user_embeddings are given.")
        frame = None if points is None else _points(points, timezone, columns)
        there = _at_least(regions, min_visits) if found else visitors(frame, regions, min_visits=min_visits)
        if user_embeddings is None:
            user_embeddings = self.embed_users(frame, **options)
        elif options:
            raise DataError(f"{sorted(options)} are options of embed_users, but user_embeddings are given.")
        matrix = _matrix_of(user_embeddings)
        row = pd.Index(user_embeddings["user_id"]).get_indexer(pd.Index(there.users))
        unknown = np.unique(there.user[row[there.user] < 0])
        if len(unknown):
            raise DataError(
                f"{len(unknown)} of {len(there.users)} people of the points have no embedding (first: "
                f"{there.users[unknown][:5].tolist()}); embed the same points, or leave these people out."
            )
        pairs = np.stack([there.region, row[there.user]], axis=1)
        sparse = visitor_matrix(
            torch.from_numpy(pairs), num_regions=len(there.region_ids), num_users=len(matrix), min_visits=1
        )
        pooled, counts = pool_visitors(sparse, torch.from_numpy(matrix), pooling=pooling)
        users = counts.numpy().astype(np.int64)
        kept = np.flatnonzero(users >= min_users)
        if not len(kept):
            raise DataError(
                f"Every region has fewer than min_users={min_users} visitors (at most {users.max()}); take larger "
                "regions or more people."
            )
        values = pooled.numpy()[kept]
        columns_first = {"region_id": there.region_ids[kept], "users": users[kept]}
        table = _with_columns(columns_first, values[:, : matrix.shape[1]])
        if pooling == "log":
            table["log1p_users"] = values[:, -1]
        table.attrs["left_out"] = {
            "min_users": min_users,
            "regions": int(((users > 0) & (users < min_users)).sum()),
            "unvisited": int((users == 0).sum()),
            "reason": f"privacy: the vector of a region with fewer than {min_users} visitors tells who was there",
        }
        return table

    @torch.inference_mode()
    def _encode(self, series: RawSeries) -> torch.Tensor:
        """(rows, D) float32 on the CPU."""
        device = self.model.device
        batch = self.tokenizer.to_batch(series, padding=True, return_tensors="pt").to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext():
            return self.model(**batch, use_cache=False).user_embedding.float().cpu()


def _rows(series: RawSeries, first: int, stop: int) -> RawSeries:
    """Rows first..stop - 1, without copying."""
    begin, end = series.offsets[first], series.offsets[stop]
    return replace(
        series,
        coordinates=series.coordinates[begin:end],
        observed=series.observed[begin:end],
        offsets=series.offsets[first : stop + 1] - begin,
        user_index=series.user_index[first:stop],
        window_start=series.window_start[first:stop],
    )


def _points(points: Any, timezone: str | None, columns: dict[str, str]) -> pd.DataFrame:
    """Checked points or stays: what the encoder reads and nothing else of the frame."""
    strange = sorted(set(columns) - set(_READ))
    if strange:
        raise DataError(f"Unknown option(s) {strange}; columns are named by {', '.join(_READ)}.")
    frame = validate_visits(points, timezone=timezone, **columns)
    return frame[[name for name in _READ if name in frame]]


def _at_least(there: Visitors, min_visits: int) -> Visitors:
    if min_visits < 1:
        raise DataError(f"min_visits must be at least 1, not {min_visits}.")
    kept = there.count >= min_visits
    return replace(there, region=there.region[kept], user=there.user[kept], count=there.count[kept])


def _with_columns(first: dict[str, np.ndarray], values: np.ndarray) -> pd.DataFrame:
    names = [f"e{i}" for i in range(values.shape[1])]
    return pd.concat([pd.DataFrame(first), pd.DataFrame(values, columns=names)], axis=1)


def _matrix_of(embeddings: pd.DataFrame) -> np.ndarray:
    """(U, D) float32 copy of the columns `e0`, `e1`, ..."""
    names = [name for name in embeddings.columns if str(name).startswith("e") and str(name)[1:].isdigit()]
    if "user_id" not in embeddings or names != [f"e{i}" for i in range(len(names))] or not names:
        raise DataError("user_embeddings must have the columns user_id, e0, e1, ...: pass what embed_users returned.")
    twice = embeddings["user_id"].duplicated()
    if twice.any():
        first = embeddings["user_id"][twice].tolist()[:5]
        raise DataError(f"user_embeddings hold {int(twice.sum())} people twice (first: {first}); keep one row each.")
    return embeddings[names].to_numpy(dtype=np.float32, copy=True)


@contextmanager
def _as_data_errors() -> Iterator[None]:
    """The tokenizer works without this package and raises ValueError; here a fault of the data is a DataError."""
    try:
        yield
    except ValueError as error:
        raise DataError(str(error)) from error
