"""What the Hub reads of the results by protocol, for each shipped checkpoint: `python -m benchmarks.protocols.publish`.

`checkpoints/NAME/.eval_results/PROTOCOL.yaml` holds the main metric of each case, and the `model-index` of the card holds
it beside the baselines. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_mobility.benchmark import Protocol, Result, protocol_names
from hf_mobility.benchmark.results import load_results, to_eval_results, to_model_index

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
RESULTS = Path(__file__).parent / "results"
DATASET = "hf-mobility/protocols"  # the Hub shows results where a data set of this name is registered as a benchmark


def results_of(name: str) -> Iterator[tuple[Protocol, list[Result]]]:
    """The protocols that a checkpoint has results of, each with all its results."""
    for protocol in map(Protocol.load, protocol_names()):
        results = load_results(RESULTS, protocol)
        if any(one.model == name and one.kind == "checkpoint" for one in results):
            yield protocol, results


def model_index(name: str) -> list[Any]:
    """Entries for the card of a checkpoint."""
    return [entry for protocol, results in results_of(name) for entry in to_model_index(results, protocol, model=name)]


def eval_results(name: str) -> dict[str, str]:
    """Name of a file below `.eval_results` -> its text."""
    return {
        f"{protocol.name}.yaml": to_eval_results(one, protocol, dataset_id=DATASET)
        for protocol, results in results_of(name)
        for one in results
        if one.model == name
    }


def with_index(card: ModelCard, name: str) -> ModelCard:
    """The card with the entries of the protocols, beside those that are of none."""
    ours = tuple(f"{protocol}-" for protocol in protocol_names())
    kept = [one for one in card.data.eval_results or [] if not one.dataset_type.startswith(ours)]
    found = [*kept, *model_index(name)]
    if found:
        card.data.model_name, card.data.eval_results = card.data.model_name or name, found
    return card


def main() -> None:
    for folder in sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir()):
        texts = eval_results(folder.name)
        for old in (folder / ".eval_results").glob("*.yaml"):
            old.unlink()
        for file, text in texts.items():
            (folder / ".eval_results").mkdir(exist_ok=True)
            (folder / ".eval_results" / file).write_text(text, encoding="utf-8")
        card = folder / "README.md"
        text = str(with_index(ModelCard(card.read_text(encoding="utf-8")), folder.name))
        card.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(f"{folder.name}: {', '.join(texts) or 'no result by protocol'}")


if __name__ == "__main__":
    main()
