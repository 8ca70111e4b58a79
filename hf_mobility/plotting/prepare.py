"""The numbers behind the pictures: plain frames and arrays, to be checked or drawn elsewhere.

Nothing here draws, so neither matplotlib nor folium is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.errors import DataError
from ..tokenization.grid import SquareGrid


def visit_shares(frame: pd.DataFrame, grid: SquareGrid) -> np.ndarray:
    """Share of the frame's rows (with `lat`, `lon`) in each cell of the grid, float64 (len(grid),); rows outside it do
    not count.

    Raises:
        DataError: a column is missing, or no row lies inside the grid.
    """
    _need(frame, ("lat", "lon"), "The frame")
    cell = grid.cell(frame["lat"], frame["lon"])
    counts = np.bincount(cell[cell >= 0], minlength=len(grid))
    if not counts.any():
        raise DataError(f"None of the {len(frame)} rows lies inside the grid {grid}.")
    return counts / counts.sum()


def region_vectors(embeddings: pd.DataFrame) -> np.ndarray:
    """(R, D) float64: the columns `e0`, `e1`, ... of regions (or people), each with mean 0 and variance 1.

    Raises:
        DataError: there are no such columns, fewer than two rows, or values that are not finite.
    """
    names = [name for name in embeddings.columns if str(name)[:1] == "e" and str(name)[1:].isdigit()]
    if not names or len(embeddings) < 2:
        raise DataError(
            "The embeddings need columns e0, e1, ... and at least two rows: pass what embed_regions returned."
        )
    values = embeddings[names].to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(bad)} rows hold values that are not finite (first row {bad.argmax()})."
        )
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def region_colours(embeddings: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Red, green, blue (R, 3) in 0..1 from the first three principal components, and the share of variance that each
    explains (3,). Components are cut at their 2nd and 98th percentile; the largest loading counts as positive, so that
    colours do not depend on the solver. A component that is not there is 0.5 everywhere.
    """
    from sklearn.decomposition import PCA

    vectors = region_vectors(embeddings)
    analysis = PCA(min(3, *vectors.shape), svd_solver="full")
    scores = analysis.fit_transform(vectors)
    explained = np.zeros(3)
    explained[: scores.shape[1]] = np.nan_to_num(analysis.explained_variance_ratio_)
    low, high = np.percentile(scores, [2, 98], axis=0)
    flat = high - low < 1e-9
    scaled = np.where(flat, 0.5, np.clip((scores - low) / np.where(flat, 1.0, high - low), 0, 1))
    colours = np.full((len(vectors), 3), 0.5)
    colours[:, : scores.shape[1]] = scaled
    return colours, explained


def region_clusters(embeddings: pd.DataFrame, *, clusters: int = 5, seed: int = 0) -> np.ndarray:
    """k-means of the standardised vectors: labels (R,) int64, the largest cluster first (of equal ones,
    that of the first region); the best of ten starts.

    Raises:
        DataError: see `region_vectors`; fewer regions than clusters, or more clusters than there are colours (10).
    """
    from sklearn.cluster import KMeans

    vectors = region_vectors(embeddings)
    if not 1 <= clusters <= min(len(vectors), 10):
        raise DataError(f"clusters must lie in 1..{min(len(vectors), 10)} for {len(vectors)} regions, not {clusters}.")
    labels = KMeans(clusters, n_init=10, random_state=seed).fit_predict(vectors)
    first = [int(np.append(np.flatnonzero(labels == label), len(labels))[0]) for label in range(clusters)]
    order = np.lexsort((np.array(first), -np.bincount(labels, minlength=clusters)))
    rank = np.empty(clusters, np.int64)
    rank[order] = np.arange(clusters)
    return rank[labels]


def region_cells(embeddings: pd.DataFrame, grid: SquareGrid) -> np.ndarray:
    """Cells (R,) of the regions `r<row>c<col>`.

    Raises:
        DataError: there is no column `region_id`, or it names something else.
    """
    _need(embeddings, ("region_id",), "The embeddings")
    cells = grid.parse_id(embeddings["region_id"])
    if (cells < 0).any():
        first = embeddings["region_id"][cells < 0].tolist()[:5]
        raise DataError(f"{int((cells < 0).sum())} regions are no cells of the grid (first: {first}).")
    return cells


def training_log(source: Any) -> pd.DataFrame:
    """What a Trainer logged as a frame: `step`, and `loss`, `eval_loss`, `learning_rate` and the rest of what it wrote,
    NaN where a line has no value.

    Args:
        source: a Trainer, its `state.log_history` (a list of dicts), or the path of `trainer_state.json` or of the
            folder that holds it.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: nothing was logged.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        path = path / "trainer_state.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}; a Trainer writes it beside each checkpoint.")
        source = json.loads(path.read_text(encoding="utf-8"))["log_history"]
    lines = source if isinstance(source, list) else source.state.log_history
    table = pd.DataFrame(lines)
    if not {"loss", "eval_loss"} & set(table.columns):
        raise DataError("Nothing was logged: no line has a loss or an eval_loss; train with logging_steps set.")
    return table


def arc(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(13, 2) points of a curve that bows to the right of the way from `start` to `end` (x, y each), by 15 % of its
    length: a flow and the one back lie apart."""
    along = np.linspace(0, 1, 13)[:, None]
    step = np.asarray(end, dtype=np.float64) - start
    return start + along * step + 4 * 0.15 * along * (1 - along) * np.array([step[1], -step[0]])


def largest_flows(flows: pd.DataFrame, num_cells: int, top: int) -> pd.DataFrame:
    """`origin`, `destination`, `count` summed over hours, without stays, the `top` largest first.

    Raises:
        DataError: a column is missing, a cell has no coordinates, or there is no flow.
    """
    _need(flows, ("origin", "destination", "count"), "The flows")
    moves = flows[flows["origin"] != flows["destination"]]
    table = moves.groupby(["origin", "destination"])["count"].sum().reset_index()
    if table.empty:
        raise DataError("There is no flow between two places: perhaps od_matrix left out the small ones (threshold).")
    ends = table[["origin", "destination"]].to_numpy()
    if ends.min() < 0 or ends.max() >= num_cells:
        raise DataError(f"Flows go to cells {ends.min()}..{ends.max()}, but {num_cells} have coordinates.")
    return table.sort_values("count", ascending=False, kind="stable", ignore_index=True).head(top)


def flow_width(counts: Any, most: float) -> np.ndarray:
    """Width of a flow in points, 0.5 to 5: it grows with its number of trips."""
    return 0.5 + 4.5 * np.asarray(counts, dtype=np.float64) / most


def flow_examples(counts: np.ndarray) -> np.ndarray:
    """Up to three numbers of trips for a legend: the most, about half and about a tenth of it, rounded."""
    most = float(np.max(counts))
    lower = [float(f"{most * share:.1g}") for share in (0.5, 0.1)]
    return np.array(list(dict.fromkeys([most, *(value for value in lower if 1 <= value < most)])))


def one_persons(predictions: pd.DataFrame, visits: pd.DataFrame, user: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The visits and the predictions of one person.

    Raises:
        ValueError: one of the two tables does not know them.
    """
    own, guesses = visits[visits["user_id"] == user], predictions[predictions["user_id"] == user]
    for table, kind in ((guesses, "prediction"), (own, "visit")):
        if table.empty:
            raise ValueError(f"there is no {kind} of user {user!r}; the two tables must know the same users.")
    return own, guesses


def true_place(city: Any, guesses: pd.DataFrame, truth: Any) -> tuple[float, float, str]:
    """Latitude and longitude of the place where somebody really went, and a label that says how well it was guessed.

    Raises:
        ValueError: the city does not list the place.
    """
    found = np.flatnonzero(np.asarray(city.location_ids) == str(truth))
    if not len(found):
        raise ValueError(f"the city lists no place {truth!r}; truth must be one of its location_ids.")
    hit = guesses["rank"][guesses["location_id"] == str(truth)].tolist()
    label = f"went here (rank {hit[0]})" if hit else f"went here (not in the top {len(guesses)})"
    return float(city.lat[found[0]]), float(city.lon[found[0]]), label


def one_line_each(frame: pd.DataFrame, by: str) -> list[tuple[Any, pd.DataFrame]]:
    """(name, rows in order of time) of each person or trajectory.

    Raises:
        DataError: a column is missing, or the frame has no rows.
    """
    _need(frame, (by, "time", "lat", "lon"), "The frame")
    if frame.empty:
        raise DataError("The frame has no rows; at least one row is needed.")
    return list(frame.sort_values([by, "time"], kind="stable").groupby(by))


def _need(frame: pd.DataFrame, names: tuple[str, ...], what: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise DataError(
            f"{what} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}."
        )


def literal(text: Any) -> str:
    """Text of a data set as matplotlib draws it letter for letter: it takes what stands between two dollars for
    mathematics, and leaves a label that begins with an underscore out of the legend."""
    shown = str(text).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{shown}" if shown.startswith("_") else shown
