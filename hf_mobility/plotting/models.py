"""Pictures of what models learn: training curves, SAMoE's experts, RAW's attention.

matplotlib is imported on first use (`pip install 'hf_mobility[plot]'`). Attention is shown beside what a model that has
learned nothing would give (`even`), because a causal model sees late hours less often than early ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ..data.frames import validate_visits
from ..tokenization.errors import DataError
from ..tokenization.grid import to_km
from .axes import add_scale_bar, new_axes
from .colours import BLUE, GREEN, ORANGE
from .prepare import training_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXPERTS = ("POI", "geography", "popularity")  # the order of SAMoE's router
_PER_BATCH = 16  # people, or windows of RAW
_COLOURS = dict(zip(EXPERTS, (ORANGE, BLUE, GREEN)))
_MARKERS = dict(zip(EXPERTS, "os^"))


@torch.no_grad()
def expert_weights(
    pipeline: Any, visits: Any, *, layer: int | None = None, timezone: str | None = None
) -> pd.DataFrame:
    """How much each of SAMoE's three experts counts at every visit.

    Args:
        pipeline: a `NextLocationPipeline`.
        visits: anything that `validate_visits` takes; of a person the last `pipeline.context` visits.
        layer: of the model; the mean over all by default.

    Returns:
        `user_id`, `location_id`, `lat`, `lon`, `hour` (0..23, local), and `POI`, `geography`, `popularity`: weights
        that sum to 1; by person and time.

    Raises:
        DataError: for faults in the visits, places that the city does not list among them.
        ValueError: the model has no experts (`mixture=False`), or no such layer.
    """
    model, tokenizer = pipeline.model, pipeline.tokenizer
    if not model.config.mixture:
        raise ValueError("This model has no experts: its configuration says mixture=False.")
    layers = model.config.num_hidden_layers
    if layer is not None and not 0 <= layer < layers:
        raise ValueError(f"layer must lie in 0..{layers - 1}, not {layer}.")
    frame = validate_visits(visits, timezone=timezone).groupby("user_id").tail(pipeline.context)
    people = np.unique(frame["user_id"])
    parts = []
    for first in range(0, len(people), _PER_BATCH):
        some = frame[frame["user_id"].isin(people[first : first + _PER_BATCH])]
        batch = tokenizer(some, padding=True, return_tensors="pt")
        output = model(**batch.to(model.device), output_router_weights=True)
        stacked = torch.stack(output.router_weights).float().cpu()  # (layers, B, T, 3)
        weights = (stacked.mean(0) if layer is None else stacked[layer]).numpy()
        place = batch["input_ids"].cpu().numpy() - 2  # after PAD and EOS
        row, position = np.nonzero(batch["attention_mask"].cpu().numpy().astype(bool) & (place >= 0))
        place = place[row, position]
        hour = batch["timestamps"].cpu().numpy()[row, position] // 3600 % 24
        names = {"user_id": people[first + row], "location_id": tokenizer.location_ids[place]}
        names |= {"lat": tokenizer.lat[place], "lon": tokenizer.lon[place], "hour": hour}
        parts.append(pd.DataFrame({**names, **dict(zip(EXPERTS, weights[row, position].T))}))
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def attention_by_hour(pipeline: Any, points: Any, *, timezone: str | None = None, **options: Any) -> pd.DataFrame:
    """Which hours of the day RAW looks at from which, averaged over layers, heads, days and people.

    Args:
        pipeline: a `MobilityEmbeddingPipeline` whose model was loaded with `attn_implementation="eager"`.
        points: anything that `validate_visits` takes. options: of `RawTokenizer.encode_points`, such as `start`.

    Returns:
        576 rows `hour` (that looks, 0..23 local), `looked_at` (0..23), `attention` (sums to 1 over `looked_at`; NaN for
        an hour that never occurs) and `even` (what it would be if all slots so far counted alike), sorted by the first
        two.

    Raises:
        ValueError: another attention than eager.
        DataError: for faults in the points.
    """
    model, tokenizer = pipeline.model, pipeline.tokenizer
    used = model.config._attn_implementation
    if used != "eager":
        raise ValueError(
            f"Attention weights exist only with eager attention, this model uses {used!r}; load it with "
            "attn_implementation='eager'."
        )
    series = tokenizer.encode_points(validate_visits(points, timezone=timezone), **options)  # days alike for everybody
    sums = np.zeros((3, 24, 24))
    for first in range(0, len(series), _PER_BATCH):
        some = series.part(slice(first, min(first + _PER_BATCH, len(series))))
        batch = tokenizer.to_batch(some, padding=True, return_tensors="pt").to(model.device)
        output = model(**batch, use_cache=False, output_attentions=True)
        weights = torch.stack([layer.float().mean(1) for layer in output.attentions]).mean(0).cpu().numpy()  # (B, T, T)
        known = batch["attention_mask"].cpu().numpy().astype(bool)
        slots = batch["position_ids"].cpu().numpy() if "position_ids" in batch else known.cumsum(1) - 1
        slot_hour = slots % tokenizer.slots_per_day * 24 // tokenizer.slots_per_day
        for row in range(len(known)):
            hours = np.eye(24)[slot_hour[row, known[row]]]  # (T, 24)
            own = weights[row][np.ix_(known[row], known[row])]
            even = np.tril(np.ones_like(own)) / np.arange(1, len(own) + 1)[:, None]
            sums += np.stack([hours.T @ own @ hours, hours.T @ even @ hours, np.repeat(hours.sum(0)[:, None], 24, 1)])
    with np.errstate(invalid="ignore"):
        attention, even = sums[0] / sums[2], sums[1] / sums[2]
    hour, looked_at = (index.reshape(-1) for index in np.indices((24, 24)))
    columns = {"hour": hour, "looked_at": looked_at, "attention": attention.reshape(-1), "even": even.reshape(-1)}
    return pd.DataFrame(columns)


def plot_training(source: Any, *, ax: Axes | None = None) -> Axes:
    """Losses against steps, and the learning rate in grey.

    Args:
        source: a Trainer, its log history, or the path of a `trainer_state.json`; see `training_log`.

    Raises:
        DataError: nothing was logged.
        FileNotFoundError: there is no such file.
    """
    log = training_log(source)
    ax = new_axes()[0] if ax is None else ax
    if "learning_rate" in log:
        rate = log.dropna(subset=["learning_rate"])
        right = ax.twinx()
        right.plot(rate["step"], rate["learning_rate"], color="0.7", linestyle=":", linewidth=1.5)
        right.set_ylabel("learning rate (dotted)", color="0.5")
        right.set_ylim(bottom=0)
        right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        ax.set_zorder(right.get_zorder() + 1)
        ax.patch.set_visible(False)
    for name, label, style in (("loss", "training loss", "-"), ("eval_loss", "evaluation loss", "-o")):
        if name in log:
            rows = log.dropna(subset=[name])
            ax.plot(rows["step"], rows[name], style, label=label, markersize=5)
    if "eval_loss" in log:
        best = log.sort_values("eval_loss", kind="stable").iloc[0]
        text = f"lowest: {best['eval_loss']:.3g} at step {best['step']:.0f}"
        ax.plot(best["step"], best["eval_loss"], "*", color="black", markersize=12, label=text)
    ax.set(xlabel="step", ylabel="loss", title="Training")
    ax.legend(fontsize=9)
    return ax


def plot_experts(weights: pd.DataFrame, *, axes: Any = None) -> np.ndarray:
    """Which of SAMoE's experts serves which place and hour.

    Args:
        weights: what `expert_weights` returned.
        axes: two axes to draw into.

    Returns:
        Left, the places with the expert whose mean weight stands highest above its overall mean (the larger a dot, the
        more visits); right, mean weights by local hour, which sum to 1.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in ("location_id", "lat", "lon", "hour", *EXPERTS) if name not in weights]
    if missing:
        raise DataError(f"The weights lack the column(s) {', '.join(missing)}; pass what expert_weights returned.")
    places = weights.groupby("location_id").agg(
        lat=("lat", "first"), lon=("lon", "first"), visits=("lat", "size"), **{name: (name, "mean") for name in EXPERTS}
    )
    overall = weights[list(EXPERTS)].mean()
    leader = (places[list(EXPERTS)] - overall).to_numpy().argmax(axis=1)
    axes = new_axes(2) if axes is None else axes

    east, north = to_km(places["lat"], places["lon"], origin=(places["lat"].mean(), places["lon"].mean()))
    sizes = (8 + 24 * np.sqrt(places["visits"] / places["visits"].max() * 10)).to_numpy()
    for index, name in enumerate(EXPERTS):
        own = leader == index
        dots: dict[str, Any] = {"color": _COLOURS[name], "marker": _MARKERS[name], "alpha": 0.7, "linewidths": 0}
        axes[0].scatter(east[own], north[own], s=sizes[own], label=f"{name} ({int(own.sum())} places)", **dots)
    axes[0].set(xlabel="east, km", ylabel="north, km", aspect="equal")
    add_scale_bar(axes[0])
    axes[0].set_title("expert that counts more here than elsewhere")
    axes[0].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)

    by_hour = weights.groupby("hour")[list(EXPERTS)].mean().reindex(range(24))
    for name in EXPERTS:
        axes[1].plot(
            by_hour.index, by_hour[name], marker=_MARKERS[name], markersize=5, color=_COLOURS[name], label=name
        )
        axes[1].axhline(overall[name], color=_COLOURS[name], linestyle=":", linewidth=1)
    axes[1].set(xlabel="local hour of the visit", ylabel="mean weight", xticks=range(0, 24, 3), xlim=(-0.5, 23.5))
    axes[1].set_title("weights of the experts by hour (dotted: overall)")
    axes[1].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    return np.asarray(axes)


def plot_attention(attention: pd.DataFrame, *, axes: Any = None) -> np.ndarray:
    """Which hours of the day RAW looks at: shares of attention, and how many times as much as if all slots so far
    counted alike.

    Args:
        attention: what `attention_by_hour` returned.
        axes: two axes to draw into.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in ("hour", "looked_at", "attention", "even") if name not in attention]
    if missing:
        raise DataError(f"The table lacks the column(s) {', '.join(missing)}; pass what attention_by_hour returned.")
    table = attention.pivot(index="hour", columns="looked_at", values=["attention", "even"])
    shares, even = table["attention"].to_numpy(), table["even"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(even > 0, shares / even, np.nan)
    axes = new_axes(2) if axes is None else axes
    from matplotlib.colors import LogNorm

    reach = max(1.1, float(np.nanmax(np.where(ratio > 0, np.maximum(ratio, 1 / ratio), np.nan), initial=1.1)))
    scales = [{"vmin": 0, "cmap": "viridis"}, {"norm": LogNorm(1 / reach, reach), "cmap": "RdBu_r"}]
    titles = ["attention of an hour by the hours it goes to", "beside even attention"]
    bars: list[dict[str, Any]] = [{"label": "share of attention"}, {"label": "times the even share"}]
    bars[1] |= {"ticks": np.geomspace(1 / reach, reach, 5), "format": "%.2f"}
    for ax, values, scale, title, bar in zip(axes, (shares, ratio), scales, titles, bars):
        image = ax.imshow(values, origin="lower", **scale)
        ax.set(xlabel="hour of day that is looked at", ylabel="hour of day that looks", title=title)
        ax.set(xticks=range(0, 24, 3), yticks=range(0, 24, 3))
        ax.figure.colorbar(image, ax=ax, shrink=0.8, **bar).minorticks_off()
    return np.asarray(axes)
