"""RAW's `extended` variant: a user's records in kilometres -> where the user is at any time to come.

Not in the paper. A token is a record, so that no gap is read as a stay. Positions are taken around the geometric median
of the user's own records: there is no box, and the same weights serve every city. Time is told by periodic features. A
time ahead is asked for directly, instead of in a roll-out on the model's own errors. The answer is a mixture of the
user's own past records, the last one among them, and of free points around the last record and the median.

(No `from __future__ import annotations` here: transformers reads the class of `config` from its annotation.)

Shapes: B users, N records, T of them that the transformer reads, Q times asked for, C free points, D `hidden_size`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, maybe_autocast
from transformers.utils.output_capturing import capture_outputs

from .configuration_raw import RawConfig
from .destination_head_raw import RawDestinationHead, RawRecordEmbedding
from .destinations_raw import FEW, ITERATIONS, RawDestinations, draw, geometric_median, middle, negative_log_density
from .layers import CACHE, widened
from .modeling_raw import RawLayer, RawPreTrainedModel, mean_over
from .pairs_raw import NOWHERE


@dataclass
class RawExtendedOutput(ModelOutput):
    """Output of `RawExtendedForTrajectoryPrediction`.

    loss: scalar; negative log-likelihood (nats, per square km) plus `distance_weight` times the distance (km).
    predictions (B, Q, 2) float32: the geometric median of each mixture, km in the frame of `positions`.
    destinations: the mixtures (B, Q, N + C); the first N components are the records.
    distance: scalar, mean distance (km) of predictions from labels. hidden_states: see `RawModel`.
    """

    loss: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    destinations: RawDestinations | None = None
    distance: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class RawExtendedModel(RawPreTrainedModel):
    """The body: records -> a state per record that knows the past only.

    Example:

        >>> model = RawExtendedModel(RawConfig.from_preset("tiny", variant="extended")).eval()
        >>> model(positions=torch.zeros(3, 8, 2), slots=torch.arange(8).expand(3, 8)).last_hidden_state.shape
        torch.Size([3, 8, 16])
    """

    variant = "extended"
    _auto_class = "AutoModel"
    main_input_name = "positions"
    _keep_in_fp32_modules_strict = ["record_embedding.up_proj"]
    _keys_to_ignore_on_load_unexpected = [r"^destination_head\."]

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config)
        self.record_embedding = RawRecordEmbedding(config)
        self.position_embedding = nn.Embedding(config.state_records, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(RawLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first matrix."""
        return self.record_embedding.up_proj

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another first matrix in its place."""
        self.record_embedding.up_proj = value  # type: ignore[assignment]

    @capture_outputs
    def forward(
        self,
        positions: torch.Tensor | None = None,
        slots: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode records.

        Args:
            positions: (B, N, 2) float, [east, north] in km around a point of the user's own.
            slots: (B, N) int64, slots of the local clock since 1970, ascending.
            attention_mask: (B, N) int64, 0 = padding, on the left. Only the last `state_records` records are read.

        Returns:
            `last_hidden_state` (B, T, D) of the records that are read.
        """
        positions, slots, attention_mask = checked_records(positions, slots, attention_mask)
        newest = slice(-self.config.state_records, None)
        positions, slots, attention_mask = positions[:, newest], slots[:, newest], attention_mask[:, newest]
        slots = slots.masked_fill(attention_mask == 0, NOWHERE)
        hidden_states = self.record_embedding(positions, slots)
        newer = torch.arange(positions.shape[1] - 1, -1, -1, device=positions.device)
        hidden_states = self.dropout(hidden_states + self.position_embedding(newer))
        mask = create_causal_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask, **{CACHE: None}
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask=mask, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(hidden_states))


class RawExtendedForTrajectoryPrediction(RawPreTrainedModel):
    """Where users are at times to come.

    Example:

        >>> model = RawExtendedForTrajectoryPrediction(RawConfig.from_preset("tiny", variant="extended")).eval()
        >>> positions, slots = torch.zeros(3, 8, 2), torch.arange(8).expand(3, 8)
        >>> later = slots[:, -1:] + torch.tensor([1, 96])
        >>> model(positions=positions, slots=slots, target_slots=later).predictions.shape
        torch.Size([3, 2, 2])
    """

    variant = "extended"
    _auto_class = "AutoModelForTimeSeriesPrediction"
    main_input_name = "positions"
    _keep_in_fp32_modules_strict = ["record_embedding.up_proj"]
    accepts_loss_kwargs = False

    def __init__(self, config: RawConfig) -> None:
        super().__init__(config)
        self.model = RawExtendedModel(config)
        self.destination_head = RawDestinationHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        positions: torch.Tensor | None = None,
        slots: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        target_slots: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RawExtendedOutput:
        """Predict.

        Args:
            positions: (B, N, 2) float, [east, north] in km in any frame that is true to distances; it is moved to the
                geometric median of each user's records.
            slots, attention_mask: see `RawExtendedModel.forward`. The newest `context_records` are read.
            target_slots: (B, Q) int64, the times asked for, after the last record.
            labels: (B, Q, 2) float, where the users were then, in the frame of `positions`; NaN does not count.

        Raises:
            ValueError: for missing or misshapen inputs.
        """
        positions, slots, attention_mask = checked_records(positions, slots, attention_mask)
        newest = slice(-self.config.context_records, None)
        positions, slots, attention_mask = positions[:, newest], slots[:, newest], attention_mask[:, newest]
        if target_slots is None or target_slots.dim() != 2 or len(target_slots) != len(slots):
            raise ValueError("target_slots are needed: (users, times), slots of the local clock since 1970.")
        known = attention_mask.to(torch.bool)
        slots = slots.masked_fill(~known, NOWHERE)
        positions = widened(positions).masked_fill(~known.unsqueeze(-1), 0.0)
        centre = geometric_median(positions, known.to(positions.dtype), 0.01).unsqueeze(1)
        local = (positions - centre).masked_fill(~known.unsqueeze(-1), 0.0)
        with maybe_autocast(positions.device.type, enabled=False):  # bfloat16 would round kilometres to hundred metres
            outputs = self.model(positions=local, slots=slots, attention_mask=attention_mask, **kwargs)
            found = self.destination_head(outputs.last_hidden_state[:, -1], local, slots, target_slots)
        predictions, loss, distance = middle(found, iterations=FEW if self.training else ITERATIONS), None, None
        if labels is not None:
            counted = ~labels.isnan().any(-1)
            wanted = torch.where(counted.unsqueeze(-1), widened(labels) - centre, 0.0)
            apart = ((predictions - wanted).square().sum(-1) + 1e-4).sqrt()
            weight = distance_weight(target_slots - slots[:, -1:], self.config)
            loss = mean_over(negative_log_density(found, wanted) + weight * apart, counted)
            distance = mean_over(apart.detach(), counted)
        found.centres = found.centres + centre.unsqueeze(1)
        return RawExtendedOutput(
            loss=loss,
            predictions=predictions + centre,
            destinations=found,
            distance=distance,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def draw(self, found: RawDestinations, samples: int, seed: int = 0) -> torch.Tensor:
        """Points that are drawn from mixtures, (samples, B, Q, 2) km; the same random numbers for every user.

        Args:
            found: `destinations` of an answer.
            samples: how many.
            seed: of the draws.
        """
        users, times = found.log_weights.shape[:2]
        source = torch.Generator().manual_seed(seed)
        shape = (samples, 1, times, 2)
        numbers = (torch.rand(shape, generator=source), torch.randn(shape, generator=source))
        uniform, normal = (one.expand(-1, users, -1, -1).to(found.centres) for one in numbers)
        return draw(found, uniform, normal)


def distance_weight(ahead: torch.Tensor, config: RawConfig) -> torch.Tensor:
    """Weight of a km of error, of slots ahead: one slot counts in full, three hours and more a quarter."""
    return config.distance_weight * 4 / (3 + ahead.clamp(1, 13).float())


def checked_records(
    positions: torch.Tensor | None, slots: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three inputs; without a mask all records count.

    Raises:
        ValueError: missing or misshapen inputs, padding on the right, or a user without a record.
    """
    if positions is None or slots is None:
        raise ValueError("positions (users, records, 2) in km and slots (users, records) are needed.")
    if positions.dim() != 3 or positions.shape[2] != 2 or slots.shape != positions.shape[:2]:
        raise ValueError(
            f"positions must be (users, records, 2) and slots (users, records), got {tuple(positions.shape)} and "
            f"{tuple(slots.shape)}."
        )
    if attention_mask is None:
        return positions, slots, torch.ones_like(slots)
    if attention_mask.shape != slots.shape:
        raise ValueError(f"attention_mask is {tuple(attention_mask.shape)}, slots are {tuple(slots.shape)}.")
    if not torch.compiler.is_compiling() and not bool(attention_mask[:, -1].all()):
        raise ValueError("every user needs a record, and padding lies on the left.")
    return positions, slots, attention_mask


__all__ = ["RawExtendedForTrajectoryPrediction", "RawExtendedModel", "RawExtendedOutput", "distance_weight"]
