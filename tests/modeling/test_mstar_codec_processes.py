"""The M-STAR codec trained by two processes with half of each batch is the codec trained by one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_mobility.modeling.configuration_mstar import MstarCodecConfig
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

VARIANTS = ("corrected", "released")
TRAIN = """
import sys, torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel
from hf_mobility.modeling.modeling_mstar_codec import MstarCodecModel

folder, processes = sys.argv[1], int(sys.argv[2])
weeks = load_file(folder + "/weeks.safetensors")["weeks"]


def train(codec, rank, steps):
    torch.manual_seed(rank)
    codec = codec.train()
    model = DistributedDataParallel(codec) if processes > 1 else codec
    optimiser = torch.optim.SGD(codec.parameters(), lr=0.1)
    for _ in range(steps):
        for part in weeks.chunk(2):  # two batches a step: gradients add up
            (model(part.chunk(processes)[rank]).loss / 2).backward()
        optimiser.step()
        optimiser.zero_grad()
    return {name: value.clone().contiguous() for name, value in codec.state_dict().items()}


if processes > 1:
    dist.init_process_group("gloo")
    assert dist.get_world_size() == processes
rank = dist.get_rank() if processes > 1 else 0
for variant in ("corrected", "released"):
    state = train(MstarCodecModel.from_pretrained(f"{folder}/{variant}"), rank, 3)
    save_file(state, f"{folder}/{variant}-{processes}-{rank}.safetensors")
# From the start, with restarts: which vectors are drawn is up to the first process, for all.
torch.manual_seed(0)
config = MstarCodecModel.from_pretrained(folder + "/corrected").config
config.restart_share = 0.5
save_file(train(MstarCodecModel(config), rank, 3), f"{folder}/restarts-{processes}-{rank}.safetensors")
if processes > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_the_codec_and_the_codebook_of_one(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    fine = torch.randint(16, (16, 24), generator=torch.Generator().manual_seed(0))
    weeks = torch.stack([fine // 4, fine], dim=1)
    save_file({"weeks": weeks}, tmp_path / "weeks.safetensors")
    starts = {}
    for variant in VARIANTS:
        quiet = {"dropout": 0.0, "attention_dropout": 0.0, "restart_share": 0.0}
        torch.manual_seed(0)  # of some starts two codes are equally near, and rounding decides between them
        model = MstarCodecModel(MstarCodecConfig.from_preset("tiny", variant=variant, **quiet))
        model.train()(weeks)  # begins the codebook
        model.save_pretrained(tmp_path / variant)
        starts[variant] = model.state_dict()
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    run_python(str(script), str(tmp_path), "1")
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone")
    run_python(*launcher, str(script), str(tmp_path), "2")
    for variant in VARIANTS:
        one, *two = (load_file(tmp_path / f"{variant}-{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
        for name, value in one.items():
            torch.testing.assert_close(
                two[0][name], value, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
            )
            assert torch.equal(two[0][name], two[1][name]), name
        assert (one["quantiser.codebook.weight"] - starts[variant]["quantiser.codebook.weight"]).abs().max() > 1e-2
    first, second = (load_file(tmp_path / f"restarts-2-{rank}.safetensors") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
