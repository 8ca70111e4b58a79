"""The launch configurations in examples/accelerate are accepted by the installed accelerate, key by key.

accelerate copies unknown keys of `fsdp_config` without a warning, so each is compared with the launcher's options.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))


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


def test_ddp_means_several_gpus_in_bf16() -> None:
    config = load_config_from_file(str(ROOT / "examples" / "accelerate" / "ddp.yaml"))
    assert config.distributed_type is DistributedType.MULTI_GPU
    assert config.mixed_precision == "bf16"
    assert config.num_processes > 1


def test_fsdp2_wraps_a_layer_class_that_exists() -> None:
    config = load_config_from_file(str(ROOT / "examples" / "accelerate" / "fsdp2.yaml"))
    assert config.distributed_type is DistributedType.FSDP
    assert config.fsdp_config["fsdp_version"] == 2
    wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]
    source = (ROOT / "modeling" / "modeling_samoe.py").read_text(encoding="utf-8")
    assert re.search(rf"^class {wrapped}\b", source, flags=re.MULTILINE)
