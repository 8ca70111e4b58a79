"""Probes of embeddings: linear readers and an MLP, trained on some users or regions and evaluated on others.

Splits are by user, and for regions by blocks of several kilometres, because neighbouring regions share visitors. Every
set of features gets the same splits, readers and search for the ridge strength, so rows of a table can be compared.
Everything is repeated with several seeds and reported with its standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.splits import Split, deal_groups, hold_out_users
from ..tokenization.errors import DataError
from ..tokenization.grid import to_km
from .probe_models import fit_linear, fit_mlp, standardizer

READERS = {"linear": fit_linear, "mlp": fit_mlp}
CLASSIFICATION, REGRESSION = ("accuracy", "f1", "auc"), ("mae", "rmse", "pcc", "r2")


@dataclass(frozen=True, eq=False)
class _Problem:
    labels: np.ndarray
    groups: np.ndarray
    binary: bool


def probe_users(
    features: Mapping[str, Any],
    labels: Any,
    *,
    users: Any = None,
    readers: Sequence[str] = ("linear", "mlp"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    test_share: float = 0.3,
) -> pd.DataFrame:
    """Read labels of people from features; a random `test_share` of the people is held out, another one per seed.

    Args:
        features: name -> (N, any) array or frame of numbers, one row per person (or per window of one).
        labels: (N,) bool or 0/1 for a classification, or floats for a regression. NaN rows are left out.
        users: (N,) whose row it is, where people have several: a person is on one side. By default rows are people.
        readers: "linear" (ridge or logistic regression) and "mlp" (D -> 256 -> 1).
        seeds: of splits and readers.

    Returns:
        One row per features and reader: `features`, `reader`, `width`, `n`, and for each metric its mean over the seeds
        and `<metric>_sd` (sample standard deviation): `accuracy`, `f1` (of class 1), `auc`, or `mae`, `rmse`, `pcc`,
        `r2`.

    Raises:
        DataError: columns that do not fit, labels of one value only, or options that make no sense.
    """
    if not 0 < test_share < 1:
        raise DataError(f"test_share must lie between 0 and 1, not {test_share}.")
    matrices, problem, _ = _checked(features, labels, users)

    def splits(seed: int) -> list[Split]:
        return [hold_out_users(problem.groups, test_share=test_share, seed=seed)]

    return _table(matrices, problem, readers, seeds, splits)


def probe_regions(
    features: Mapping[str, Any],
    labels: Any,
    lat: Any,
    lon: Any,
    *,
    readers: Sequence[str] = ("linear", "mlp"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    block_km: float = 5.0,
    folds: int = 5,
) -> pd.DataFrame:
    """Read labels of regions from features, each region predicted while its whole block is held out.

    Args:
        features, labels, readers, seeds: as in `probe_users`, one row per region.
        lat, lon: (N,) degrees, middles of the regions.
        block_km: side of the blocks. folds: parts that the blocks are dealt into, anew for each seed.

    Returns:
        As `probe_users`; a seed's metrics are over all regions, each predicted once.
    """
    matrices, problem, kept = _checked(features, labels, None)
    lat, lon = (np.asarray(values, np.float64) for values in (lat, lon))
    if lat.shape != kept.shape or lon.shape != kept.shape:
        raise DataError(f"lat and lon must have one value per region, got {lat.shape} and {lon.shape}.")
    blocks = spatial_blocks(lat, lon, block_km=block_km)[kept]
    problem = _Problem(problem.labels, blocks, problem.binary)

    def splits(seed: int) -> Iterator[Split]:
        fold = deal_groups(blocks, folds=folds, seed=seed)
        return ((np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds))

    return _table(matrices, problem, readers, seeds, splits)


def spatial_blocks(lat: Any, lon: Any, *, block_km: float = 5.0) -> np.ndarray:
    """int64 (N,): the square block of each place, 0..number of blocks that hold one - 1."""
    if not block_km > 0:
        raise DataError(f"block_km must be positive, not {block_km}.")
    lat, lon = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    east, north = to_km(lat, lon, origin=(float(lat.mean()), float(lon.flat[0])))
    column = np.floor((east - east.min()) / block_km).astype(np.int64)
    row = np.floor((north - north.min()) / block_km).astype(np.int64)
    return np.unique(row * (column.max() + 1) + column, return_inverse=True)[1].reshape(-1)


def classification_metrics(labels: Any, scores: Any) -> dict[str, float]:
    """Accuracy and F1 at the threshold 0.5, and the area under the ROC curve (ties count half); NaN without both
    classes."""
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    guess = scores > 0.5
    auc = roc_auc_score(labels, scores) if labels.any() and not labels.all() else np.nan
    f1 = f1_score(labels, guess, zero_division=np.nan)
    return {"accuracy": float(accuracy_score(labels, guess)), "f1": float(f1), "auc": float(auc)}


def regression_metrics(labels: Any, predicted: Any) -> dict[str, float]:
    """MAE, RMSE, Pearson correlation (NaN where either does not vary) and R2 against the mean of `labels`."""
    labels, predicted = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    error = predicted - labels
    vary = len(labels) > 1 and np.ptp(labels) > 0
    pcc = np.corrcoef(labels, predicted)[0, 1] if vary and np.ptp(predicted) > 0 else np.nan
    r2 = 1 - np.square(error).sum() / np.square(labels - labels.mean()).sum() if vary else np.nan
    rmse = np.sqrt(np.square(error).mean())
    return {"mae": float(np.abs(error).mean()), "rmse": float(rmse), "pcc": float(pcc), "r2": float(r2)}


# Steps


def _checked(
    features: Mapping[str, Any], labels: Any, users: Any
) -> tuple[dict[str, np.ndarray], _Problem, np.ndarray]:
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(f"labels must be numbers (N,), got {values.dtype} of shape {values.shape}.")
    kept: np.ndarray = np.isfinite(values.astype(np.float64))
    values = values[kept].astype(np.float64)
    if len(np.unique(values)) < 2:
        raise DataError(f"All {len(values)} labels are the same; there is nothing to tell apart.")
    binary = bool(np.isin(values, (0, 1)).all())
    groups = np.arange(len(kept)) if users is None else np.asarray(users)
    if groups.shape != kept.shape:
        raise DataError(f"users has shape {groups.shape}; labels have {kept.shape}.")
    matrices = {}
    for name, given in features.items():
        matrix = np.asarray(given, dtype=np.float64)
        if matrix.ndim != 2 or len(matrix) != len(kept):
            raise DataError(f"Features {name!r} have shape {matrix.shape}; {len(kept)} rows of numbers are needed.")
        bad = np.asarray(~np.isfinite(matrix).all(axis=1))
        if bad.any():
            raise DataError(
                f"Features {name!r}: {int(bad.sum())} of {len(bad)} rows are not finite (first rows "
                f"{np.flatnonzero(bad)[:5].tolist()})."
            )
        matrices[name] = matrix[kept]
    if not matrices:
        raise DataError("There are no features to compare.")
    return matrices, _Problem(values, groups[kept], binary), kept


def _table(
    matrices: dict[str, np.ndarray],
    problem: _Problem,
    readers: Sequence[str],
    seeds: Sequence[int],
    splits: Callable[[int], Any],
) -> pd.DataFrame:
    strange = [reader for reader in readers if reader not in READERS]
    if strange or not readers or not seeds:
        raise DataError(f"readers are {sorted(READERS)} and seeds at least one, got {list(readers)} and {list(seeds)}.")
    metrics = classification_metrics if problem.binary else regression_metrics
    table = []
    for name, matrix in matrices.items():
        for reader in readers:
            found = []
            for seed in seeds:
                rows, scores = _held_out_scores(matrix, problem, reader, seed, splits(seed))
                found.append(metrics(problem.labels[rows], scores))
            row: dict[str, Any] = {"features": name, "reader": reader, "width": matrix.shape[1], "n": len(matrix)}
            for metric in CLASSIFICATION if problem.binary else REGRESSION:
                values = np.array([one[metric] for one in found])
                row[metric] = values.mean()
                row[f"{metric}_sd"] = values.std(ddof=1) if len(values) > 1 else np.nan
            table.append(row)
    return pd.DataFrame(table)


def _held_out_scores(
    matrix: np.ndarray, problem: _Problem, reader: str, seed: int, splits: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that were held out once each, and their scores."""
    rows, scores = [], []
    for train, test in splits:
        mean, scale = standardizer(matrix[train])
        x = (matrix - mean) / scale
        score = READERS[reader](
            x[train], problem.labels[train], groups=problem.groups[train], binary=problem.binary, seed=seed
        )
        rows.append(test)
        scores.append(score(x[test]))
    return np.concatenate(rows), np.concatenate(scores)


__all__ = [
    "classification_metrics",
    "probe_regions",
    "probe_users",
    "regression_metrics",
    "spatial_blocks",
]
