"""Models of commuting flows on areas that none of them was fitted to: common part of commuters, with and without outflows.

    python -m benchmarks.flows.evaluate_flows --output benchmarks/flows/results/flows.csv

Writes means by size class and model, to `flows_pairs.csv` the paired differences to LightGBM, and to `flows_columns.csv`
what the network reaches where columns are missing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from benchmarks.flows.areas import Split, commuting_areas, split
from benchmarks.tables import save_table
from hf_mobility.flows import (
    BoostedTrees,
    FlowModel,
    FlowNetworkModel,
    FlowTask,
    GravityModel,
    RadiationModel,
    evaluate_flows,
    paired_flows,
    summarize_flows,
)

DRAWS = 2000  # of the bootstrap over areas
KNOWN = {"population and points of interest": ("total_population", "poi_"), "population": ("total_population",)}


def rivals() -> list[FlowModel]:
    kinds = [(deterrence, constrained) for constrained in (False, True) for deterrence in ("power", "exponential")]
    classical = [GravityModel(deterrence, constrained=constrained) for deterrence, constrained in kinds]
    return [RadiationModel(), *classical, BoostedTrees(), BoostedTrees("poisson"), BoostedTrees(outflows_given=True)]


def needs_outflows(model: FlowModel) -> bool:
    return isinstance(model, BoostedTrees) and model.outflows_given


def evaluated(models: list[FlowModel], test: FlowTask) -> pd.DataFrame:
    parts = [
        evaluate_flows([model], test, outflows_given=given)
        for given in (False, True)
        for model in models
        if given or not needs_outflows(model)
    ]
    return pd.concat(parts, ignore_index=True)


def with_fewer_columns(network: FlowNetworkModel, test: FlowTask) -> pd.DataFrame:
    """CPC by size class with all columns, and with those that begin so."""
    rows = []
    everything = test.areas[0].columns
    for name, known in {"all": ("",), **KNOWN}.items():
        columns = [column for column in everything if column.startswith(known)]
        areas = FlowTask(tuple(area.with_columns(columns) for area in test.areas))
        for given in (False, True):
            means = summarize_flows(evaluate_flows([network], areas, outflows_given=given)).set_index("size")["cpc"]
            rows.append({"columns": name, "outflows given": given, **means})
    return pd.DataFrame(rows)


def fitted(areas: Split) -> list[FlowModel]:
    models = []
    for model in rivals():
        start = time.process_time()
        models.append(model.fit(areas.fitting))
        print(f"{model.name}: {time.process_time() - start:.0f} CPU s", flush=True)
    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("checkpoints/flows-small"))
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    areas = split(commuting_areas())
    classical = fitted(areas)
    tables = [evaluated(classical, areas.test)]
    print(summarize_flows(tables[0]).query("size == 'all'").to_string(index=False), flush=True)
    network = FlowNetworkModel.from_pretrained(options.model)
    table = pd.concat([*tables, evaluated([*network.members(), network], areas.test)], ignore_index=True)
    save_table(summarize_flows(table), options.output)
    trees = [model.name for model in classical if isinstance(model, BoostedTrees)]
    pairs = [paired_flows(table, network.name, name, draws=DRAWS) for name in trees]
    save_table(pd.concat(pairs), options.output.with_name(f"{options.output.stem}_pairs.csv"))
    save_table(with_fewer_columns(network, areas.test), options.output.with_name(f"{options.output.stem}_columns.csv"))


if __name__ == "__main__":
    main()
