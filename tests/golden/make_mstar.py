"""Writes the golden outputs of M-STAR's generator: `python tests/golden/make_mstar.py`, from the root of the
repository.

To be run again only when the outputs are meant to change. Weights and inputs come from sines, not from a random
generator, so that they are the same with every version of torch. The codec's features are made the same way, so that
only the generator is recorded here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from waves import wave

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig, MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration

FOLDER = Path(__file__).parent
CASES = {
    "paper": {"variant": "released"},
    "passes": {"within_level_steps": 3, "condition_dropout": 0.1},
    "copies": {
        "within_level_steps": 3,
        "pointer_head": True,
        "codec_config": MstarCodecConfig.from_preset("tiny", num_encoder_layers=0),
    },
}
GRADIENTS = (
    "conditions.place_embedding.weight",
    "layers.0.self_attn.qkv_proj.weight",
    "lm_head.weight",
    "in_proj.bias",
)


@torch.no_grad()
def make_model(case: str) -> MstarForTrajectoryGeneration:
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", **CASES[case])).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(0.3 * wave(name, *parameter.shape))
    codec = model.config.codec_config
    vectors = wave("codes", codec.codebook_size, codec.hidden_size)
    model.codec.teacher_inputs = lambda ids: (wave("features", *ids.shape, codec.hidden_size), None)
    model.codec.code_vectors = lambda ids: vectors[ids]
    if model.config.pointer_head:
        model.codec.quantiser.codebook.weight.copy_(vectors)
        for table in model.codec.cell_embeddings:
            table.weight.copy_(wave("cells", *table.weight.shape))
        model.fit_places([[cell // 8 * 2 + cell % 4 // 2, cell] for cell in range(16)])
    return model


def make_inputs() -> dict[str, torch.Tensor]:
    """Three people."""
    return {
        "code_ids": (wave("code_ids", 3, 29).abs() * 31).long(),
        "home_ids": torch.tensor([3, 0, 15]),
        "work_ids": torch.tensor([3, 9, 1]),
        "attribute_ids": torch.tensor([0, 7, 4]),
    }


def outputs_of(model: MstarForTrajectoryGeneration, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits, losses, and four gradient norms."""
    model.zero_grad()
    output = model(**{"work_ids" if name == "commute_ids" else name: value for name, value in inputs.items()})
    output.loss.backward()
    parameters = dict(model.named_parameters())
    found = {
        "logits": output.logits,
        "loss": output.loss,
        "level_losses": output.level_losses,
        **{f"gradient norm of {name}": parameters[name].grad.norm() for name in GRADIENTS},
    }
    return {name: value.detach().clone() for name, value in found.items()}


if __name__ == "__main__":
    inputs = make_inputs()
    for case in CASES:
        tensors = {f"inputs/{name}": value for name, value in inputs.items()}
        tensors |= {f"outputs/{name}": value for name, value in outputs_of(make_model(case), inputs).items()}
        save_file(tensors, FOLDER / f"mstar_tiny_{case}.safetensors")
