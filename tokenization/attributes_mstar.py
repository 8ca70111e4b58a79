"""The movement attribute of a week: which of a few typical patterns of returns it is nearest to (M-STAR, spec 3).

A week is relabelled by the order in which its cells are first visited (home 0, office 1, ...), so that the attribute
says how somebody moves and not where. Weeks are compared by Levenshtein distance over the relabelled hours; classes
are k-medoids of training weeks. An unknown hour has a symbol of its own: it counts as one edit against any known hour
and keeps the hours after it in their place.

Unusual: a relabelled week is handed to rapidfuzz as a string, one character per hour, which keeps all loops in C.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 8_192  # weeks at one time
MAX_CLASSES = 16  # tried when the number of classes is to be chosen


def first_positions(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N, L) int64: in which hour each hour's cell stood first in that week."""
    hours = np.arange(cells.shape[1])
    order = np.argsort(cells, axis=1, kind="stable")
    ordered = np.take_along_axis(cells, order, axis=1)
    starts = np.concatenate([np.ones((len(cells), 1), bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    run = np.maximum.accumulate(np.where(starts, hours, 0), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, run, axis=1), axis=1)
    return first


def relabel(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N, L) int16: 0 for the first cell of the week, 1 for the next new one, ...; -1 stays unknown."""
    labels = np.empty(cells.shape, np.int16)
    for rows in blocks(len(cells)):
        first = first_positions(cells[rows])
        known = cells[rows] >= 0
        new = (first == np.arange(cells.shape[1])) & known
        rank = np.cumsum(new, axis=1) - 1
        labels[rows] = np.where(known, np.take_along_axis(rank, first, axis=1), -1)
    return labels


def distinct_cells(cells: np.ndarray) -> np.ndarray:
    """(N, L) cells -> (N,) int64: how many different cells the known hours hold."""
    return relabel(cells).max(axis=1, initial=-1).astype(np.int64) + 1


def edit_distances(first: np.ndarray, second: np.ndarray | None = None, *, workers: int = 1) -> np.ndarray:
    """Levenshtein distances of relabelled weeks, (N, L), (M, L) -> (N, M) int32; of `first` to itself without `second`.

    Raises:
        ImportError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist
    except ImportError as error:
        raise ImportError("movement attributes need rapidfuzz: pip install rapidfuzz") from error
    texts = _as_text(first)
    others = texts if second is None else _as_text(second)
    return cdist(texts, others, scorer=Levenshtein.distance, dtype=np.int32, workers=workers)


def nearest_medoid(cells: np.ndarray, medoids: np.ndarray, *, workers: int = 1) -> np.ndarray:
    """(N, L) cells, (K, L) relabelled medoids -> (N,) int64 class; the first of equally near ones."""
    found = np.empty(len(cells), np.int64)
    for rows in blocks(len(cells)):
        labels, back = np.unique(relabel(cells[rows]), axis=0, return_inverse=True)
        found[rows] = edit_distances(labels, medoids, workers=workers).argmin(axis=1)[back.reshape(-1)]
    return found


def fit_medoids(
    cells: np.ndarray, *, num_attributes: int | None, sample: int, seed: int, workers: int = 1
) -> tuple[np.ndarray, float]:
    """K typical weeks of training weeks, and the mean medoid silhouette (-1..1) of the sample.

    Args:
        cells: (N, L) finest cells, -1 = unknown.
        num_attributes: K; `None` tries 2 to 16 and takes the one with the highest mean medoid silhouette (Lenssen and
            Schubert 2024).
        sample: weeks drawn without replacement; cost grows with its square (5,000 weeks: about a minute on one core).
        seed: of the draw and of the start of FasterPAM.

    Returns:
        (K, L) int16, relabelled, from the least to the most varied week; silhouette.

    Raises:
        ImportError: kmedoids or rapidfuzz is not installed.
        ValueError: fewer different patterns in the sample than classes.
    """
    try:
        import kmedoids  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "fitting movement attributes needs kmedoids (GPL-3): pip install kmedoids; or pass method='distinct_cells'."
        ) from error
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(cells), min(sample, len(cells)), replace=False))
    labels, back = np.unique(relabel(cells[rows]), axis=0, return_inverse=True)
    wanted = [num_attributes] if num_attributes is not None else list(range(2, min(MAX_CLASSES, len(labels)) + 1))
    if not wanted or wanted[-1] > len(labels):
        raise ValueError(
            f"{len(rows)} weeks hold only {len(labels)} different patterns of movement, too few for "
            f"{num_attributes or 2} classes: pass a smaller num_attributes or more weeks."
        )
    back = back.reshape(-1)
    between = edit_distances(labels, workers=workers)[np.ix_(back, back)]
    fits = []
    for classes in wanted:
        start = rng.choice(np.unique(back, return_index=True)[1], classes, replace=False).astype(np.uint64)
        medoids = kmedoids.fasterpam(between, start, n_cpu=1).medoids.astype(np.int64)
        silhouette = float(kmedoids.medoid_silhouette(between, medoids)[0]) if classes > 1 else 0.0
        fits.append((silhouette, medoids))
    silhouette, medoids = max(fits, key=lambda fit: fit[0])
    patterns = labels[back[medoids]]
    moves = (np.diff(patterns, axis=1) != 0).sum(axis=1)
    return np.ascontiguousarray(patterns[np.lexsort((moves, patterns.max(axis=1)))]), silhouette


def blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)


def _as_text(labels: np.ndarray) -> list[str]:
    """(N, L) labels from -1 -> N strings of L characters. Character 0 is left out: numpy cuts it off at ends."""
    codes = np.ascontiguousarray(labels.astype("<u4") + np.uint32(2))
    return codes.view(f"<U{labels.shape[1]}").reshape(-1).tolist() if len(codes) else []
