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


def rounds(steps: int) -> list[int]:
    """The pass in which each position is drawn: a level's first pass takes every 2^(steps - 1)-th position, each later
    one halves the distance. A level of four positions has three passes at most, one of a single position has one.
    """
    found = []
    for length in LENGTHS:
        passes = min(steps, {1: 1, 4: 3, 24: 6}[length])
        found += [next(r for r in range(passes) if index % 2 ** (passes - 1 - r) == 0) for index in range(length)]
    return found


def beside(position: int, steps: int) -> list[int | None]:
    """The nearest positions of the level, before and after, that were drawn in an earlier pass."""
    drawn, level = rounds(steps), LEVELS[position]

    def earlier(others: range) -> int | None:
        return next((i for i in others if LEVELS[i] == level and drawn[i] < drawn[position]), None)

    return [earlier(range(position - 1, -1, -1)), earlier(range(position + 1, len(LEVELS)))]


def attention(weights: Weights, name: str, x: torch.Tensor, heads: int, steps: int) -> torch.Tensor:
    """Every position sees the coarser levels, and of its own what is drawn with it or before it."""
    q, k, v = linear(weights, f"{name}.qkv_proj", x).chunk(3, dim=-1)
    size, drawn = x.shape[1] // heads, rounds(steps)
    result = torch.zeros_like(x)
    for i, level in enumerate(LEVELS):
        seen = [j for j, other in enumerate(LEVELS) if (other, drawn[j]) <= (level, drawn[i])]
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            scores = k[seen][:, columns] @ q[i, columns] / math.sqrt(size)
            result[i, columns] = scores.softmax(0) @ v[seen][:, columns]
    return linear(weights, f"{name}.o_proj", result)


def forward(
    weights: Weights,
    features: torch.Tensor,
    person: tuple[int, int, int],
    steps: int,
    vectors: torch.Tensor,
    *,
    layers: int = 2,
    heads: int = 2,
) -> torch.Tensor:
    """Logits (T, V) of one week, from u (T, D) and the vectors of its codes (T, D)."""
    home, commute, attribute = person
    table = weights["conditions.place_embedding.weight"]
    condition = torch.cat([table[home], table[commute]]) + weights["conditions.attribute_embedding.weight"][attribute]
    rows = []
    for position, level in enumerate(LEVELS):
        if level == 0:
            row = condition + weights["start"]
        else:
            row = linear(weights, "in_proj", features[position])
        if steps > 1:
            nothing = torch.zeros_like(features[0])
            sides = [nothing if i is None else features[i] + vectors[i] for i in beside(position, steps)]
            row = row + torch.cat(sides) @ weights["sides_proj.weight"].T
        rows.append(row + weights["slot_embedding"][position] + weights["level_embedding.weight"][level])
    x = torch.stack(rows)
    gate_a, scale_a, shift_a = modulation(weights, "attention_modulation", condition)
    gate_f, scale_f, shift_f = modulation(weights, "mlp_modulation", condition)
    _, scale, shift = modulation(weights, "norm_modulation", condition)
    for layer in range(layers):
        name = f"layers.{layer}"
        x = x + attention(weights, f"{name}.self_attn", adaptive_norm(x, scale_a, shift_a), heads, steps) * gate_a
        inner = linear(weights, f"{name}.mlp.up_proj", adaptive_norm(x, scale_f, shift_f))
        x = x + linear(weights, f"{name}.mlp.down_proj", gelu(inner)) * gate_f
    return linear(weights, "lm_head", adaptive_norm(x, scale, shift))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
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
    output = model(code_ids, home, commute, attribute)

    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("codec.")}
    features, _ = model.codec.teacher_inputs(code_ids)
    total, count, by_level = 0.0, 0, torch.zeros(3, 2, dtype=torch.float64)
    for week in range(3):
        person = (int(home[week]), int(commute[week]), int(attribute[week]))
        logits = forward(weights, features[week], person, steps, model.codec.code_vectors(code_ids[week]))
        torch.testing.assert_close(output.logits[week], logits, atol=1e-9, rtol=1e-9)
        for position, level in enumerate(LEVELS):
            loss = -logits[position].log_softmax(0)[code_ids[week, position]]
            total, count = total + float(loss), count + 1
            by_level[level] += torch.tensor([float(loss), 1.0])
    assert float(output.loss) == pytest.approx(total / count, abs=1e-6)
    torch.testing.assert_close(output.level_losses.double(), by_level[:, 0] / by_level[:, 1], atol=1e-5, rtol=1e-5)
