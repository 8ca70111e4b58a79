"""SAMoE / TrajMoE (arXiv 2505.18670): a causal transformer over visits whose experts are tied to POI, geography and
popularity.

A visit enters as the features of its place and its times. Three streams, one per kind of feature, and their sum share
the attention; each stream has its own expert, and a router mixes the experts into the fused stream. The next location
is scored against the encoded places of the city.

Notes:
    The model has no location vocabulary. `location_features`, the table of a city's places, is an input of every call;
    rows 0 and 1 are PAD and EOS. It is not batch-first, because all sequences of a batch are in one city.
    `encode_locations` turns it into a `LocationTable` that may be passed instead, so that a city is encoded once. The
    streams are folded into the head axis of the key/value cache, so that caches, beams and masks look like those of any
    decoder.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: B sequences, S streams, T visits, N + 2 candidates, d `hidden_size`, F columns of `location_features`.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_samoe import SamoeConfig
from .layers import (
    BLOCK_VALUES,
    CACHE,
    SelfAttention,
    blocks,
    either_cache_name,
    mark,
    plus_product,
    positions_behind,
    widened,
)
from .pointer_samoe import PointerContext, SamoePointerHead, activity, distance_basis, nearness
from .saving import SavedWithCode
from .times_samoe import HALF_HOUR, NUM_SLOTS, next_arrivals, stay_class, stay_seconds, weekday_of

NUM_SPECIAL = 2  # ids of PAD and EOS, which are no places
IGNORED = -100  # a label that does not count, as everywhere in transformers
NUM_WEEKDAY_ROWS = 8  # row 0 = no weekday, then Monday .. Sunday
PER_VISIT_INPUTS = ("time_ids", "weekday_ids", "stay_ids", "timestamps")
# What lets `generate` check several tokens at once that something else has foreseen.
FORESEEING = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
CITY_INPUTS = ("location_features", "location_table", "candidate_log_weights")


@dataclass
class LocationTable(ModelOutput):
    """A city's candidates, encoded once.

    embeddings (N + 2, d): rows of the candidate encoder. levels (N + 2,) int64: popularity level. km (N + 2, 2) float32
    or None: east and north in kilometres. features (N + 2, F): the table they were made from.
    """

    embeddings: torch.Tensor | None = None
    levels: torch.Tensor | None = None
    km: torch.Tensor | None = None
    features: torch.Tensor | None = None


@dataclass
class SamoeModelOutput(BaseModelOutputWithPast):
    """`last_hidden_state` (B, T, d); `visit_embeddings` (B, T, d), the inputs; `router_weights`: per layer (B, T, 3),
    if asked for.
    """

    visit_embeddings: torch.Tensor | None = None
    router_weights: tuple[torch.Tensor, ...] | None = None


@dataclass
class SamoeOutput(ModelOutput):
    """Output of `SamoeForNextLocation`.

    loss: scalar, location + `stay_loss_weight` x stay. location_loss, stay_loss: its two terms.
    logits (B, T, N + 2) float32: scores of the next location; with the pointer head these are log-probabilities. PAD
    (and EOS, if unused) is -inf. `None` in training mode when labels are given: the loss needs the label's column only.
    stay_logits (B, T, num_stay_bins): scores of the time until the next visit.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    stay_logits: torch.Tensor | None = None
    location_loss: torch.Tensor | None = None
    stay_loss: torch.Tensor | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    router_weights: tuple[torch.Tensor, ...] | None = None


class SamoeAttention(SelfAttention):
    """Causal multi-head attention, the same weights for every stream; streams never mix (eq. 6)."""

    def __init__(self, config: SamoeConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        if config.attention_init == "xavier":  # of the fused matrix that the released code keeps
            self.mark_xavier()


class SamoeExpert(nn.Module):
    """Feed-forward network d -> 4 d -> d with the tanh form of GELU."""

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        mark(self.down_proj, init_std=config.initializer_range / (2 * config.num_hidden_layers) ** 0.5)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.gelu(self.up_proj(hidden_states), approximate="tanh"))


class SamoeRouter(nn.Module):
    """Spatial-temporal router with selector (paper eq. 7): (B, T, d), (B, T, d) -> weights (B, T, 3) that sum to 1."""

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        self.hard = config.selector == "hard"
        self.spatial = nn.Linear(config.hidden_size, 3)
        self.temporal = None if config.shared_router else nn.Linear(config.hidden_size, 3)
        self.selector = nn.Linear(2 * config.hidden_size, 2)

    def forward(self, fused: torch.Tensor, time_embeds: torch.Tensor) -> torch.Tensor:
        spatial = self.spatial(fused).softmax(-1)
        temporal = (self.spatial if self.temporal is None else self.temporal)(time_embeds).softmax(-1)
        choice = self.selector(torch.cat([fused, time_embeds], dim=-1)).softmax(-1)
        if self.hard:
            winner = F.one_hot(choice.argmax(-1), 2).to(choice.dtype)
            choice = (
                winner + choice - choice.detach()
            )  # straight-through: the value is the winner, the gradient is the softmax's
        return choice[..., :1] * spatial + choice[..., 1:] * temporal


class SamoeMixture(nn.Module):
    """Three structured experts, each hard-wired to its stream, and the shared expert of the fused stream (eq. 8)."""

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        self.experts = nn.ModuleList(SamoeExpert(config) for _ in range(3))
        self.shared_expert = SamoeExpert(config)
        self.router = SamoeRouter(config)

    def forward(self, hidden_states: torch.Tensor, time_embeds: torch.Tensor) -> torch.Tensor:
        poi, geo, pop, fused = hidden_states.unbind(1)
        expert_outputs = torch.stack([expert(x) for expert, x in zip(self.experts, (poi, geo, pop))], dim=1)
        weights = self.router(fused, time_embeds).to(expert_outputs.dtype)
        mixed = (weights.permute(0, 2, 1).unsqueeze(-1) * expert_outputs).sum(1)
        return torch.cat([expert_outputs, (self.shared_expert(fused) + mixed).unsqueeze(1)], dim=1)


class SamoeLayer(GradientCheckpointingLayer):
    """Pre-norm block; all streams share both LayerNorms and the attention (eq. 6)."""

    def __init__(self, config: SamoeConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SamoeAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixture = config.mixture
        self.mlp = SamoeMixture(config) if config.mixture else SamoeExpert(config)

    @either_cache_name
    def forward(
        self,
        hidden_states: torch.Tensor,
        time_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), attention_mask, cache, **kwargs)
        hidden_states = hidden_states + attended
        normed = self.post_attention_layernorm(hidden_states)
        if self.mixture:
            return hidden_states + self.mlp(normed, time_embeds)
        return hidden_states + self.mlp(normed.squeeze(1)).unsqueeze(1)


class SamoeTimeEmbedding(nn.Module):
    """E_ts: half-hour slot + weekday + stay class (+ position, released code), (B, T) -> (B, T, d) (eq. 5).

    Weekdays are 0 = Monday .. 6, -1 = none.
    """

    def __init__(self, config: SamoeConfig, positions: int | None) -> None:
        super().__init__()
        self.slot = nn.Embedding(NUM_SLOTS, config.hidden_size)
        self.weekday = nn.Embedding(NUM_WEEKDAY_ROWS, config.hidden_size)
        self.stay = nn.Embedding(config.num_stay_bins, config.hidden_size)
        self.position = nn.Embedding(positions, config.hidden_size) if positions else None

    def forward(
        self,
        time_ids: torch.Tensor,
        weekday_ids: torch.Tensor,
        stay_ids: torch.Tensor,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        embeds = self.slot(time_ids) + self.weekday(weekday_ids + 1) + self.stay(stay_ids)
        return embeds if self.position is None else embeds + self.position(position_ids)


class SamoeFeatureEmbedding(nn.Module):
    """One affine map per kind of feature, (..., F) -> three tensors (..., width) (eq. 4). Columns: POI | x, y |
    popularity level | km.
    """

    def __init__(self, config: SamoeConfig, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.num_poi, self.num_levels = config.num_poi_features, config.num_popularity_levels
        self.use_poi, self.use_popularity = config.use_poi, config.use_popularity
        self.poi = nn.Linear(config.num_poi_features, widths[0])
        self.geo = nn.Linear(2, widths[1])
        self.pop = nn.Embedding(config.num_popularity_levels, widths[2])

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        poi, geo = features[..., : self.num_poi], features[..., self.num_poi : self.num_poi + 2]
        level = features[..., self.num_poi + 2].long().clamp(max=self.num_levels - 1)
        poi = poi if self.use_poi else torch.zeros_like(poi)
        level = level if self.use_popularity else torch.zeros_like(level)
        # FSDP2 may have cast one of the weights and not the other: it gathers each where it is used.
        return self.poi(poi.to(self.poi.weight.dtype)), self.geo(geo.to(self.geo.weight.dtype)), self.pop(level)


class SamoeCrossLayer(nn.Module):
    """One DCN-v1 cross layer: x_0 * (w . x + c) + b + x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 1)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, first: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        return first * self.gate(current) + self.bias + current


class SamoeLocationEncoder(nn.Module):
    """Candidate encoder (eq. 9): features (N + 2, F) -> (N + 2, d), a two-layer cross network beside a deep one."""

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        d = config.hidden_size
        separate = config.location_encoder == "separate"
        self.features = SamoeFeatureEmbedding(config, (d // 4, d // 2, d // 4)) if separate else None
        self.cross = nn.ModuleList(SamoeCrossLayer(d) for _ in range(2))
        self.deep_up = nn.Linear(d, 4 * d)
        self.deep_down = nn.Linear(4 * d, d)
        self.out_proj = nn.Linear(2 * d, d)

    def forward(self, features: torch.Tensor, shared: SamoeFeatureEmbedding) -> torch.Tensor:
        if self.features is None:
            first = sum(shared(features))
        else:
            poi, geo, pop = self.features(features)
            first = torch.cat([geo, pop, poi], dim=-1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        deep = self.deep_down(F.gelu(self.deep_up(first), approximate="tanh"))
        return self.out_proj(torch.cat([crossed, deep], dim=-1))


class SamoeRelativeHead(nn.Module):
    """Terms of a candidate's score that depend on the last visit: distance (six basis functions), popularity, same
    place.
    """

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__()
        self.distance = nn.Linear(config.hidden_size, 6)
        self.same_place = nn.Linear(config.hidden_size, 1)
        self.popularity = nn.Embedding(config.num_popularity_levels, 1)
        self.use_popularity = config.use_popularity
        self.activity = nn.Linear(config.hidden_size, 3) if config.activity_features else None

    def forward(
        self,
        scores: torch.Tensor,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        table: LocationTable,
        pointer: PointerContext | None,
    ) -> torch.Tensor:
        """`scores` (B, T, N + 2) with these terms added. Without gradients, places are taken in blocks: a place has 12
        values per position and 4 per place of the past, of which one is kept.
        """
        from_km, flat = table.km[input_ids].flatten(0, 1), scores.flatten(0, 1).unsqueeze(1)
        distance = widened(self.distance(hidden)).flatten(0, 1).unsqueeze(1)
        past, near = None, None
        if self.activity is not None:
            past = pointer.past_places(table.km) if pointer.nearness is None else None
            near = widened(self.activity(hidden)).flatten(0, 1).unsqueeze(1)
        levels = table.levels if self.use_popularity else torch.zeros_like(table.levels)

        def terms(block: slice) -> torch.Tensor:
            km = table.km[block]
            basis = distance_basis(from_km, km)
            found = plus_product(flat[..., block], distance, basis)
            if near is not None:
                density = pointer.known_activity(block, basis) if past is None else activity(*past, km)
                found = plus_product(found, near, density)
            return found.view(*input_ids.shape, -1).add_(widened(self.popularity(levels[block])).squeeze(-1))

        values = 12 * input_ids.numel() + (4 * past[1].shape[-2] if past is not None else 0)
        parts = [terms(block) for block in blocks(table.km, values)]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return scores.scatter_add_(-1, input_ids.unsqueeze(-1), widened(self.same_place(hidden)))


class SamoePreTrainedModel(SavedWithCode, PreTrainedModel):
    """What the body and the model with its heads share: initial values (`layers.mark`) and supported kernels."""

    config: SamoeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SamoeLayer"]
    _skip_keys_device_placement = [CACHE]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": SamoeLayer,
        "attentions": OutputRecorder(SamoeAttention, index=1),
        "router_weights": SamoeRouter,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            bound = getattr(module, "init_bound", None)
            if bound is not None:
                init.uniform_(module.weight, -bound, bound)
            else:
                init.normal_(module.weight, mean=0.0, std=getattr(module, "init_std", std))
            if module.bias is not None:
                init.zeros_(module.bias)
            if getattr(module, "init_bias", None):
                init.copy_(module.bias, torch.tensor(module.init_bias))
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=std)
            if getattr(module, "init_weight", None):
                init.copy_(module.weight, torch.tensor(module.init_weight))
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SamoeCrossLayer):
            init.zeros_(module.bias)


class SamoeModel(SamoePreTrainedModel):
    """The body: visits of one city -> a state per visit that knows the past only. Candidates are encoded by
    `SamoeForNextLocation.encode_locations`.

    Example:

        >>> model = SamoeModel(SamoeConfig.from_preset("tiny")).eval()
        >>> features = torch.zeros(12, model.config.num_location_features)  # 10 places behind PAD and EOS
        >>> model(torch.tensor([[2, 3, 2]]), location_features=features).last_hidden_state.shape
        torch.Size([1, 3, 16])
    """

    _auto_class = "AutoModel"
    # Of the model around it.
    _keys_to_ignore_on_load_unexpected = [r"^(location_encoder|query_proj|(stay|relative|pointer)_head)\."]

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.visit_features = SamoeFeatureEmbedding(config, (d, d, d))
        self.time_embedding = SamoeTimeEmbedding(config, positions=config.max_position_embeddings)
        self.layers = nn.ModuleList(SamoeLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The affine map of the POI features: the nearest thing to an input embedding that a model without a vocabulary
        has.
        """
        return self.visit_features.poi

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another map of the POI features in its place."""
        self.visit_features.poi = value  # type: ignore[assignment]

    @either_cache_name
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        time_ids: torch.Tensor | None = None,
        weekday_ids: torch.Tensor | None = None,
        stay_ids: torch.Tensor | None = None,
        location_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SamoeModelOutput:
        """Encode visits.

        Args:
            input_ids: (B, T) int64 rows of `location_features`; 0 = padding, 1 = end of trajectory.
            time_ids: (B, T) int64 half hour of the day, 0..47; 0 where missing.
            weekday_ids: (B, T) int64, 0 = Monday .. 6 = Sunday; those of PAD and EOS are not read. Where missing,
                visits have no weekday.
            stay_ids: (B, T) int64 class of the time since the visit before, see `SamoeTokenizer`; 0 where missing.
            location_features: (N + 2, F) float, the city.

        Raises:
            ValueError: if the city is missing, has the wrong number of columns, is batched (several cities), or the
            lengths differ.
        """
        visits, location_features = self._check_inputs(input_ids, location_features, time_ids, weekday_ids, stay_ids)
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        past = cache.get_seq_length() if cache is not None else 0
        if position_ids is None:
            length, device = input_ids.shape[1], input_ids.device
            position_ids = positions_behind(cache, attention_mask, length, device=device, entries="visits")
        self._check_length(past, input_ids)

        time_embeds = self.time_embedding(*visits, position_ids)
        poi, geo, pop = self.visit_features(location_features[input_ids])
        fused = poi + geo + pop
        visit_embeddings = fused + time_embeds
        fused_input = visit_embeddings if self.config.time_in_fused_stream or not self.config.mixture else fused
        streams = [poi + time_embeds, geo + time_embeds, pop + time_embeds] if self.config.mixture else []
        hidden_states = torch.stack([*streams, fused_input], dim=1)

        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=fused,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: cache},
        )
        for layer in self.layers:
            # Positional, as reentrant checkpointing sees gradients of such arguments only.
            hidden_states = layer(hidden_states, time_embeds, attention_mask=mask, **{CACHE: cache}, **kwargs)
        final = hidden_states[:, -1]
        if not self.config.time_in_fused_stream:
            final = final + time_embeds
        return SamoeModelOutput(
            last_hidden_state=self.norm(final),
            visit_embeddings=visit_embeddings,
            **{CACHE: cache},  # type: ignore[arg-type]
        )

    def _check_length(self, past: int | torch.Tensor, input_ids: torch.Tensor) -> None:
        if self.time_embedding.position is None or is_tracing(input_ids):
            return
        length = int(past) + input_ids.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"a context of {length} visits is longer than max_position_embeddings="
                f"{self.config.max_position_embeddings}; truncate it to the last visits."
            )

    def _check_inputs(
        self, input_ids: torch.Tensor | None, features: torch.Tensor | None, *visits: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        if input_ids is None:
            raise ValueError("input_ids are needed: rows of location_features, as SamoeTokenizer makes them.")
        self._check_city(features)
        checked = []
        for name, value in zip(PER_VISIT_INPUTS, visits):
            if value is None:
                value = torch.full_like(input_ids, -1 if name == "weekday_ids" else 0)
            elif value.shape != input_ids.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, input_ids has {tuple(input_ids.shape)}.")
            checked.append(value.masked_fill(input_ids < NUM_SPECIAL, -1) if name == "weekday_ids" else value)
        return checked, features

    def _check_city(self, features: torch.Tensor | None) -> None:
        """Raise a `ValueError` unless `features` is the table of one city with this model's columns (the two in km may
        be there unused).
        """
        if features is None:
            raise ValueError("location_features are needed: a model knows no city; pass what SamoeTokenizer returns.")
        if features.dim() != 2:
            raise ValueError(
                f"location_features must be (locations + 2, columns), got {tuple(features.shape)}: "
                "a batch holds one city only."
            )
        if not self.config.num_location_features <= features.shape[1] <= self.config.num_poi_features + 5:
            raise ValueError(
                f"location_features has {features.shape[1]} columns, this model needs "
                f"{self.config.num_location_features} ({self.config.num_poi_features} POI columns); "
                "build the tokenizer from a City with the same feature scheme."
            )


@dataclass
class _Rollout:
    """What `generate` carries beside ids: whether stays are drawn, how many visits the given cache holds that are not
    among its inputs, and the times so far.
    """

    sample: bool
    cached: int
    timestamps: torch.Tensor | None = None


class SamoeForNextLocation(SamoePreTrainedModel, GenerationMixin):
    """Next location and time until then. Labels are aligned with the inputs and shifted inside, as in every causal LM
    of transformers.

    Example:

        >>> from hf_mobility import City, SamoeTokenizer, simulate_city
        >>> made = simulate_city(20, seed=0)
        >>> city = City.from_visits(made.visits, timezone=made.timezone, name=made.name, pois=made.pois)
        >>> model = SamoeForNextLocation(SamoeConfig.from_preset("tiny")).eval()
        >>> batch = SamoeTokenizer.from_city(city, model.config)(made.visits, padding=True, return_tensors="pt")
        >>> model(**batch).logits.shape[-1] == len(city) + 2  # behind PAD and EOS
        True
    """

    _auto_class = "AutoModelForCausalLM"
    # The loss divides by `num_items_in_batch`, so accumulation and several processes give the loss of one large batch.
    accepts_loss_kwargs = True

    def __init__(self, config: SamoeConfig) -> None:
        super().__init__(config)
        self.model = SamoeModel(config)
        self.location_encoder = SamoeLocationEncoder(config)
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.stay_head = nn.Linear(config.hidden_size, config.num_stay_bins, bias=False)
        self.relative_head = SamoeRelativeHead(config) if config.relative_features else None
        self.pointer_head = SamoePointerHead(config) if config.pointer_head else None
        self.arrival_embedding = SamoeTimeEmbedding(config, positions=None) if config.arrival_time else None
        self.post_init()

    def encode_locations(self, location_features: torch.Tensor) -> LocationTable:
        """Encode a city once: (N + 2, F) -> `LocationTable`. Reuse it while neither the city nor the weights change."""
        self.model._check_city(location_features)
        columns = self.config.num_poi_features
        km = None
        if self.config.uses_distances:
            precision = torch.promote_types(self.query_proj.weight.dtype, torch.float32)
            km = location_features[:, columns + 3 : columns + 5].to(precision)
        encoded = [
            self.location_encoder(location_features[block], self.model.visit_features)
            for block in blocks(location_features, 16 * self.config.hidden_size)
        ]
        return LocationTable(
            embeddings=torch.cat(encoded),
            levels=location_features[:, columns + 2].long().clamp(max=self.config.num_popularity_levels - 1),
            km=km,
            features=location_features,
        )

    def nearness(self, input_ids: torch.Tensor, table: LocationTable) -> torch.Tensor | None:
        """What `forward` takes under this name, (B, T) -> (B, 3, N + 2) float32, of the visits given: sums over visits,
        which need not be computed anew for each. Fastest for many users at one time. None for models that do not read
        it."""
        reads_it = self.relative_head is not None and self.relative_head.activity is not None
        return nearness(input_ids, table.km) if reads_it else None

    @either_cache_name
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        time_ids: torch.Tensor | None = None,
        weekday_ids: torch.Tensor | None = None,
        stay_ids: torch.Tensor | None = None,
        timestamps: torch.Tensor | None = None,
        location_features: torch.Tensor | None = None,
        location_table: LocationTable | None = None,
        candidate_log_weights: torch.Tensor | None = None,
        arrival_times: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        stay_labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        shift_stay_labels: torch.Tensor | None = None,
        smoothing: float = 0.0,
        nearness: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> SamoeOutput:
        """Score every location of the city as the next one, at every position.

        Args:
            timestamps: (B, T) int64 seconds of local civil time; needed by the pointer head.
            location_table: `encode_locations(location_features)`, in place of `location_features`.
            candidate_log_weights: (N + 2,) float added to the scores inside the normaliser only: training on sampled
                candidates.
            arrival_times: (B, T) int64, local civil seconds at which the *next* visit begins (`arrival_time=True`
                models only); in training it is read off the labels' own timestamps.
            labels: (B, T) int64, -100 = ignored; position t is scored with labels at t + 1.
            stay_labels: (B, T) int64 class of the time between visit t - 1 and visit t (so `stay_ids`); 0 and -100 are
                ignored.
            shift_labels, shift_stay_labels: (B, T) int64 in place of `labels` and `stay_labels`: position t is scored
                with them at t. A part of a sequence needs them (and `arrival_times`), as its last targets lie in the
                next part.
            smoothing: share of the location's loss that is the mean of -ln p over all places (label smoothing).
            nearness: (B, 3, N + 2) float, sums of `nearness` over the visits before the last one, where they are known;
                only with `logits_to_keep=1` and without gradients. The last visit is added to them in place.
            logits_to_keep: scores of places at the last k positions only (0 = all); `stay_logits` are of all.

        Raises:
            ValueError: if an input is missing or has the wrong shape, or for `stay_labels` without `labels`.
        """
        target = _next(labels) if shift_labels is None else shift_labels
        stay_target = _next(stay_labels) if shift_stay_labels is None else shift_stay_labels
        if target is None and stay_target is not None:
            raise ValueError(
                "stay_labels are given without labels, which a Trainer takes away for label_smoothing_factor and "
                "compute_loss_func: smooth with MobilityTrainer (or the input `smoothing`), or leave stay_labels out."
            )
        if location_table is None:
            if location_features is None:
                raise ValueError(
                    "location_features (or location_table) are needed, a model knows no city: the tokenizer returns "
                    "them with return_tensors='pt'; train with VisitCollator(tokenizer) or MobilityTrainer."
                )
            location_table = self.encode_locations(location_features)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            time_ids=time_ids,
            weekday_ids=weekday_ids,
            stay_ids=stay_ids,
            location_features=location_table.features,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if self.arrival_embedding is not None:
            arrival_times = next_arrivals(arrival_times, timestamps, given_by_labels=target is not None)
            hidden = hidden + self._embed_arrival(arrival_times, timestamps)
        keep: slice | torch.Tensor = slice(None)
        if target is None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        pointer = None
        if self.pointer_head is not None:
            pointer = self.pointer_head(
                hidden,
                outputs.visit_embeddings,
                input_ids=input_ids,
                timestamps=timestamps,
                arrival_times=arrival_times if self.arrival_embedding is not None else None,
                km=location_table.km,
                cache=getattr(outputs, CACHE),
                keep=keep,
            )
            pointer.nearness = nearness
        query = self.query_proj(hidden)
        stay_logits = self.stay_head(query)
        hidden, query, input_ids = hidden[:, keep], query[:, keep], input_ids[:, keep]

        loss = location_loss = stay_loss = logits = None
        if target is None:
            parts = []
            for rows in _row_blocks(nearness, input_ids):
                past = None if pointer is None else pointer.rows(rows)
                read = query[rows], hidden[rows], input_ids[rows], location_table, past
                scores, log_norm, gate = self._scored(*read, candidate_log_weights)
                parts.append(_log_scores(scores, log_norm, past, gate))
            logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            read = query, hidden, input_ids, location_table, pointer
            scores, log_norm, gate = self._scored(*read, candidate_log_weights)
            num_items = kwargs.get("num_items_in_batch")
            num_items = (target != IGNORED).sum().clamp(min=1) if num_items is None else num_items
            location_loss = _location_loss(scores, log_norm, pointer, gate, target) / num_items
            if smoothing:
                log_p = _log_probability(scores, log_norm, pointer, gate)
                spread = _spread_loss(log_p, candidate_log_weights, target) / num_items
                location_loss = (1 - smoothing) * location_loss + smoothing * spread
            loss = location_loss
            if stay_target is not None and self.config.stay_loss_weight:
                stay_loss = _stay_loss(stay_logits, stay_target) / num_items
                loss = loss + self.config.stay_loss_weight * stay_loss
            logits = None if self.training else _log_scores(scores, log_norm, pointer, gate)
        return SamoeOutput(
            loss=loss,
            logits=logits,
            stay_logits=stay_logits,
            location_loss=location_loss,
            stay_loss=stay_loss,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_weights=outputs.router_weights,
            **{CACHE: getattr(outputs, CACHE)},
        )

    def _scored(
        self,
        query: torch.Tensor,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        table: LocationTable,
        pointer: PointerContext | None,
        log_weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Scores (B, T, N + 2) of the dot-product head, the logarithm of their sum of exponentials (B, T), and the
        log-odds of copying (B, T) where there is a pointer.
        """
        scores = self._candidate_scores(query, hidden, input_ids, table, pointer)
        log_norm = torch.logsumexp(scores if log_weights is None else scores + log_weights.float(), dim=-1)
        if pointer is None:
            return scores, log_norm, None
        top = (scores.detach().amax(-1) - log_norm.detach()).exp()
        return scores, log_norm, self.pointer_head.gate_logit(hidden, pointer, top)

    def _candidate_scores(
        self,
        query: torch.Tensor,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        table: LocationTable,
        pointer: PointerContext | None,
    ) -> torch.Tensor:
        """(B, T, N + 2) float32 scores of the dot-product head; columns that are no place are -inf."""
        scores = widened(torch.matmul(query, table.embeddings.to(query.dtype).t()))
        if self.relative_head is not None:
            scores = self.relative_head(scores, hidden, input_ids, table, pointer)
        closed = [0] if self.config.use_eos else [0, 1]
        return scores.index_fill_(-1, torch.tensor(closed, device=scores.device), float("-inf"))

    def _embed_arrival(self, arrival_times: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        slots = arrival_times.div(HALF_HOUR, rounding_mode="floor") % NUM_SLOTS
        gap = stay_class(arrival_times - timestamps, self.config)
        return self.arrival_embedding(slots, weekday_of(arrival_times), gap)

    # Generation: the library carries only ids, masks and caches from step to step; the rest of a visit is carried here.

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, *, return_timestamps: bool = False, **kwargs: Any) -> Any:
        """Roll out future visits, as `GenerationMixin.generate`. The city is encoded once; the time of each new visit
        is the last one's plus a stay, drawn from the stay head where `do_sample=True` and its most probable class
        otherwise.

        Args:
            return_timestamps: return `(sequences, timestamps)`, both (B, T + new) int64; timestamps in seconds of local
                civil time.

        A cache is continued with all visits, those in it first, or with new ones and an `attention_mask` over both.

        Raises:
            ValueError: for beam search, assisted and prompt-lookup decoding (beams and candidates of a user would need
                times of their own), without `timestamps`, or if visits, their mask and the cache do not fit together.
        """
        settings = kwargs.get("generation_config") or self.generation_config
        if (kwargs.get("num_beams") or settings.num_beams or 1) > 1:
            raise ValueError(
                "beam search is not supported: beams differ in the times of their visits; "
                "use do_sample and num_return_sequences."
            )
        for name in FORESEEING:
            if kwargs.get(name) or getattr(settings, name, None):
                raise ValueError(
                    f"{name} is not supported: candidates of several visits ahead would need times, which are drawn "
                    "visit by visit; leave it out."
                )
        if kwargs.get("timestamps") is None:
            raise ValueError("timestamps are needed to roll out visits; pass what SamoeTokenizer returns.")
        if self.config.arrival_time:
            raise ValueError(
                "a model with arrival_time=True cannot roll out visits: it is told when the next one begins."
            )
        if kwargs.get("location_table") is None and kwargs.get("location_features") is not None:
            kwargs["location_table"] = self.encode_locations(kwargs.pop("location_features"))
        do_sample = kwargs.get("do_sample", settings.do_sample)
        rollout = _Rollout(sample=bool(do_sample), cached=_cached_before(inputs, kwargs))
        sequences = super().generate(inputs, rollout=rollout, **kwargs)
        return (sequences, rollout.timestamps) if return_timestamps else sequences

    def compute_transition_scores(
        self,
        sequences: torch.Tensor,
        scores: tuple[torch.Tensor, ...],
        beam_indices: torch.Tensor | None = None,
        normalize_logits: bool = False,
    ) -> torch.Tensor:
        """As in `GenerationMixin`, for the places of any city: `sequences` (B, T + new) and the `scores` of `generate`
        -> (B, new), the score of each new visit. There are no beams.
        """
        steps = torch.stack(scores, dim=1)
        steps = steps.log_softmax(-1) if normalize_logits else steps
        return steps.gather(-1, sequences[:, -len(scores) :, None]).squeeze(-1)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        known = ("rollout", CACHE)  # `forward` takes the cache by a decorator, unseen by its signature
        super()._validate_model_kwargs({name: value for name, value in model_kwargs.items() if name not in known})

    def _get_static_cache_init_shape(self) -> Any:  # heads and their size
        shape = super()._get_static_cache_init_shape()
        # The streams are folded into the heads.
        return (4 * shape[0], shape[1]) if shape is not None and self.config.mixture else shape

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        model_inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[arg-type]
        rollout, cache, mask = model_inputs.pop("rollout", None), kwargs.get(CACHE), kwargs.get("attention_mask")
        past, length = int(cache.get_seq_length()) if cache is not None else 0, model_inputs["input_ids"].shape[1]
        if mask is not None and mask.dim() == 2 and mask.shape[1] != past + length:  # chunks in transformers < 5.23
            raise ValueError(
                f"attention_mask has {mask.shape[1]} columns for {past} visits in the cache and {length} new ones; a "
                "cache that holds visits is not continued in chunks by every version of transformers."
            )
        begin = past if rollout is None else past - rollout.cached
        end = begin + length
        for name in PER_VISIT_INPUTS:
            value = model_inputs.get(name)
            if value is None:
                continue
            if not 0 <= begin < end <= value.shape[1]:
                raise ValueError(f"{name} has {value.shape[1]} visits, visits {begin} to {end} are to be read from it.")
            # Copied, as the ids are: a view's strides grow by each visit, and compiled code would be made anew.
            model_inputs[name] = value[:, begin:end].clone(memory_format=torch.contiguous_format)
        return model_inputs

    def _update_model_kwargs_for_generation(
        self, outputs: SamoeOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        rollout = model_kwargs["rollout"]
        stay_logits = outputs.stay_logits[:, -1, 1:].float()  # class 0 is "unknown"
        picked = (
            torch.multinomial(stay_logits.softmax(-1), 1) if rollout.sample else stay_logits.argmax(-1, keepdim=True)
        )
        arrival = model_kwargs["timestamps"][:, -1:] + stay_seconds(picked + 1, self.config)
        new = {
            "time_ids": arrival.div(HALF_HOUR, rounding_mode="floor") % NUM_SLOTS,
            "weekday_ids": weekday_of(arrival),
            "stay_ids": picked + 1,
            "timestamps": arrival,
        }
        for name, value in new.items():
            if model_kwargs.get(name) is not None:
                model_kwargs[name] = torch.cat([model_kwargs[name], value], dim=1)
        rollout.timestamps = model_kwargs["timestamps"]
        return model_kwargs

    def _expand_inputs_for_generation(self, expand_size: int = 1, **kwargs: Any) -> Any:
        city = {name: kwargs.pop(name) for name in CITY_INPUTS if name in kwargs}  # not batch-first: never repeated
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        return input_ids, {**kwargs, **city}


def _cached_before(inputs: torch.Tensor | None, kwargs: dict[str, Any]) -> int:
    """How many visits the cache given to `generate` holds that are not among its inputs.

    Raises:
        ValueError: if the inputs of a visit, the mask and the cache do not fit together.
    """
    input_ids = kwargs.get("input_ids") if inputs is None else inputs
    if input_ids is None:
        return 0
    for name in PER_VISIT_INPUTS:
        value = kwargs.get(name)
        if value is not None and value.shape != input_ids.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, input_ids has {tuple(input_ids.shape)}.")
    caches = [kwargs[name] for name in ("cache", "past_key_values") if kwargs.get(name) is not None]
    past = int(caches[0].get_seq_length()) if caches else 0
    mask, given = kwargs.get("attention_mask"), input_ids.shape[1]
    columns = given if mask is None else mask.shape[1]
    if columns == given > past:
        return 0
    if columns == past + given:
        return past
    raise ValueError(
        f"input_ids has {given} visits, attention_mask {columns} columns and the cache {past} visits: continue a cache "
        "with all visits, those in it first, or with new ones and an attention_mask over both."
    )


def _next(labels: torch.Tensor | None) -> torch.Tensor | None:
    """The label of the next position at each, (B, T) -> (B, T); the last has none."""
    return None if labels is None else F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def _location_loss(
    scores: torch.Tensor,
    log_norm: torch.Tensor,
    pointer: PointerContext | None,
    gate: torch.Tensor | None,
    target: torch.Tensor,
) -> torch.Tensor:
    """-ln p(target), summed over (B, T); only the target's column of the mixture is computed."""
    place = target.clamp(min=0)
    log_generated = scores.gather(-1, place.unsqueeze(-1)).squeeze(-1) - log_norm
    if pointer is None:
        losses = -log_generated
    else:
        copied = gate.sigmoid() * pointer.probability_of(place)
        losses = -(copied + gate.neg().sigmoid() * log_generated.exp() + 1e-9).log()
    return losses.masked_fill(target == IGNORED, 0.0).sum()


def _log_probability(
    scores: torch.Tensor, log_norm: torch.Tensor, pointer: PointerContext | None, gate: torch.Tensor | None
) -> torch.Tensor:
    """ln p of every candidate, (B, T, N + 2); -inf for what is no place."""
    return (
        scores - log_norm.unsqueeze(-1) if gate is None else _mixture_log_probability(scores, log_norm, pointer, gate)
    )


def _log_scores(
    scores: torch.Tensor, log_norm: torch.Tensor, pointer: PointerContext | None, gate: torch.Tensor | None
) -> torch.Tensor:
    """What the output says of every candidate, (B, T, N + 2): with a pointer ln p, else the scores."""
    return scores if gate is None else _mixture_log_probability(scores, log_norm, pointer, gate)


def _row_blocks(nearness: torch.Tensor | None, input_ids: torch.Tensor) -> list[slice]:
    """Blocks of sequences whose distances stay in the processor's cache. Without `nearness` there is one block: places
    of the past are computed once for all sequences.
    """
    if nearness is None:
        return [slice(None)]
    step = max(1, BLOCK_VALUES // (8 * nearness.shape[-1]))
    return [slice(start, start + step) for start in range(0, len(input_ids), step)]


def _spread_loss(log_p: torch.Tensor, log_weights: torch.Tensor | None, target: torch.Tensor) -> torch.Tensor:
    """-ln p averaged over the places, closed columns left out, and summed over the targets. A sampled place counts for
    those that were not sampled.
    """
    is_open = log_p[:1, :1] > float("-inf")
    weights = is_open.float() if log_weights is None else is_open * log_weights.float().exp()
    losses = -(log_p.masked_fill(~is_open, 0.0) * weights).sum(-1) / weights.sum()
    return losses.masked_fill(target == IGNORED, 0.0).sum()


def _stay_loss(stay_logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the stay class, summed; class 0 is ignored. Like the others it is divided by the number of
    location labels, so that one count serves all terms.
    """
    target = torch.where(target > 0, target, IGNORED)
    return F.cross_entropy(widened(stay_logits).flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum")


def _mixture_log_probability(
    scores: torch.Tensor, log_norm: torch.Tensor, pointer: PointerContext, gate: torch.Tensor
) -> torch.Tensor:
    """ln(lambda p_copy + (1 - lambda) p_gen) of every candidate, (B, T, N + 2)."""
    copy = gate.sigmoid().unsqueeze(-1)
    generated = (1 - copy) * (scores - log_norm.unsqueeze(-1)).exp()
    log_p = (pointer.added_to(generated, copy) + 1e-9).log()
    log_p[..., :NUM_SPECIAL].masked_fill_(scores[..., :NUM_SPECIAL] == float("-inf"), float("-inf"))
    return log_p


__all__ = [
    "LocationTable",
    "SamoeForNextLocation",
    "SamoeModel",
    "SamoeModelOutput",
    "SamoeOutput",
    "SamoePreTrainedModel",
]
