"""Writes the golden outputs of the M-STAR codec: `python tests/golden/make_mstar_codec.py`, from the root of the
repository.

To be run again only when the outputs are meant to change. Weights and inputs come from sines, not from a random
generator, so that they are the same with every version of torch.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from waves import wave

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

FOLDER = Path(__file__).parent
VARIANTS = ("corrected", "released")
GRADIENTS = ("cell_embeddings.0.weight", "encoder.1.self_attn.k_proj.weight", "quantiser.refiners.0.conv_proj.weight")


@torch.no_grad()
def make_model(variant: str) -> MstarCodecModel:
    model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant)).eval()
    for name, parameter in model.named_parameters():
        size = 2 if name.startswith("cell_embeddings") else 0.3
        parameter.copy_(size * wave(name, *parameter.shape) + float("norm.weight" in name))
    codes = model.quantiser.codebook.weight
    codes.copy_(1.5 * wave("codes", *codes.shape))
    return model


def make_inputs() -> dict[str, torch.Tensor]:
    """Three weeks of 24 hours in 16 cells, the coarse grid four cells to one; the last has unknown hours."""
    fine = (wave("cells", 3, 8).abs() * 16).long().clamp(max=15).repeat_interleave(3, dim=1)
    mask = torch.ones_like(fine)
    mask[2, 5:12] = 0
    return {"input_ids": torch.stack([fine // 4, fine], dim=1) * mask.unsqueeze(1), "attention_mask": mask}


def outputs_of(model: MstarCodecModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Codes, logits, losses, what a generator would read, and three gradient norms."""
    model.zero_grad()
    output = model(**inputs)
    output.loss.backward()
    parameters = dict(model.named_parameters())
    given, last = model.teacher_inputs(output.code_ids)
    found = {
        **dict(output.items()),
        "teacher_inputs": given,
        "smoothed_logits": model.decode_features(last, 3),
        **{f"gradient norm of {name}": parameters[name].grad.norm() for name in GRADIENTS},
    }
    return {name: value.detach().clone() for name, value in found.items()}


if __name__ == "__main__":
    for variant in VARIANTS:
        model, inputs = make_model(variant), make_inputs()
        tensors = {f"inputs/{name}": value for name, value in inputs.items()}
        tensors |= {f"outputs/{name}": value for name, value in outputs_of(model, inputs).items()}
        save_file(tensors, FOLDER / f"mstar_codec_tiny_{variant}.safetensors")
