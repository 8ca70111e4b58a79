"""Parts of the M-STAR codec's quantiser: resampling in time against torch's functions; the search, the moving average
and the restart of codes against sums by hand.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mobility.modeling import modeling_mstar_codec
from hf_mobility.modeling.configuration_mstar import WEEK_LEVELS, MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import (
    MstarCodebook,
    MstarCodecModel,
    MstarRefiner,
    MstarResampler,
    pooling_windows,
    upsampling_matrix,
)


def gap_to_nearest(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Distance of each vector (M, D) to its nearest row of (K, D), without the shortcut that loses digits."""
    return torch.cdist(vectors, rows, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


# Resampling in time


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_pooling_is_adaptive_average_pooling_for_any_lengths(length: int, target: int) -> None:
    values = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(length))
    windows = pooling_windows(length, target)
    found = torch.matmul(windows, values) / windows.sum(1, keepdim=True)
    wanted = F.adaptive_avg_pool1d(values.transpose(1, 2), target).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60))
def test_upsampling_is_bicubic_interpolation_for_any_lengths(length: int, target: int) -> None:
    """In float64: torch itself rounds positions of long sequences in float32."""
    values = torch.randn(2, length, 3, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    picture = values.transpose(1, 2).unsqueeze(-1)
    wanted = F.interpolate(picture, size=(target, 1), mode="bicubic", align_corners=False)[..., 0].transpose(1, 2)
    found = torch.matmul(upsampling_matrix(length, target).double(), values)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_the_matrices_of_a_week_are_torchs_functions() -> None:
    resampler = MstarResampler(WEEK_LEVELS)
    hours = torch.randn(2, 168, 5, generator=torch.Generator().manual_seed(0))
    for level, length in enumerate(WEEK_LEVELS):
        pooled = resampler.pool(hours, level)
        wanted = F.interpolate(hours.transpose(1, 2).unsqueeze(-1), size=(length, 1), mode="area")
        torch.testing.assert_close(pooled, wanted[..., 0].transpose(1, 2), atol=1e-6, rtol=1e-5)
        if level < 7:
            assert resampler.up(pooled, level).shape == (2, WEEK_LEVELS[level + 1], 5)
    assert torch.equal(resampler.pool(hours, 7), hours)
    one = torch.randn(2, 1, 5)
    assert torch.equal(resampler.up(one, 0), one.expand(2, 7, 5))


def test_phis_product_is_a_convolution() -> None:
    config = MstarCodecConfig.from_preset("tiny", refiner_norm=False)
    refiner = MstarRefiner(config).double()
    conv = torch.nn.Conv1d(16, 16, 3, padding=1).double()
    conv.weight.data = refiner.conv_proj.weight.data.view(16, 3, 16).transpose(1, 2)
    conv.bias.data = refiner.conv_proj.bias.data
    h = torch.randn(3, 9, 16, dtype=torch.float64)
    m = h + 0.5 * conv(h.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(refiner(h), m + refiner.down_proj(F.gelu(refiner.up_proj(m))))


# The codebook


def make_book(number: int = 32, width: int = 16, **overrides: Any) -> MstarCodebook:
    options = {"codebook_size": number, "hidden_size": width, "num_attention_heads": 1, **overrides}
    book = MstarCodebook(MstarCodecConfig.from_preset("tiny", **options))
    book.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    book._started = True
    return book


@pytest.mark.parametrize("search", ["euclidean", "cosine"])
@pytest.mark.parametrize("scores_per_chunk", [1, 100, 2**24])
def test_the_search_finds_the_nearest_code(search: str, scores_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_mstar_codec, "SCORES_PER_CHUNK", scores_per_chunk)
    book = make_book(search=search)
    residuals = 3 * torch.randn(4, 7, 16, generator=torch.Generator().manual_seed(1))
    if search == "cosine":
        wanted = F.cosine_similarity(residuals.unsqueeze(-2), book.weight, dim=-1).argmax(-1)
    else:
        wanted = torch.cdist(residuals, book.weight, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    assert torch.equal(book.nearest(residuals), wanted)
    assert torch.equal(book.nearest(book(wanted)), wanted), "a code is its own nearest code"


def test_the_moving_average_is_the_sum_by_hand() -> None:
    book = make_book(4, 2, ema_decay=0.75, restart_share=0.0)
    book.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [9.0, 9.0]]))
    first, second = torch.tensor([[[1.0, 1.0]], [[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0], [0.0, 4.0]]] * 2)
    ids = [torch.tensor([[0], [0]]), torch.tensor([[1, 1], [1, 2]])]
    book.update([first, second], ids)
    # 0: two vectors; 1: three; 2: one; 3: none, so that it stays where it is.
    torch.testing.assert_close(book.counts, torch.tensor([0.5, 0.75, 0.25, 0.0]))
    torch.testing.assert_close(book.sums, torch.tensor([[1.0, 0.25], [0.0, 2.0], [0.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(book.weight, torch.tensor([[2.0, 0.5], [0.0, 8 / 3], [0.0, 4.0], [9.0, 9.0]]))
    book.update([first], ids[:1])
    torch.testing.assert_close(book.counts, torch.tensor([0.875, 0.5625, 0.1875, 0.0]))
    torch.testing.assert_close(book.weight[0], torch.tensor([0.75 * 1.0 + 1.0, 0.75 * 0.25 + 0.25]) / 0.875)
    torch.testing.assert_close(book.weight[1:], torch.tensor([[0.0, 8 / 3], [0.0, 4.0], [9.0, 9.0]]))
    assert int(book.num_updates) == 2


def test_masked_positions_are_not_averaged() -> None:
    books = [make_book(4, 2, restart_share=0.0) for _ in range(2)]
    residuals, ids = torch.randn(2, 3, 2), torch.tensor([[0, 1, 2], [3, 0, 0]])
    known = torch.tensor([[True, True, False], [False, True, True]])
    books[0].update([residuals], [ids], [known])
    books[1].update([residuals[known].unsqueeze(0)], [ids[known].unsqueeze(0)])
    for name, value in books[0].state_dict().items():
        torch.testing.assert_close(value, books[1].state_dict()[name])
    assert books[0].counts[3] == 0


def test_a_code_without_use_is_restarted_from_a_residual_of_a_random_level() -> None:
    book = make_book(400, 2, restart_share=0.1)
    few, many = torch.full((3, 1, 2), 7.0), torch.randn(3, 500, 2)
    many[:, 250:] = float("nan")  # unknown: must never be drawn
    known = [torch.ones(3, 1, dtype=torch.bool), torch.arange(500).expand(3, 500) < 250]
    ids = [torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3, 500, dtype=torch.int64)]
    ids[1][:, :100] = torch.arange(100)
    many_counted = torch.where(known[1].unsqueeze(-1), many, torch.zeros(()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        book.update([few, many_counted], ids, known)
    assert torch.isfinite(book.weight).all()
    fresh = book.weight[100:]
    rows = torch.cat([few.flatten(0, 1), many[:, :250].flatten(0, 1)])
    assert (gap_to_nearest(fresh, rows) < 1e-6).all()
    assert (fresh == 7).all(1).float().mean().item() == pytest.approx(0.5, abs=0.1), "each level is as likely"
    used = [(many[:, j].sum(0) + (few.sum((0, 1)) + many[:, 100:250].sum((0, 1)) if j == 0 else 0)) for j in range(100)]
    number = torch.full((100,), 3.0)
    number[0] += 3 + 3 * 150
    torch.testing.assert_close(book.weight[:100], torch.stack(used) / number.unsqueeze(1), atol=1e-5, rtol=1e-5)
    restarted, uses = book.counts[100:], 3 * 251 * 0.02
    torch.testing.assert_close(restarted, torch.full((300,), 0.1 * uses / 400))
    torch.testing.assert_close(book.sums[100:], fresh * restarted.unsqueeze(1))


def test_restarts_bring_a_collapsed_codebook_back_into_use() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", dropout=0.0))
        book = model.quantiser.codebook
        weeks = torch.stack([torch.randint(n, (64, 24)) for n in (4, 16)], dim=1)
        model.train()(weeks)
        book.weight[1:] = 1e3
        collapsed = len(model.encode(weeks).unique())
        book.counts[1:] = 0
        for _ in range(20):
            model(weeks)
    assert collapsed == 1 and len(model.encode(weeks).unique()) > 12


# Training


def test_the_first_batch_fills_the_codebook_with_its_features() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", dropout=0.0, ema_decay=1.0)).train()
        weeks = torch.stack([torch.randint(n, (8, 24)) for n in (4, 16)], dim=1)
        features = torch.cat([values.flatten(0, 1) for values in model.level_features(weeks)])
        before = model.quantiser.codebook.weight.clone()
        model(weeks)
        codes = model.quantiser.codebook.weight.clone()
        model(weeks.flip(0))
    assert (gap_to_nearest(before, features) > 0.1).all()
    assert (gap_to_nearest(codes, features) < 1e-4).all()
    assert torch.equal(model.quantiser.codebook.weight, codes), "with a decay of 1 nothing moves, and once is enough"


def test_only_training_moves_the_codebook() -> None:
    model = MstarCodecModel(MstarCodecConfig.from_preset("tiny"))
    weeks = torch.stack([torch.zeros(2, 24, dtype=torch.int64)] * 2, dim=1)
    before = {name: value.clone() for name, value in model.quantiser.codebook.state_dict().items()}
    model.eval()(weeks)
    model.train().encode(weeks)
    with torch.no_grad():
        model(weeks)
    assert all(torch.equal(value, before[name]) for name, value in model.quantiser.codebook.state_dict().items())
    model(weeks)
    assert int(model.quantiser.codebook.num_updates) == 1
    with pytest.raises(AttributeError):
        _ = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant="released")).quantiser.codebook.counts


def test_a_small_codec_learns_its_weeks() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", dropout=0.0)).train()
        fine = torch.randint(16, (32, 4)).repeat_interleave(6, dim=1)
        weeks = torch.stack([fine // 4, fine], dim=1)
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            loss = model(weeks).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found = model.eval().decode(model.encode(weeks)).argmax(-1)
    assert (found == fine).float().mean() > 0.6
