"""The readers of a probe: ridge and logistic regression of scikit-learn, and the MLP of RAW's tasks (D -> 256 -> 1).

Each is a function that fits on standardised features and returns how to score others. Nothing is chosen on what is
scored: the ridge strength by cross-validation over the training groups (people, or blocks of regions), the MLP's number
of epochs on a tenth of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..data.splits import group_folds, hold_out_rows

RIDGE_STRENGTHS = (1e-2, 1.0, 1e2, 1e4)
INNER_FOLDS = 5
VALIDATION_SHARE = 0.1
Score = Callable[[np.ndarray], np.ndarray]


def standardizer(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of (n, D); a column that never changes keeps scale 1."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(deviation <= 1e-9 * (1 + np.abs(mean)), 1.0, deviation)


def fit_linear(features: np.ndarray, labels: np.ndarray, *, groups: np.ndarray, binary: bool, seed: int) -> Score:
    """Logistic regression for 0/1 labels, else ridge regression; scores are probabilities or values. The penalty is
    chosen by the loss over inner folds of the groups.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    loss_of = _log_loss if binary else _squared_error
    totals = dict.fromkeys(RIDGE_STRENGTHS, 0.0)
    for train, held_out in group_folds(groups, folds=INNER_FOLDS, seed=seed):
        for strength in RIDGE_STRENGTHS:
            score = _linear(features[train], labels[train], strength, binary=binary)
            totals[strength] += loss_of(labels[held_out], score(features[held_out]))
    return _linear(features, labels, min(totals, key=totals.__getitem__), binary=binary)


def _linear(features: np.ndarray, labels: np.ndarray, strength: float, *, binary: bool) -> Score:
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise ImportError("probes need scikit-learn: pip install 'hf_mobility[eval]'.") from error
    if not binary:
        return Ridge(alpha=strength).fit(features, labels).predict
    if len(np.unique(labels)) < 2:  # of one class only
        return lambda x: np.full(len(x), labels[0])
    model = LogisticRegression(C=1 / strength, max_iter=1000).fit(features, labels)
    return lambda x: model.predict_proba(x)[:, 1]


def _log_loss(labels: np.ndarray, guess: np.ndarray) -> float:
    return float(-np.log(np.clip(np.where(labels > 0.5, guess, 1 - guess), 1e-12, 1)).sum())


def _squared_error(labels: np.ndarray, guess: np.ndarray) -> float:
    return float(np.square(guess - labels).sum())


def fit_mlp(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray,
    binary: bool,
    seed: int,
    hidden: int = 256,
    epochs: int = 200,
    patience: int = 15,
) -> Score:
    """The recipe of RAW's tasks: ReLU, dropout 0.1, AdamW 1e-3, weight decay 1e-4, batches of 256, and the epoch with
    the least validation loss. Values are standardised inside. The caller's generators are left alone.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    train, held_out = hold_out_rows(groups, share=VALIDATION_SHARE, seed=seed)
    mean, scale = (0.0, 1.0) if binary else (labels[train].mean(), max(labels[train].std(), 1e-9))
    x = torch.as_tensor(features, dtype=torch.float32)
    y = torch.as_tensor((labels - mean) / scale, dtype=torch.float32)
    loss_of = F.binary_cross_entropy_with_logits if binary else F.mse_loss
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, 1))
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
        best, since, state = np.inf, 0, network.state_dict()
        for _ in range(epochs):
            network.train()
            for rows in torch.as_tensor(train)[torch.randperm(len(train))].split(256):
                optimiser.zero_grad(set_to_none=True)
                loss_of(network(x[rows]).squeeze(1), y[rows]).backward()
                optimiser.step()
            network.eval()
            with torch.no_grad():
                value = float(loss_of(network(x[held_out]).squeeze(1), y[held_out]))
            since += 1
            if value < best:
                best, since = value, 0
                state = {name: weight.clone() for name, weight in network.state_dict().items()}
            elif since >= patience:
                break
        network.load_state_dict(state)

    @torch.no_grad()
    def score(others: np.ndarray) -> np.ndarray:
        made = network(torch.as_tensor(others, dtype=torch.float32)).squeeze(1).double()
        made = made.round(decimals=6)  # equal rows of one batch may differ in their last bits, and would be ranked
        return made.sigmoid().numpy() if binary else made.numpy() * scale + mean

    return score


__all__ = ["RIDGE_STRENGTHS", "fit_linear", "fit_mlp", "standardizer"]
