"""The readers of a probe: ridge and logistic regression, and the MLP of RAW's tasks (D -> 256 -> 1).

Each is a function that fits on standardised features and returns how to score others. Nothing is chosen on what is
scored: the ridge strength by cross-validation over the training groups (people, or blocks of regions), the MLP's number
of epochs on a tenth of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

RIDGE_STRENGTHS = (1e-2, 1.0, 1e2, 1e4)
INNER_FOLDS = 5
VALIDATION_SHARE = 0.1
Score = Callable[[np.ndarray], np.ndarray]


def standardiser(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of (n, D); a column that never changes keeps scale 1."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(deviation <= 1e-9 * (1 + np.abs(mean)), 1.0, deviation)


def ridge(features: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """Weights (D + 1,), the intercept last and not penalised, that minimise |y - Xw - b|^2 + strength |w|^2."""
    mean_x, mean_y = features.mean(axis=0), labels.mean()
    x, y = features - mean_x, labels - mean_y
    if x.shape[1] <= len(x):
        weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
    else:  # the same solution, by the smaller system
        weights = x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), y)
    return np.append(weights, mean_y - mean_x @ weights)


def logistic(features: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """Weights (D + 1,), the intercept last and not penalised, that minimise the summed cross-entropy of 0/1 labels
    + strength / 2 |w|^2.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], strength), 0.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x @ weights
        value = np.logaddexp(0, logits).sum() - labels @ logits + 0.5 * penalty @ np.square(weights)
        return value, x.T @ (expit(logits) - labels) + penalty * weights

    return minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def fit_linear(features: np.ndarray, labels: np.ndarray, *, groups: np.ndarray, binary: bool, seed: int) -> Score:
    """Logistic regression for 0/1 labels, else ridge regression; scores are probabilities or values."""
    fit = logistic if binary else ridge

    def scores(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        values = x @ weights[:-1] + weights[-1]
        return 1 / (1 + np.exp(-np.clip(values, -500, 500))) if binary else values

    total = np.zeros(len(RIDGE_STRENGTHS))
    for train, held_out in _inner_folds(groups, seed):
        truth = labels[held_out]
        for row, strength in enumerate(RIDGE_STRENGTHS):
            guess = scores(fit(features[train], labels[train], strength), features[held_out])
            if binary:
                total[row] -= np.log(np.clip(np.where(truth > 0.5, guess, 1 - guess), 1e-12, 1)).sum()
            else:
                total[row] += np.square(guess - truth).sum()
    weights = fit(features, labels, RIDGE_STRENGTHS[int(total.argmin())])
    return lambda x: scores(weights, x)


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

    train, held_out = validation_split(groups, seed)
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


def validation_split(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit and to validate on: whole random groups that hold a tenth of the rows or a little more; all rows for
    both where there is one group.
    """
    names, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return np.arange(len(groups)), np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    number = 1 + np.searchsorted(np.cumsum(size[order]), VALIDATION_SHARE * len(groups))
    held_out = np.isin(group.reshape(-1), order[: min(number, len(names) - 1)])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _inner_folds(groups: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and to validate on, group by group in turns."""
    names, group = np.unique(groups, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % INNER_FOLDS)[group.reshape(-1)]
    for k in range(min(INNER_FOLDS, len(names)) if len(names) > 1 else 0):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)


__all__ = ["RIDGE_STRENGTHS", "fit_linear", "fit_mlp", "logistic", "ridge", "standardiser", "validation_split"]
