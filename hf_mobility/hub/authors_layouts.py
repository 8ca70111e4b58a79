"""How the authors of the three systems name and shape their weights, and which tensor of ours each of them is.

Facts of the published code: MoveGPT (SAMoE), M-STAR and RAW. Shapes: D width, L layers, R resolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..modeling.configuration_mstar import WEEK_LEVELS, MstarCodecConfig, MstarConfig
from ..modeling.configuration_raw import RawConfig
from ..modeling.configuration_samoe import SamoeConfig
from ..modeling.modeling_mstar import MstarForTrajectoryGeneration
from ..modeling.modeling_mstar_codec import MstarCodecModel, MstarSinusoids
from ..modeling.modeling_raw import RawForTrajectoryPrediction
from ..modeling.modeling_samoe import SamoeForNextLocation

Tensors = Mapping[str, torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a tensor of ours comes from.

    name: theirs. shape: of ours -> that theirs must have. read: theirs -> ours.
    """

    name: str
    shape: Callable[[Shape], Shape] = lambda ours: ours
    read: Callable[[torch.Tensor], torch.Tensor] = lambda theirs: theirs

    @classmethod
    def third(cls, name: str, index: int) -> Source:
        """The query, key or value rows of one matrix or bias for the three."""
        return cls(name, lambda ours: (3 * ours[0], *ours[1:]), lambda theirs: theirs.chunk(3)[index])

    @classmethod
    def convolution(cls, name: str) -> Source:
        """A convolution over three steps (D, D, 3) as one matrix (D, 3 D): step before, step, step after."""
        return cls(name, lambda ours: (ours[0], ours[1] // 3, 3), lambda theirs: theirs.transpose(1, 2).flatten(1))

    @classmethod
    def first(cls, name: str) -> Source:
        """A tensor behind an axis of length 1."""
        return cls(name, lambda ours: (1, *ours), lambda theirs: theirs[0])


Sources = dict[str, Source]


@dataclass(frozen=True)
class Layout:
    """The layout of one system.

    title: its name, for refusals. model: our class. configure: sizes that the weights tell and values of the user's ->
    configuration. sources: of every weight of ours. unused: patterns of names that no output depends on. fixed: tensors
    that must have these values.
    """

    title: str
    model: Any
    configure: Callable[[Sizes, dict[str, Any]], Any]
    sources: Callable[[Any], Sources]
    unused: tuple[str, ...] = ()
    fixed: Callable[[Any], dict[str, torch.Tensor]] = lambda config: {}


class Sizes:
    """Sizes read off the weights."""

    def __init__(self, tensors: Tensors, title: str) -> None:
        self.tensors, self.title = tensors, title

    def of(self, name: str, axes: int = 2) -> Shape:
        """The shape of a tensor that must be there and have so many axes."""
        if name not in self.tensors:
            raise ValueError(f"it is no checkpoint of the authors' {self.title}: tensor {name} is missing")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != axes:
            raise ValueError(f"tensor {name} of the authors' {self.title} has {axes} axes, not the shape {shape}")
        return shape

    def count(self, stem: str) -> int:
        """How many modules `stem.0`, `stem.1`, .. there are."""
        found = (re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in self.tensors)
        return 1 + max((int(match[1]) for match in found if match), default=-1)


def _pairs(pairs: Mapping[str, str], kinds: tuple[str, ...] = ("weight", "bias")) -> Sources:
    """Modules that are the same under another name."""
    return {f"{ours}.{kind}": Source(f"{theirs}.{kind}") for ours, theirs in pairs.items() for kind in kinds}


def _split_attention(ours: str, theirs: str) -> Sources:
    """torch's attention, which keeps query, key and value in one, as four matrices."""
    found = _pairs({f"{ours}.o_proj": f"{theirs}.out_proj"})
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            found[f"{ours}.{part}.{kind}"] = Source.third(f"{theirs}.in_proj_{kind}", index)
    return found


# SAMoE


def _configure_samoe(sizes: Sizes, values: dict[str, Any]) -> SamoeConfig:
    positions, width = sizes.of("transformer.wpe.weight")
    read = {
        "hidden_size": width,
        "num_hidden_layers": sizes.count("transformer.h"),
        "max_position_embeddings": positions,
        "num_poi_features": sizes.of("transformer.poi_feature_embedding.weight")[1],
        "num_popularity_levels": sizes.of("transformer.flow_rank_embedding.weight")[0],
        "num_stay_bins": sizes.of("ts_head.weight")[0],
    }
    return SamoeConfig.from_preset("base", variant="released", **{**read, **values})


def _samoe_sources(config: SamoeConfig) -> Sources:
    time, visit, places = "model.time_embedding", "model.visit_features", "location_encoder"
    body, table = "transformer", "vocab_embd"
    tables = {
        f"{time}.slot": f"{body}.time_embedding",
        f"{time}.stay": f"{body}.stay_embedding",
        f"{time}.weekday": f"{body}.dow_embedding",
        f"{time}.position": f"{body}.wpe",
        f"{visit}.pop": f"{body}.flow_rank_embedding",
        f"{places}.features.pop": f"{table}.flow_rank_embedding",
        "query_proj": "lm_head",
        "stay_head": "ts_head",
    }
    maps = {
        f"{visit}.geo": f"{body}.lon_lat_embedding",
        f"{visit}.poi": f"{body}.poi_feature_embedding",
        f"{places}.features.geo": f"{table}.lon_lat_embedding",
        f"{places}.features.poi": f"{table}.poi_feature_embedding",
        f"{places}.deep_up": f"{table}.dcn.deep_network.fc1",
        f"{places}.deep_down": f"{table}.dcn.deep_network.fc2",
        f"{places}.out_proj": f"{table}.dcn.combined_output",
        "model.norm": f"{body}.ln_f",
    }
    found: Sources = {}
    for layer in range(2):
        maps[f"{places}.cross.{layer}.gate"] = f"{table}.dcn.cross_network.weights.{layer}"
        found[f"{places}.cross.{layer}.bias"] = Source(f"{table}.dcn.cross_network.biases.{layer}")
    experts = {f"experts.{k}": f"experts.{k}" for k in range(3)} | {"shared_expert": "cross_expert"}
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}", f"{body}.h.{layer}"
        maps[f"{ours}.input_layernorm"] = f"{theirs}.ln_1"
        maps[f"{ours}.post_attention_layernorm"] = f"{theirs}.ln_2"
        maps[f"{ours}.mlp.router.spatial"] = f"{theirs}.smoe.gate.gate_linear"
        maps[f"{ours}.mlp.router.selector"] = f"{theirs}.smoe.gate_adapt.gate_linear"
        for own, other in experts.items():
            maps[f"{ours}.mlp.{own}.up_proj"] = f"{theirs}.smoe.{other}.c_fc"
            maps[f"{ours}.mlp.{own}.down_proj"] = f"{theirs}.smoe.{other}.c_proj"
        found |= _split_attention(f"{ours}.self_attn", f"{theirs}.attn")
    return found | _pairs(tables, ("weight",)) | _pairs(maps)


# RAW


def _configure_raw(sizes: Sizes, values: dict[str, Any]) -> RawConfig:
    positions, width = sizes.of("positional_embedding.weight")
    read = {
        "hidden_size": width,
        "num_hidden_layers": sizes.count("transformers"),
        "max_position_embeddings": positions,
        "intermediate_size": sizes.of("transformers.0.ff.0.weight")[0],
    }
    return RawConfig.from_preset("base", **{**read, **values})


def _raw_sources(config: RawConfig) -> Sources:
    maps = {
        "model.point_embedding.up_proj": "GPS_embedding.layers.0",
        "model.point_embedding.down_proj": "GPS_embedding.layers.2",
        "model.norm": "ln_head",
        "prediction_head.up_proj": "Output_embedding.0",
        "prediction_head.down_proj": "Output_embedding.2",
        "prediction_head.out_proj": "Output_embedding.4",
    }
    parts = {
        "self_attn.q_proj": "attn.proj_q",
        "self_attn.k_proj": "attn.proj_k",
        "self_attn.v_proj": "attn.proj_v",
        "self_attn.o_proj": "attn.linear",
        "mlp.up_proj": "ff.0",
        "mlp.down_proj": "ff.3",
        "input_layernorm": "ln_attn",
        "post_attention_layernorm": "ln_ff",
    }
    for layer in range(config.num_hidden_layers):
        maps |= {f"model.layers.{layer}.{ours}": f"transformers.{layer}.{theirs}" for ours, theirs in parts.items()}
    return {"model.position_embedding.weight": Source("positional_embedding.weight")} | _pairs(maps)


# M-STAR


def _configure_codec(sizes: Sizes, values: dict[str, Any], prefix: str = "") -> MstarCodecConfig:
    codes, width = sizes.of(f"{prefix}quantizer.embedding.weight")
    tables = sizes.count(f"{prefix}spatial_embeddings")
    fine_to_coarse = [sizes.of(f"{prefix}spatial_embeddings.{index}.weight")[0] for index in range(tables)]
    read = {
        "hidden_size": width,
        "codebook_size": codes,
        "num_cells": sizes.of(f"{prefix}final_proj.weight")[0],
        "cells_per_resolution": fine_to_coarse[::-1],
        "level_lengths": list(WEEK_LEVELS),
    }
    return MstarCodecConfig.from_preset("base", variant="released", **{**read, **values})


def _codec_sources(config: MstarCodecConfig, ours: str = "", theirs: str = "") -> Sources:
    quantizer, phi = f"{ours}quantiser", f"{theirs}quantizer.quant_resi"
    cells: list[int] = config.cells_per_resolution  # type: ignore[assignment]
    lengths: list[int] = config.level_lengths  # type: ignore[assignment]
    count = len(cells)
    tables = {f"{ours}cell_embeddings.{k}": f"{theirs}spatial_embeddings.{count - 1 - k}" for k in range(count)}
    tables[f"{quantizer}.codebook"] = f"{theirs}quantizer.embedding"
    maps = {f"{ours}cell_head": f"{theirs}final_proj"}
    found: Sources = {}
    for level in range(len(lengths) - 1):
        refiner = f"{quantizer}.refiners.{level}"
        maps[f"{refiner}.up_proj"] = f"{phi}.mlps.{level}.0"
        maps[f"{refiner}.down_proj"] = f"{phi}.mlps.{level}.2"
        maps[f"{refiner}.norm"] = f"{phi}.layer_norms.{level}"
        found[f"{refiner}.conv_proj.weight"] = Source.convolution(f"{phi}.convs.{level}.weight")
        found[f"{refiner}.conv_proj.bias"] = Source(f"{phi}.convs.{level}.bias")
    for stack, layers in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        for layer in range(layers):
            own, other = f"{ours}{stack}.{layer}", f"{theirs}transformer_{stack}.layers.{layer}"
            maps[f"{own}.up_proj"], maps[f"{own}.down_proj"] = f"{other}.linear1", f"{other}.linear2"
            maps[f"{own}.post_attention_layernorm"] = f"{other}.norm1"
            maps[f"{own}.post_feedforward_layernorm"] = f"{other}.norm2"
            found |= _split_attention(f"{own}.self_attn", f"{other}.self_attn")
    return found | _pairs(tables, ("weight",)) | _pairs(maps)


def _codec_positions(config: MstarCodecConfig, prefix: str = "") -> dict[str, torch.Tensor]:
    table = MstarSinusoids(config.num_hours, config.hidden_size).make_table().unsqueeze(0)
    return {f"{prefix}pos_embedding1": table, f"{prefix}pos_embedding2": table}


def _configure_mstar(sizes: Sizes, values: dict[str, Any]) -> MstarConfig:
    sizes.of("scale_ids", axes=1)
    levels = sizes.tensors["scale_ids"].unique(return_counts=True)[1].tolist()
    read = {
        "hidden_size": sizes.of("token_embed.weight")[0],
        "intermediate_size": sizes.of("blocks.0.ffn.0.weight")[0],
        "num_hidden_layers": sizes.count("blocks"),
        "num_attributes": sizes.of("unique_id_count_embed.weight")[0],
        "codec_config": _configure_codec(sizes, {"level_lengths": levels}, "vae_proxy."),
    }
    return MstarConfig.from_preset("base", variant="released", **{**read, **values})


def _mstar_sources(config: MstarConfig) -> Sources:
    maps = {"in_proj": "token_embed", "lm_head": "head"}
    for ours, theirs in (("attention", "shared_attn_norm"), ("mlp", "shared_ffn_norm"), ("norm", "final_norm")):
        maps[f"{ours}_modulation.up_proj"] = f"{theirs}.ada_lin.0"
        maps[f"{ours}_modulation.down_proj"] = f"{theirs}.ada_lin.2"
    tables = {
        "conditions.place_embedding": "home_embed",
        "conditions.attribute_embedding": "unique_id_count_embed",
        "level_embedding": "scale_embed",
    }
    found = {"start": Source.first("home_pos_embed"), "slot_embedding": Source.first("pos_embed")}
    for layer in range(config.num_hidden_layers):
        own, other = f"layers.{layer}", f"blocks.{layer}"
        maps[f"{own}.mlp.up_proj"], maps[f"{own}.mlp.down_proj"] = f"{other}.ffn.0", f"{other}.ffn.3"
        maps[f"{own}.self_attn.o_proj"] = f"{other}.attn.out_proj"
        for kind in ("weight", "bias"):
            found[f"{own}.self_attn.qkv_proj.{kind}"] = Source(f"{other}.attn.in_proj_{kind}")
    return found | _pairs(tables, ("weight",)) | _pairs(maps) | _codec_sources(config.codec, "codec.", "vae_proxy.")


def _codec_unused(prefix: str = "") -> Iterator[str]:
    """A matrix that no output depends on, and the counts of used codes."""
    yield rf"{re.escape(prefix)}proj_to_embedding\.(weight|bias)"
    yield rf"{re.escape(prefix)}quantizer\.ema_vocab_hit_SV"


LAYOUTS = {
    "samoe": Layout("SAMoE", SamoeForNextLocation, _configure_samoe, _samoe_sources),
    "mstar-codec": Layout(
        "M-STAR codec", MstarCodecModel, _configure_codec, _codec_sources, tuple(_codec_unused()), _codec_positions
    ),
    "mstar": Layout(
        "M-STAR",
        MstarForTrajectoryGeneration,
        _configure_mstar,
        _mstar_sources,
        # The masks follow from the levels; the quantizer is there a second time.
        (*_codec_unused("vae_proxy."), "scale_ids", r"attention_mask_scale_\d+", r"vae_quant_proxy\..+"),
        lambda config: _codec_positions(config.codec, "vae_proxy."),
    ),
    "raw": Layout("RAW", RawForTrajectoryPrediction, _configure_raw, _raw_sources),
}
