"""RAW, "Regions are Who Walk Them" (arXiv 2311.10471): a causal transformer over positions at regular times.

The input is a series of (longitude, latitude) in units of a city's box (`coordinates`), the target is the next point
itself. A user is the mean of the final states, a region the sum of its visitors.

Notes:
    bfloat16 keeps three digits, some hundred metres of a city, so the first and the last matrix are computed in the
    precision of their own weights (float32, which `from_pretrained(dtype=bfloat16)` and autocast leave them) and
    predictions are float32.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: B series (users), T slots, D `hidden_size`, R regions, U users.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_raw import RawConfig
from .generation_raw import roll_out, roomy_cache, until_last_record
from .layers import CACHE, OwnGenerate, SelfAttention, either_cache_name, positions_behind, widened
from .mixture_raw import PARAMETERS, RawMixture, negative_log_likelihood, predicted_point, read_mixture
from .regions_raw import pool_visitors, visitor_matrix
from .saving import SavedWithCode
from .users_raw import pool_users, user_size

IGNORED = -100  # a label that does not count, as everywhere in transformers; no coordinate is that far out


@dataclass
class RawModelOutput(BaseModelOutputWithPast):
    """`last_hidden_state` (B, T, D), after the final LayerNorm; `user_embedding` (B, D), its mean over unpadded time
    (or what `user_pooling` says; (B, 4 D) with `day_parts`), `None` where a cache was given: a piece of a series is no
    user.
    """

    user_embedding: torch.Tensor | None = None


@dataclass
class RawPredictionOutput(ModelOutput):
    """Output of `RawForTrajectoryPrediction`.

    loss: scalar; mean squared error in squared box units, or the mixture's negative log-likelihood.
    predictions (B, T, 2) float32: the point after each point, in box units.
    mae, copy_last_mae: scalars, with labels only: mean absolute error in box units of the predictions and of the copied
    last point, over the same targets and both axes. The second is the baseline to beat: it is strong at 15 minutes.
    mixture: parameters of the Gaussians, where `mixture_components` is above 0.
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    mae: torch.Tensor | None = None
    copy_last_mae: torch.Tensor | None = None
    mixture: RawMixture | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class RawUserOutput(ModelOutput):
    """`logits` (B, num_labels) float32 and the embeddings (B, D) they were made from."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    user_embedding: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class RawRegionOutput(ModelOutput):
    """`logits` (R, num_labels) float32; `region_embedding` (R, D) or, with `region_pooling="log"`, (R, D + 1), float32,
    before standardisation; `num_visitors` (R,) float32, distinct users: exports of regions with few of them tell who
    was there.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    region_embedding: torch.Tensor | None = None
    num_visitors: torch.Tensor | None = None


class RawMLP(nn.Module):
    """Feed-forward network D -> 4 D -> D with SiLU ("Swish") and dropout between."""

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.dropout)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.dropout(F.silu(self.up_proj(hidden_states))))


class RawLayer(GradientCheckpointingLayer):
    """Pre-norm block; no dropout on the residual branches."""

    def __init__(self, config: RawConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = RawMLP(config)

    @either_cache_name
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), attention_mask, cache, **kwargs)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class RawPointEmbedding(nn.Module):
    """(B, T, 2) box units -> (B, T, D): 2 -> 2 D -> D with ReLU ("Feed Forward" in the paper's figure)."""

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(2, 2 * config.hidden_size, dtype=torch.float32)
        self.down_proj = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        with maybe_autocast(coordinates.device.type, enabled=False):
            features = F.relu(self.up_proj(coordinates.to(self.up_proj.weight.dtype)))
        return self.down_proj(features.to(self.down_proj.weight.dtype))


class RawTimeFeatures(nn.Module):
    """Linear map of sin and cos of the slot of the day and the day of the week (`time_features`; not in the paper)."""

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        self.slots_per_day = config.slots_per_day
        self.proj = nn.Linear(4, config.hidden_size)

    def forward(self, position_ids: torch.Tensor, start_weekday: torch.Tensor) -> torch.Tensor:
        day = start_weekday.unsqueeze(1) + position_ids.div(self.slots_per_day, rounding_mode="floor")
        turns = [(position_ids % self.slots_per_day).float() / self.slots_per_day, (day % 7).float() / 7]
        angles = 2 * math.pi * torch.stack(torch.broadcast_tensors(*turns), dim=-1)
        return self.proj(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.proj.weight.dtype))


class RawPredictionHead(nn.Module):
    """D -> 4 D -> D -> 2 with ReLU (authors' code) or D -> 2 (figure): (B, T, D) -> (B, T, 2) float32, or (B, T, 6 k)
    with a mixture of k.
    """

    def __init__(self, config: RawConfig) -> None:
        super().__init__()
        columns = 2 if config.mixture_components == 0 else PARAMETERS * config.mixture_components
        mlp = config.output_head == "mlp"
        self.up_proj = nn.Linear(config.hidden_size, 4 * config.hidden_size) if mlp else None
        self.down_proj = nn.Linear(4 * config.hidden_size, config.hidden_size) if mlp else None
        self.out_proj = nn.Linear(config.hidden_size, columns, dtype=torch.float32)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.up_proj is not None:
            hidden_states = F.relu(self.down_proj(F.relu(self.up_proj(hidden_states))))
        with maybe_autocast(hidden_states.device.type, enabled=False):
            return widened(self.out_proj(hidden_states.to(self.out_proj.weight.dtype)))


class RawTaskHead(nn.Module):
    """Standardise, then features -> `head_hidden_size` -> `num_labels` with ReLU and dropout; float32 logits.

    `feature_mean` and `feature_scale` (features,) are saved with the weights; 0 and 1 until `fit` sets them.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor

    def __init__(self, config: RawConfig, num_features: int) -> None:
        super().__init__()
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_scale", torch.ones(num_features))
        hidden = config.head_hidden_size
        self.dense = nn.Linear(num_features, hidden) if hidden else None
        self.dropout = nn.Dropout(config.head_dropout)
        self.out_proj = nn.Linear(hidden or num_features, config.num_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = (widened(features) - widened(self.feature_mean)) / widened(self.feature_scale)
        features = features.to(self.out_proj.weight.dtype)
        if self.dense is not None:
            features = self.dropout(F.relu(self.dense(features)))
        return widened(self.out_proj(features))

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation from (n, features); a column that never changes keeps scale 1."""
        if features.dim() != 2 or features.shape[1] != len(self.feature_mean) or len(features) < 2:
            raise ValueError(
                f"features must be (n, {len(self.feature_mean)}) with n of at least 2, got {tuple(features.shape)}."
            )
        deviation, mean = torch.std_mean(features.double(), dim=0)
        constant = deviation <= 1e-7 * (1 + mean.abs())
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(deviation.masked_fill(constant, 1.0))


class RawPreTrainedModel(SavedWithCode, PreTrainedModel):
    """What all models of RAW share: initial values, supported kernels, and what stays in float32."""

    config: RawConfig
    variant = "released"
    base_model_prefix = "model"
    main_input_name = "coordinates"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RawLayer"]
    _skip_keys_device_placement = [CACHE]
    _keep_in_fp32_modules_strict = ["point_embedding.up_proj"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": RawLayer, "attentions": OutputRecorder(SelfAttention, index=1)}

    def __init__(self, config: RawConfig, *args: Any, **kwargs: Any) -> None:
        if config.variant != self.variant:
            raise ValueError(
                f"{type(self).__name__} is of the variant {self.variant!r}, the configuration of {config.variant!r}."
            )
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):  # PyTorch's own default, which the authors' code keeps
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
            if (
                bias := getattr(module, "init_bias", None)
            ) is not None:  # starts as a rule that does not read the state
                init.zeros_(module.weight)
                init.copy_(module.bias, torch.as_tensor(bias, dtype=module.bias.dtype))
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, RawTaskHead):
            init.zeros_(module.feature_mean)
            init.ones_(module.feature_scale)


class RawModel(RawPreTrainedModel):
    """The body: a series of points -> a state per point that knows the past only, and an embedding per user.

    Example:

        >>> model = RawModel(RawConfig.from_preset("tiny")).eval()
        >>> output = model(coordinates=torch.zeros(3, 8, 2))  # 3 users, 8 slots, (longitude, latitude)
        >>> output.last_hidden_state.shape, output.user_embedding.shape
        (torch.Size([3, 8, 16]), torch.Size([3, 16]))
    """

    _auto_class = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^(prediction_head|classifier)\."]  # of the models around it

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config)
        self.point_embedding = RawPointEmbedding(config)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.time_features = RawTimeFeatures(config) if config.time_features else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(RawLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first matrix: the nearest thing to an input embedding that a model without a vocabulary has."""
        return self.point_embedding.up_proj

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another first matrix in its place."""
        self.point_embedding.up_proj = value  # type: ignore[assignment]

    @either_cache_name
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        coordinates: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        observed_mask: torch.Tensor | None = None,
        start_weekday: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RawModelOutput:
        """Encode series.

        Args:
            coordinates: (B, T, 2) float, [longitude, latitude] in box units (-1..1 inside the box).
            attention_mask: (B, T) int64, 0 = padding, on either side; with a cache (B, past + T).
            position_ids: (B, T) int64, slot since the window's first local midnight; by default counted from the first
                unpadded point. They need not be consecutive.
            inputs_embeds: (B, T, D) embedded points, in place of `coordinates`.
            observed_mask: accepted, so that what a tokenizer returns can be splatted; the body has no use for it.
            start_weekday: (B,) int64 day of the week of the window's first midnight, 0 = Monday; `time_features` only.

        Raises:
            ValueError: for missing or misshapen inputs, or positions beyond `max_position_embeddings`.
        """
        length, device = self._check_points(coordinates, inputs_embeds)
        if use_cache and cache is None:
            cache, whole_series = DynamicCache(config=self.config), True
        else:
            whole_series = cache is None
        if position_ids is None:
            position_ids = positions_behind(cache, attention_mask, length, device=device, entries="slots")
        self._check_positions(position_ids)

        if inputs_embeds is None:
            inputs_embeds = self.point_embedding(_without_padding(coordinates, attention_mask))
        hidden_states = inputs_embeds + self.position_embedding(position_ids)
        if self.time_features is not None:
            if start_weekday is None:
                raise ValueError("start_weekday is needed: this model has time_features=True.")
            hidden_states = hidden_states + self.time_features(position_ids, start_weekday)
        hidden_states = self.dropout(hidden_states)

        # Without `position_ids`: a jump in them is a gap in time, which transformers would take for a second series.
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=None if _only_right_padded(attention_mask, length) else attention_mask,
            **{CACHE: cache},
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=mask, **{CACHE: cache}, **kwargs)
        hidden_states = self.norm(hidden_states)
        embedding = None
        if whole_series and (attention_mask is None or attention_mask.dim() == 2):
            pooling, slots = self.config.user_pooling, self.config.slots_per_day
            embedding = pool_users(hidden_states, attention_mask, position_ids, pooling=pooling, slots_per_day=slots)
        return RawModelOutput(
            last_hidden_state=hidden_states,
            user_embedding=embedding,
            **{CACHE: cache},  # type: ignore[arg-type]
        )

    def _check_points(self, coordinates: torch.Tensor | None, embeds: torch.Tensor | None) -> tuple[int, torch.device]:
        if (coordinates is None) == (embeds is None):
            raise ValueError(
                "coordinates are needed, or inputs_embeds in their place: (longitude, latitude) in box units, as "
                "RawTokenizer makes them."
            )
        given, columns = (coordinates, 2) if embeds is None else (embeds, self.config.hidden_size)
        if given.dim() != 3 or given.shape[2] != columns:
            name = "coordinates" if embeds is None else "inputs_embeds"
            raise ValueError(f"{name} must be (series, slots, {columns}), got {tuple(given.shape)}.")
        return given.shape[1], given.device

    def _check_positions(self, position_ids: torch.Tensor) -> None:
        # Only where looking at values costs nothing; elsewhere the table itself refuses.
        if is_tracing(position_ids) or position_ids.device.type != "cpu" or position_ids.numel() == 0:
            return
        last = int(position_ids.max())
        if last >= self.config.max_position_embeddings:
            raise ValueError(
                f"slot {last} lies beyond max_position_embeddings={self.config.max_position_embeddings}; cut the "
                "series into windows of that many slots, as RawTokenizer does."
            )


class RawForTrajectoryPrediction(OwnGenerate, RawPreTrainedModel):
    """The next point of every point, and roll-outs. Labels are aligned with the inputs and shifted inside, as in every
    causal model of transformers: `labels=coordinates`.

    Example:

        >>> model = RawForTrajectoryPrediction(RawConfig.from_preset("tiny")).eval()
        >>> points = torch.zeros(3, 8, 2)
        >>> model(coordinates=points, labels=points).predictions.shape, model.generate(points, steps=4).shape
        (torch.Size([3, 8, 2]), torch.Size([3, 4, 2]))
    """

    _auto_class = "AutoModelForTimeSeriesPrediction"
    _keep_in_fp32_modules_strict = ["prediction_head.out_proj"]  # and the body's
    # The loss is a mean of its own, so the Trainer must divide by the accumulation steps itself.
    accepts_loss_kwargs = False

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config)
        self.model = RawModel(config)
        self.prediction_head = RawPredictionHead(config)
        self.post_init()

    @either_cache_name
    @can_return_tuple
    def forward(
        self,
        coordinates: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        observed_mask: torch.Tensor | None = None,
        start_weekday: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RawPredictionOutput:
        """Predict the point after every point.

        Args:
            labels: (B, T, 2) float, the series itself; position t is scored with the point at t + 1. Points that are
                padding, or -100, do not count; with `loss_on_observed_only` neither do those whose `observed_mask` is
                0.
            others: see `RawModel.forward`.
        """
        if self.training and self.config.input_noise and coordinates is not None:
            coordinates = coordinates + self.config.input_noise * torch.randn_like(coordinates)
        outputs = self.model(
            coordinates=coordinates,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            start_weekday=start_weekday,
            **kwargs,
        )
        if coordinates is not None:
            coordinates = _without_padding(coordinates, attention_mask)
        predictions, mixture = self._predict(outputs.last_hidden_state, coordinates)
        loss = mae = copy_last_mae = None
        if labels is not None:
            counted = self._counted(labels, attention_mask, observed_mask)
            target = torch.where(
                counted.unsqueeze(-1), labels[:, 1:].to(predictions.dtype), 0.0
            )  # what is not counted may be NaN
            shifted = predictions[:, :-1]
            if mixture is None:
                loss = mean_over((shifted - target).square().mean(-1), counted)
            else:
                ahead = RawMixture(**{name: value[:, :-1] for name, value in mixture.items()})
                loss = mean_over(negative_log_likelihood(ahead, target), counted)
            mae = mean_over((shifted.detach() - target).abs().mean(-1), counted)
            if coordinates is not None:
                copied = torch.where(counted.unsqueeze(-1), coordinates[:, :-1].to(target.dtype), 0.0)
                copy_last_mae = mean_over((copied - target).abs().mean(-1), counted)
        return RawPredictionOutput(
            loss=loss,
            predictions=predictions,
            mae=mae,
            copy_last_mae=copy_last_mae,
            mixture=mixture,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE: getattr(outputs, CACHE)},
        )

    def _predict(
        self, hidden_states: torch.Tensor, coordinates: torch.Tensor | None
    ) -> tuple[torch.Tensor, RawMixture | None]:
        raw, origin = self.prediction_head(hidden_states), None
        if self.config.delta_targets:
            if coordinates is None:
                raise ValueError("coordinates are needed: a model with delta_targets=True predicts displacements.")
            origin = coordinates.to(raw.dtype)
        if self.config.mixture_components:
            mixture = read_mixture(raw, origin, min_scale=self.config.mixture_min_scale)
            return predicted_point(mixture, self.config.mixture_prediction), mixture
        return (raw if origin is None else raw + origin), None

    def _counted(
        self, labels: torch.Tensor, attention_mask: torch.Tensor | None, observed_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, T - 1) bool: which targets enter the loss."""
        counted = (labels[:, 1:] != IGNORED).all(-1)
        if attention_mask is not None and attention_mask.dim() == 2:
            known = attention_mask[:, -labels.shape[1] :].to(torch.bool)
            counted = counted & known[:, 1:] & known[:, :-1]
        if self.config.loss_on_observed_only:
            if observed_mask is None:
                raise ValueError("observed_mask is needed: this model has loss_on_observed_only=True.")
            counted = counted & observed_mask[:, 1:].to(torch.bool)
        return counted

    @either_cache_name
    @torch.no_grad()
    def generate(
        self,
        coordinates: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        steps: int = 10,
        cache: Cache | None = None,
        use_cache: bool = True,
        observed_mask: torch.Tensor | None = None,
        start_weekday: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Roll out: (B, T, 2) -> (B, steps, 2) float32, the points that follow each series, in box units.

        Deterministic; nothing is drawn (paper's protocol: 949 known points, 10 steps = 2.5 hours). Series may be padded
        on either side. A tokenizer fills the last day up to midnight: with the `observed_mask` that it returns, the
        points follow the slot of each series' last record; without, the last slot that is no padding.

        Args:
            observed_mask: (B, T), 1 = something was recorded in the slot; slots behind the last such one are not read.
            cache: an empty cache to use, such as a `StaticCache` of T + steps - 1; by default one with room
                for all points.
            use_cache: `False` recomputes the whole series at every step, for comparison.
            others: see `RawModel.forward`.

        Raises:
            ValueError: if `steps` is below 1, a series is all padding or has no record, or the positions would leave
                the model's table.
        """
        length, _ = self.model._check_points(coordinates, None)
        if observed_mask is not None:
            attention_mask = until_last_record(observed_mask, attention_mask, coordinates.shape[:2])
        if use_cache and cache is None:
            cache = roomy_cache(self.config.num_hidden_layers, length + max(steps, 1) - 1)
        return roll_out(
            self.model,
            lambda hidden, points: self._predict(hidden, points)[0],
            coordinates,
            attention_mask,
            position_ids,
            steps=steps,
            max_positions=self.config.max_position_embeddings,
            cache=cache,
            use_cache=use_cache,
            start_weekday=start_weekday,
        )


class RawTaskModel(RawPreTrainedModel):
    """What the two task models share: RAW, by default frozen and in evaluation mode, and an MLP named `classifier`."""

    _auto_class = "AutoModelForSequenceClassification"
    accepts_loss_kwargs = False

    def __init__(self, config: RawConfig, num_features: int) -> None:
        super().__init__(config)
        self.model = RawModel(config)
        self.classifier = RawTaskHead(config, num_features)
        self.post_init()
        self._freeze_encoder()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As everywhere; loading makes new parameters, which have to be frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze_encoder()
        return loaded

    def _freeze_encoder(self) -> None:
        if self.config.freeze_encoder:
            self.model.requires_grad_(False)
            self.model.eval()

    def train(self, mode: bool = True) -> "RawTaskModel":
        """A frozen encoder stays in evaluation mode; one that holds an adapter's trainable weights does not."""
        super().train(mode)
        if self.config.freeze_encoder and not any(weight.requires_grad for weight in self.model.parameters()):
            self.model.eval()
        return self


class RawForUserProfiling(RawTaskModel):
    """Users -> classes or values: trajectory -> RAW (frozen) -> MLP (paper's user task).

    Example:

        >>> model = RawForUserProfiling(RawConfig.from_preset("tiny", num_labels=3)).eval()
        >>> model(coordinates=torch.zeros(5, 8, 2)).logits.shape
        torch.Size([5, 3])
    """

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config, user_size(config))

    def fit_standardiser(self, user_embeddings: torch.Tensor) -> None:
        """Standardise the head's input by mean and standard deviation of the *training* users' embeddings (U, D)."""
        self.classifier.fit(user_embeddings)

    @can_return_tuple
    def forward(
        self,
        coordinates: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        start_weekday: torch.Tensor | None = None,
        user_embeddings: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RawUserOutput:
        """Score users.

        Args:
            user_embeddings: (B, D) embeddings made before, in place of `coordinates`: a frozen RAW gives the same ones
                in every epoch.
            labels: (B,) int64 classes, (B, num_labels) 0/1 float, or (B,) / (B, num_labels) float values; -100 and NaN
                do not count.
            others: see `RawModel.forward`.
        """
        outputs = RawModelOutput(user_embedding=user_embeddings)
        if user_embeddings is None:
            outputs = self.model(
                coordinates=coordinates,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                use_cache=False,
                start_weekday=start_weekday,
                **kwargs,
            )
        elif coordinates is not None or inputs_embeds is not None:
            raise ValueError("user_embeddings stand in place of coordinates; give one of them.")
        logits = self.classifier(outputs.user_embedding)
        return RawUserOutput(
            loss=None if labels is None else task_loss(logits, labels, self.config),
            logits=logits,
            user_embedding=outputs.user_embedding,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class RawForRegionAnalysis(RawTaskModel):
    """Regions -> values or classes: the pooled embeddings of the distinct people who were there -> MLP (paper's region
    task; it sums).

    Example:

        >>> model = RawForRegionAnalysis(RawConfig.from_preset("tiny", num_labels=1)).eval()
        >>> visitors = torch.tensor([[0, 2], [1, 0], [1, 2]])  # pairs of region and user
        >>> model(user_embeddings=torch.zeros(3, 16), visitors=visitors).logits.shape
        torch.Size([2, 1])
    """

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config, user_size(config) + int(config.region_pooling == "log"))

    def fit_standardiser(self, region_embeddings: torch.Tensor) -> None:
        """Standardise the head's input by the *training* regions' `region_embedding` (R, D): a sum grows with the
        number of visitors.
        """
        self.classifier.fit(region_embeddings)

    @can_return_tuple
    def forward(
        self,
        user_embeddings: torch.Tensor | None = None,
        visitors: torch.Tensor | None = None,
        coordinates: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        observed_mask: torch.Tensor | None = None,
        start_weekday: torch.Tensor | None = None,
        num_regions: int | None = None,
        min_visits: int = 1,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RawRegionOutput:
        """Score regions.

        Args:
            user_embeddings: (U, D), or `coordinates` (U, T, 2) to encode here; never changed.
            visitors: who was where: (V, 2) int64 pairs (region index, user index), repeated or not, or a sparse (R, U)
                matrix of visit counts. Each user counts once per region.
            num_regions: R; by default the length of `labels`, the matrix's rows, or the largest index + 1.
            min_visits: pairs that occur less often are left out.
            labels: (R,) or (R, num_labels); -100 and NaN (regions held out) do not count.

        Raises:
            ValueError: without visitors, for indices out of range, or with both embeddings and coordinates.
        """
        if visitors is None:
            raise ValueError("visitors are needed: pairs (region index, user index), or a sparse (R, U) matrix.")
        if (user_embeddings is None) == (coordinates is None):
            raise ValueError("give either user_embeddings (U, D) or the users' coordinates (U, T, 2).")
        if user_embeddings is None:
            user_embeddings = self.model(
                coordinates=coordinates,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=False,
                start_weekday=start_weekday,
                **kwargs,
            ).user_embedding
        if num_regions is None and labels is not None:
            num_regions = len(labels)
        matrix = visitor_matrix(
            visitors, num_regions=num_regions, num_users=len(user_embeddings), min_visits=min_visits
        )
        features, counts = pool_visitors(matrix, user_embeddings, pooling=self.config.region_pooling)
        logits = self.classifier(features)
        return RawRegionOutput(
            loss=None if labels is None else task_loss(logits, labels, self.config),
            logits=logits,
            region_embedding=features,
            num_visitors=counts,
        )


def mean_over(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean of the values that count; 0 if none does."""
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)


def task_loss(logits: torch.Tensor, labels: torch.Tensor, config: RawConfig) -> torch.Tensor:
    """Mean squared error, cross-entropy or binary cross-entropy of logits (n, num_labels), by transformers' rules:
    `problem_type`, or what `num_labels` and the labels' type say. Labels that are -100 or NaN do not count.
    """
    kind: str | None = config.problem_type
    if kind is None:
        several = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        kind = "regression" if config.num_labels == 1 else several
    if kind == "single_label_classification":
        labels = labels.view(-1).long()
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
        return mean_over(losses, labels != IGNORED)
    labels = labels.to(logits.dtype).view_as(logits)
    counted = ~labels.isnan() & (labels != IGNORED)
    labels = torch.where(counted, labels, 0.0)
    if kind == "regression":
        return mean_over((logits - labels).square(), counted)
    return mean_over(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), counted)


def _without_padding(coordinates: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Padding may hold anything, NaN too, which even a masked attention would spread."""
    if attention_mask is None or attention_mask.dim() != 2:
        return coordinates
    return coordinates.masked_fill(attention_mask[:, -coordinates.shape[1] :, None] == 0, 0.0)


def _only_right_padded(attention_mask: torch.Tensor | None, length: int) -> bool:
    """Whether no point could see padding anyway: it lies behind all of them. Attention without a mask is half again as
    fast.
    """
    if attention_mask is None or attention_mask.dim() != 2 or attention_mask.shape[1] != length:
        return False
    return not is_tracing(attention_mask) and bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())


__all__ = [
    "RawForRegionAnalysis",
    "RawForTrajectoryPrediction",
    "RawForUserProfiling",
    "RawModel",
    "RawModelOutput",
    "RawPreTrainedModel",
    "RawPredictionOutput",
    "RawRegionOutput",
    "RawUserOutput",
]
