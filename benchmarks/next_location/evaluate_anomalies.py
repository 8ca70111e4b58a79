"""Days of another user, swapped in: which score finds them? AUROC of days, beside scores that need no model.

    HF_MOBILITY_DATA=... python -m benchmarks.next_location.evaluate_anomalies checkpoints/samoe-small --output benchmarks/next_location/results/anomalies.csv

Half of the users of a city have one of their last days (those within the last 20 % of their visits) replaced by such a
day of another user, at the same hours. A day's score is the mean over its visits; all last days of all users are
ranked. The formula of `score` was chosen on the source cities; the rows "fitted" are logistic regressions on the days
of the source cities. Popularity levels come from 5 % of the users, as does the count mix.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.next_location.evaluate_transfer import open_task
from benchmarks.open_data import TARGETS
from benchmarks.tables import save_table
from hf_mobility import ContextMix, NextLocationPipeline, evaluate
from hf_mobility.baselines import MixWeights
from hf_mobility.pipelines.scores import DISTANCE_KM, visits_task
from hf_mobility.tokenization.clock import epoch_seconds, to_local

SOURCES = ("boston", "milwaukee", "gowalla_dallas", "gowalla_kansas_city")
WITHOUT_MODEL = ["new place", "distance", "others"]
FITTED = {"fitted: new place, distance, others": WITHOUT_MODEL, "fitted: these and surprisal": [*WITHOUT_MODEL, "nats"]}
RIVALS = ("new place", "distance", "fitted: new place, distance, others")
DAY = pd.Timedelta("1D")


def swapped(task: Any, seed: int) -> pd.DataFrame:
    """The task's visits with `swapped` (bool) and `last_day` (bool), after days were exchanged."""
    visits = task.visits.assign(day=to_local(epoch_seconds(task.visits["time"]), task.city.timezone) // 86_400)
    days = visits.assign(late=task.target).groupby(["user_id", "day"], sort=True)["late"].all()
    days = days[days].reset_index()[["user_id", "day"]]
    rng = np.random.default_rng(seed)
    picked = days.groupby("user_id")["day"].apply(lambda own: rng.choice(own.to_numpy()))
    order = rng.permutation(len(picked))
    donor = pd.Series(picked.index[np.roll(order, 1)], picked.index[order])
    chosen = picked[rng.random(len(picked)) < 0.5]
    gone = visits["day"].eq(visits["user_id"].map(chosen))
    parts = [visits[~gone].assign(swapped=False)]
    for user, day in chosen.items():
        given = visits[(visits["user_id"] == donor[user]) & (visits["day"] == picked[donor[user]])]
        later = (day - picked[donor[user]]) * DAY
        parts.append(given.assign(user_id=user, day=day, time=given["time"] + later, swapped=True))
    out = pd.concat(parts).sort_values(["user_id", "time", "location_id"], kind="stable", ignore_index=True)
    return out.assign(last_day=out["day"] >= out["user_id"].map(days.groupby("user_id")["day"].min()))


def day_scores(task: Any, pipe: NextLocationPipeline, few: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per user and last day: the mean of every score over the day's visits, and `swapped`."""
    visits = swapped(task, seed)
    table = pipe.score(visits[["user_id", "time", "location_id", "lat", "lon"]])
    if not (table["location_id"] == visits["location_id"]).all():
        raise RuntimeError("the rows of the scores are not those of the visits")
    mix = evaluate(ContextMix(MixWeights.shipped(0.05), few), visits_task(visits, pipe.tokenizer, "error")[0])
    distance, others = np.log1p(table["distance_km"] / DISTANCE_KM), -table["surprisal_others"]
    parts = pd.DataFrame(
        {
            "new place": table["new_place"].astype(float),
            "distance": distance,
            "others": others,
            "distance, others": distance + others,
            "count mix: surprisal": pd.Series(mix.metric("nll"), index=mix.rows),
            "nats": table["surprisal"],
            "surprisal - expected": table["surprisal"] - table["expected_surprisal"],
            "1 - p_value": 1 - table["p_value"],
            "surprisal - surprisal_others": table["surprisal"] + others,
            "score": table["score"],
        }
    )
    columns = {"user": visits["user_id"], "day": visits["day"], "swapped": visits["swapped"]}
    last = visits["last_day"].to_numpy() & table["surprisal"].notna().to_numpy()
    return parts.assign(**columns)[last].groupby(["user", "day"]).mean().reset_index()


def auroc(days: pd.DataFrame, score: Any) -> float:
    return float(roc_auc_score(days["swapped"] > 0.5, score))


def difference(days: pd.DataFrame, a: str, b: str, bootstrap: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of AUROC(a) - AUROC(b), users resampled."""
    user = days["user"].factorize()[0]
    users = user.max() + 1
    draws = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=bootstrap)
    label = days["swapped"] > 0.5
    both = [[roc_auc_score(label, days[one], sample_weight=draw[user]) for one in (a, b)] for draw in draws]
    low, high = np.percentile(np.diff(both, axis=1) * -1, (2.5, 97.5))
    return float(low), float(high)


def table_of(days: dict[tuple[str, int], pd.DataFrame], sources: list[str], bootstrap: int) -> pd.DataFrame:
    """AUROC of every score by city and draw; `score` of a target city with its interval over those without a model."""
    known = pd.concat([one for (name, _), one in days.items() if name in sources])
    for label, columns in FITTED.items():
        model = LogisticRegression(C=10).fit(known[columns], known["swapped"] > 0.5)
        print(label, dict(zip(columns, model.coef_[0].round(2))))
        days = {key: one.assign(**{label: model.decision_function(one[columns])}) for key, one in days.items()}
    rows = []
    for (name, draw), one in days.items():
        kind = "source" if name in sources else "target"
        head = {
            "city": name,
            "kind": kind,
            "draw": draw,
            "days": len(one),
            "swapped": int((one["swapped"] > 0.5).sum()),
        }
        for column in one.columns.drop(["user", "day", "swapped"]):
            row = {**head, "score": column, "auroc": auroc(one, one[column])}
            for rival in RIVALS if column == "score" and kind == "target" else ():
                row[f"low over {rival}"], row[f"high over {rival}"] = difference(one, column, rival, bootstrap)
            rows.append(row)
    return pd.DataFrame(rows).replace({"score": {"nats": "surprisal"}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--cities", nargs="*", default=list(TARGETS))
    parser.add_argument("--sources", nargs="*", default=list(SOURCES))
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--output")
    options = parser.parse_args()

    days: dict[tuple[str, int], pd.DataFrame] = {}
    for name in (*options.sources, *options.cities):
        task = open_task(name)
        for draw in range(options.draws):
            few = task.train_visits(0.05, draw)
            city = task.city.with_popularity(few)
            pipe = NextLocationPipeline.from_pretrained(options.checkpoint, city=city)
            days[name, draw] = day_scores(task, pipe, few, draw)
        print(name, "done", flush=True)

    table = table_of(days, options.sources, options.bootstrap)
    print(table.pivot_table(index="score", columns=["kind", "city"], values="auroc", sort=False).round(3).to_string())
    if options.output:
        save_table(table, options.output)


if __name__ == "__main__":
    main()
