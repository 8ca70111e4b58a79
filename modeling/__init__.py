"""Model classes of the three systems. Installed as `hf_mobility.modeling`; never import the top-level name `modeling`.

Every other file here imports only transformers, torch, numpy, huggingface_hub (`strict`, for configurations), the
standard library and its siblings, so that it also works as remote code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Public class -> the file that defines it, which is loaded on first use.
_NAMES = {
    "SamoeConfig": "configuration_samoe",
    "SamoeModel": "modeling_samoe",
    "SamoeForNextLocation": "modeling_samoe",
    "MstarCodecConfig": "configuration_mstar",
    "MstarCodecModel": "modeling_mstar_codec",
    "MstarConfig": "configuration_mstar",
    "MstarForTrajectoryGeneration": "modeling_mstar",
    "RawConfig": "configuration_raw",
    "RawModel": "modeling_raw",
    "RawForTrajectoryPrediction": "modeling_raw",
    "RawForUserProfiling": "modeling_raw",
    "RawForRegionAnalysis": "modeling_raw",
    "RawExtendedModel": "modeling_raw_extended",
    "RawExtendedForTrajectoryPrediction": "modeling_raw_extended",
}

__all__ = [name for name in _NAMES if "Extended" not in name]  # these are had by their name

if TYPE_CHECKING:
    from .configuration_mstar import MstarCodecConfig as MstarCodecConfig
    from .configuration_mstar import MstarConfig as MstarConfig
    from .configuration_raw import RawConfig as RawConfig
    from .configuration_samoe import SamoeConfig as SamoeConfig
    from .modeling_mstar import MstarForTrajectoryGeneration as MstarForTrajectoryGeneration
    from .modeling_mstar_codec import MstarCodecModel as MstarCodecModel
    from .modeling_raw import RawForRegionAnalysis as RawForRegionAnalysis
    from .modeling_raw import RawForTrajectoryPrediction as RawForTrajectoryPrediction
    from .modeling_raw import RawForUserProfiling as RawForUserProfiling
    from .modeling_raw import RawModel as RawModel
    from .modeling_raw_extended import RawExtendedForTrajectoryPrediction as RawExtendedForTrajectoryPrediction
    from .modeling_raw_extended import RawExtendedModel as RawExtendedModel
    from .modeling_samoe import SamoeForNextLocation as SamoeForNextLocation
    from .modeling_samoe import SamoeModel as SamoeModel


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
