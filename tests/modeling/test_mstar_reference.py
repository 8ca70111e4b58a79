"""M-STAR's forward pass against an independent re-implementation, written from the published equations: loops over
positions and heads, plain matrix products. The codec's features are taken as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig, MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration

Weights = dict[str, torch.Tensor]
LENGTHS = [1, 4, 24]
PARENTS = [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]  # four coarse cells of 2 x 2 fine ones
LEVELS = [level for level, length in enumerate(LENGTHS) for _ in range(length)]


class Codec(NamedTuple):
    """What copying needs of a codec: per level the vectors of the finest cells (C, D), and all codes' (V, D)."""

    cells: list[torch.Tensor]
    codebook: torch.Tensor


class Order(NamedTuple):
    """`within_level_steps`, `_spacing` and `_context`."""

    steps: int
    spacing: int = 1
    context: int = 0


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


def rounds(order: Order) -> list[tuple[int, int]]:
    """The pass in which each position is drawn: a level's first pass takes every 2^(steps - 1)-th position, each later
    one halves the distance. A level of four positions has three passes at most, one of a single position has one. Where
    positions of a pass are nearer than the spacing, they take turns.
    """
    found = []
    for length in LENGTHS:
        passes = min(order.steps, {1: 1, 4: 3, 24: 6}[length])
        number = [next(r for r in range(passes) if index % 2 ** (passes - 1 - r) == 0) for index in range(length)]
        for index, one in enumerate(number):
            together = [other for other in range(length) if number[other] == one]
            gap = 2 ** (passes - 1 - one) * (1 if one == 0 else 2)
            found.append((one, together.index(index) % min(math.ceil(order.spacing / gap), len(together))))
    return found


def beside(position: int, order: Order) -> list[int | None]:
    """The nearest positions of the level, before and after, that were drawn in an earlier pass."""
    drawn, level = rounds(order), LEVELS[position]

    def earlier(others: range) -> int | None:
        return next((i for i in others if LEVELS[i] == level and drawn[i] < drawn[position]), None)

    return [earlier(range(position - 1, -1, -1)), earlier(range(position + 1, len(LEVELS)))]


def around(position: int, order: Order) -> list[int | None]:
    """The positions of the level that lie in the context, from the first to the last, where they were drawn before."""
    drawn = rounds(order)
    near = [position + step for step in range(-order.context, order.context + 1) if step]
    own = [i if 0 <= i < len(LEVELS) and LEVELS[i] == LEVELS[position] else None for i in near]
    return [None if i is None or drawn[i] >= drawn[position] else i for i in own]


def attention(weights: Weights, name: str, x: torch.Tensor, heads: int, order: Order) -> torch.Tensor:
    """Every position sees the coarser levels, and of its own what is drawn with it or before it."""
    q, k, v = linear(weights, f"{name}.qkv_proj", x).chunk(3, dim=-1)
    size, drawn = x.shape[1] // heads, rounds(order)
    result = torch.zeros_like(x)
    for i, level in enumerate(LEVELS):
        seen = [j for j, other in enumerate(LEVELS) if (other, drawn[j]) <= (level, drawn[i])]
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            scores = k[seen][:, columns] @ q[i, columns] / math.sqrt(size)
            result[i, columns] = scores.softmax(0) @ v[seen][:, columns]
    return linear(weights, f"{name}.o_proj", result)


def nearest(vector: torch.Tensor, table: torch.Tensor) -> int:
    return min(range(len(table)), key=lambda row: float((table[row] - vector).square().sum()))


def codes_to_copy(
    position: int,
    person: tuple[int, int, int],
    features: torch.Tensor,
    vectors: torch.Tensor,
    order: Order,
    codec: Codec,
) -> list[int | None]:
    """Codes that come closest to the vector of home, of work, and of the cells that lie nearest to what was
    drawn on the two sides, given what the coarser levels say; `None` where there is no such place.
    """
    cells = codec.cells[LEVELS[position]]
    places: list[int | None] = list(person[:2])
    if order.steps > 1:
        places += [None if i is None else nearest(features[i] + vectors[i], cells) for i in beside(position, order)]
    return [None if place is None else nearest(cells[place] - features[position], codec.codebook) for place in places]


def forward(
    weights: Weights,
    features: torch.Tensor,
    person: tuple[int, int, int],
    order: Order,
    vectors: torch.Tensor,
    codec: Codec | None,
    *,
    layers: int = 2,
    heads: int = 2,
) -> torch.Tensor:
    """Logits (T, V) of one week, from u (T, D) and the vectors of its codes (T, D); `codec` if places are copied."""
    home, commute, attribute = person
    table = weights["conditions.place_embedding.weight"]
    condition = torch.cat([table[home], table[commute]]) + weights["conditions.attribute_embedding.weight"][attribute]
    rows = []
    for position, level in enumerate(LEVELS):
        if level == 0:
            row = condition + weights["start"]
        else:
            row = linear(weights, "in_proj", features[position])
        nothing = torch.zeros_like(features[0])
        for name, others in (("sides_proj", beside), ("context_proj", around)):
            if f"{name}.weight" in weights:
                read = [nothing if i is None else features[i] + vectors[i] for i in others(position, order)]
                row = row + torch.cat(read) @ weights[f"{name}.weight"].T
        if codec is not None:
            copied = codes_to_copy(position, person, features, vectors, order, codec)
            agree = [a is not None and a == b for n, a in enumerate(copied) for b in copied[n + 1 :]]
            row = row + weights["copies.agreement_proj.weight"] @ torch.tensor(agree).double()
        rows.append(row + weights["slot_embedding"][position] + weights["level_embedding.weight"][level])
    x = torch.stack(rows)
    gate_a, scale_a, shift_a = modulation(weights, "attention_modulation", condition)
    gate_f, scale_f, shift_f = modulation(weights, "mlp_modulation", condition)
    _, scale, shift = modulation(weights, "norm_modulation", condition)
    for layer in range(layers):
        name = f"layers.{layer}"
        x = x + attention(weights, f"{name}.self_attn", adaptive_norm(x, scale_a, shift_a), heads, order) * gate_a
        inner = linear(weights, f"{name}.mlp.up_proj", adaptive_norm(x, scale_f, shift_f))
        x = x + linear(weights, f"{name}.mlp.down_proj", gelu(inner)) * gate_f
    hidden = adaptive_norm(x, scale, shift)
    logits = linear(weights, "lm_head", hidden)
    if codec is not None:
        scores = linear(weights, "copies.score_proj", hidden)
        for position in range(len(LEVELS)):
            copied = codes_to_copy(position, person, features, vectors, order, codec)
            for code, score in zip(copied, scores[position]):
                if code is not None:
                    logits[position, code] += score
    return logits


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("copying", ["none", "cells", "nested cells"])
@pytest.mark.parametrize("order", [Order(1), Order(2), Order(3), Order(9), Order(3, 5, 2), Order(9, 7, 3)], ids=str)
def test_the_forward_pass_equals_the_equations(order: Order, copying: str, implementation: str) -> None:
    torch.manual_seed(0)
    codec_config = MstarCodecConfig.from_preset(
        "tiny", num_encoder_layers=0 if copying != "none" else 2, hierarchical_cells=copying == "nested cells"
    )
    config = MstarConfig.from_preset(
        "tiny",
        codec_config=codec_config,
        pointer_head=copying != "none",
        within_level_steps=order.steps,
        within_level_spacing=order.spacing,
        within_level_context=order.context,
    )
    model = MstarForTrajectoryGeneration(config).eval()
    model.codec.quantiser.codebook.weight.normal_()
    model.fit_places(torch.tensor([[PARENTS[cell], cell] for cell in range(16)]))
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
    codec = None
    if copying != "none":
        coarse, fine = (table.weight for table in model.codec.cell_embeddings)
        finest = fine + coarse[PARENTS] if copying == "nested cells" else fine
        codec = Codec([coarse[PARENTS], coarse[PARENTS], finest], model.codec.quantiser.codebook.weight)
    total, count, by_level = 0.0, 0, torch.zeros(3, 2, dtype=torch.float64)
    for week in range(3):
        person = (int(home[week]), int(commute[week]), int(attribute[week]))
        vectors = model.codec.code_vectors(code_ids[week])
        logits = forward(weights, features[week], person, order, vectors, codec)
        torch.testing.assert_close(output.logits[week], logits, atol=1e-9, rtol=1e-9)
        for position, level in enumerate(LEVELS):
            loss = -logits[position].log_softmax(0)[code_ids[week, position]]
            total, count = total + float(loss), count + 1
            by_level[level] += torch.tensor([float(loss), 1.0])
    assert float(output.loss) == pytest.approx(total / count, abs=1e-6)
    torch.testing.assert_close(output.level_losses.double(), by_level[:, 0] / by_level[:, 1], atol=1e-5, rtol=1e-5)
