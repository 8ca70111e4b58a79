"""Write the cards of the shipped checkpoints from the package's template: `python -m benchmarks.make_cards`.

What is known about each checkpoint is written here, its figures come from the committed results. Tables
stand between the marks that `benchmarks/fill_results.py` fills. A folder without facts here is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks.fill_results import ROOT, fill
from benchmarks.pages.checkpoints import parameters, shipped_model
from benchmarks.pages.common import read
from benchmarks.pages.next_location import CITY_NAMES, transfer_rows
from benchmarks.protocols.publish import with_index
from hf_mobility.hub.cards import CardFacts, model_card

OURS = "hf_mobility 0.1.0.dev0"
SIMULATED = (
    "Simulated. One simulated city has 3,000 users, eight weeks each, and 272 cells of 1 km. Half of the users are for "
    "training, a fifth for validation, the rest for test. No real trace, and no real city."
)
SIMULATED_DATA = ("hf-mobility-simulated-city",)  # made by `simulate_city`; no file of it is published
SIMULATED_BIAS = (
    "Those of the simulator, whose users follow written roles, shifts and trips, and exploration and preferential "
    "return. **Not for** conclusions about real people or places."
)
# Rows of other trainings than the shipped one: they stand in the table, and are no results of this model.
EARLIER = ("M-STAR mstar-encoder", "M-STAR mstar-eight-levels", "M-STAR mstar-cells-small-seed-1")


def marked(block: str) -> str:
    return f"<!-- begin {block} -->\n<!-- end -->"


def transfer_results() -> pd.DataFrame:
    """Two metrics of each city for the model index."""
    table = transfer_rows("all")
    table = table[~table["model"].str.contains("LoRA")].sort_values("city", kind="stable")
    return table.replace({"city": CITY_NAMES})[["city", "model", "acc@1", "mrr"]]


def samoe_small() -> CardFacts:
    return CardFacts(
        summary="SAMoE / TrajMoE ([arXiv 2505.18670](https://arxiv.org/abs/2505.18670); MoveGPT in its second version) in hf_mobility's `extended` variant: 2 layers, width 128, "
        f"{parameters('samoe-small'):,} parameters. Predicts the next place of a user\nin **any** city; a city is a "
        "tokenizer, not a weight.",
        notes='**The city in this folder is simulated** ("Simville"), so that the folder loads in one line without '
        "shipping real places. Bring your own, as below.",
        usage_note="In your own city: `NextLocationPipeline.from_pretrained(folder, city=City.from_visits(visits, "
        'timezone="Europe/Paris"))`. '
        "Limits and bias of the whole family: MODEL_CARD.md of the repository.",
        training_data="First open check-ins of 12 cities (`sources.txt`), 2009-2013: Foursquare TSMC2014 (New York), "
        "TIST2015 (Singapore and seven US and Mexican metros), Gowalla\n(Dallas, Kansas City, San Francisco Bay). Every "
        "user has at least 10 visits, and nobody 10 or more in one of the four target cities below.\n\nThen these "
        "check-ins, 120 San Francisco cabs (Cabspotting, hourly cells of a grid) and six simulated cities of different "
        "laws. Three of them have 30 % of the visits. In this step a user gives one window of at most 128 visits an epoch.",
        bias="Check-ins are what app users chose to announce. These users are young and urban, and announce bars and "
        "offices more than homes and night shifts.\nMost of the cities are in North America. Nothing was corrected for "
        "this. Users with long histories gain on a count table, the others do not: docs/results/next_location.md.\nNothing "
        "is known of age, gender or income.",
        weights_license="research use, because the check-ins that they were trained on carry no open licence",
        license_link="LICENSE.md",
        datasets=("foursquare-tsmc2014", "foursquare-tist2015", "gowalla", "cabspotting"),
        data_license="not included; Foursquare TSMC2014 and TIST2015, Gowalla, Cabspotting: published for research, no open "
        "licence",
        command="python -m benchmarks.next_location.pretrain_samoe --output runs/check-ins; python -m "
        "benchmarks.next_location.pretrain_samoe --start runs/check-ins --mixed --windows-per-user 1 --epochs 4 "
        "--learning-rate 6e-4 --output checkpoints/samoe-small",
        seed=0,
        versions=f"transformers 5.24, torch 2.13, {OURS}; 6 and 4 epochs, 1,024 tokens a step, two CPU cores",
        results=transfer_results(),
        ours="SAMoE zero-shot",
        figures="Cities never seen in training, over all venues; protocol, intervals and losses to baselines are in "
        "docs/results/next_location.md.\nAdapting on 5 % of check-ins gains nothing. A mean over users gives every user the same weight:\n\n"
        f"{marked('users')}\n\nOver visits, where users with long histories count more:\n\n{marked('visits')}",
        privacy="The model repeats a user's past places to whoever gives it that past. It stores no user, and was "
        "trained without user ids.\nWhether a user's presence in the training data can be inferred has **not** been "
        "tested.",
    )


def mstar_codec_small() -> CardFacts:
    return CardFacts(
        summary="Codec of M-STAR ([arXiv 2512.07314](https://arxiv.org/abs/2512.07314)), variant `corrected`: weeks of hourly cells <-> 204 codes on four "
        "time scales. Width 64, 1,024 codes, hierarchical cell embeddings, no encoder layers.",
        notes="A codec belongs to its grid: for another city train one, `hf-mobility train --system mstar-codec`.",
        training_data=SIMULATED,
        bias=SIMULATED_BIAS,
        weights_license="apache-2.0",
        data_license="apache-2.0, made by the simulator of this package",
        datasets=SIMULATED_DATA,
        command="python -m benchmarks.generation.train_mstar_codec --steps 1600 --batch-size 32 --set dropout=0 "
        "hierarchical_cells=true num_encoder_layers=0 codebook_size=1024 'level_lengths=[1,7,28,168]' "
        "'level_resolutions=[3,3,3,3]' "
        "--output checkpoints/mstar-codec-small",
        seed=0,
        versions=f"transformers 5.23, torch 2.13, {OURS}; two CPU cores",
        results=read("mstar_codec").assign(
            model="mstar-codec-small", data=lambda table: table["data"] + " weeks, " + table["part"] + " users"
        ),
        ours="mstar-codec-small",
        figures="Round trip of weeks of users it has not seen; there is no baseline for a codec.\n\n"
        f"{marked('mstar codec')}",
        privacy="Trained on simulated users only. A codec of real weeks should be audited before it is published.",
    )


def mstar_cells_small() -> CardFacts:
    table = read("mstar_simulated")
    return CardFacts(
        summary="M-STAR ([arXiv 2512.07314](https://arxiv.org/abs/2512.07314)), variant `corrected`, with its codec inside. It generates weeks of hourly "
        "cells, given home, work and a movement class, or\nfrom nothing. It has 3 layers of width 96.",
        notes="In the mean of six divergences it is nearer to the real weeks than Markov chains and exploration and "
        "return (EPR).\nEPR is nearer in daily motifs, places per day, stay rate and weekends. M-STAR's users are nearer in "
        "when they arrive at work and whom they meet again,\nyet far from real ones. Homes that no training user had are "
        "not kept. Copying other days completes known weeks mostly better. A generator belongs to its grid.",
        training_data=SIMULATED,
        bias=SIMULATED_BIAS,
        weights_license="apache-2.0",
        data_license="apache-2.0, made by the simulator of this package",
        datasets=SIMULATED_DATA,
        command="python -m benchmarks.generation.train_mstar --codec checkpoints/mstar-codec-small --steps 3000 "
        "--batch-size 32 --set dropout=0.1 drop_path=0.1 within_level_steps=6 pointer_head=true --judged 2000 "
        "--output checkpoints/mstar-cells-small",
        seed=0,
        versions=f"transformers 5.23, torch 2.13, {OURS}; two CPU cores",
        results=table[~table["model"].isin(["real itself", *EARLIER])].assign(data=table["data"] + " weeks"),
        ours="M-STAR mstar-cells-small",
        figures="On users that no stage has seen, conditions drawn, baselines first, against 2,000 weeks. What the columns "
        "mean, completion, use and privacy:\ndocs/results/generation.md. Single weeks, then habits of users:\n\n"
        f"{marked('weeks like')}\n\n{marked('weeks habits')}\n\n"
        "Distributions; `mstar-encoder` and `mstar-eight-levels` are earlier forms, `seed-1` is a second training:\n\n"
        f"{marked('mstar simulated')}",
        privacy=copying(table),
    )


def mstar_small() -> CardFacts:
    table = read("weeks_slots")
    return CardFacts(
        summary="M-STAR ([arXiv 2512.07314](https://arxiv.org/abs/2512.07314)) on weeks of slots, not in the paper. A week names the user's own places: home, work, "
        "recurring and single ones. A place head chooses places of **any** city.\nNo week of that city is needed. It has 3 "
        "layers of width 64, with its codec and the place head inside.",
        notes="**The city in this folder is simulated.** Bring your own: `pipe.for_city(city, means={...})`. Users keep one "
        "home, one work place and their recurring places.\nExploration and return (EPR), fitted on weeks of the city itself, is "
        "nearer in daily motifs of two cities of three. A small network tells these weeks from\nreal ones about as well as EPR's. After "
        "`adapt` on weeks of 30 users it does so less well. Real cities were not tried.",
        training_data="Simulated. 80 simulated cities of different shapes, laws of distance, shift work and clock habits, 130 "
        "users in a typical one, five weeks each. No real trace, and no real city.",
        bias=SIMULATED_BIAS,
        weights_license="apache-2.0",
        data_license="apache-2.0, made by the simulator of this package",
        datasets=SIMULATED_DATA,
        command="python -m benchmarks.generation.train_slots --output runs/slots; python -m "
        "benchmarks.generation.train_slots --start runs/slots --steps 2500 --learning-rate 3e-4 --seed 1 "
        "--output checkpoints/mstar-small",
        seed=0,
        versions=f"transformers 5.24, torch 2.13, {OURS}; two CPU cores, about an hour",
        results=table[table["model"] != "M-STAR, slots, with traits"].assign(
            data=lambda rows: "unseen simulated city " + rows["city"]
        )[["data", "model", "mean6"]],
        ours="M-STAR, slots",
        figures="In three simulated cities that no training has seen, baselines first; these were fitted in the city. What the "
        f"columns mean: docs/results/generation.md.\n\n{marked('weeks slots')}",
        privacy="Trained on simulated users only. The tokenizer holds a mixture of groups of users with ten traits each, and "
        "lists no user, no home and no pair of places.",
    )


def raw_released_small() -> CardFacts:
    table = read("raw_rollout_simulated")
    table = table[(table["subset"] == "moving") & (table["minutes"] == 150)].assign(
        data="simulated users who moved over 500 m, 2.5 hours"
    )
    return CardFacts(
        summary="RAW ([arXiv 2311.10471](https://arxiv.org/abs/2311.10471)): a causal encoder of positions every 15 minutes over one week. It embeds users "
        "and regions and rolls positions forward. It has 4 layers of width 128.\nWith `delta_targets` the head gives the "
        "displacement from the last point; the paper's gives the position.",
        notes="**The bounds in this folder are those of a simulated city**: train your own for another one. A vector is "
        "comparable only with\nvectors of this checkpoint, on windows of the same length and first weekday. Simple "
        "rules are level or better on most tasks.\nFor commuters it is, in accuracy, the rule of the label on the week that is read, 2.5 "
        "hours ahead the hour's mean position.\nSee docs/results/embeddings.md and docs/results/positions.md.",
        training_data="Simulated. The first and the second week of 2,000 users of one simulated city, each a window "
        "of its own. A position stands every 15 minutes; 2,000 other users are held out. No real trace.",
        bias=SIMULATED_BIAS,
        weights_license="apache-2.0",
        data_license="apache-2.0, made by the simulator of this package",
        datasets=SIMULATED_DATA,
        command="python -m benchmarks.embeddings.train_raw --users 4000 --held-out 0.5 --steps 6000 --batch-size 32 "
        "--learning-rate 1e-3 --set delta_targets=True --end-hours 19 --gru-steps 0 --output checkpoints/raw-released-small",
        seed=0,
        versions=f"transformers 5.23, torch 2.11, {OURS}; one H100",
        results=table,
        ours="RAW",
        figures=f"Roll-outs that end at 19 h, users held out, baselines first:\n\n{marked('raw week ends simulated')}",
        privacy="Trained on simulated users only. The vector of a real user is personal data: it finds the same user "
        "again.",
    )


def raw_small() -> CardFacts:
    table = read("raw_extended")
    table = table[(table["subset"] == "all") & (table["minutes"] == 150) & (table["points"] != "simulated")]
    table = table[~table["model"].str.startswith("RAW extended,")]  # adapted, and another training
    return CardFacts(
        summary="RAW ([arXiv 2311.10471](https://arxiv.org/abs/2311.10471)) in hf_mobility's `extended` variant, which is not in the paper. It reads a user's "
        "own records in kilometres and says where the user is at any time up to a day ahead, in **any** city.\n"
        f"It has 2 layers of width 64, {parameters('raw-small'):,} parameters.",
        notes="The answer is a mixture over the user's own past records and some free points; the predicted point is its "
        "geometric median. A user without a past mostly stands still.\nThe city in this folder is simulated and lends its "
        "clock only. It embeds nobody: for vectors take raw-released-small.",
        usage_note="In another time zone: `TrajectoryPredictionPipeline.from_pretrained(folder, "
        'city=City.from_bounds((52.3, 13.1, 52.7, 13.7), timezone="Europe/Berlin"))`.',
        training_data="Records of 70 users of GeoLife (Beijing, 2007-2012) and of 273 cabs (San Francisco, 2008). "
        "Check-ins of the 12 source cities of samoe-small, each a record, and nine simulated cities of 150 users.\nUsers "
        "that the tables below or the protocol geolife-horizons hold out are not among them, nor whoever is linked to "
        "one.",
        bias="GeoLife's users are mostly students and staff of one institute, recorded more often on the way than at rest. "
        "Cabs are vehicles with several drivers. Check-ins are what app users chose to announce.\nNothing is known of "
        "age, gender or income, and nothing was corrected.",
        weights_license="research use, because the traces that they were trained on carry no open licence",
        license_link="LICENSE.md",
        datasets=("geolife", "cabspotting", "foursquare-tsmc2014", "foursquare-tist2015", "gowalla"),
        data_license="not included; GeoLife: Microsoft Research licence, non-commercial research; Cabspotting, Foursquare "
        "and Gowalla: published for research, no open licence",
        command="python -m benchmarks.embeddings.train_raw_extended --output checkpoints/raw-small",
        seed=0,
        versions=f"transformers 5.24, torch 2.13, {OURS}; one CPU core",
        results=table.assign(data=table["points"] + ", 2.5 hours ahead, recorded end points"),
        ours="RAW extended",
        figures="Users held out, predictions that start from a record and end at one, baselines first; intervals and moving "
        "users: docs/results/positions_extended.md. `adapted` is after `adapt` on training users, `second-seed` another "
        f"training.\n\n{marked('raw extended')}",
        privacy="The model repeats a user's past places to whoever gives it that past. It stores no user, and was "
        "trained without user ids.\nWhether a user's presence in the training data can be inferred has **not** been "
        "tested.",
    )


def copying(table: pd.DataFrame) -> str:
    """What the evaluation found to be copied, beside users that were not trained on."""
    rows = table.set_index("model")
    made, real = rows.loc["M-STAR mstar-cells-small"], rows.loc["real itself"]
    return (
        f"Of {made['n']:.0f} generated weeks {100 * made['copied_moving']:.1f} % of those with a move equal a training "
        f"week (unseen users' own: {100 * real['copied_moving']:.1f} %). They share on average\n"
        f"{100 * made['overlap']:.1f} % of their hours with the nearest training week (unseen users: "
        f"{100 * real['overlap']:.1f} %). The city file lists homes and pairs of home and work of the training users,\n"
        "who are simulated. For real ones, audit with `hf_mobility.evaluation.audit`."
    )


FACTS: dict[str, Callable[[], CardFacts]] = {
    "samoe-small": samoe_small,
    "mstar-codec-small": mstar_codec_small,
    "mstar-cells-small": mstar_cells_small,
    "mstar-small": mstar_small,
    "raw-released-small": raw_released_small,
    "raw-small": raw_small,
}


def card_of(folder: Path) -> str:
    from transformers import AutoTokenizer

    name = folder.relative_to(ROOT).as_posix()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    card = model_card(shipped_model(folder.name), tokenizer=tokenizer, name=name, facts=FACTS[folder.name]())
    return fill(str(with_index(card, folder.name)).rstrip("\n") + "\n")


def main() -> None:
    for folder in sorted((ROOT / "checkpoints").iterdir()):
        if folder.name in FACTS:
            (folder / "README.md").write_text(card_of(folder), encoding="utf-8")
        else:
            print(f"{folder.name}: no facts in {Path(__file__).name}, its card stays as it is")


if __name__ == "__main__":
    main()
