"""What a user does with the Hub, by the real client, as a script: prints what happened as one line of JSON.

It runs in a process of its own, because huggingface_hub reads `HF_ENDPOINT` when it is imported, and in one for all
steps, because that import takes long. test_push_pull.py runs it, and reads what arrived at the server.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import _http
from mstar_town import BOX, ZONE
from peft import LoraConfig, get_peft_model
from samoe_town import CONFIG, TOKENIZER, make_city, make_visits
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from hf_mobility import (
    MobilityEmbeddingPipeline,
    MstarConfig,
    MstarForTrajectoryGeneration,
    MstarTokenizer,
    NextLocationPipeline,
    RawConfig,
    RawForTrajectoryPrediction,
    RawTokenizer,
    SamoeForNextLocation,
    SamoeTokenizer,
    TrajectoryGenerationPipeline,
)
from hf_mobility.hub.card_facts import CardFacts
from hf_mobility.hub.folder import SavedFolder
from hf_mobility.training.adapt import Adaptation

VISITS = make_visits()
FOUND: dict[str, Any] = {}
WEIGHTS = "model.safetensors"


def faults(**wanted: Any) -> None:
    request = urllib.request.Request(os.environ["HF_ENDPOINT"] + "/faults", json.dumps(wanted).encode(), method="POST")
    urllib.request.urlopen(request).close()


def refusal(action: Callable[[], Any]) -> dict[str, Any]:
    """What the action raised."""
    try:
        action()
    except Exception as error:
        return {"is": [base.__name__ for base in type(error).__mro__], "says": str(error)}
    raise AssertionError("it should have failed")


def same(one: Any, other: Any) -> bool:
    """Equal weights."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def make_samoe(seed: int = 0) -> SamoeForNextLocation:
    torch.manual_seed(seed)
    return SamoeForNextLocation(CONFIG).eval()


def left_over() -> list[str]:
    """What is in the folder for temporary files, and unfinished files anywhere in the cache."""
    cache = Path(os.environ["HF_HOME"])
    unfinished = [path for path in cache.rglob("*") if path.name.endswith((".incomplete", ".tmp"))]
    return [
        path.name for path in [*Path(tempfile.gettempdir()).iterdir(), *unfinished] if not path.name.startswith("torch")
    ]


def models_and_tokenizers() -> None:
    model = make_samoe()
    model.push_to_hub("mia/parts")
    TOKENIZER.push_to_hub("mia/parts", commit_message="The city")
    tokenizer = AutoTokenizer.from_pretrained("mia/parts")
    FOUND["parts"] = {
        "model": same(AutoModelForCausalLM.from_pretrained("mia/parts"), model),
        "body": same(AutoModel.from_pretrained("mia/parts"), model.model),
        "city": tokenizer.location_ids.tolist() == TOKENIZER.location_ids.tolist(),
        "ours": type(tokenizer).__module__.startswith("hf_mobility."),
        "card": ModelCard.load("mia/parts").content,
    }


def pipelines() -> None:
    pipe = NextLocationPipeline(make_samoe(), TOKENIZER)
    commit = pipe.push_to_hub("mia/next", commit_message="First")
    FOUND["next"] = {
        "commit": [str(commit), commit.oid, commit.commit_message],
        "same": NextLocationPipeline.from_pretrained("mia/next").predict(VISITS).equals(pipe.predict(VISITS)),
        "nothing left": left_over(),
    }
    weeks = MstarTokenizer.from_grid(BOX, timezone=ZONE, rows=4, columns=4, factors=(2, 1), num_hours=24)
    cells = np.random.default_rng(0).integers(0, 16, (6, 4))[:, np.arange(24) // 6]
    weeks.fit_conditions(cells, num_attributes=2)
    generation = TrajectoryGenerationPipeline(MstarForTrajectoryGeneration(MstarConfig.from_preset("tiny")), weeks)
    generation.model.fit_transition(torch.randint(0, 3, (50, 24)))
    generation.push_to_hub("mia/weeks", min_users=1)
    again = TrajectoryGenerationPipeline.from_pretrained("mia/weeks")
    FOUND["weeks"] = again.generate(3, seed=1).equals(generation.generate(3, seed=1))
    config = RawConfig.from_preset("tiny")
    points = VISITS[["user_id", "time", "lat", "lon"]]
    encoder = RawForTrajectoryPrediction(config)
    embedding = MobilityEmbeddingPipeline(encoder, RawTokenizer.from_points(points, timezone=ZONE, config=config))
    embedding.push_to_hub("mia/people")
    again = MobilityEmbeddingPipeline.from_pretrained("mia/people")
    FOUND["people"] = again.embed_users(points).equals(embedding.embed_users(points))
    FOUND["snippets"] = {name: ran_from_card(name) for name in ("mia/next", "mia/weeks", "mia/people")}


def ran_from_card(name: str) -> str:
    """What the snippet of a card prints in the empty folder of this process."""
    (code,) = re.findall(r"```python\n(.*?)```", ModelCard.load(name).content, flags=re.DOTALL)
    assert f'from_pretrained("{name}")' in code
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {})  # noqa: S102
    return printed.getvalue()


def revisions_and_tags() -> None:
    """Three states of one repository: tag v1, main, branch dev."""
    states = {"v1": make_samoe(1), "main": make_samoe(2), "dev": make_samoe(3)}
    pipes = {name: NextLocationPipeline(model, TOKENIZER) for name, model in states.items()}
    first = pipes["v1"].push_to_hub("mia/states")
    HfApi().create_tag("mia/states", tag="v1")
    pipes["main"].push_to_hub("mia/states")
    pipes["dev"].push_to_hub("mia/states", revision="dev")
    found = {
        name: same(NextLocationPipeline.from_pretrained("mia/states", revision=revision).model, states[name])
        for name, revision in {"v1": "v1", "main": None, "dev": "dev"}.items()
    }
    found["commit"] = same(NextLocationPipeline.from_pretrained("mia/states", revision=first.oid).model, states["v1"])
    FOUND["states"] = found
    FOUND["no such revision"] = refusal(lambda: NextLocationPipeline.from_pretrained("mia/states", revision="v9"))


def adapters(scratch: Path) -> None:
    base = make_samoe()
    base.push_to_hub("mia/base", private=True)

    def adapter(model: Any, fill: float) -> Adaptation:
        adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM")).eval()
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, fill)
        report = VISITS.head(0)
        made = {"model": adapted, "tokenizer": TOKENIZER, "history": report, "seconds": 0.0}
        facts = CardFacts(training_data="the visits of a made town")
        return Adaptation(**made, strength="strong", report=report, reason="", facts=facts)

    made = adapter(SamoeForNextLocation.from_pretrained("mia/base"), 0.1)
    made.push_to_hub("mia/town", private=True)
    HfApi().create_tag("mia/town", tag="v1")
    adapter(SamoeForNextLocation.from_pretrained("mia/base"), 0.5).push_to_hub("mia/town")
    wanted = NextLocationPipeline(made.model, TOKENIZER).predict(VISITS)["probability"]
    by_revision = {}
    for revision in ("v1", None):
        pipe = NextLocationPipeline.from_pretrained("mia/town", revision=revision, token="hf_mia")
        by_revision[str(revision)] = float((pipe.predict(VISITS)["probability"] - wanted).abs().max())
    FOUND["adapter"] = by_revision
    base.save_pretrained(scratch / "base")
    local = adapter(SamoeForNextLocation.from_pretrained(scratch / "base"), 0.1)
    FOUND["local base"] = refusal(lambda: local.push_to_hub("mia/leak")) | {"path": str(scratch / "base")}
    local.push_to_hub("mia/named", base_model="mia/base")
    named, own = NextLocationPipeline.from_pretrained("mia/named"), NextLocationPipeline(local.model, TOKENIZER)
    difference = named.predict(VISITS)["probability"] - own.predict(VISITS)["probability"]
    FOUND["named base"] = float(difference.abs().max())
    FOUND["base of this machine by name"] = refusal(
        lambda: local.push_to_hub("mia/leak", base_model=str(scratch / "base"))
    )

    # The base changes; who pinned it gets the one that was adapted.
    HfApi().create_tag("mia/base", tag="v1")
    local.push_to_hub("mia/pinned", base_model="mia/base", base_revision="v1")
    make_samoe(5).push_to_hub("mia/base")
    FOUND["pinned base"] = {}
    for name, revision in {"as saved": {}, "asked for": {"base_revision": "main"}}.items():
        pipe = NextLocationPipeline.from_pretrained("mia/pinned", **revision)
        difference = pipe.predict(VISITS)["probability"] - own.predict(VISITS)["probability"]
        FOUND["pinned base"][name] = float(difference.abs().max())


def folders(scratch: Path) -> None:
    """What lies beside a saved model."""
    folder = scratch / "work of mia"
    NextLocationPipeline(make_samoe(), TOKENIZER).save_pretrained(folder)
    VISITS.to_csv(folder / "visits.csv")
    (folder / ".env").write_text("TOKEN=x")
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    (folder / "data").mkdir()
    (folder / "data" / "model.safetensors").write_bytes(b"raw")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": str(folder)}))
    said = io.StringIO()
    with redirect_stderr(said):
        SavedFolder(folder).push_to_hub("mia/folder")
    FOUND["folder"] = {"said": said.getvalue(), "path": str(folder)}
    FOUND["public, not private"] = refusal(lambda: SavedFolder(folder).push_to_hub("mia/folder", private=True))
    shutil.rmtree(folder)


def rights() -> None:
    pipe = NextLocationPipeline(make_samoe(), TOKENIZER)
    pipe.push_to_hub("mia/secret", private=True)
    read = NextLocationPipeline.from_pretrained
    FOUND["private with its token"] = same(read("mia/secret", token="hf_mia").model, pipe.model)
    empty = {"cache_dir": os.environ["HF_HOME"] + "/empty"}
    FOUND["private with another's token"] = refusal(lambda: read("mia/secret", token="hf_other", **empty))
    FOUND["private without a token"] = refusal(lambda: read("mia/secret", token=False, **empty))
    FOUND["read with a wrong token"] = refusal(lambda: read("mia/next", token="hf_wrong", **empty))
    FOUND["missing"] = refusal(lambda: read("mia/missing", **empty))
    FOUND["missing generator"] = refusal(lambda: TrajectoryGenerationPipeline.from_pretrained("mia/missing"))
    FOUND["missing encoder"] = refusal(lambda: MobilityEmbeddingPipeline.from_pretrained("mia/missing"))
    FOUND["cached of refused"] = [path.name for path in Path(empty["cache_dir"]).rglob("*") if path.is_file()]
    FOUND["push with a wrong token"] = refusal(lambda: pipe.push_to_hub("mia/new", token="hf_wrong"))
    FOUND["push without a token"] = refusal(lambda: pipe.push_to_hub("mia/new", token=False))
    FOUND["push to another's"] = refusal(lambda: pipe.push_to_hub("other/new"))
    FOUND["bad name"] = refusal(lambda: pipe.push_to_hub("mia/a/b"))
    FOUND["left by refused"] = left_over()


def interruptions() -> None:
    city = SamoeTokenizer.from_city(make_city(popularity=np.arange(2, 10)), CONFIG)  # files that the server has not yet
    pipe = NextLocationPipeline(make_samoe(7), city)
    faults(cut_uploads_from=30_000)  # the weights; the city is smaller
    FOUND["cut upload"] = refusal(lambda: pipe.push_to_hub("mia/cut"))
    FOUND["left by cut upload"] = left_over()
    FOUND["files after cut upload"] = HfApi().list_repo_files("mia/cut")
    faults()
    pipe.push_to_hub("mia/cut")
    FOUND["resumed upload"] = same(NextLocationPipeline.from_pretrained("mia/cut").model, pipe.model)

    fresh = {"cache_dir": os.environ["HF_HOME"] + "/fresh"}
    faults(cut_downloads_of=WEIGHTS, times=100)
    FOUND["cut download"] = refusal(lambda: NextLocationPipeline.from_pretrained("mia/cut", **fresh))
    FOUND["weights after cut download"] = [str(path) for path in Path(fresh["cache_dir"]).rglob(WEIGHTS)]
    faults()
    again = NextLocationPipeline.from_pretrained("mia/cut", **fresh)
    FOUND["resumed download"] = same(again.model, pipe.model)
    FOUND["left by downloads"] = left_over()


def main() -> None:
    _http.time.sleep = lambda seconds: None  # the client waits between its attempts; a test need not
    models_and_tokenizers()
    pipelines()
    revisions_and_tags()
    adapters(Path.cwd())
    folders(Path.cwd())
    rights()
    interruptions()
    print(json.dumps(FOUND))


if __name__ == "__main__":
    main()
