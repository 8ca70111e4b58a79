"""M-STAR's forward pass is one graph for `torch.compile`, in evaluation and in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_mobility.modeling.configuration_mstar import MstarConfig
from hf_mobility.modeling.modeling_mstar import MstarForTrajectoryGeneration


@pytest.mark.parametrize("training", [False, True])
def test_the_forward_pass_compiles_as_one_graph(training: bool) -> None:
    torch.manual_seed(0)
    still: dict[str, Any] = {"dropout": 0.0, "drop_path": 0.0, "num_hidden_layers": 1, "condition_dropout": 0.1}
    model = MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny", within_level_steps=2, **still)).train(training)
    code_ids = torch.randint(0, 32, (3, 29))
    conditions = torch.randint(0, 8, (3, 3))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    losses = []
    for forward in (model, compiled):
        torch.manual_seed(1)
        losses.append(forward(code_ids, *conditions).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])
