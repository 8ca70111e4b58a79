"""The Python that a model card shows, one snippet per class: it loads the very folder and runs as it stands.

`{name}` and the like are filled by `snippet`, so that a snippet never names a condition that its city lacks.
"""

from __future__ import annotations

import json
from typing import Any

_VISITS = """\
rows = [0, 1, 0, 1]  # places of the city in this folder; your own visits have the same columns
times = pd.date_range("2024-01-01", periods=4, freq="6h", tz=city.timezone)
place = {"location_id": city.location_ids[rows], "lat": city.lat[rows], "lon": city.lon[rows]}
visits = pd.DataFrame({"user_id": 1, "time": times, **place})"""
_POINTS = """\
south, west, north, east = tokenizer.bounds  # a day in its middle; your own points have the same columns
times = pd.date_range("2024-01-01", periods=48, freq="30min", tz=tokenizer.timezone)
points = pd.DataFrame({"user_id": 1, "time": times, "lat": (south + north) / 2, "lon": (west + east) / 2})"""
_RAW = """\
import pandas as pd
import torch

from hf_mobility import {cls}, RawTokenizer

tokenizer = RawTokenizer.from_pretrained("{name}")
model = {cls}.from_pretrained("{name}")
{points}
batch = tokenizer(points, padding=True, return_tensors="pt")
"""
SNIPPETS = {
    "SamoeForNextLocation": """\
import pandas as pd

from hf_mobility import NextLocationPipeline

pipe = NextLocationPipeline.from_pretrained("{name}")  # another city: city=City.from_visits(...)
city = pipe.tokenizer
{visits}
places = pipe.predict(visits, top_k=2)
places["hours"] = places["expected_gap"] / 3600  # until the next visit on record
print(places[["user_id", "rank", "location_id", "probability", "hours"]].to_string(index=False))""",
    "SamoeModel": """\
import pandas as pd
import torch

from hf_mobility import SamoeModel, SamoeTokenizer

city = SamoeTokenizer.from_pretrained("{name}")
model = SamoeModel.from_pretrained("{name}")
{visits}
with torch.no_grad():
    print(model(**city(visits, return_tensors="pt")).last_hidden_state.shape)""",
    "MstarCodecModel": """\
import torch

from hf_mobility import MstarCodecModel, MstarTokenizer

tokenizer = MstarTokenizer.from_pretrained("{name}")
codec = MstarCodecModel.from_pretrained("{name}")
homes = torch.tensor({homes})
weeks = homes[:, None].repeat(1, tokenizer.num_hours)  # four weeks at home
batch = tokenizer(weeks.numpy(), conditions=False, return_tensors="pt")
codes = codec.encode(batch["input_ids"], batch["attention_mask"])
print(codes.shape, (codec.decode(codes).argmax(-1) == weeks).float().mean())""",
    "MstarForTrajectoryGeneration": """\
from hf_mobility import TrajectoryGenerationPipeline

pipe = TrajectoryGenerationPipeline.from_pretrained("{name}")
print(pipe.generate(10, seed=0{conditions}).head().to_string())""",
    "RawModel": """\
import pandas as pd

from hf_mobility import MobilityEmbeddingPipeline

pipe = MobilityEmbeddingPipeline.from_pretrained("{name}")
tokenizer = pipe.tokenizer
{points}
vectors = pipe.embed_users(points)  # user_id, e0, e1, and so on
print(vectors.shape)""",
    "RawForTrajectoryPrediction": _RAW
    + """\
future = model.generate(batch["coordinates"][:, :8], start_weekday=batch.get("start_weekday"), steps=4)
print(tokenizer.denormalize(future))  # latitudes and longitudes of the next four slots""",
    "RawExtendedForTrajectoryPrediction": """\
import pandas as pd

from hf_mobility import TrajectoryPredictionPipeline

pipe = TrajectoryPredictionPipeline.from_pretrained("{name}")  # city= in another time zone
tokenizer = pipe.tokenizer
{points}
print(pipe.predict(points, horizon=[0.25, 2.5, 24]))""",
    "RawExtendedModel": """\
import torch

from hf_mobility.modeling import RawExtendedModel

model = RawExtendedModel.from_pretrained("{name}")
positions, slots = torch.zeros(1, 8, 2), torch.arange(8)[None]  # km to the east and the north; quarters of an hour
with torch.no_grad():
    print(model(positions=positions, slots=slots).last_hidden_state.shape)""",
    "RawForUserProfiling": _RAW
    + """\
with torch.no_grad():
    print(model(**batch).logits)""",
    "RawForRegionAnalysis": _RAW
    + """\
visitors = torch.tensor([[0, 0]])  # pairs (region, person): person 0 was in region 0
with torch.no_grad():
    print(model(**batch, visitors=visitors).logits)""",
}


def snippet(cls: str, name: str, tokenizer: Any) -> str:
    """The snippet of a class, for the folder or Hub id `name`; `tokenizer` is the one that lies there, if any."""
    conditions, homes = "", 'tokenizer.sample_conditions(4, seed=0)["home_ids"]'
    draws = getattr(tokenizer, "conditions", None) or getattr(tokenizer, "traits", None)
    if tokenizer is not None and draws is None:
        conditions, homes = ", home_ids=[0] * 10, work_ids=[1] * 10, attribute_ids=[0] * 10", "[0, 0, 0, 0]"
    values = {"visits": _VISITS, "points": _POINTS, "conditions": conditions, "homes": homes, "cls": cls}
    text = SNIPPETS[cls]
    for key, value in {**values, "name": json.dumps(name)[1:-1]}.items():
        text = text.replace(f"{{{key}}}", value)
    return text
