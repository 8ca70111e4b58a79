"""`convert`: a checkpoint of the systems' authors in, a folder with our model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import files
from .options import Folder, System


def convert(
    file: Annotated[Path, typer.Argument(help="What the authors' code saved: .pt, .pth or .safetensors.")],
    output: Folder,
    system: Annotated[System, typer.Option(help="Whose checkpoint it is.")],
    num_attention_heads: Annotated[int, typer.Option(help="The weights do not tell it.")],
) -> None:
    """Convert a checkpoint of the authors of SAMoE (MoveGPT), M-STAR or RAW.

    The file is opened as weights only: no code in it runs. The folder holds the model; its city is yours to add.

    \b
    hf-mobility convert model_pretrain.pth --system samoe --num-attention-heads 4 -o movegpt
    hf-mobility convert best_model.pt --system mstar --num-attention-heads 8 -o mstar-beijing
    """
    files.check_folder(output)
    from ..hub.convert import convert as converted

    model = converted(file, system, num_attention_heads=num_attention_heads)
    model.save_pretrained(output)
    files.done(f"{type(model).__name__}, {model.num_parameters():,} parameters", output)
