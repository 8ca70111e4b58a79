"""Configuration of SAMoE / TrajMoE (arXiv 2505.18670): one dataclass, three variants, four sizes.

`variant` is a name for a set of the values below; each value can be set alone. There is no `vocab_size`: the locations
of a city are an input (`location_features`), so the same weights serve every city.

(No `from __future__ import annotations` here: `@strict` does not check types that are given as strings.)
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_checks import BoundedConfig, check_bounds, check_choices, check_heads, check_shares, preset

# What the authors' code does, what their equations say, and what open check-in data needs (the default).
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {
        "num_poi_features": 34,
        "num_popularity_levels": 9,
        "num_stay_bins": 96,
        "stay_encoding": "half_hours",
        "max_position_embeddings": 144,
        "selector": "soft",
        "shared_router": True,
        "time_in_fused_stream": False,
        "location_encoder": "separate",
        "stay_loss_weight": 1.0,
        "pointer_head": False,
        "relative_features": False,
        "use_eos": True,
        "attention_init": "xavier",
    },
    "paper": {
        "num_poi_features": 34,
        "num_popularity_levels": 9,
        "num_stay_bins": 96,
        "stay_encoding": "half_hours",
        "max_position_embeddings": None,
        "selector": "hard",
        "shared_router": False,
        "time_in_fused_stream": True,
        "location_encoder": "shared",
        "stay_loss_weight": 1.0,
        "pointer_head": False,
        "relative_features": False,
        "use_eos": True,
        "attention_init": "xavier",
    },
    "extended": {},
}

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "small": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    "base": {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "ultra": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 6},
}


@strict
class SamoeConfig(BoundedConfig, PreTrainedConfig):
    """Values of a SAMoE model. Defaults are variant `extended`, size `small`.

    Args:
        hidden_size: width d of each stream; divisible by 4 and by `num_attention_heads`.
        intermediate_size: width of every FFN; `None` means 4 d.
        num_poi_features: POI columns P of `location_features` (34 in the released arrays, 60 in `City`).
        num_popularity_levels: rows of the popularity table: 0 = padding, 1..8 = most to least visited, 9 = never seen.
        num_stay_bins: classes of the time between two visits, as input and as target; class 0 is never a target.
        stay_encoding: `half_hours` (class = gap in half hours, clamped) or `log` (class = floor(1.6 log2(1 + min/10)) +
            1).
        max_position_embeddings: rows of the learned position table; `None` = no position embedding, any context length.
        mixture: `True` = four streams, three structured experts and a shared one; `False` = one summed stream, one FFN.
        selector: `soft` mixes the spatial and the temporal router; `hard` takes the larger (straight-through gradient).
        shared_router: one router matrix for space and time (released code) or two (paper eq. 7).
        time_in_fused_stream: add the time embedding to the fused stream at the input (paper) or after the last layer
            (code).
        location_encoder: `separate` = the candidate side has its own parameters, concatenated (code); `shared` = it
            reuses the trajectory side's embeddings, summed (paper eq. 9).
        stay_loss_weight: weight of the stay cross-entropy; the location term has weight 1.
        pointer_head: mix the dot-product head with a copy distribution over the person's own context. Not in the paper.
        pointer_features: give the pointer head its eight pair features (order, transition, time of day, distance).
        num_pointer_heads: distributions over the context, mixed with weights that depend on the state; divides
            `hidden_size`.
        relative_features: distance, popularity and same-place terms between the last visit and every candidate. Not in
            the paper.
        activity_features: how near each candidate is to the places the person visited, as terms of its score; needs the
            pointer head and `relative_features`. Not in the paper.
        arrival_time: condition on the arrival time of the visit to be predicted (a different, easier task). Not in the
            paper.
        use_poi, use_popularity: ablation switches; `False` zeroes the feature on both sides.
        use_eos: whether tokenizers append the end-of-trajectory token.
        attention_init: `xavier` (the library default the released code keeps) or `normal`.

    Notes:
        Variant `released` has the outputs of the authors' code. Its training differs in five points. PAD is no
        candidate in the softmax (theirs closes it for the ranking only). The stay before the end of a trajectory has no
        label (theirs: 48 - slot). The stay's loss is divided by the number of location labels (theirs: of stay labels).
        A gap of several days counts in full, up to the last class (theirs: as one day). The first visit has stay 0
        (theirs: the last stay, if the window is full).

    Example:

        >>> SamoeConfig.from_preset("tiny", variant="paper").selector
        'hard'
    """

    model_type = "mobility_samoe"
    instead_of_vocabulary = "the places of a city are an input"
    _auto_class = "AutoConfig"  # saved with its code
    keys_to_ignore_at_inference = ["cache", "past_key_values", "location_loss", "stay_loss"]

    hidden_size: int = 128
    intermediate_size: int | None = None
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_poi_features: int = 60
    num_popularity_levels: int = 10
    num_stay_bins: int = 25
    stay_encoding: str = "log"
    max_position_embeddings: int | None = None
    mixture: bool = True
    selector: str = "soft"
    shared_router: bool = True
    time_in_fused_stream: bool = False
    location_encoder: str = "separate"
    stay_loss_weight: float | int = 0.1
    pointer_head: bool = True
    pointer_features: bool = True
    num_pointer_heads: int = 8
    relative_features: bool = True
    activity_features: bool | None = None
    arrival_time: bool = False
    use_poi: bool = True
    use_popularity: bool = True
    use_eos: bool = False
    attention_init: str = "normal"
    attention_dropout: float | int = 0.0
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5
    use_cache: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    bos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.activity_features is None:
            self.activity_features = self.pointer_head and self.relative_features
        super().__post_init__(**kwargs)

    def validate_samoe(self) -> None:
        """Raise a `ValueError` for values that contradict one another."""
        check_bounds(self)
        check_heads(self, 4)
        check_shares(self, "attention_dropout")
        if self.hidden_size % self.num_pointer_heads:
            raise ValueError(
                f"num_pointer_heads must divide hidden_size={self.hidden_size}, got {self.num_pointer_heads}."
            )
        check_choices(
            self,
            stay_encoding=("half_hours", "log"),
            selector=("soft", "hard"),
            location_encoder=("separate", "shared"),
            attention_init=("xavier", "normal"),
        )
        if self.activity_features and not (self.pointer_head and self.relative_features):
            raise ValueError("activity_features=True needs pointer_head=True and relative_features=True.")
        if self.pointer_features and not self.pointer_head and self.arrival_time:
            raise ValueError("arrival_time=True needs pointer_head=True or pointer_features=False.")

    @property
    def num_location_features(self) -> int:
        """Columns of `location_features`: POI, x, y, popularity level; east, north in km where distances are used."""
        return self.num_poi_features + 3 + 2 * int(self.uses_distances)

    @property
    def uses_distances(self) -> bool:
        return self.relative_features or (self.pointer_head and self.pointer_features)

    @classmethod
    def from_preset(cls, size: str = "small", *, variant: str = "extended", **overrides: Any) -> "SamoeConfig":
        """A named size (`tiny`, `small`, `base`, `ultra`) in a named variant (`released`, `paper`, `extended`).

        Raises:
            ValueError: if the size or the variant is not known.
        """
        return cls(**{**preset(size, SIZES, variant, VARIANTS), **overrides})


__all__ = ["SamoeConfig"]
