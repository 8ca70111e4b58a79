"""`export`: a model as an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import files
from .options import Model


def export(
    model: Model, output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")]
) -> None:
    """The next-location model (SAMoE) as one ONNX graph, compared with the model before it is kept.

    \b
    hf-mobility export checkpoints/samoe-small -o next-places.onnx
    """
    if output.suffix != ".onnx":
        raise ValueError(f"Cannot write {output.name}: end its name in .onnx.")
    files.check_file(output)
    files.doing(f"loading {model}, writing its graph and comparing the two")
    from ..hub.onnx import export_onnx
    from ..pipelines.next_location import NextLocationPipeline

    difference = export_onnx(NextLocationPipeline.from_pretrained(model), output)
    files.done(f"A graph whose probabilities differ from the model's by at most {difference:.1g}", output)
