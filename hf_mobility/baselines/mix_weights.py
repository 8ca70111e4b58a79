"""Weights of `ContextMix`: their file, those that are shipped, and how they are fitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..tokenization.whole_files import whole_file

OWN = ("frequency", "recency_10", "recency_40", "own_markov", "hour_successors")
CITY = ("distance_0.3km", "distance_3km", "popularity", "global_markov", "uniform")
COMPONENTS = OWN + CITY

CONTEXT_BOUNDS = (15, 40, 100)
BUCKETS = (len(CONTEXT_BOUNDS) + 1) * 2 * 2

# user_fraction -> file; made by `python -m benchmarks.next_location.fit_mix_weights`.
SHIPPED = {0.0: "context_mix_0.json", 0.05: "context_mix_5.json", 1.0: "context_mix_100.json"}
FOLDER = Path(__file__).parent / "weights"

EM_STEPS = 100
PRIOR_TARGETS = 20.0  # strength with which a bucket leans on the weights of all buckets together


@dataclass(frozen=True, eq=False)
class MixWeights:
    """Mixture weights with their origin.

    Fields:
        table: float64 (16, 10), rows sum to 1, columns as `COMPONENTS`. Row = 4 * context class (< 15, < 40, < 100,
            more visits) + 2 * (own Markov row exists) + (global Markov row exists).
        sources: names of the cities they were fitted on.
        user_fraction: share of the users that gave the city's counts in the fit; use the weights with about that share.
    """

    table: np.ndarray
    sources: tuple[str, ...] = ()
    user_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.table.shape != (BUCKETS, len(COMPONENTS)):
            raise ValueError(f"The weights have shape {self.table.shape}; expected {(BUCKETS, len(COMPONENTS))}.")
        if (self.table < 0).any() or not np.allclose(self.table.sum(axis=1), 1, atol=1e-4):
            raise ValueError("Each row of the weights must be non-negative and sum to 1.")

    @classmethod
    def fit(
        cls, likelihood: np.ndarray, bucket: np.ndarray, *, sources: Sequence[str] = (), user_fraction: float = 1.0
    ) -> MixWeights:
        """The weights that make the true places likeliest: EM for all targets, then in each bucket with that as prior.

        Args:
            likelihood: (m, 10), what each component gives to the true place; NaN where it is missing.
            bucket: int64 (m,), row of the table that counts for a target.
        """
        start = np.full(len(COMPONENTS), 1 / len(COMPONENTS))
        overall = _em(likelihood, start, np.zeros_like(start))
        rows = [_em(likelihood[bucket == b], overall, PRIOR_TARGETS * overall) for b in range(BUCKETS)]
        return cls(np.stack(rows), tuple(sources), user_fraction)

    @classmethod
    def shipped(cls, user_fraction: float = 1.0) -> MixWeights:
        """The weights that come with the package: shares of ten components, fitted on twelve cities of check-ins.

        Args:
            user_fraction: share of the city's users that give its counts, 0..1. There are weights for 0, 0.05 and 1;
                the largest of them that is not above counts, as weights for all users trust sparse counts too much.

        Raises:
            ValueError: a share outside 0..1.

        Example:
            >>> MixWeights.shipped(0.1).user_fraction
            0.05
        """
        if not 0 <= user_fraction <= 1:
            raise ValueError(f"user_fraction must lie in 0..1; it is {user_fraction}.")
        return cls.load(FOLDER / SHIPPED[max(share for share in SHIPPED if share <= user_fraction)])

    def log_loss(self, likelihood: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        """Negative log-likelihood of each true place, float64 (m,), from the arguments of `fit`."""
        weights = np.where(np.isnan(likelihood), 0.0, self.table[bucket])
        mixed = (weights * np.nan_to_num(likelihood)).sum(axis=1) / weights.sum(axis=1)
        return -np.log(np.maximum(mixed, 1e-300))

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        text = {
            "format": "hf_mobility.context_mix",
            "version": 1,
            "components": list(COMPONENTS),
            "sources": list(self.sources),
            "user_fraction": self.user_fraction,
            "table": self.table.round(6).tolist(),
        }
        with whole_file(path) as file:
            file.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> MixWeights:
        """Read what `save` wrote.

        Raises:
            ValueError: another format, version or set of components.
        """
        text = json.loads(Path(path).read_text(encoding="utf-8"))
        if text.get("format") != "hf_mobility.context_mix" or text.get("version") != 1:
            raise ValueError(f"{path} does not hold ContextMix weights of version 1.")
        if tuple(text["components"]) != COMPONENTS:
            raise ValueError(f"{path} has the components {text['components']}; this version has {list(COMPONENTS)}.")
        return cls(np.asarray(text["table"], dtype=np.float64), tuple(text["sources"]), float(text["user_fraction"]))


def _em(likelihood: np.ndarray, start: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Mixture weights that maximise the likelihood (m, c) plus `prior` pseudo-targets; NaN marks missing components."""
    available = ~np.isnan(likelihood)
    values = np.where(available, likelihood, 0.0)
    weights = start
    for _ in range(EM_STEPS if len(values) else 0):
        joint = values * weights
        joint /= np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
        # A missing component is neither confirmed nor refuted: it keeps its share of that target.
        kept = (~available) * weights
        share = joint * (1 - kept.sum(axis=1, keepdims=True)) + kept
        weights = share.sum(axis=0) + prior
        weights = weights / weights.sum()
    return weights
