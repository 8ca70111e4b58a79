"""M-STAR's forward pass against an independent re-implementation, written from the published equations: loops over
positions and heads, plain matrix products. The codec's features are taken as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration

Weights = dict[str, torch.Tensor]
LENGTHS = [1, 4, 24]
LEVELS = [level for level, length in enumerate(LENGTHS) for _ in range(length)]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def modulation(weights: Weights, name: str, condition: torch.Tensor) -> tuple[torch.Tensor, ...]:
    inner = linear(weights, f"{name}.up_proj", condition)
    values = linear(weights, f"{name}.down_proj", inner * torch.sigmoid(inner))
    width = len(condition)
    return values[:width], values[width : 2 * width], values[2 * width :]


def adaptive_norm(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention(weights: Weights, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    """Every position sees its own level and the coarser ones."""
    q, k, v = linear(weights, f"{name}.qkv_proj", x).chunk(3, dim=-1)
    size = x.shape[1] // heads
    result = torch.zeros_like(x)
    for i, level in enumerate(LEVELS):
        seen = [j for j, other in enumerate(LEVELS) if other <= level]
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            scores = k[seen][:, columns] @ q[i, columns] / math.sqrt(size)
            result[i, columns] = scores.softmax(0) @ v[seen][:, columns]
    return linear(weights, f"{name}.o_proj", result)


def forward(
    weights: Weights,
    features: torch.Tensor,
    person: tuple[int, int, int],
    *,
    shown: dict[int, torch.Tensor] | None = None,
    layers: int = 2,
    heads: int = 2,
) -> torch.Tensor:
    """Logits (T, V) of one week, from u (T, D). `shown`: positions whose code is shown, and its vector."""
    home, commute, attribute = person
    table = weights["conditions.place_embedding.weight"]
    condition = torch.cat([table[home], table[commute]]) + weights["conditions.attribute_embedding.weight"][attribute]
    rows = []
    for position, level in enumerate(LEVELS):
        if level == 0:
            row = condition + weights["start"]
        elif shown and position in shown:
            row = linear(weights, "in_proj", features[position] + shown[position]) + weights["revealed_embedding"]
        else:
            row = linear(weights, "in_proj", features[position])
        rows.append(row + weights["slot_embedding"][position] + weights["level_embedding.weight"][level])
    x = torch.stack(rows)
    gate_a, scale_a, shift_a = modulation(weights, "attention_modulation", condition)
    gate_f, scale_f, shift_f = modulation(weights, "mlp_modulation", condition)
    _, scale, shift = modulation(weights, "norm_modulation", condition)
    for layer in range(layers):
        name = f"layers.{layer}"
        x = x + attention(weights, f"{name}.self_attn", adaptive_norm(x, scale_a, shift_a), heads) * gate_a
        inner = linear(weights, f"{name}.mlp.up_proj", adaptive_norm(x, scale_f, shift_f))
        x = x + linear(weights, f"{name}.mlp.down_proj", gelu(inner)) * gate_f
    return linear(weights, "lm_head", adaptive_norm(x, scale, shift))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_forward_pass_equals_the_equations(steps: int, implementation: str) -> None:
    torch.manual_seed(0)
    config = MstarConfig.from_preset("tiny", within_level_steps=steps)
    model = MstarForTrajectoryGeneration(config).eval()
    model.set_attn_implementation(implementation)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    model.double()
    code_ids = torch.randint(0, 32, (3, 29))
    home, commute, attribute = torch.tensor([[3, 0, 15], [3, 9, 1], [0, 7, 4]])
    revealed = None
    if steps > 1:
        revealed = torch.rand(3, 29) < 0.4
        revealed[:, 0] = False
    output = model(code_ids, home, commute, attribute, revealed=revealed)

    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("codec.")}
    features, _ = model.codec.teacher_inputs(code_ids)
    total, count, by_level = 0.0, 0, torch.zeros(3, 2, dtype=torch.float64)
    for week in range(3):
        shown = None
        if revealed is not None:
            where = revealed[week].nonzero().flatten().tolist()
            shown = {position: model.codec.code_vectors(code_ids[week, position]) for position in where}
        person = (int(home[week]), int(commute[week]), int(attribute[week]))
        logits = forward(weights, features[week], person, shown=shown)
        torch.testing.assert_close(output.logits[week], logits, atol=1e-9, rtol=1e-9)
        for position, level in enumerate(LEVELS):
            if shown is None or position not in shown:
                loss = -logits[position].log_softmax(0)[code_ids[week, position]]
                total, count = total + float(loss), count + 1
                by_level[level] += torch.tensor([float(loss), 1.0])
    assert float(output.loss) == pytest.approx(total / count, abs=1e-6)
    torch.testing.assert_close(output.level_losses.double(), by_level[:, 0] / by_level[:, 1], atol=1e-5, rtol=1e-5)
