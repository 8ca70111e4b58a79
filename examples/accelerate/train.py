"""Train SAMoE in as many processes as the launcher starts; the loss curve is that of one process.

accelerate launch --config_file examples/accelerate/ddp.yaml --num_processes 2 examples/accelerate/train.py
python examples/accelerate/train.py 20 runs/one             # one process, 20 steps, two checkpoints
python examples/accelerate/train.py 20 runs/one --resume    # go on from the last whole one
"""

from __future__ import annotations

import sys

import torch

from hf_mobility import (
    City,
    CityCorpus,
    MobilityTrainer,
    SamoeConfig,
    SamoeForNextLocation,
    SamoeTokenizer,
    simulate_city,
    training_arguments,
)


def main(steps: str = "20", output: str = "runs/several-processes", *options: str) -> MobilityTrainer:
    made = simulate_city(50, num_days=14, observe=0.5, seed=1)
    city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
    config = SamoeConfig.from_preset("tiny")
    tokenizer = SamoeTokenizer.from_city(city, config)
    arguments = training_arguments(
        output,
        max_steps=int(steps),
        warmup_steps=0,
        logging_steps=1,
        save_strategy="steps",
        save_steps=0.5,  # halfway, and at the end
        bf16="--fp32" not in options,
    )
    print(f"process {arguments.process_index} of {arguments.world_size} on {arguments.device.type}", flush=True)

    torch.manual_seed(0)  # the same first weights in all processes
    trainer = MobilityTrainer(
        SamoeForNextLocation(config),
        arguments,
        train_dataset=CityCorpus.from_visits([(made.visits, tokenizer)]),
        tokens_per_batch=1024,  # over all processes
        processing_class=tokenizer,  # saved with the model
    )
    trainer.train(resume_from_checkpoint="--resume" in options)
    trainer.save_model()
    trainer.save_state()
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
