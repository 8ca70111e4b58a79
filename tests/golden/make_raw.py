"""Writes the golden outputs of RAW: `python tests/golden/make_raw.py`, from the root of the repository.

To be run again only when the outputs are meant to change. Weights and inputs come from sines, not from a random
generator, so that they are the same with every version of torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from waves import wave

from hf_mobility.modeling.configuration_raw import RawConfig
from hf_mobility.modeling.modeling_raw import RawForRegionAnalysis, RawForTrajectoryPrediction, RawForUserProfiling

FILE = Path(__file__).parent / "raw_tiny.safetensors"
FORMS: dict[str, dict] = {
    "paper": {},
    "figure": {"output_head": "linear", "user_pooling": "last_day"},
    "extended": {"delta_targets": True, "mixture_components": 2, "time_features": True, "region_pooling": "log"},
}
GRADIENTS = ("model.point_embedding.up_proj.weight", "model.layers.1.self_attn.k_proj.weight")


@torch.no_grad()
def make_model(cls: type, **overrides: object) -> torch.nn.Module:
    config = RawConfig.from_preset("tiny", slots_per_day=4, max_position_embeddings=16, num_labels=1, **overrides)
    model = cls(config).eval()
    for name, parameter in model.named_parameters():
        parameter.copy_(0.25 * wave(name, *parameter.shape) + float(name.endswith("norm.weight")))
    return model


def make_inputs() -> dict[str, torch.Tensor]:
    """Three people, nine slots; the second has three fewer (padding on the right)."""
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {
        "coordinates": wave("points", 3, 9, 2) * mask.unsqueeze(-1),
        "attention_mask": mask,
        "start_weekday": torch.tensor([0, 4, 6]),
    }


def outputs_of(form: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Predictions at real slots, losses, gradient norms, a roll-out, users and regions."""
    model = make_model(RawForTrajectoryPrediction, **FORMS[form])
    output = model(**inputs, labels=inputs["coordinates"])
    output.loss.backward()
    parameters = dict(model.named_parameters())
    users = make_model(RawForUserProfiling, **FORMS[form])(**inputs)
    visitors = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 2], [1, 1]])
    regions = make_model(RawForRegionAnalysis, **FORMS[form])(**inputs, visitors=visitors, num_regions=3)
    found = {
        "predictions": output.predictions[inputs["attention_mask"].bool()],
        "loss": output.loss,
        "mae": output.mae,
        "copy_last_mae": output.copy_last_mae,
        "roll-out": model.generate(**inputs, steps=4),
        "user_embedding": users.user_embedding,
        "user_logits": users.logits,
        "region_embedding": regions.region_embedding,
        "region_logits": regions.logits,
        **{f"gradient norm of {name}": parameters[name].grad.norm() for name in GRADIENTS},
    }
    return {name: value.detach().clone() for name, value in found.items()}


if __name__ == "__main__":
    inputs = make_inputs()
    tensors = {f"inputs/{name}": value for name, value in inputs.items()}
    for form in FORMS:
        tensors |= {f"{form}/{name}": value for name, value in outputs_of(form, inputs).items()}
    save_file(tensors, FILE)
