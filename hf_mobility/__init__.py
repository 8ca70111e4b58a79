"""hf_mobility: models of human mobility for the Hugging Face ecosystem. Weights are shared; a city is a tokenizer.

Importing this registers the models with transformers' Auto classes. Names are loaded on first use, so that the import
stays light.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout, `modeling/` and `tokenization/` stand beside this folder; in an installed package they are inside it.
_here = Path(__file__).resolve().parent
if not (_here / "modeling").is_dir() and (_here.parent / "modeling" / "__init__.py").is_file():
    __path__.append(str(_here.parent))

from . import modeling, tokenization  # noqa: E402
from .hub.auto import register  # noqa: E402
from .version import __version__ as __version__  # noqa: E402

_NAMES = {
    **dict.fromkeys(modeling.__all__, "modeling"),
    **dict.fromkeys(tokenization.__all__, "tokenization"),
    "City": "tokenization.city",
    "DataError": "tokenization.errors",
    "validate_visits": "data.frames",
    "validate_points": "data.frames",
    "simulate_city": "data.simulation",
    "simulate_cities": "data.simulation",
    "SquareGrid": "tokenization.grid",
    "make_task": "data.tasks",
    "MobilityPipeline": "pipelines.base",
    "NextLocationPipeline": "pipelines.next_location",
    "MobilityEmbeddingPipeline": "pipelines.embedding",
    "TrajectoryGenerationPipeline": "pipelines.trajectory_generation",
    "TrajectoryPredictionPipeline": "pipelines.trajectory_prediction",
    "ArrayRows": "training.rows",
    "VisitCollator": "training.rows",
    "MobilityTrainer": "training.trainer",
    "CityCorpus": "training.corpus",
    "CityCollator": "training.corpus",
    "training_arguments": "training.presets",
    "train": "training.train",
    "adapt": "training.adapt",
    "Adaptation": "training.adapt",
    "Strength": "training.adapt",
    "convert": "hub.convert",
    "ContextMix": "baselines.mix",
    "evaluate": "evaluation.ranking",
    "evaluate_checkpoint": "checkpoints.evaluate",
    "summarize": "evaluation.ranking",
    "paired_difference": "evaluation.ranking",
}

__all__ = ["__version__", *_NAMES]

if TYPE_CHECKING:
    from .baselines.mix import ContextMix as ContextMix
    from .checkpoints.evaluate import evaluate_checkpoint as evaluate_checkpoint
    from .data.frames import validate_points as validate_points
    from .data.frames import validate_visits as validate_visits
    from .data.simulation.cities import simulate_cities as simulate_cities
    from .data.simulation.cities import simulate_city as simulate_city
    from .data.tasks import make_task as make_task
    from .evaluation.ranking import evaluate as evaluate
    from .evaluation.ranking import paired_difference as paired_difference
    from .evaluation.ranking import summarize as summarize
    from .hub.convert import convert as convert
    from .modeling import MstarCodecConfig as MstarCodecConfig
    from .modeling import MstarCodecModel as MstarCodecModel
    from .modeling import MstarConfig as MstarConfig
    from .modeling import MstarForTrajectoryGeneration as MstarForTrajectoryGeneration
    from .modeling import RawConfig as RawConfig
    from .modeling import RawForRegionAnalysis as RawForRegionAnalysis
    from .modeling import RawForTrajectoryPrediction as RawForTrajectoryPrediction
    from .modeling import RawForUserProfiling as RawForUserProfiling
    from .modeling import RawModel as RawModel
    from .modeling import SamoeConfig as SamoeConfig
    from .modeling import SamoeForNextLocation as SamoeForNextLocation
    from .modeling import SamoeModel as SamoeModel
    from .pipelines.base import MobilityPipeline as MobilityPipeline
    from .pipelines.embedding import MobilityEmbeddingPipeline as MobilityEmbeddingPipeline
    from .pipelines.next_location import NextLocationPipeline as NextLocationPipeline
    from .pipelines.trajectory_generation import TrajectoryGenerationPipeline as TrajectoryGenerationPipeline
    from .pipelines.trajectory_prediction import TrajectoryPredictionPipeline as TrajectoryPredictionPipeline
    from .tokenization import MstarTokenizer as MstarTokenizer
    from .tokenization import RawTokenizer as RawTokenizer
    from .tokenization import SamoeTokenizer as SamoeTokenizer
    from .tokenization.city import City as City
    from .tokenization.errors import DataError as DataError
    from .tokenization.grid import SquareGrid as SquareGrid
    from .training.adapt import Adaptation as Adaptation
    from .training.adapt import Strength as Strength
    from .training.adapt import adapt as adapt
    from .training.corpus import CityCollator as CityCollator
    from .training.corpus import CityCorpus as CityCorpus
    from .training.presets import training_arguments as training_arguments
    from .training.rows import ArrayRows as ArrayRows
    from .training.rows import VisitCollator as VisitCollator
    from .training.train import train as train
    from .training.trainer import MobilityTrainer as MobilityTrainer


# Former name -> present name; the former ones go with the next minor version.
_RENAMED = {"summarise": "summarize"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"hf_mobility.{name} is now hf_mobility.{_RENAMED[name]}.", FutureWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
