"""Unknown hours in the M-STAR codec: they are no keys, enter no average, no loss and no codebook."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

VARIANTS = ("corrected", "released")
both_kernels = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def make(variant: str = "corrected", attention: str = "sdpa", **overrides: Any) -> tuple[MstarCodecModel, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant, **overrides)).eval()
        cells = [torch.randint(n, (4, model.config.num_hours)) for n in model.config.cells_per_resolution]
    model.set_attn_implementation(attention)
    return model, torch.stack(cells, dim=1)


def gaps() -> torch.Tensor:
    """(4, 24): whole; scattered hours missing; the first two quarters of the day missing; nothing known."""
    mask = torch.ones(4, 24, dtype=torch.int64)
    mask[1, [0, 3, 9, 10, 23]] = 0
    mask[2, :12] = 0
    mask[3] = 0
    return mask


@pytest.mark.parametrize("lengths", [[1, 4, 24], [1, 5, 9, 24], [3, 10, 24]], ids=str)
def test_positions_know_some_or_all_of_their_hours(lengths: list[int]) -> None:
    """Position i of a level of T covers the hours from floor(24 i / T) to ceil(24 (i + 1) / T)."""
    model, _ = make(level_lengths=lengths, level_resolutions=[0] * (len(lengths) - 1) + [1])
    mask = (torch.rand(50, 24, generator=torch.Generator().manual_seed(1)) < 0.8).long()
    known = model.known_positions(mask)
    for level, length in enumerate(lengths):
        hours = [mask[:, 24 * i // length : -(-24 * (i + 1) // length)] for i in range(length)]
        assert torch.equal(known[level], torch.stack([part.any(1) for part in hours], dim=1))
        complete = model.complete_positions(mask, level)
        assert torch.equal(complete, torch.stack([part.all(1) for part in hours], dim=1))


@pytest.mark.parametrize("variant", VARIANTS)
@both_kernels
@pytest.mark.parametrize("autocast", [False, True])
def test_a_mask_without_gaps_changes_no_bit(variant: str, attention: str, autocast: bool) -> None:
    model, weeks = make(variant, attention)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain, masked = model(weeks), model(weeks, torch.ones(4, 24, dtype=torch.int64))
    assert plain.keys() == masked.keys()
    for name in plain:
        assert torch.equal(plain[name], masked[name]), name


def test_a_mask_without_gaps_changes_no_step_of_the_codebook() -> None:
    books = []
    for mask in (None, torch.ones(4, 24, dtype=torch.int64)):
        model, weeks = make(dropout=0.0, restart_share=0.5)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model.train()(weeks, mask)
        books.append(model.quantiser.codebook)
    for name, value in books[0].state_dict().items():
        assert torch.equal(value, books[1].state_dict()[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
@both_kernels
def test_what_stands_in_unknown_hours_does_not_matter(variant: str, attention: str) -> None:
    model, weeks = make(variant, attention)
    mask = gaps()
    other = torch.where(mask.bool().unsqueeze(1), weeks, (weeks + 1) % 4)
    assert not torch.equal(other, weeks)
    before, after = model(weeks, mask), model(other, mask)
    for name in before:
        assert torch.equal(before[name], after[name]), name
        assert torch.isfinite(before[name]).all()


@both_kernels
def test_weeks_do_not_mix(attention: str) -> None:
    model, weeks = make(attention=attention)
    together = model(weeks, gaps()).logits
    for n in range(4):
        alone = model(weeks[n : n + 1], gaps()[n : n + 1]).logits
        torch.testing.assert_close(alone, together[n : n + 1], atol=1e-5, rtol=1e-5)


@both_kernels
def test_features_are_means_over_known_hours(attention: str) -> None:
    model, weeks = make(attention=attention)
    mask = gaps()
    hours = model.level_features(weeks, mask)[-1]
    assert torch.equal(hours == 0, (mask == 0).unsqueeze(-1).expand_as(hours))
    # The middle level reads the coarse resolution; put every level on the finest to compare.
    model, weeks = make(attention=attention, level_resolutions=[1, 1, 1])
    week, quarters, hours = model.level_features(weeks, mask)
    for n in range(3):
        torch.testing.assert_close(week[n, 0], hours[n][mask[n] == 1].mean(0), atol=1e-6, rtol=1e-5)
        for q in range(4):
            part = slice(6 * q, 6 * q + 6)
            known = hours[n, part][mask[n, part] == 1]
            wanted = known.mean(0) if len(known) else torch.zeros(16)
            torch.testing.assert_close(quarters[n, q], wanted, atol=1e-6, rtol=1e-5)
    assert not quarters[2, :2].any() and quarters[2, 2:].any() and not week[3].any()


def test_unknown_hours_are_no_keys() -> None:
    """A week with unknown hours is encoded as nn.MultiheadAttention's padding mask would have it: the features of known
    hours are those of a week from which the others were cut (positions kept)."""
    model, weeks = make()
    mask = gaps()
    known = mask[1].bool()
    hidden = model.position(model.cell_embeddings[1](weeks[1:2, 1]))[:, known]
    for layer in model.encoder:
        hidden = layer(hidden)
    found = model.level_features(weeks, mask)[-1][1:2, known]
    torch.testing.assert_close(found, hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_count_known_positions_only(variant: str) -> None:
    model, weeks = make(variant)
    mask = gaps()
    output = model(weeks, mask)
    hours = mask.bool()
    wanted = F.cross_entropy(output.logits[hours], weeks[:, -1][hours])
    torch.testing.assert_close(output.reconstruction_loss, wanted)
    positions = [hours.any(1, keepdim=True), hours.view(4, 4, 6).any(-1), hours]
    assert [int(flags.sum()) for flags in positions] == [3, 10, 24 + 19 + 12]
    features = model.level_features(weeks, mask)
    codes = output.code_ids.split(model.config.level_lengths, dim=1)
    u, terms = torch.zeros_like(features[0]), []
    for level, (values, ids, flags) in enumerate(zip(features, codes, positions)):
        fhat = u + model.code_vectors(ids)
        terms.append((values - fhat)[flags].square().mean())
        u = model.next_level(fhat, level) if level < 2 else u
    torch.testing.assert_close(output.commitment_loss, sum(terms))
    torch.testing.assert_close(output.codebook_loss, sum(terms) if variant == "corrected" else terms[-1])


def test_a_batch_in_which_nothing_is_known_has_no_loss_and_leaves_the_codes() -> None:
    model, weeks = make(restart_share=0.0, dropout=0.0)
    model.train()(weeks)
    codes = model.quantiser.codebook.weight.clone()
    output = model(weeks, torch.zeros(4, 24, dtype=torch.int64))
    assert output.loss.item() == 0
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(model.quantiser.codebook.weight, codes)


def test_unknown_positions_do_not_move_the_codebook() -> None:
    """What the codebook adds up in one step are the residuals of known positions."""
    model, weeks = make(restart_share=0.0, ema_decay=0.75, dropout=0.0)
    mask = gaps()
    model.quantiser.codebook._started = True
    output = model.train()(weeks, mask)
    book = model.quantiser.codebook
    hours = mask.bool()
    flags = torch.cat([hours.any(1, keepdim=True), hours.view(4, 4, 6).any(-1), hours], dim=1)
    used = torch.bincount(output.code_ids[flags], minlength=32).float()
    torch.testing.assert_close(book.counts, 0.25 * used)
    assert int(used.sum()) == 68 < flags.numel()
