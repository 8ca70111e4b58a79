"""`evaluate_checkpoint`: a model beside its baselines on records that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.io.records import as_records
from ..evaluation.trajectories import DIFFERENCE
from ..hub.device import check_device
from ..hub.loading import adapter_base, saved_config
from ..tokenization.errors import DataError
from .mstar import evaluate_mstar
from .raw import evaluate_raw
from .samoe import evaluate_samoe
from .unseen import Checkpoint, notes_on_test

WEEKS = ["model", "n", "mean6", "two_sample_auc", "motif_tv", "arrival_sd", "work_places", "together_again"]
WEEKS += ["still_weekend_days", "one_hour_stays", "cpc", "one_user_pairs", "copied"]
EVALUATIONS: dict[str, tuple[Callable[..., pd.DataFrame], list[str]]] = {
    "mobility_samoe": (evaluate_samoe, ["model", "n", "users", "acc@1", "mrr", "user_acc@1", "user_mrr", "nll"]),
    "mobility_mstar": (evaluate_mstar, WEEKS),
    "mobility_raw": (evaluate_raw, ["model", "subset", "minutes", "users", "error_km", "median_km", *DIFFERENCE]),
}


def evaluate_checkpoint(
    model: Any,
    data: Any,
    *,
    test_fraction: float | None = None,
    seed: int | None = None,
    city: Any = None,
    groups: bool = False,
    min_known: float | None = None,
    fill_hours: float | None = None,
    timezone: str | None = None,
    device: Any = None,
    batch_size: int | None = None,
    **columns: str,
) -> pd.DataFrame:
    """Evaluate a model on records that it was not trained on, baselines first.

    SAMoE: ranking of every user's last visits, per visit and per user. M-STAR: generated weeks beside those of held-out
    users, as distributions and user by user (`week_report`). RAW: errors of held-out users' positions up to ten slots
    ahead, with intervals against `Shrinkage`.

    Args:
        model: a folder or Hub id, or what `train` or `adapt` returned.
        data: a table of visits or points, as a frame, dataset, Arrow table or path (see `validate_visits`); for M-STAR
            also weeks of cells (see `read_weeks`).
        test_fraction: of each user's visits (SAMoE), or of the users; by default the one that was left out in training,
            or 0.2 where none was.
        seed: of the split and of everything that is drawn; by default that of the training, or 0.
        city: another `City` than the checkpoint's (SAMoE); its popularity is counted anew from the training part.
        groups: also by the user's history and activity, distance from the centre, and new places (SAMoE).
        min_known, fill_hours: of weeks, as in `train` (M-STAR).
        timezone: IANA name, for naive times; the checkpoint's by default.
        device: where the model computes; by default the CPU for a folder or Hub id, else where the model is. A model
            that was handed over is copied there.
        batch_size: weeks (M-STAR) or windows (SAMoE, RAW) that the model reads at one time.
        columns: other names of the columns, as in `user_id="uid"`.

    Returns:
        One row per model (RAW: per model, subset and horizon; with `groups` per subset and model), the checkpoint's
        last. `attrs["main"]` names the main columns, `attrs["notes"]` holds sentences on what limits the comparison.

    Raises:
        DataError: a model that is not evaluated alone (a codec), or one that was trained on records of the test.
        ValueError: a device that is not there.

    Example:
        >>> table = evaluate_checkpoint("my-city", visits)  # doctest: +SKIP
        >>> table[table.attrs["main"]]  # doctest: +SKIP
    """
    check_device(device)
    checkpoint = Checkpoint.opened(model, device=device, batch_size=batch_size)
    trained = checkpoint.record
    if test_fraction is None:
        test_fraction = (trained and trained.test_fraction) or 0.2
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must lie between 0 and 1; it is {test_fraction}.")
    if seed is None:
        seed = trained.seed if trained else 0
    kind = kind_of(model)
    if kind not in EVALUATIONS:
        raise DataError(f"{checkpoint.name} is a {kind}; evaluate_checkpoint evaluates {', '.join(EVALUATIONS)}.")
    weeks = {name: value for name, value in (("min_known", min_known), ("fill_hours", fill_hours)) if value is not None}
    if weeks and kind != "mobility_mstar":
        raise DataError(f"{' and '.join(weeks)}: for weeks (M-STAR), not for a {kind}.")
    if city is not None and kind != "mobility_samoe":
        raise DataError(f"A {kind} knows the city that it was trained in: leave city out.")
    if groups and kind != "mobility_samoe":
        raise DataError(f"groups: for next locations (SAMoE), not for a {kind}.")
    evaluation, main = EVALUATIONS[kind]
    zone = timezone or getattr(city, "timezone", None) or checkpoint.timezone
    records = as_records(data, timezone=zone, **columns)
    extra = {"city": city, "groups": groups} if kind == "mobility_samoe" else weeks
    split: dict[str, Any] = {"test_fraction": test_fraction, "seed": seed}
    notes = notes_on_test(checkpoint.name, trained, kind.removeprefix("mobility_"), records, **split)
    table = evaluation(checkpoint, records, **split, **extra)
    main = ["subset", *main] if groups else main
    table.attrs["main"] = [name for name in main if name in table]
    table.attrs["notes"] = [*table.attrs.get("notes", []), *notes]
    return table


def kind_of(model: Any) -> str:
    """The `model_type` of a checkpoint; no weight is read. An adapter has that of its base, and a folder of
    `FlowNetworkModel` is a "mobility_flows".

    Raises:
        OSError: no such folder or repository.
    """
    if not isinstance(model, (str, Path)):
        return str(model.model.config.model_type)
    if Path(model, "flows_config.json").is_file():
        return "mobility_flows"
    return str(saved_config(adapter_base(model) or model).model_type)
