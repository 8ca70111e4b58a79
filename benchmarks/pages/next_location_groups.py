"""Tables on whom SAMoE serves: means per user and per visit, by group, elsewhere; and on unusual days."""

from __future__ import annotations

import pandas as pd

from .common import markdown, read
from .next_location import CITY_NAMES

POOLED, CHOSEN = "four cities", "context mix, 100 %, chosen weights"
ELSEWHERE = {"cabs": "160 San Francisco cabs", "demo": "simulated city of the demo"}
SHOWN_FIRST = {  # model -> its words in the README, and what it knows beside the user's own past
    "UserFrequency": ("the user's commonest place", "nothing"),
    "UserMarkov": ("what mostly followed this place", "nothing"),
    CHOSEN: ("mix of ten count tables", "all users' visits"),
    "SAMoE, 0 %": ("**samoe-small**", "the map"),
    "SAMoE, 5 %": ("**samoe-small**", "the map, visits of 5 % of the users"),
    "SAMoE, 100 %, with counts": ("**samoe-small**, `counts=`", "all users' visits"),
}
LABELS = {"between": "between the two"}


def users(who: str = "user_") -> str:
    """Acc@1/MRR of each city and of all users together, with log-loss and ECE; `who` is "user_" or "" for visits."""
    table = read("groups")
    table = table[table["subset"] == "all"].set_index(["model", "city"])
    rows = []
    for model in table.index.get_level_values("model").unique():
        cells = [_pair(table.loc[(model, city)], who) for city in (*CITY_NAMES, POOLED)]
        everyone = table.loc[(model, POOLED)]
        more = [f"{everyone[f'{who}{metric}']:.3f}" for metric in ("nll", "ece")]
        rows.append([f"**{model}**" if model.startswith("SAMoE") else model, *cells, *more])
    title = "Acc@1/MRR, mean over users" if who else "Acc@1/MRR, mean over visits"
    return markdown(rows, [title, *CITY_NAMES.values(), "all users" if who else "all visits", "log-loss", "ECE"])


def unseen_cities() -> str:
    """For the README: Acc@1 in percent, mean over users of each city, and of all users and visits together."""
    table = read("groups")
    table = table[table["subset"] == "all"].set_index(["model", "city"])
    rows = []
    for model, (shown, knows) in SHOWN_FIRST.items():
        scores = [table.loc[(model, city), "user_acc@1"] for city in (*CITY_NAMES, POOLED)]
        scores.append(table.loc[(model, POOLED), "acc@1"])
        rows.append([shown, knows, *(f"{100 * score:.1f}" for score in scores)])
    header = ["next places named first, %", "knows of the city", *CITY_NAMES.values(), "all users", "all visits"]
    return markdown(rows, header)


def groups() -> str:
    """By group of the pooled cities: the best count mix, SAMoE, and their difference per user and per visit."""
    return _by_group("SAMoE, 5 %", CHOSEN, POOLED)


def groups_few() -> str:
    """The same, both with the counts of 5 % of the users."""
    return _by_group("SAMoE, 5 %", "context mix, 5 %", POOLED)


def history_by_city() -> str:
    """Difference of Acc@1 per user in each city, by length of history."""
    pairs = _pairs("SAMoE, 5 %", CHOSEN, metric="acc@1", per="user").set_index(["subset", "city"])
    rows = []
    for subset in ("all", "history < 15", "history 15-39", "history 40-99", "history >= 100"):
        found = [(subset, city) for city in (*CITY_NAMES, POOLED)]
        cells = [
            f"{_interval(pairs.loc[key])}, {pairs.loc[key, 'users']}" if key in pairs.index else "–" for key in found
        ]
        rows.append(["all users" if subset == "all" else subset, *cells])
    return markdown(rows, ["Acc@1 gained [95 %], users", *CITY_NAMES.values(), "all"])


def pairs() -> str:
    """Paired differences of each city, per user and per visit; bold where the interval leaves out zero."""
    table = read("groups_pairs")
    table = table[table["subset"] == "all"]
    rows = []
    for (ours, rival, metric, per), group in table.groupby(["ours", "rival", "metric", "per"], sort=False):
        one = group.set_index("city")
        rows.append(
            [f"{ours} - {rival}", f"{metric}, per {per}", *(_interval(one.loc[c]) for c in (*CITY_NAMES, POOLED))]
        )
    return markdown(rows, ["difference", "metric", *CITY_NAMES.values(), "all"])


def elsewhere() -> str:
    """Cabs and the demo's city, per visit."""
    table = read("groups")
    rows = []
    for city, title in ELSEWHERE.items():
        for _, row in table[(table["city"] == city) & (table["subset"] == "all")].iterrows():
            scores = [_pair(row, ""), _pair(row, "user_"), f"{row['nll']:.3f}", f"{row['ece']:.3f}"]
            rows.append([title, f"**{row['model']}**" if row["model"].startswith("SAMoE") else row["model"], *scores])
    return markdown(rows, ["data", "model", "Acc@1/MRR per visit", "per user", "log-loss", "ECE"])


def mix_weights() -> str:
    """The mix with the counts of all training visits and four sets of weights."""
    table = read("mix_weights")
    table = table.assign(model=table["model"].str.replace(r"chosen: .*", "chosen by `for_task`", regex=True))
    cities = list(dict.fromkeys(table["city"]))
    rows = []
    for model in dict.fromkeys(table["model"]):
        one = table[table["model"] == model].set_index("city")
        rows.append([model, *(f"{one.loc[c, 'mrr']:.3f} / {one.loc[c, 'nll']:.3f}" for c in cities)])
    return markdown(rows, ["MRR / log-loss", *(CITY_NAMES.get(city, ELSEWHERE.get(city, city)) for city in cities)])


def anomalies() -> str:
    """AUROC of swapped days, mean over the draws; of the source cities, their mean."""
    table = read("anomalies")
    sources = table[table["kind"] == "source"].groupby("score", sort=False)["auroc"].mean()
    rows = []
    for score in dict.fromkeys(table["score"]):
        one = table[(table["score"] == score) & (table["kind"] == "target")]
        means = one.groupby("city")["auroc"].mean()
        cells = [f"{means[city]:.3f}" for city in CITY_NAMES]
        name = f"**{score}**" if score == "score" else score
        rows.append([name, f"{sources[score]:.3f}", *cells, f"{means.mean():.3f}"])
    return markdown(rows, ["score of a day", "four source cities", *CITY_NAMES.values(), "mean of the four"])


def anomaly_gains() -> str:
    """AUROC of `score` minus that of scores without a model; bounds are averaged over the draws."""
    table = read("anomalies")
    ours = table[(table["kind"] == "target") & (table["score"] == "score")].set_index(["city", "draw"])
    rows = []
    for rival in (column.removeprefix("low over ") for column in table if column.startswith("low over ")):
        other = table[table["score"] == rival].set_index(["city", "draw"])["auroc"]
        gain = (ours["auroc"] - other).dropna().groupby("city").mean()
        ends = ours[[f"low over {rival}", f"high over {rival}"]].groupby("city").mean().to_numpy()
        bounds = dict(zip(sorted(CITY_NAMES), ends))
        cells = [f"{gain[c]:+.3f} [{bounds[c][0]:+.3f}, {bounds[c][1]:+.3f}]" for c in CITY_NAMES]
        rows.append([rival, *cells])
    return markdown(rows, ["`score` minus", *CITY_NAMES.values()])


def _by_group(ours: str, rival: str, city: str) -> str:
    table = read("groups")
    scores = table[table["city"] == city].set_index(["model", "subset"])
    pairs = _pairs(ours, rival, metric="acc@1").query("city == @city").set_index(["subset", "per"])
    rows = []
    for subset in pairs.index.get_level_values("subset").unique():
        a, b = scores.loc[(rival, subset)], scores.loc[(ours, subset)]
        head = [LABELS.get(subset, subset), f"{a['users']:,}", f"{a['n']:,}"]
        means = [f"{a['user_acc@1']:.3f}", f"{b['user_acc@1']:.3f}"]
        rows.append([*head, *means, *(_interval(pairs.loc[(subset, per)]) for per in ("user", "visit"))])
    return markdown(
        rows, ["targets", "users", "visits", f"{rival}", ours, "gain per user [95 %]", "gain per visit [95 %]"]
    )


def _pairs(ours: str, rival: str, **wanted: str) -> pd.DataFrame:
    table = read("groups_pairs")
    for column, value in {"ours": ours, "rival": rival, **wanted}.items():
        table = table[table[column] == value]
    return table


def _pair(row: pd.Series, who: str) -> str:
    return f"{row[f'{who}acc@1']:.3f}/{row[f'{who}mrr']:.3f}"


def _interval(row: pd.Series) -> str:
    text = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text
