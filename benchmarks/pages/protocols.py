"""Tables of the named protocols, one a protocol, from the results that `python -m benchmarks.protocols.rank` saves."""

from __future__ import annotations

from hf_mobility.benchmark.protocol import Protocol, protocol_names
from hf_mobility.benchmark.results import load_results
from hf_mobility.benchmark.tables import difference_rows, table

from .common import RESULTS, markdown, read
from .positions import measured


def protocol(name: str) -> str:
    """One row per model, baselines first, models that are no baselines in bold."""
    frame = read(name)
    ours = set(frame.loc[frame["kind"] != "baseline", "model"])
    shown = table(frame, main=Protocol.load(name).metrics[0])
    rows = [[f"**{model}**" if model in ours else model, *cells] for model, *cells in shown.to_numpy().tolist()]
    return markdown(rows, list(shown.columns))


def protocols() -> str:
    """What there is."""
    rows = []
    for name in protocol_names():
        known = Protocol.load(name)
        files = sum(len(one.files) for one in known.sets)
        rows.append([f"`{name}`", known.question, str(files or "none"), str(known.draws), known.reference])
    return markdown(rows, ["protocol", "question", "data files", "draws", "compared with"])


def differences() -> str:
    """Of each model that is no baseline minus the reference, paired by user; those of positions are on their own page."""
    rows, elsewhere = [], measured().values()
    for name in protocol_names():
        if name in elsewhere:
            continue
        known = Protocol.load(name)
        rows += [[f"`{name}`", *cells] for cells in difference_rows(load_results(RESULTS / "protocols/results", known))]
    return markdown(rows, ["protocol", "model", "minus", "test set", "metric", "difference [95 %]"])
