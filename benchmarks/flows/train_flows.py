"""Train the network over pairs of regions on US commuting areas.

    python -m benchmarks.flows.train_flows --output checkpoints/flows-small

One network per seed; a seed that the folder already holds is not trained again, so an interrupted command goes on. With
`--validate` a tenth of the areas is left out and reported after the training; otherwise all but the test areas are used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.flows.areas import commuting_areas, split
from hf_mobility.flows import FlowNetworkModel, FlowTraining, evaluate_flows, summarize_flows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=FlowTraining().epochs)
    parser.add_argument("--learning-rate", type=float, default=FlowTraining().learning_rate)
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    areas = split(commuting_areas())
    training = FlowTraining(epochs=options.epochs, learning_rate=options.learning_rate)
    done = [FlowNetworkModel.from_pretrained(options.output)] if (options.output / "flows_config.json").exists() else []
    for seed in options.seeds:
        if any(seed in model.seeds for model in done):
            continue
        start = time.process_time()

        def tell(epoch: int, common: float, seed: int = seed, start: float = start) -> None:
            print(
                f"seed {seed} epoch {epoch} common part {common:.4f} {time.process_time() - start:.0f} CPU s",
                flush=True,
            )

        task = areas.training if options.validate else areas.fitting
        done.append(FlowNetworkModel(seeds=(seed,), training=training).fit(task, tell))
        FlowNetworkModel.together(done).save_pretrained(options.output)
    if options.validate:
        model = FlowNetworkModel.from_pretrained(options.output)
        for given in (False, True):
            print(
                summarize_flows(evaluate_flows([model], areas.validation, outflows_given=given)).to_string(index=False)
            )


if __name__ == "__main__":
    main()
