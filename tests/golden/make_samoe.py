"""Writes the golden outputs of SAMoE: `python tests/golden/make_samoe.py`, from the root of the repository.

To be run again only when the outputs are meant to change. Weights and inputs come from sines, not from a random
generator, so that they are the same with every version of torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from waves import wave

from hf_mobility import SamoeConfig, SamoeForNextLocation

FOLDER = Path(__file__).parent
VARIANTS = ("extended", "released", "paper")
GRADIENTS = (
    "model.visit_features.poi.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.0.mlp.router.selector.weight",
)
NUM_PLACES = 10


@torch.no_grad()
def make_model(variant: str) -> SamoeForNextLocation:
    model = SamoeForNextLocation(SamoeConfig.from_preset("tiny", variant=variant)).eval()
    for name, parameter in model.named_parameters():
        parameter.copy_(0.25 * wave(name, *parameter.shape) + float(name.endswith("norm.weight")))
    return model


def make_inputs(config: SamoeConfig) -> dict[str, torch.Tensor]:
    """Two people, seven visits; the second has two fewer (padding on the left)."""
    table = wave("city", NUM_PLACES + 2, config.num_location_features).abs()
    table[:, config.num_poi_features + 2] = torch.arange(NUM_PLACES + 2) % 9
    table[:2] = 0
    draws = wave("visits", 3, 2, 7).abs().double()
    ids = 2 + (draws[0] * NUM_PLACES).long().clamp(max=NUM_PLACES - 1)
    timestamps = 1_700_000_000 + (draws[1] * 40_000).long().cumsum(1)
    fields = {
        "input_ids": ids,
        "time_ids": timestamps // 1800 % 48,
        "weekday_ids": (timestamps // 86_400 + 3) % 7,
        "stay_ids": 1 + (draws[2] * (config.num_stay_bins - 2)).long(),
        "timestamps": timestamps,
        "attention_mask": torch.ones_like(ids),
    }
    for value in fields.values():
        value[1, :2] = 0
    labels = fields["input_ids"].masked_fill(fields["attention_mask"] == 0, -100)
    labels[1, 2] = -100
    stay_labels = fields["stay_ids"].clone()
    stay_labels[1, 2] = 0
    return {**fields, "location_features": table, "labels": labels, "stay_labels": stay_labels}


def outputs_of(model: SamoeForNextLocation, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits (real positions, places only), stay logits, losses, and three gradient norms."""
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    real = inputs["attention_mask"].bool()
    parameters = dict(model.named_parameters())
    found = {
        "logits": output.logits[real][:, 2:],
        "stay_logits": output.stay_logits[real],
        "loss": output.loss,
        "location_loss": output.location_loss,
        "stay_loss": output.stay_loss,
        **{f"gradient norm of {name}": parameters[name].grad.norm() for name in GRADIENTS},
    }
    return {name: value.detach().clone() for name, value in found.items()}


if __name__ == "__main__":
    for variant in VARIANTS:
        model = make_model(variant)
        inputs = make_inputs(model.config)
        tensors = {f"inputs/{name}": value for name, value in inputs.items()}
        tensors |= {f"outputs/{name}": value for name, value in outputs_of(model, inputs).items()}
        save_file(tensors, FOLDER / f"samoe_tiny_{variant}.safetensors")
