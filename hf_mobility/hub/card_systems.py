"""What a card says of each kind of model: paper, purpose, task, tags, and the names of metrics."""

from __future__ import annotations

from dataclasses import dataclass

METRICS = {
    **{f"acc@{k}": f"Acc@{k}" for k in (1, 5, 10)},
    "mrr": "MRR",
    "nll": "negative log-likelihood, nats",
    "mean6": "mean of six Jensen-Shannon divergences, nats",
    "cpc": "common part of commuters",
    "accuracy": "accuracy",
    "whole week exact": "share of weeks without a wrong hour",
    "f1": "F1",
    "auc": "AUC",
    "mae_m": "mean absolute error per axis, metres",
    "error_km": "mean error, km",
    "median_km": "median error, km",
}


@dataclass(frozen=True)
class System:
    """Paper, what the model does, `task_type` of its results, tags, intended use."""

    paper: str
    what: str
    task: str
    tags: tuple[str, ...]
    intended: str


SYSTEMS = {
    "mobility_samoe": System(
        "SAMoE / TrajMoE, in its second version MoveGPT ([arXiv 2505.18670](https://arxiv.org/abs/2505.18670))",
        "predicts the next place of a user in any city: a city is a tokenizer, not a weight",
        "next-location-prediction",
        ("next-location",),
        "Research on human mobility: next places in cities with little or no data, and transfer between cities. "
        "Teaching, and a base for adaptation to your own data.",
    ),
    "mobility_mstar_codec": System(
        "M-STAR's codec ([arXiv 2512.07314](https://arxiv.org/abs/2512.07314))",
        "turns weeks of hourly cells into codes on several time scales, and back",
        "trajectory-reconstruction",
        ("trajectory-generation",),
        "As stage 1 of M-STAR, and for research on codes of trajectories, on the grid of cells it was trained on.",
    ),
    "mobility_mstar": System(
        "M-STAR ([arXiv 2512.07314](https://arxiv.org/abs/2512.07314))",
        "generates weeks of hourly cells, given home, work and a movement class, or from nothing",
        "trajectory-generation",
        ("trajectory-generation",),
        "Research on synthetic populations, teaching, and as a base for training on your own weeks. Audit weeks and "
        "city before publishing a model of real users.",
    ),
    "mobility_raw": System(
        "RAW ([arXiv 2311.10471](https://arxiv.org/abs/2311.10471))",
        "encodes users' positions every few minutes; embeds users and regions, and rolls positions forward",
        "trajectory-prediction",
        ("trajectory-embedding",),
        "Research on embeddings of users and regions, prediction of positions some hours ahead, teaching, and as a "
        "base for your own tasks.",
    ),
}
# The Hub has a closed list of tasks; none is that of M-STAR and of RAW's classifiers.
PIPELINE_TAGS = {
    "SamoeForNextLocation": "time-series-forecasting",
    "SamoeModel": "feature-extraction",
    "MstarCodecModel": "feature-extraction",
    "RawModel": "feature-extraction",
    "RawExtendedModel": "feature-extraction",
    "RawForTrajectoryPrediction": "time-series-forecasting",
    "RawExtendedForTrajectoryPrediction": "time-series-forecasting",
}
OTHER_TASK = "other"
# Words of an identifier's licence; other licences are linked by `CardFacts.license_link`.
LICENSE_LINKS = {"apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0"}
OUT_OF_SCOPE = (
    "Following, finding or re-identifying a person; policing; any decision about an individual. Emergency or "
    "safety-critical planning from these figures alone. Cities or kinds of data far from the training data, without a "
    "check against the baselines there."
)
