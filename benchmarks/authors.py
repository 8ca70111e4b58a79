"""The three systems as their authors lay them out, written anew in plain torch from the published equations.

Modules carry the authors' names, so that a state dict is one of theirs. Sizes are arguments; what their code fixes is
fixed here. Nothing of the package is used. Tests compare the package with these models; benchmarks time both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import nn


def group(modules: Iterable[tuple[str, nn.Module]]) -> nn.Module:
    """A module without a computation of its own that holds others under names."""
    holder = nn.Module()
    for name, module in modules:
        holder.add_module(name, module)
    return holder


# SAMoE (MoveGPT)


class SamoeExperts(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()

        def expert() -> nn.Module:
            return group([("c_fc", nn.Linear(width, 4 * width)), ("c_proj", nn.Linear(4 * width, width))])

        self.experts = nn.ModuleList(expert() for _ in range(3))
        self.cross_expert = expert()
        self.gate = group([("gate_linear", nn.Linear(width, 3))])
        self.gate_adapt = group([("gate_linear", nn.Linear(2 * width, 2))])

    def forward(self, streams: list[torch.Tensor], time: torch.Tensor) -> list[torch.Tensor]:
        def run(expert: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return expert.c_proj(F.gelu(expert.c_fc(x), approximate="tanh"))

        own = [run(expert, x) for expert, x in zip(self.experts, streams)]
        fused = streams[3]
        space = self.gate.gate_linear(fused).softmax(-1)
        hour = self.gate.gate_linear(time).softmax(-1)
        choice = self.gate_adapt.gate_linear(torch.cat([fused, time], -1)).softmax(-1)
        shares = choice[..., :1] * space + choice[..., 1:] * hour
        mixed = run(self.cross_expert, fused) + sum(shares[..., k : k + 1] * own[k] for k in range(3))
        return [*own, mixed]


class Samoe(nn.Module):
    """`forward(ids, slots, weekdays, stays, table)`: ids (B, T), 0 = PAD; weekdays 1..7 or 0; table (N + 2, 71)."""

    def __init__(self, *, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        blocks = [
            group(
                [
                    ("ln_1", nn.LayerNorm(width)),
                    ("attn", nn.MultiheadAttention(width, heads, batch_first=True)),
                    ("ln_2", nn.LayerNorm(width)),
                    ("smoe", SamoeExperts(width)),
                ]
            )
            for _ in range(layers)
        ]
        self.transformer = group(
            [
                ("time_embedding", nn.Embedding(48, width)),
                ("stay_embedding", nn.Embedding(96, width)),
                ("dow_embedding", nn.Embedding(8, width)),
                ("lon_lat_embedding", nn.Linear(2, width)),
                ("poi_feature_embedding", nn.Linear(34, width)),
                ("flow_rank_embedding", nn.Embedding(9, width)),
                ("wpe", nn.Embedding(length, width)),
                ("h", nn.ModuleList(blocks)),
                ("ln_f", nn.LayerNorm(width)),
            ]
        )
        cross = group(
            [
                ("weights", nn.ModuleList(nn.Linear(width, 1) for _ in range(2))),
                ("biases", nn.ParameterList(nn.Parameter(torch.zeros(width)) for _ in range(2))),
            ]
        )
        deep = group([("fc1", nn.Linear(width, 4 * width)), ("fc2", nn.Linear(4 * width, width))])
        self.vocab_embd = group(
            [
                ("lon_lat_embedding", nn.Linear(2, width // 2)),
                ("poi_feature_embedding", nn.Linear(34, width // 4)),
                ("flow_rank_embedding", nn.Embedding(9, width // 4)),
                (
                    "dcn",
                    group(
                        [
                            ("cross_network", cross),
                            ("deep_network", deep),
                            ("combined_output", nn.Linear(2 * width, width)),
                        ]
                    ),
                ),
            ]
        )
        self.lm_head = nn.Linear(width, width, bias=False)
        self.ts_head = nn.Linear(width, 96, bias=False)

    @staticmethod
    def features(tables: nn.Module, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        poi = tables.poi_feature_embedding(rows[..., :34])
        return poi, tables.lon_lat_embedding(rows[..., 68:70]), tables.flow_rank_embedding(rows[..., 70].long())

    def candidates(self, table: torch.Tensor) -> torch.Tensor:
        poi, geo, pop = self.features(self.vocab_embd, table)
        first = torch.cat([geo, pop, poi], -1)
        dcn, crossed = self.vocab_embd.dcn, first
        for weight, bias in zip(dcn.cross_network.weights, dcn.cross_network.biases):
            crossed = first * weight(crossed) + bias + crossed
        deep = dcn.deep_network.fc2(F.gelu(dcn.deep_network.fc1(first), approximate="tanh"))
        return dcn.combined_output(torch.cat([crossed, deep], -1))

    def forward(
        self,
        ids: torch.Tensor,
        slots: torch.Tensor,
        weekdays: torch.Tensor,
        stays: torch.Tensor,
        table: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of every row of the table (B, T, N + 2), PAD's too, and of the stay classes (B, T, 96)."""
        body, length = self.transformer, ids.shape[1]
        time = body.time_embedding(slots) + body.stay_embedding(stays) + body.dow_embedding(weekdays)
        time = time + body.wpe(torch.arange(length))
        poi, geo, pop = self.features(body, table[ids])
        streams = [poi + time, geo + time, pop + time, poi + geo + pop]
        future, padding = torch.ones(length, length).triu(1).bool(), ids == 0
        for block in body.h:
            attended = []
            for x in streams:
                y = block.ln_1(x)
                attended.append(x + block.attn(y, y, y, key_padding_mask=padding, attn_mask=future)[0])
            mixed = block.smoe([block.ln_2(x) for x in attended], time)
            streams = [x + y for x, y in zip(attended, mixed)]
        query = self.lm_head(body.ln_f(streams[3] + time))
        return query @ self.candidates(table).T, self.ts_head(query)


# RAW


class RawAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.proj_q, self.proj_k, self.proj_v, self.linear = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.proj_q, self.proj_k, self.proj_v)
        )
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        weights = (scores - 1e9 * torch.ones_like(scores).triu(1)).softmax(-1)
        return self.linear((weights @ v).transpose(1, 2).flatten(2))


class Raw(nn.Module):
    """`forward(points)`: (B, T, 2) -> the next points (B, T, 2) and the users' embeddings (B, width)."""

    def __init__(self, *, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Embedding(length, width)
        first, second = nn.Linear(2, 2 * width), nn.Linear(2 * width, width)
        self.GPS_embedding = group([("layers", nn.Sequential(first, nn.ReLU(), second))])
        wide, narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.Output_embedding = nn.Sequential(wide, nn.ReLU(), narrow, nn.ReLU(), nn.Linear(width, 2))
        self.transformers = nn.ModuleList(
            group(
                [
                    ("attn", RawAttention(width, heads)),
                    (
                        "ff",
                        nn.Sequential(
                            nn.Linear(width, 4 * width), nn.SiLU(), nn.Identity(), nn.Linear(4 * width, width)
                        ),
                    ),
                    ("ln_attn", nn.LayerNorm(width)),
                    ("ln_ff", nn.LayerNorm(width)),
                ]
            )
            for _ in range(layers)
        )
        self.ln_head = nn.LayerNorm(width)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.GPS_embedding.layers(points) + self.positional_embedding(torch.arange(points.shape[1]))
        for block in self.transformers:
            x = x + block.attn(block.ln_attn(x))
            x = x + block.ff(block.ln_ff(x))
        x = self.ln_head(x)
        return self.Output_embedding(x), x.mean(1)


# M-STAR


class MstarPhi(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(7))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(7)
        )
        self.layer_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(7))  # never applied

    def forward(self, values: torch.Tensor, level: int, length: int) -> torch.Tensor:
        picture = values.transpose(1, 2).unsqueeze(1)
        h = F.interpolate(picture, size=(picture.shape[2], length), mode="bicubic").squeeze(1)
        m = (h + 0.5 * self.convs[level](h)).transpose(1, 2)
        return m + self.mlps[level](m)


class MstarQuantizer(nn.Module):
    def __init__(self, codes: int, width: int, lengths: list[int]) -> None:
        super().__init__()
        self.lengths = lengths
        self.quant_resi = MstarPhi(width)
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(lengths), codes))
        self.embedding = nn.Embedding(codes, width)

    def forward(self, streams: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
        """streams (B, 8, L, D), fine to coarse -> codes per level, features per level and the last reconstruction."""
        codes, features = [], []
        for level, length in enumerate(self.lengths):
            stream = streams[:, 0] if length == self.lengths[-1] else streams[:, -level]  # the published off-by-one
            features.append(F.adaptive_avg_pool1d(stream.transpose(1, 2), length).transpose(1, 2))
            residual = features[-1]
            if level:
                residual = residual - self.quant_resi(features[-2], level - 1, length)
            nearest = F.normalize(residual, dim=-1) @ F.normalize(self.embedding.weight, dim=1).T
            codes.append(nearest.argmax(-1))
        return codes, features, self.read(codes)[1]

    def read(self, codes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What is known before each level (B, T, D), 0 before the first, and the last reconstruction (B, L, D)."""
        known, total = [torch.zeros_like(self.embedding(codes[0]))], self.embedding(codes[0])
        for level, ids in enumerate(codes[1:], start=1):
            known.append(self.quant_resi(total, level - 1, self.lengths[level]))
            total = known[-1] + self.embedding(ids)
        return torch.cat(known, 1), total


class MstarCodec(nn.Module):
    """`forward(weeks)`: (B, 8, L) cells, fine to coarse -> scores (B, L, C) of the finest cells, codes (B, T), loss."""

    def __init__(self, *, codes: int, width: int, cells: list[int], lengths: list[int]) -> None:
        """cells: of each of four resolutions, fine to coarse; lengths: of the eight levels, coarse to fine."""
        super().__init__()
        hours = lengths[-1]
        self.spatial_embeddings = nn.ModuleList(nn.Embedding(count, width) for count in cells)
        self.pos_embedding1 = nn.Parameter(sines(hours, width), requires_grad=False)
        self.pos_embedding2 = nn.Parameter(sines(hours, width), requires_grad=False)
        self.transformer_encoder = self.stack(width)
        self.proj_to_embedding = nn.Linear(64, width)  # not used
        self.quantizer = MstarQuantizer(codes, width, lengths)
        self.transformer_decoder = self.stack(width)
        self.final_proj = nn.Linear(width, cells[0])

    @staticmethod
    def stack(width: int) -> nn.TransformerEncoder:
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.1, activation="gelu", batch_first=True)
        return nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)

    def streams(self, weeks: torch.Tensor) -> torch.Tensor:
        """(B, 8, L, D) encoded hours as every scale reads them; two neighbouring scales share a table."""
        encoded = [
            self.transformer_encoder(self.spatial_embeddings[scale // 2](weeks[:, scale]) + self.pos_embedding1)
            for scale in range(8)
        ]
        return torch.stack(encoded, 1)

    def decode(self, values: torch.Tensor) -> torch.Tensor:
        return self.final_proj(self.transformer_decoder(values + self.pos_embedding2))

    def forward(self, weeks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        streams = self.streams(weeks)
        codes, features, total = self.quantizer(streams)
        mean = streams.mean(1)
        logits = self.decode(mean + (total - mean).detach())
        loss = F.cross_entropy(logits.flatten(0, 1), weeks[:, 0].flatten()) + F.mse_loss(total, features[-1].detach())
        reached = [self.quantizer.read(codes[: level + 1])[1].detach() for level in range(8)]
        commitment = sum(F.mse_loss(value, target) for value, target in zip(features, reached))
        return logits, torch.cat(codes, 1), loss + 0.1 / 8 * commitment


def sines(length: int, width: int) -> torch.Tensor:
    """(1, length, width): sine and cosine in turn, base 10000."""
    rate = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64).unsqueeze(1) * rate
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).unsqueeze(0).float()


class MstarAdaNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, 3 * width))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, scale, shift = self.ada_lin(condition).unsqueeze(1).chunk(3, -1)
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift, gate


class MstarGenerator(nn.Module):
    """`forward(codes, homes, clusters)`: codes (B, T), homes (B, 2) = home and work -> scores (B, T, V)."""

    def __init__(self, codec: MstarCodec, *, width: int, layers: int, heads: int, drop: float = 0.2) -> None:
        super().__init__()
        lengths, codes = codec.quantizer.lengths, codec.quantizer.embedding
        self.lengths = lengths
        self.token_embed = nn.Linear(codes.embedding_dim, width)
        self.home_embed = nn.Embedding(codec.final_proj.out_features, width // 2)
        self.home_pos_embed = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, sum(lengths), width))
        self.scale_embed = nn.Embedding(len(lengths), width)
        scales = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        self.register_buffer("scale_ids", scales)
        self.shared_attn_norm, self.shared_ffn_norm = MstarAdaNorm(width), MstarAdaNorm(width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "attn": nn.MultiheadAttention(width, heads, dropout=drop, batch_first=True),
                    "ffn": nn.Sequential(
                        nn.Linear(width, 4 * width),
                        nn.GELU(),
                        nn.Dropout(drop),
                        nn.Linear(4 * width, width),
                        nn.Dropout(drop),
                    ),
                    "drop_path": nn.Dropout(drop * layer / max(layers - 1, 1)),  # of numbers, not paths
                }
            )
            for layer in range(layers)
        )
        self.final_norm = MstarAdaNorm(width)
        self.head = nn.Linear(width, codes.num_embeddings)
        for level, end in enumerate(accumulate(lengths)):
            seen = (scales[:end].unsqueeze(1) >= scales[:end]).float()
            self.register_buffer(f"attention_mask_scale_{level}", torch.where(seen > 0, 0.0, -math.inf))
        self.vae_proxy = codec
        self.vae_quant_proxy = codec.quantizer  # so that a state dict holds the quantizer twice
        self.unique_id_count_embed = nn.Embedding(8, width)

    def forward(self, codes: torch.Tensor, homes: torch.Tensor, clusters: torch.Tensor) -> torch.Tensor:
        return self.run(codes, homes, clusters, self.home_pos_embed)

    def run(
        self, codes: torch.Tensor, homes: torch.Tensor, clusters: torch.Tensor, start: torch.Tensor | float
    ) -> torch.Tensor:
        condition = self.home_embed(homes).flatten(1) + self.unique_id_count_embed(clusters)
        levels = list(codes.split(self.lengths[: self.levels_of(codes)], 1))
        x = self.token_embed(self.vae_quant_proxy.read(levels)[0])
        x = torch.cat([(condition + start).unsqueeze(1), x[:, 1:]], 1)
        x = x + self.scale_embed(self.scale_ids[: x.shape[1]]) + self.pos_embed[:, : x.shape[1]]
        mask = getattr(self, f"attention_mask_scale_{len(levels) - 1}")
        for block in self.blocks:
            y, gate = self.shared_attn_norm(x, condition)
            x = x + block["drop_path"](block["attn"](y, y, y, attn_mask=mask)[0] * gate)
            y, gate = self.shared_ffn_norm(x, condition)
            x = x + block["drop_path"](block["ffn"](y) * gate)
        return self.head(self.final_norm(x, condition)[0])

    def levels_of(self, codes: torch.Tensor) -> int:
        return list(accumulate(self.lengths)).index(codes.shape[1]) + 1

    @torch.no_grad()
    def generate(
        self, homes: torch.Tensor, clusters: torch.Tensor, pick: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (B, T), each level what `pick` takes from its scores, and cells (B, L). The published code leaves the
        start vector out here, and smooths three hours before it decodes."""
        codes = torch.zeros(len(homes), 0, dtype=torch.int64)
        for length in self.lengths:
            padded = F.pad(codes, (0, length))  # a level's own codes are not read
            codes = torch.cat([codes, pick(self.run(padded, homes, clusters, 0.0)[:, -length:])], 1)
        total = self.vae_quant_proxy.read(list(codes.split(self.lengths, 1)))[1]
        smooth = F.avg_pool1d(F.pad(total.transpose(1, 2), (1, 1), mode="replicate"), 3, stride=1).transpose(1, 2)
        return codes, self.vae_proxy.decode(smooth).argmax(-1)
