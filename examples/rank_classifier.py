"""A scikit-learn classifier of hand-made features, ranked on a protocol.

    hf-mobility benchmark --protocol simulated-city --model examples/rank_classifier.py:Classifier

Each candidate place of a visit has five features; the classifier says how probable it is that the user goes there.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hf_mobility import make_task

RECENT = 20.0  # visits
EXAMPLES = 300  # visits that are learned from


class Classifier:
    name = "logistic regression"

    def fit(self, train):
        """Learn from the last visits of the training part: the place that was chosen against all others."""
        task = make_task(train.visits, train.city)
        rows = np.random.default_rng(train.seed).permutation(task.rows)[:EXAMPLES]
        self.counts = np.bincount(task.location[task.location >= 0], minlength=len(train.city.location_ids))
        features = [self.features(task, row) for row in rows]
        chosen = [np.arange(len(one)) == task.location[row] for one, row in zip(features, rows)]
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        self.model.fit(np.concatenate(features), np.concatenate(chosen))

    def features(self, task, row):
        """(places, 5): own and recent visits, follows the present place, distance to it, popularity."""
        first, places = task.user_starts[task.user[row]], len(task.city.location_ids)
        past = task.location[first:row]
        here = past[-1]
        follows = past[1:][past[:-1] == here]
        listed = past >= 0
        weight = np.exp(-np.arange(len(past))[::-1] / RECENT)
        lat, lon = np.asarray(task.city.lat), np.asarray(task.city.lon)
        away = np.hypot(lat - lat[here], (lon - lon[here]) * np.cos(np.radians(lat[here])))
        own = np.bincount(past[listed], minlength=places)
        recent = np.bincount(past[listed], weight[listed], minlength=places)
        next_to = np.bincount(follows[follows >= 0], minlength=places)
        return np.column_stack([np.log1p(own), recent, np.log1p(next_to), np.log1p(away * 111), np.log1p(self.counts)])

    def probabilities(self, task):
        for row in task.rows:
            p = self.model.predict_proba(self.features(task, row))[:, 1]
            yield np.array([row]), (p / p.sum())[None].astype(np.float32)
