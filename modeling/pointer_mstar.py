"""Pointer head of M-STAR: for every position the codes that would put a known place there get scores of their own.

The pointer target of a place is argmin_c |e_place - u_k - c|, with e_place the place's vector and u_k the codec's
reconstruction from the coarser levels. The places are home, work and, with several decoding steps, those on the two
sides. The transformer says how likely each is, whatever its code.

Notes:
    Not in the paper. A code says what is left of a place after the coarser levels, so the code of "still here" differs
    from hour to hour, and without a pointer a generator must learn for every place and context which code that is.
    Copying from the input is CopyNet's (Gu et al. 2016, arXiv 1603.06393).

Shapes: N weeks, C cells, R resolutions, D width of the codec, d of the generator, T' positions, K places per position.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_mstar import MstarConfig
from .layers import mark
from .modeling_mstar_codec import MstarCodecModel, nearest_row

FIRST_SCORE = 3.0  # before training; most hours are spent at one of these places


@dataclass(frozen=True)
class KnownPlaces:
    """ids (N, 2): home and work place of each user. vectors: (C, D) per level, of all cells as it reads them."""

    ids: torch.Tensor
    vectors: list[torch.Tensor]


@dataclass(frozen=True)
class PointerScores:
    """codes (N, T', K) that would put a place at each position, and what is added to their logits, scores (N, T',
    K).
    """

    codes: torch.Tensor
    scores: torch.Tensor

    def __getitem__(self, positions: torch.Tensor) -> PointerScores:
        return PointerScores(self.codes[:, positions], self.scores[:, positions])

    def add_to(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (N, T', V) with these scores added; a code that two places share gets both."""
        return logits.scatter_add(-1, self.codes, self.scores.to(logits.dtype))


class MstarPointer(nn.Module):
    """The K places of a position are home, work and, where a level takes several decoding steps, those on the two
    sides. The transformer reads which of them agree, and says how likely each is.
    """

    cell_map: torch.Tensor

    def __init__(self, config: MstarConfig) -> None:
        super().__init__()
        codec = config.codec
        num_places = 4 if config.decoding_order.max_steps > 1 else 2
        self.pairs = list(combinations(range(num_places), 2))
        self.agreement_proj = nn.Linear(len(self.pairs), config.hidden_size, bias=False)
        self.score_proj = nn.Linear(config.hidden_size, num_places)
        mark(self.score_proj, init_bound=0.0, init_bias=FIRST_SCORE)
        # the cell of every resolution that holds each finest cell; -1 = not known yet
        self.register_buffer("cell_map", torch.full((codec.num_cells, len(codec.cells_per_resolution)), -1))
        self._is_fitted = False  # a copy of what `cell_map` says, which is not read on every step

    def known_places(self, codec: MstarCodecModel, home_ids: torch.Tensor, work_ids: torch.Tensor) -> KnownPlaces:
        """Of users, (N,) finest cells each.

        Raises:
            ValueError: before `fit_places`.
        """
        if not self._is_fitted and not torch.compiler.is_compiling():
            if bool((self.cell_map < 0).any()):
                raise ValueError("pointer_head=True needs fit_places(tokenizer.cell_map) first.")
            self._is_fitted = True
        return KnownPlaces(torch.stack([home_ids, work_ids], dim=1), codec.cell_vectors(self.cell_map))

    @torch.no_grad()
    def codes(
        self,
        codec: MstarCodecModel,
        known: KnownPlaces,
        features: torch.Tensor,
        beside: torch.Tensor,
        lengths: dict[int, int],
    ) -> torch.Tensor:
        """Codes (N, T', K) that would put each place at each position.

        Args:
            features: the codec's u (N, T', D). beside: what was drawn on the sides, (N, T', 2, D), or (N, T', 0, D).
            lengths: level -> how many of the T' positions are its own, in their order.
        """
        codes = []
        counts = list(lengths.values())
        for level, inputs, sides in zip(lengths, features.split(counts, dim=1), beside.split(counts, dim=1)):
            home_and_work = known.ids.unsqueeze(1).expand(-1, inputs.shape[1], -1)
            places = torch.cat([home_and_work, nearest_row(sides, known.vectors[level])], dim=2)
            residual = F.embedding(places, known.vectors[level]) - inputs.unsqueeze(2)
            codes.append(codec.quantize_level(residual))
        return torch.cat(codes, dim=1)

    def read(self, codes: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
        """Input (N, T', d): which of the codes (N, T', K) are the same, of those that are usable (T', K)."""
        one, other = zip(*self.pairs)
        agree = (codes[..., one] == codes[..., other]) & (usable[:, one] & usable[:, other])
        return self.agreement_proj(agree.to(self.agreement_proj.weight.dtype))

    def forward(self, hidden: torch.Tensor, codes: torch.Tensor, usable: torch.Tensor) -> PointerScores:
        """Scores of these codes (N, T', K) from the last hidden states (N, T', d); usable (T', K) bool."""
        return PointerScores(codes, torch.where(usable, self.score_proj(hidden), 0))


__all__ = ["KnownPlaces", "MstarPointer", "PointerScores"]
