"""The table of shipped checkpoints: one figure each from the committed results, beside its baselines."""

from __future__ import annotations

from functools import cache
from typing import Any

from .common import RESULTS, markdown, percent, read
from .next_location_groups import CHOSEN, POOLED


def checkpoints() -> str:
    """One row per checkpoint; links are relative to the root of the repository."""
    weeks = "weeks of 1,500 simulated users"
    rows = [
        [
            "samoe-small",
            "next location",
            "check-ins of 12 cities, cabs, simulated cities",
            "research use",
            next_location(),
        ],
        ["mstar-small", "weeks, any city", "weeks of 80 simulated cities", "Apache-2.0", generation_elsewhere()],
        [
            "raw-small",
            "positions, any city",
            "GeoLife, cabs, check-ins, simulated users",
            "research use",
            positions_extended(),
        ],
        ["flows-small", "commuting flows", "commuters of US areas", "Apache-2.0, attribution", flows()],
        ["mstar-cells-small", "weeks, one city", weeks, "Apache-2.0", generation()],
        ["mstar-codec-small", "its codec", weeks, "Apache-2.0", codec()],
        [
            "raw-released-small",
            "positions, embeddings, one city",
            "points of 2,000 simulated users",
            "Apache-2.0",
            positions(),
        ],
    ]
    rows = [
        [f"[{name}](checkpoints/{name}/README.md)", task, f"{parameters(name) / 1e6:.2f} M", *cells]
        for name, task, *cells in rows
    ]
    return markdown(
        rows, ["checkpoint", "task", "parameters", "trained on", "licence", "unseen users, beside baselines"]
    )


@cache
def shipped_model(name: str) -> Any:
    """The model of the folder `name` in `checkpoints/`."""
    from transformers import AutoConfig

    import hf_mobility

    folder = RESULTS.parent / "checkpoints" / name
    config = AutoConfig.from_pretrained(folder)
    return getattr(hf_mobility.modeling, config.architectures[0]).from_pretrained(folder)


def parameters(name: str) -> int:
    if name != "flows-small":
        return shipped_model(name).num_parameters()
    from hf_mobility.flows import FlowNetworkModel

    model = FlowNetworkModel.from_pretrained(RESULTS.parent / "checkpoints" / name)
    return sum(weight.numel() for network in model.networks for weight in network.parameters())


def next_location() -> str:
    table = read("groups")
    table = table[(table["city"] == POOLED) & (table["subset"] == "all")].set_index("model")
    ours, mix = table.loc["SAMoE, 5 %"], table.loc[CHOSEN]
    return (
        f"MRR in four unseen cities: mean over users {ours['user_mrr']:.3f}, best count mix {mix['user_mrr']:.3f}; over "
        f"visits {ours['mrr']:.3f} and {mix['mrr']:.3f}"
    )


def generation_elsewhere() -> str:
    table = read("weeks_slots").groupby("model")[["mean6", "two_sample_auc"]].mean()
    ours, epr = table.loc["M-STAR, slots, with means"], table.loc["ExplorationReturn"]
    mean6 = f"three unseen simulated cities: mean of six {1000 * ours['mean6']:.1f} (EPR fitted there {1000 * epr['mean6']:.1f})"
    return f"{mean6}; two-sample AUC {ours['two_sample_auc']:.2f} (EPR {epr['two_sample_auc']:.2f})"


def generation() -> str:
    names = ("M-STAR mstar-cells-small", "ExplorationReturn", "train sample")
    ours, epr, noise = (row for _, row in read("weeks_simulated").set_index("model").loc[list(names)].iterrows())
    mean6 = f"mean of six divergences {1000 * ours['mean6']:.1f} (EPR {1000 * epr['mean6']:.1f}, "
    told = f"two-sample AUC {ours['two_sample_auc']:.2f} (EPR {epr['two_sample_auc']:.2f}, "
    return f"{mean6}noise {1000 * noise['mean6']:.1f}); {told}noise {noise['two_sample_auc']:.2f})"


def codec() -> str:
    table = read("mstar_codec").set_index("part")
    return f"{percent(table.loc['test', 'accuracy'], 2)} of hours survive the round trip; no baseline"


def positions_extended() -> str:
    """Mean and median errors of GeoLife's held-out users after ten slots."""
    table = read("raw_extended")
    rows = table[(table["points"] == "geolife") & (table["subset"] == "all") & (table["minutes"] == 150)]
    rows = rows.set_index("model")
    ours, still = rows.loc["RAW extended"], rows.loc["CopyLast"]
    return (
        f"GeoLife after 2.5 h: mean {ours['error_km']:.2f} km, median {ours['median_km']:.2f}; standing still "
        f"{still['error_km']:.2f} and {still['median_km']:.2f}"
    )


def positions() -> str:
    """Mean errors of moving users after ten slots."""
    table = read("raw_rollout_simulated")
    errors = table[(table["subset"] == "moving") & (table["minutes"] == 150)].set_index("model")["error_km"]
    ours, still, mean = (errors[name] for name in ("RAW", "CopyLast", "HourMean (one week)"))
    return f"{ours:.2f} km after 2.5 h, moving users; standing still {still:.2f}, mean of the hour {mean:.2f}"


def flows() -> str:
    """Mean common part of commuters over unseen areas, outflows predicted."""
    table = read("flows")
    whole = table[(table["size"] == "all") & (table["outflows given"].astype(str) == "False")].set_index("model")["cpc"]
    ours, boosted, gravity = (
        whole["network"],
        whole["LightGBM, poisson"],
        whole["gravity, power, production-constrained"],
    )
    return f"CPC {ours:.3f} in 357 unseen areas; LightGBM {boosted:.3f}, gravity {gravity:.3f}"
