"""SAMoE's forward pass against independent re-implementations, written from the published equations: loops and plain
matrix products.

The released and the paper form differ as the authors' code and their text do. The array of places has the 71 columns of
the authors' files: 34 POI counts, 34 shares (never read), longitude and latitude, popularity level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from hf_mobility import SamoeForNextLocation

Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    bias = weights.get(f"{name}.bias")
    product = x @ weights[f"{name}.weight"].T
    return product if bias is None else product + bias


def norm(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
        + weights[f"{name}.bias"]
    )


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def feed_forward(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return linear(weights, f"{name}.down_proj", gelu(linear(weights, f"{name}.up_proj", x)))


def attention(weights: Weights, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    """One person's one stream, (T, d): every query looks at itself and what came before."""
    length, width = x.shape
    size = width // heads
    q, k, v = (linear(weights, f"{name}.{part}_proj", x) for part in "qkv")
    result = torch.zeros_like(x)
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        for i in range(length):
            scores = k[: i + 1, columns] @ q[i, columns] / math.sqrt(size)
            result[i, columns] = scores.softmax(0) @ v[: i + 1, columns]
    return linear(weights, f"{name}.o_proj", result)


def routing(weights: Weights, name: str, fused: torch.Tensor, time: torch.Tensor, *, paper: bool) -> torch.Tensor:
    spatial = linear(weights, f"{name}.spatial", fused).softmax(-1)
    temporal = linear(weights, f"{name}.temporal" if paper else f"{name}.spatial", time).softmax(-1)
    choice = linear(weights, f"{name}.selector", torch.cat([fused, time], -1)).softmax(-1)
    if paper:
        return torch.where(choice[:, :1] >= choice[:, 1:], spatial, temporal)
    return choice[:, :1] * spatial + choice[:, 1:] * temporal


def candidates(weights: Weights, array: torch.Tensor, *, paper: bool) -> torch.Tensor:
    """Rows PAD, EOS and one per cell of the 71-column array."""
    rows = torch.cat([torch.zeros(2, 71, dtype=array.dtype), array])
    name = "model.visit_features" if paper else "location_encoder.features"
    poi = linear(weights, f"{name}.poi", rows[:, :34])
    geo = linear(weights, f"{name}.geo", rows[:, 68:70])
    popularity = weights[f"{name}.pop.weight"][rows[:, 70].long()]
    first = poi + geo + popularity if paper else torch.cat([geo, popularity, poi], -1)
    crossed = first
    for layer in range(2):
        scalar = linear(weights, f"location_encoder.cross.{layer}.gate", crossed)
        crossed = first * scalar + weights[f"location_encoder.cross.{layer}.bias"] + crossed
    deep = linear(weights, "location_encoder.deep_down", gelu(linear(weights, "location_encoder.deep_up", first)))
    return linear(weights, "location_encoder.out_proj", torch.cat([crossed, deep], -1))


def forward(
    weights: Weights, array: torch.Tensor, person: dict[str, torch.Tensor], *, layers: int, heads: int, paper: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (T, N + 2) and stay logits (T, 96) of one person."""
    rows = torch.cat([torch.zeros(2, 71, dtype=array.dtype), array])[person["input_ids"]]
    poi = linear(weights, "model.visit_features.poi", rows[:, :34])
    geo = linear(weights, "model.visit_features.geo", rows[:, 68:70])
    popularity = weights["model.visit_features.pop.weight"][rows[:, 70].long()]
    time = sum(
        weights[f"model.time_embedding.{table}.weight"][ids]
        for table, ids in (
            ("slot", person["time_ids"]),
            ("weekday", torch.where(person["input_ids"] < 2, 0, person["weekday_ids"] + 1)),  # row 0: PAD and EOS
            ("stay", person["stay_ids"]),
        )
    )
    if not paper:
        time = time + weights["model.time_embedding.position.weight"][: len(rows)]
    fused = poi + geo + popularity + (time if paper else 0)
    streams = [poi + time, geo + time, popularity + time, fused]

    for layer in range(layers):
        name = f"model.layers.{layer}"
        attended = [
            x + attention(weights, f"{name}.self_attn", norm(weights, f"{name}.input_layernorm", x), heads)
            for x in streams
        ]
        inputs = [norm(weights, f"{name}.post_attention_layernorm", x) for x in attended]
        outputs = [feed_forward(weights, f"{name}.mlp.experts.{s}", inputs[s]) for s in range(3)]
        shares = routing(weights, f"{name}.mlp.router", inputs[3], time, paper=paper)
        mixed = feed_forward(weights, f"{name}.mlp.shared_expert", inputs[3])
        for s in range(3):
            mixed = mixed + shares[:, s : s + 1] * outputs[s]
        streams = [a + o for a, o in zip(attended, [*outputs, mixed])]

    final = norm(weights, "model.norm", streams[3] if paper else streams[3] + time)
    query = linear(weights, "query_proj", final)
    logits = query @ candidates(weights, array, paper=paper).T
    logits[:, 0] = float("-inf")
    return logits, linear(weights, "stay_head", query)


def released_array(n: int = 12) -> torch.Tensor:
    """(N, 71) as in the authors' files: counts, shares, longitude and latitude, level."""
    generator = torch.Generator().manual_seed(5)
    counts = torch.randint(0, 6, (n, 34), generator=generator).float()
    counts[:, 0] += 1  # every kept cell has a POI
    place = torch.randn(n, 2, generator=generator)
    level = torch.randint(1, 9, (n, 1), generator=generator).float()
    return torch.cat([counts, counts / counts.sum(1, keepdim=True), place, level], dim=1)


def as_features(array: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros(2, 37), torch.cat([array[:, :34], array[:, 68:70], array[:, 70:]], dim=1)])


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_the_forward_pass_equals_the_equations(build: SimpleNamespace, variant: str) -> None:
    model = build.model(variant)
    array, visits = released_array(), build.visits(model.config)
    output = model(**visits, location_features=as_features(array))
    weights = {name: value.double() for name, value in model.state_dict().items()}
    for b in range(3):
        person = {name: value[b] for name, value in visits.items()}
        logits, stays = forward(weights, array.double(), person, layers=2, heads=2, paper=variant == "paper")
        build.assert_same(output.logits[b], logits.float())
        build.assert_same(output.stay_logits[b], stays.float())


def test_the_released_loss_is_the_authors_but_for_padding_and_the_stays_divisor(build: SimpleNamespace) -> None:
    """Theirs: mean cross-entropy over all rows with PAD, and over the visits that have a stay."""
    model = build.model("released")
    array, visits = released_array(), build.visits(model.config)
    labels, stays = visits["input_ids"], visits["stay_ids"].clone()
    stays[:, ::3] = 0  # no label
    output = model(**visits, location_features=as_features(array), labels=labels, stay_labels=stays)
    weights = {name: value.double() for name, value in model.state_dict().items()}
    location, with_pad, stay = [], [], []
    for b in range(3):
        person = {name: value[b] for name, value in visits.items()}
        scores, stay_scores = forward(weights, array.double(), person, layers=2, heads=2, paper=False)
        pad = (
            linear(weights, "query_proj", states_of(model, visits, array)[b].double())
            @ candidates(weights, array.double(), paper=False)[0]
        )
        for t in range(8):
            target, gap = int(labels[b, t + 1]), int(stays[b, t + 1])
            location.append(scores[t].logsumexp(0) - scores[t, target])
            with_pad.append(torch.logaddexp(scores[t].logsumexp(0), pad[t]) - scores[t, target])
            if gap:
                stay.append(stay_scores[t].logsumexp(0) - stay_scores[t, gap])
    build.assert_same(output.location_loss, torch.stack(location).mean().float())
    build.assert_same(output.stay_loss, (torch.stack(stay).sum() / len(location)).float())
    build.assert_same(output.loss, output.location_loss + output.stay_loss)
    assert len(stay) < len(location) and torch.stack(with_pad).mean() > output.location_loss


def states_of(model: SamoeForNextLocation, visits: dict[str, torch.Tensor], array: torch.Tensor) -> torch.Tensor:
    inputs = {name: value for name, value in visits.items() if name != "timestamps"}
    return model.model(**inputs, location_features=as_features(array)).last_hidden_state


def test_the_shares_of_a_released_array_do_not_matter(build: SimpleNamespace) -> None:
    model, array = build.model("released"), released_array()
    visits = build.visits(model.config)
    plain = model(**visits, location_features=as_features(array)).logits
    for column in range(71):
        changed = array.clone()
        changed[:, column] = (changed[:, column] + 1) % 9
        same = torch.equal(model(**visits, location_features=as_features(changed)).logits, plain)
        assert same == (34 <= column < 68), column


# The heads of the extended variant


def hour_angle(second: int) -> float:
    return second % 86_400 / 86_400 * 2 * math.pi


def is_weekend(second: int) -> bool:
    return (second // 86_400 + 3) % 7 >= 5  # day 0 of the epoch was a Thursday; Monday = 0


def loop_pair_features(
    ids: list[int], times: list[int], km: torch.Tensor, i: int, j: int, arrival: int | None = None
) -> list[float]:
    """The eight features of context visit j for the state after visit i; what asks for visit j - 1 is 0 at j = 0."""
    now = times[i] if arrival is None else arrival
    then = (times[j - 1] if j > 0 else None) if arrival is None else times[j]
    follows_same = j > 0 and ids[j - 1] == ids[i]
    follows_same_two = follows_same and j > 1 and i > 0 and ids[j - 2] == ids[i - 1]
    return [
        float(follows_same),
        float(follows_same_two),
        0.0 if then is None else math.cos(hour_angle(now) - hour_angle(then)),
        0.0 if then is None else math.cos(2 * (hour_angle(now) - hour_angle(then))),
        math.cos(hour_angle(times[i]) - hour_angle(times[j])),
        0.0 if then is None else float(is_weekend(then) == is_weekend(now)),
        float(ids[j] == ids[i]),
        math.log(1 + float((km[ids[i]] - km[ids[j]]).norm()) / 0.1) / 5,
    ]


def loop_distribution(
    weights: Weights,
    hidden: torch.Tensor,
    visits: torch.Tensor,
    person: dict[str, torch.Tensor],
    table: SimpleNamespace,
    *,
    use_pairs: bool = True,
    arrivals: list[int] | None = None,
) -> torch.Tensor:
    """(T, N + 2) probabilities of one person, from states (T, d) and visit embeddings (T, d): loops over i, j and
    candidates.
    """
    ids, times = person["input_ids"].tolist(), person["timestamps"].tolist()
    rows, heads = len(table.embeddings), weights["pointer_head.age_bias.weight"].shape[1]
    width = hidden.shape[1] // heads
    result = torch.zeros(len(ids), rows, dtype=torch.float64)
    for i, state in enumerate(hidden):
        generated = loop_generated(weights, state, ids[: i + 1], table)
        query = linear(weights, "pointer_head.query_proj", state)
        scores = torch.zeros(heads, i + 1, dtype=torch.float64)
        for j in range(i + 1):
            key = linear(weights, "pointer_head.visit_proj", visits[j])
            if j > 0:
                key = key + linear(weights, "pointer_head.state_proj", hidden[j - 1])
            minutes = (times[i] - times[j]) / 60
            age = min(31, math.floor(2 * math.log2(1 + minutes / 30)))
            offset = min(15, math.floor(1.9 * math.log2(1 + i - j)))
            for h in range(heads):
                part = slice(h * width, (h + 1) * width)
                scores[h, j] = query[part] @ key[part] / math.sqrt(width)
                scores[h, j] += weights["pointer_head.age_bias.weight"][age, h]
                scores[h, j] += weights["pointer_head.offset_bias.weight"][offset, h]
                if use_pairs:
                    features = loop_pair_features(ids, times, table.km, i, j, None if arrivals is None else arrivals[i])
                    slopes = linear(weights, "pointer_head.pair_weights", state)[8 * h : 8 * h + 8]
                    scores[h, j] += slopes @ torch.tensor(features).double()
        alpha = scores.softmax(1)
        if heads == 1:
            alpha = alpha[0]
        else:
            known = torch.tensor([math.log(i + 1) / 3, math.log(1 + sum(ids[j] == ids[i] for j in range(i + 1))) / 2])
            alpha = linear(weights, "pointer_head.head_weights", torch.cat([state, known.double()])).softmax(0) @ alpha
        revisits = sum(ids[j] == ids[i] for j in range(i + 1))
        extra = [math.log(i + 1) / 3, alpha.max(), alpha.square().sum(), math.log(1 + revisits) / 2, generated.max()]
        gate = torch.sigmoid(linear(weights, "pointer_head.gate", torch.cat([state, torch.tensor(extra).double()])))
        copied = torch.zeros(rows, dtype=torch.float64)
        for j in range(i + 1):
            copied[ids[j]] += alpha[j]
        result[i] = gate * copied + (1 - gate) * generated
    return result


def loop_generated(weights: Weights, state: torch.Tensor, past: list[int], table: SimpleNamespace) -> torch.Tensor:
    """Softmax over places of dot product + distance, popularity, same-place and activity terms."""
    last = past[-1]
    query = linear(weights, "query_proj", state)
    slopes = linear(weights, "relative_head.distance", state) if "relative_head.distance.weight" in weights else None
    scores = []
    for n in range(len(table.embeddings)):
        score = float(query @ table.embeddings[n])
        if slopes is not None:
            d = float((table.km[last] - table.km[n]).norm())
            basis = [math.exp(-d / s) for s in (0.1, 0.3, 1, 3, 10)] + [math.log(1 + d) / 4]
            score += sum(float(slope) * b for slope, b in zip(slopes, basis))
            score += float(weights["relative_head.popularity.weight"][int(table.levels[n])])
            score += float(linear(weights, "relative_head.same_place", state)) if n == last else 0.0
        if "relative_head.activity.weight" in weights:
            near = [[math.exp(-float((table.km[v] - table.km[n]).norm()) / s) for v in past] for s in (0.3, 1, 3)]
            slope = linear(weights, "relative_head.activity", state)
            score += sum(float(a) * math.log(sum(d) / len(d) + 1e-3) for a, d in zip(slope, near))
        scores.append(score if n > 1 else -math.inf)  # PAD, and EOS which this variant does not use
    return torch.tensor(scores).double().softmax(0)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"pointer_features": False},
        {"relative_features": False},
        {"mixture": False},
        {"num_pointer_heads": 2},
        {"activity_features": True},
    ],
    ids=str,
)
def test_copy_and_relative_heads_equal_loops(build: SimpleNamespace, overrides: dict) -> None:
    model, city, visits = build.all("extended", **overrides)
    visits["input_ids"][:, 3:] = visits["input_ids"][:, [0, 1, 0, 1, 1, 2]]  # people return
    body = model.model(**{k: v for k, v in visits.items() if k != "timestamps"}, location_features=city)
    encoded = model.encode_locations(city)
    table = SimpleNamespace(embeddings=encoded.embeddings.double(), levels=encoded.levels, km=city[:, -2:].double())
    weights = {name: value.double() for name, value in model.state_dict().items()}
    probability = model(**visits, location_features=city).logits.exp()
    for b in range(3):
        wanted = loop_distribution(
            weights,
            body.last_hidden_state[b].double(),
            body.visit_embeddings[b].double(),
            {name: value[b] for name, value in visits.items()},
            table,
            use_pairs=overrides.get("pointer_features", True),
        )
        build.assert_same(probability[b], wanted.float(), atol=1e-6, rtol=1e-4)
        build.assert_same(wanted.sum(-1), torch.ones(9).double())


def test_with_the_arrival_time_given_it_takes_the_place_of_the_last_visits_time(build: SimpleNamespace) -> None:
    model, city, visits = build.all("extended", arrival_time=True)
    arrivals = visits["timestamps"] + torch.tensor([[4_000], [50_000], [90_000]])
    body = model.model(**{k: v for k, v in visits.items() if k != "timestamps"}, location_features=city)
    encoded = model.encode_locations(city)
    table = SimpleNamespace(embeddings=encoded.embeddings.double(), levels=encoded.levels, km=city[:, -2:].double())
    weights = {name: value.double() for name, value in model.state_dict().items()}
    probability = model(**visits, location_features=city, arrival_times=arrivals).logits.exp()
    for b in range(3):
        given = torch.stack(
            [
                weights["arrival_embedding.slot.weight"][a // 1800 % 48]
                + weights["arrival_embedding.weekday.weight"][(a // 86_400 + 3) % 7 + 1]
                + weights["arrival_embedding.stay.weight"][min(24, math.floor(1.6 * math.log2(1 + (a - t) / 600)) + 1)]
                for a, t in zip(arrivals[b].tolist(), visits["timestamps"][b].tolist())
            ]
        )
        wanted = loop_distribution(
            weights,
            body.last_hidden_state[b].double() + given,
            body.visit_embeddings[b].double(),
            {name: value[b] for name, value in visits.items()},
            table,
            arrivals=arrivals[b].tolist(),
        )
        build.assert_same(probability[b], wanted.float(), atol=1e-6, rtol=1e-4)


def test_in_training_the_arrival_time_is_the_next_visits(build: SimpleNamespace) -> None:
    model, city, visits = build.all("extended", arrival_time=True)
    following = torch.cat([visits["timestamps"][:, 1:], visits["timestamps"][:, -1:]], dim=1)
    labels = visits["input_ids"]
    implicit = model(**visits, location_features=city, labels=labels).loss
    build.assert_same(model(**visits, location_features=city, labels=labels, arrival_times=following).loss, implicit)
    with pytest.raises(ValueError, match="arrival_times are needed"):
        model(**visits, location_features=city)
