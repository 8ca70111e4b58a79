"""The launch configurations in examples/accelerate are accepted by the installed accelerate, key by key, and two
processes that they start on a CPU train as one does.

accelerate copies unknown keys of `fsdp_config` without a warning, so each is compared with the launcher's options.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, fsdp_utils
from safetensors.torch import load_file

from hf_mobility import NextLocationPipeline

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "accelerate"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
STEPS = 6
# accelerate 1.15 shards on accelerators only: on CPUs it takes DDP in place of FSDP2, without a word. torch shards on
# both, so accelerate is told of accelerators where it chooses.
SHARDED_ON_CPU = """
import runpy, sys
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, fsdp_utils
from torch.distributed.tensor import DTensor

assert Accelerator(cpu=True).distributed_type is DistributedType.MULTI_CPU, "accelerate shards on CPUs by now"
AcceleratorState._reset_state()
start = AcceleratorState.__init__


def with_accelerators(self, *args, **kwargs):
    if PartialState._shared_state.get("distributed_type") is DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    start(self, *args, **kwargs)


AcceleratorState.__init__ = with_accelerators
trainer = runpy.run_path(sys.argv[1])["main"](*sys.argv[2:])
assert trainer.accelerator.distributed_type is DistributedType.FSDP
assert all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
"""
RunPython = Callable[..., subprocess.CompletedProcess[str]]


def test_there_are_configurations_for_ddp_and_fsdp2() -> None:
    assert [path.name for path in CONFIGS] == ["ddp.yaml", "fsdp2.yaml"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_accepts_every_key(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    options = {action.dest: action for action in launch_command_parser()._actions}
    for key, value in config.fsdp_config.items():
        assert key in options, f"accelerate launch has no option {key}"
        if options[key].choices is not None:
            assert str(value) in {str(choice) for choice in options[key].choices}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_several_processes_are_started_whose_precision_is_that_of_the_script(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes > 1
    assert config.mixed_precision == "no"


def test_ddp_means_several_gpus() -> None:
    assert load_config_from_file(str(FOLDER / "ddp.yaml")).distributed_type is DistributedType.MULTI_GPU


def test_fsdp2_wraps_a_layer_class_that_exists() -> None:
    config = load_config_from_file(str(FOLDER / "fsdp2.yaml"))
    assert config.distributed_type is DistributedType.FSDP
    assert config.fsdp_config["fsdp_version"] == 2
    wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    source = (ROOT / "modeling" / "modeling_samoe.py").read_text(encoding="utf-8")
    assert re.search(rf"^class {wrapped}\b", source, flags=re.MULTILINE)


def trained(folder: Path) -> tuple[dict[str, list[float]], Path]:
    """Losses and norms of gradients of every step, and the folder of the model."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {name: [entry[name] for entry in history if name in entry] for name in ("loss", "grad_norm")}, folder


@pytest.fixture(scope="module")
def of_one_process(
    tmp_path_factory: pytest.TempPathFactory, run_python: RunPython
) -> tuple[dict[str, list[float]], Path]:
    folder = tmp_path_factory.mktemp("one")
    options = (str(STEPS), str(folder), "--fp32")
    told = run_python(str(FOLDER / "train.py"), *options, CUDA_VISIBLE_DEVICES="").stdout
    assert "process 0 of 1 on cpu" in told
    return trained(folder)


def in_two_processes(name: str, run_python: RunPython, folder: Path, *options: str) -> tuple[Any, Path]:
    """What `trained` finds after the example with a file of these names."""
    scripts = [str(FOLDER / "train.py")]
    if name == "fsdp2":
        if ".cuda()" in inspect.getsource(fsdp_utils.fsdp2_load_full_state_dict):
            pytest.skip("this version of accelerate loads sharded weights on GPUs only")
        (folder.parent / "sharded.py").write_text(SHARDED_ON_CPU)
        scripts.insert(0, str(folder.parent / "sharded.py"))
    launcher = ("-m", "accelerate.commands.launch", "--config_file", str(FOLDER / f"{name}.yaml"))
    port = ("--num_processes", "2", "--main_process_port", "0")  # any free port
    told = run_python(*launcher, *port, *scripts, str(STEPS), str(folder), *options, CUDA_VISIBLE_DEVICES="").stdout
    assert all(f"process {rank} of 2 on cpu" in told for rank in (0, 1))
    return trained(folder)


def assert_same_curves(found: dict[str, list[float]], wanted: dict[str, list[float]], **bounds: float) -> None:
    for measure, bound in bounds.items():
        assert len(wanted[measure]) == STEPS
        assert found[measure] == pytest.approx(wanted[measure], rel=bound), measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_two_processes_have_the_loss_curve_of_one(
    name: str, of_one_process: tuple[dict[str, list[float]], Path], tmp_path: Path, run_python: RunPython
) -> None:
    (wanted, one), (found, two) = of_one_process, in_two_processes(name, run_python, tmp_path / "two", "--fp32")
    assert_same_curves(found, wanted, loss=1e-4, grad_norm=1e-4)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert NextLocationPipeline.from_pretrained(two).model.num_parameters() > 0


@pytest.mark.slow
def test_fsdp2_in_bfloat16_keeps_coordinates_and_goes_on_from_its_checkpoint(
    of_one_process: tuple[dict[str, list[float]], Path], tmp_path: Path, run_python: RunPython
) -> None:
    """FSDP2's own precision would round what goes in and the loss: to three digits."""
    whole, folder = in_two_processes("fsdp2", run_python, tmp_path / "two")
    assert_same_curves(whole, of_one_process[0], loss=1e-3, grad_norm=2e-2)
    weights = load_file(folder / "model.safetensors")
    for path in (folder / "model.safetensors", *(folder / f"checkpoint-{STEPS}").iterdir()):
        path.unlink()
    resumed, folder = in_two_processes("fsdp2", run_python, folder, "--resume")
    assert_same_curves(resumed, whole, loss=1e-6, grad_norm=1e-6)
    for name, weight in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], msg=name)
