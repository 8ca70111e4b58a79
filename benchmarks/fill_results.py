"""Fill the tables of the README, the results pages and the checkpoint cards: `python -m benchmarks.fill_results`.

A table stands between `<!-- begin NAME -->` and `<!-- end -->` and is made from a committed CSV; a name whose CSV is absent
is left as it is. Rows of several draws are averaged, and their spread is given as ±.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hf_mobility.benchmark.protocol import protocol_names

from .pages import (
    checkpoints,
    embeddings,
    flows,
    generation,
    next_location,
    next_location_groups,
    positions,
    protocols,
    speed,
    weeks,
)

ROOT = Path(__file__).resolve().parents[1]
USER_METRICS, VALUE_METRICS = ("accuracy", "f1", "auc"), ("mae", "pcc", "r2")

BLOCKS: dict[str, Callable[[], str]] = {
    "raw knows": embeddings.knows,
    "raw neighbours": embeddings.neighbours,
    "raw profile": lambda: embeddings.probes("raw_profile", metrics=USER_METRICS),
    "raw profile few": lambda: embeddings.few_labels("raw_profile", "accuracy"),
    "raw profile small": lambda: embeddings.probes("raw_profile_small", metrics=USER_METRICS),
    "raw regions": lambda: embeddings.probes("raw_regions", label="label", metrics=VALUE_METRICS),
    "raw positions": lambda: positions.positions("all"),
    "raw positions moving": lambda: positions.positions("moving"),
    "raw positions median": positions.medians,
    "raw positions users": positions.by_user,
    "raw positions pairs": lambda: positions.differences("all"),
    "raw positions pairs moving": lambda: positions.differences("moving"),
    "raw extended": embeddings.extended,
    "raw extended less": embeddings.extended_less,
    "raw week ends": embeddings.week_ends,
    "raw week ends simulated": lambda: embeddings.week_ends("simulated"),
    "raw geolife": embeddings.geolife,
    "raw speed": lambda: speed.raw_speed("raw_speed"),
    "raw speed base": lambda: speed.raw_speed("raw_speed_base"),
    "raw speed gpu": lambda: speed.raw_speed("raw_speed_gpu"),
    "mstar codec": lambda: generation.codec("mstar_codec"),
    "mstar codecs": lambda: generation.codec(
        *("mstar_codec", "mstar_codec_eight", "mstar_codec_encoder", "mstar_codec_days", "mstar_codec_days_nested"),
        *("mstar_codec_days_short", "mstar_codec_cabs", "mstar_codec_cabs_short"),
    ),
    "mstar codec ablation": generation.codec_ablation,
    "mstar simulated": lambda: generation.generation("mstar_simulated"),
    "mstar movement": lambda: generation.movement("mstar_simulated"),
    "weeks like": weeks.likeness,
    "weeks habits": weeks.habits,
    "weeks completion": weeks.completion,
    "weeks homes": weeks.homes,
    "weeks epidemic": weeks.epidemic,
    "weeks next": weeks.next_places,
    "weeks pairs": weeks.pairs,
    "weeks members": weeks.members,
    "weeks slots": weeks.slots_unseen,
    "weeks slots completion": weeks.slots_completion,
    "mstar own city": lambda: generation.generation("mstar_own_city"),
    "mstar days": lambda: generation.generation("mstar_days"),
    "mstar cabs": lambda: generation.generation("mstar_cabs"),
    "mstar settings": lambda: generation.settings("mstar_settings"),
    "mstar settings days": lambda: generation.settings("mstar_settings_days_shifted"),
    "mstar ablation": lambda: generation.generator_ablation("mstar_ablation"),
    "mstar encoders": generation.encoders,
    "mstar passes": generation.passes,
    "mstar levels": generation.levels,
    "mstar codecs and generators": generation.generators_by_codec,
    "mstar speed": lambda: speed.mstar_speed("mstar_speed"),
    "mstar speed gpu": lambda: speed.mstar_speed("mstar_speed_gpu"),
    "flows": lambda: flows.common_parts(outflows_given=False),
    "flows given": lambda: flows.common_parts(outflows_given=True),
    "flows intervals": lambda: flows.by_size("outflows predicted"),
    "flows intervals given": lambda: flows.by_size("outflows given"),
    "flows pairs": flows.differences,
    "flows columns": flows.robustness,
    "checkpoints": checkpoints.checkpoints,
    "unseen cities": next_location_groups.unseen_cities,
    "users": next_location_groups.users,
    "visits": lambda: next_location_groups.users(""),
    "user pairs": next_location_groups.pairs,
    "groups": next_location_groups.groups,
    "groups few": next_location_groups.groups_few,
    "history by city": next_location_groups.history_by_city,
    "elsewhere": next_location_groups.elsewhere,
    "mix weights": next_location_groups.mix_weights,
    "anomalies": next_location_groups.anomalies,
    "anomaly gains": next_location_groups.anomaly_gains,
    "transfer": lambda: next_location.wide("all", ("acc@1", "mrr")),
    "new places": lambda: next_location.wide("new places", ("acc@10", "mrr")),
    "known places": lambda: next_location.wide("known places", ("acc@1", "mrr")),
    "detail": next_location.detail,
    "pairs": next_location.pairs,
    "adaptations": next_location.adaptations,
    "curve": next_location.curve,
    "curve adaptations": lambda: next_location.adaptations("curve"),
    "other kind": lambda: next_location.other_kind("other_kind", "160 San Francisco cabs"),
    "other kind geolife": lambda: next_location.other_kind("other_kind_geolife", "GeoLife stays"),
    "new places reach": next_location.new_places_reach,
    "new places priors": next_location.new_places_priors,
    "seeds": next_location.seeds,
    "strengths": next_location.strengths,
    "dense": next_location.dense,
    "ablation": next_location.ablation,
    "gaps": next_location.gaps,
    "sets": next_location.sets,
    "temperatures": next_location.temperatures,
    "protocols": protocols.protocols,
    "protocol differences": protocols.differences,
    **{f"protocol {name}": partial(protocols.protocol, name) for name in protocol_names()},
    "speed": speed.speed,
    "memory": speed.memory,
    "kernels": speed.kernels,
    "imports": speed.imports,
    "first output": speed.first_output,
    "published": speed.published,
    "stays": speed.stays,
    "sessions": speed.sessions,
    "page": speed.page,
    "precisions": speed.precisions,
    "billion": speed.billion,
    "streams": speed.streams,
    "folders": speed.folders,
    "workers": speed.workers,
    "plan": speed.plan,
}
MARK = re.compile(r"<!-- begin (?P<name>[\w -]+?) -->\n.*?<!-- end -->", flags=re.DOTALL)


def fill(text: str) -> str:
    def block(found: re.Match[str]) -> str:
        try:
            table = BLOCKS[found["name"]]()
        except FileNotFoundError as missing:
            print(f"{found['name']}: {missing}")
            return found[0]
        return f"<!-- begin {found['name']} -->\n{table}\n<!-- end -->"

    return MARK.sub(block, text)


def main() -> None:
    cards = sorted((ROOT / "checkpoints").glob("*/README.md"))
    docs = sorted((ROOT / "docs").rglob("*.md"))
    for page in (ROOT / "README.md", *docs, *cards):
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
