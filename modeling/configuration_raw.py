"""Configuration of RAW, "Regions are Who Walk Them" (arXiv 2311.10471): one dataclass, two variants, five sizes.

The defaults are the paper's model at size `small`; what is not in the paper is off. There is no vocabulary: a model
reads positions. Variant `released` reads a regular series in units of a city's box, which the tokenizer holds; variant
`extended` reads a user's records in kilometres, in any city.

(No `from __future__ import annotations` here: `@strict` does not check types that are given as strings.)
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_checks import BoundedConfig, check_bounds, check_choices, check_heads, check_shares, preset

USER_POOLINGS = ("mean", "last", "last_day", "day_parts")
DAY_PARTS = 4  # night, morning, afternoon, evening: six hours each, from midnight on

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 16},
    "large": {"hidden_size": 1280, "num_hidden_layers": 24, "num_attention_heads": 16},
    "1b": {"hidden_size": 1536, "num_hidden_layers": 36, "num_attention_heads": 24},
}

# Of a model of records; the values of `released` are the defaults of the fields.
EXTENDED_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "context_records": 24},
    "small": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "base": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8},
}

VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "extended": {
        "variant": "extended",
        "max_position_embeddings": 672,
        "mixture_components": 12,
        "mixture_min_scale": 0.03,
    },
}


@strict
class RawConfig(BoundedConfig, PreTrainedConfig):
    """Values of a RAW model. Defaults are size `small`; `base` is the paper's.

    Args:
        variant: `released`, the authors' form; or `extended`, a `RawExtendedForTrajectoryPrediction`: it reads a user's
            own records around their geometric median, and asks for any time ahead directly. Not in the paper.
        context_records, state_records: `extended` only: newest records that may be returned to, and those of them that
            the transformer reads.
        pair_hidden_size: `extended` only: width of the network that scores a past record for a time to come.
        distance_weight: `extended` only: weight of the distance (km) of the point predicted one slot ahead beside the
            negative log-likelihood; times farther ahead count less.
        hidden_size: width D; divisible by `num_attention_heads`.
        intermediate_size: width of the feed-forward layers; `None` means 4 D.
        max_position_embeddings: rows n of the learned position table: slots of a window (960 = 10 days of 96).
        slots_per_day: slots of a day, for `time_features` and for `user_pooling` by days.
        output_head: `mlp` = D -> 4 D -> D -> 2 with ReLU (the authors' code), `linear` = D -> 2 (the paper's figure).
        dropout: after the embedding and inside the feed-forward layers; `attention_dropout`: on the attention weights.
        time_features: add a linear map of sin and cos of the slot of the day and of the day of the week to the input;
            needs `start_weekday`. Not in the paper.
        delta_targets: the head gives the displacement from the last point instead of the position. Predictions and
            losses stay in positions. Not in the paper.
        mixture_components: 0 = mean squared error (the paper); k = a mixture of k Gaussians in the plane, trained by
            its negative log-likelihood. Not in the paper. `extended`: components beside the user's own records.
        mixture_prediction: the point a mixture predicts: its `mean`, or the mean of its most likely component (`mode`).
        mixture_min_scale: smallest standard deviation of a component in box units (`extended`: km); without a floor the
            likelihood of people who stand still has no bound.
        loss_on_observed_only: count only targets in whose slot something was recorded (`observed_mask`). The paper
            counts all.
        input_noise: standard deviation, in box units, of normal noise on the points that are read in training; targets
            stay true. A roll-out reads its own errors, and learns so to live with them (Sanchez-Gonzalez et al., arXiv
            2002.09405). Not in the paper.
        user_pooling: a user's embedding is the `mean` of the final states (the paper), the `last` one, the mean over
            the `last_day`, or `day_parts` = the means over night, morning, afternoon and evening side by side, 4 D
            columns.
        region_pooling: a region's features are the `sum` of its visitors' embeddings (the paper), their `mean`, or
            `log` = their mean and log(1 + number of visitors), D + 1 columns.
        freeze_encoder: task heads train their MLP only (the paper). `False` fine-tunes everything.
        head_hidden_size: hidden width of the task heads' MLP; 0 = a linear probe.
        head_dropout: dropout of the task heads.
        num_labels, problem_type: as everywhere in transformers: `regression`, `single_label_classification` or
            `multi_label_classification`; read off `num_labels` and the labels' type where it is None.

    Example:

        >>> RawConfig.from_preset("base").hidden_size
        768
    """

    model_type = "mobility_raw"
    instead_of_vocabulary = "it reads points"
    _auto_class = "AutoConfig"  # saved with its code
    keys_to_ignore_at_inference = ["cache", "past_key_values", "user_embedding", "mae", "copy_last_mae"]

    variant: str = "released"
    hidden_size: int = 128
    intermediate_size: int | None = None
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    max_position_embeddings: int = 960
    slots_per_day: int = 96
    output_head: str = "mlp"
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    time_features: bool = False
    delta_targets: bool = False
    mixture_components: int = 0
    mixture_prediction: str = "mean"
    mixture_min_scale: float | int = 0.001
    context_records: int = 384
    state_records: int = 32
    pair_hidden_size: int = 32
    distance_weight: float | int = 1.0
    loss_on_observed_only: bool = False
    input_noise: float | int = 0.0
    user_pooling: str = "mean"
    region_pooling: str = "sum"
    freeze_encoder: bool = True
    head_hidden_size: int = 256
    head_dropout: float | int = 0.1
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5
    use_cache: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        super().__post_init__(**kwargs)

    def validate_raw(self) -> None:
        """Raise a `ValueError` for values that contradict one another."""
        check_bounds(self)
        check_heads(self)
        check_choices(
            self,
            variant=tuple(VARIANTS),
            output_head=("mlp", "linear"),
            mixture_prediction=("mean", "mode"),
            user_pooling=USER_POOLINGS,
            region_pooling=("sum", "mean", "log"),
        )
        check_shares(self, "dropout", "attention_dropout", "head_dropout")
        if self.user_pooling == "day_parts" and self.slots_per_day % DAY_PARTS:
            raise ValueError(f"user_pooling='day_parts' needs slots_per_day in fours, got {self.slots_per_day}.")
        if self.mixture_min_scale <= 0:
            raise ValueError(f"mixture_min_scale must be positive, got {self.mixture_min_scale}.")
        if self.mixture_prediction != "mean" and self.mixture_components == 0:
            raise ValueError(f"mixture_prediction={self.mixture_prediction!r} needs mixture_components above 0.")
        if self.variant == "extended" and self.mixture_components == 0:
            raise ValueError("variant='extended' needs mixture_components above 0.")

    @classmethod
    def from_preset(cls, size: str = "small", *, variant: str = "released", **overrides: Any) -> "RawConfig":
        """A named size: `tiny` (tests), `small` (two CPU cores), `base` (the paper's), `large`, `1b`. Variant
        `extended` has the first three.

        Raises:
            ValueError: if the size or the variant is not known.
        """
        sizes = EXTENDED_SIZES if variant == "extended" else SIZES
        return cls(**{**preset(size, sizes, variant, VARIANTS), **overrides})


__all__ = ["RawConfig"]
