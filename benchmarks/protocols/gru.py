"""The GRU as a model that is ranked: `hf-mobility benchmark --protocol geolife-horizons --model benchmarks/protocols/gru.py:GRU`.

It is trained for 300 steps on whole weeks of the other users, four processor minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_mobility.baselines import GRUTrajectory

STEPS = 300


class GRU:
    """Recurrent, with RAW's input, output and loss."""

    name = "GRU"

    def fit(self, train: Any) -> None:
        self.made = GRUTrajectory().fit(train.points, steps=STEPS, seed=train.seed)

    def predict(self, task: Any) -> np.ndarray:
        return self.made.predict(task)
