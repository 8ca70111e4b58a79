"""`FlowNetworkModel`: a few networks over pairs of regions and their normalization, trained, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..tokenization.errors import DataError, listing
from ..tokenization.whole_files import whole_folder
from .inputs import AreaInputs, Normalization, log_distances, log_population
from .network import FlowNetwork, FlowNetworkConfig, RegionAttention, outflow_features
from .pairs import PAIR_FEATURES, PairGeometry, blocks
from .prediction import FlowModel
from .regions import DERIVED, POI_PREFIX, POPULATION, geometry_of
from .task import FlowArea, FlowTask
from .training import FlowTraining, train_network

CONFIG, WEIGHTS = "flows_config.json", "model.safetensors"
MODEL_TYPE, FORMAT = "mobility_flows", 1
NETWORK_BLOCK = 1 << 16  # pairs scored together


class FlowNetworkModel(FlowModel):
    """Mean flows of networks that differ in their random numbers only.

    Args:
        seeds: one network each.
        training: hyper-parameters; its seed is replaced by each of `seeds`.
        sizes: of `FlowNetworkConfig`, such as `hidden_size=32`.

    Attributes after `fit`:
        columns: of the regions' frames that the networks read. A frame may lack some: those are then unknown.
        normalization: of these columns, and of the derived ones.
        networks: all of one size.

    Example:
        >>> model = FlowNetworkModel.from_pretrained("checkpoints/flows-small")  # doctest: +SKIP
        >>> model.predict_flows(regions)  # area, origin, destination, flow  # doctest: +SKIP
        >>> model.predict_flows(regions, outflows=regions[["region_id", "outflow"]])  # doctest: +SKIP
    """

    name = "network"

    def __init__(self, *, seeds: Sequence[int] = (0,), training: FlowTraining | None = None, **sizes: Any) -> None:
        self.seeds, self.training, self.sizes = tuple(seeds), training or FlowTraining(), sizes
        self.columns: tuple[str, ...] = ()
        self.networks: list[FlowNetwork] = []

    def fit(self, task: FlowTask, after_epoch: Callable[[int, float], None] | None = None) -> FlowNetworkModel:
        """Train the networks one after the other and return self.

        Args:
            task: areas with flows. All their pairs are kept in memory, 64 bytes each.
            after_epoch: is told the number of each epoch and the mean common part in it.

        Raises:
            DataError: flows are not known.
        """
        self.columns, self.normalization = task.areas[0].columns, Normalization.of(task)
        areas = [AreaInputs.of(area, self.normalization) for area in task.areas]
        config = FlowNetworkConfig(len(self.columns) + len(DERIVED), len(PAIR_FEATURES), **self.sizes)
        census = [name != POPULATION and not name.startswith(POI_PREFIX) for name in self.columns]
        can_hide = np.array([*census, *np.zeros(len(DERIVED), bool)])
        self.networks = []
        for seed in self.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = FlowNetwork(config)
                train_network(network, areas, replace(self.training, seed=seed), can_hide, after_epoch)
            self.networks.append(network)
        return self

    @classmethod
    def together(cls, models: Sequence[FlowNetworkModel]) -> FlowNetworkModel:
        """One model of the networks of several, fitted to the same task with other seeds.

        Raises:
            ValueError: they were fitted to other areas, or are of other sizes.
        """
        first, *others = models
        for other in others:
            arrays = zip(first.normalization.arrays().values(), other.normalization.arrays().values())
            same = other.columns == first.columns and all(np.array_equal(a, b) for a, b in arrays)
            if not same or other.networks[0].config != first.networks[0].config:
                raise ValueError("These models were fitted to other areas or have other sizes; fit them alike.")
        networks = [network for model in models for network in model.networks]
        seeds = [seed for model in models for seed in model.seeds]
        return cls._of(first.columns, first.normalization, networks, seeds, first.least_flow)

    def members(self) -> list[FlowNetworkModel]:
        """One model per network, named by its seed."""
        models = []
        for seed, network in zip(self.seeds, self.networks):
            models.append(self._of(self.columns, self.normalization, [network], [seed], self.least_flow))
            models[-1].name = f"network of seed {seed}"
        return models

    @classmethod
    def _of(
        cls,
        columns: Sequence[str],
        normalization: Normalization,
        networks: list[FlowNetwork],
        seeds: Sequence[int],
        least_flow: float,
    ) -> FlowNetworkModel:
        model = cls(seeds=seeds)
        model.columns, model.normalization, model.least_flow = tuple(columns), normalization, least_flow
        model.networks = [network.eval() for network in networks]
        return model

    @torch.inference_mode()
    def rows(self, area: FlowArea, outflows: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self.networks:
            raise ValueError("This model has no networks; call fit or from_pretrained first.")
        geometry = geometry_of(area.with_columns(self.columns))
        regions = self.normalization.regions(geometry)
        given = None if outflows is None else torch.from_numpy(outflows.astype(np.float32))
        encoded = [self._encode(network, geometry, regions, given) for network in self.networks]
        population = log_population(geometry)
        real = torch.ones(1, len(area), dtype=torch.bool)
        for rows in blocks(area, NETWORK_BLOCK):
            pairs = self.normalization.pairs(geometry, rows)[None]
            flows = torch.zeros(len(rows), len(area))
            for network, vectors in zip(self.networks, encoded):
                shares = network.log_shares(vectors[:, rows], vectors, pairs, real)[0].exp()
                expected = network.log_outflows(vectors, population[None])[0].exp() if given is None else given
                flows += expected[rows, None] * shares / len(self.networks)
            yield rows, flows.numpy().astype(np.float64)

    def _encode(self, network: FlowNetwork, geometry: PairGeometry, regions: Tensor, outflows: Tensor | None) -> Tensor:
        """Vectors (1, n, width), some rows at a time."""
        area = geometry.area
        known = torch.full((1, len(area)), outflows is not None)
        told = torch.zeros(len(area)) if outflows is None else outflows
        features = outflow_features(told[None], log_population(geometry)[None], known)
        x = network.embed(torch.cat([regions[None], features], dim=-1))
        real = torch.ones(1, len(area), dtype=torch.bool)
        for layer in network.layers:
            assert isinstance(layer, RegionAttention)
            parts = [layer(x[:, rows], x, log_distances(geometry, rows)[None], real) for rows in blocks(area)]
            x = torch.cat(parts, dim=1)
        return network.norm(x)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `flows_config.json` and `model.safetensors`, both or neither."""
        config = {"model_type": MODEL_TYPE, "format": FORMAT, "columns": list(self.columns)}
        config |= {"seeds": list(self.seeds), "least_flow": self.least_flow}
        config |= {"network": asdict(self.networks[0].config)}
        weights = {f"normalization.{name}": torch.from_numpy(a) for name, a in self.normalization.arrays().items()}
        for number, network in enumerate(self.networks):
            weights |= {f"networks.{number}.{name}": value for name, value in network.state_dict().items()}
        with whole_folder(folder) as scratch:
            (scratch / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_file({name: value.contiguous() for name, value in weights.items()}, scratch / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> FlowNetworkModel:
        """Load what `save_pretrained` wrote.

        Raises:
            DataError: the folder holds no model of flows, one of a later format, or weights of other sizes.
        """
        folder = Path(folder)
        if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
            raise DataError(f"{folder} holds no model of flows: it has no {listing(missing)}.")
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config.get("model_type") != MODEL_TYPE or config.get("format") != FORMAT:
            found = f"{config.get('model_type')}, format {config.get('format')}"
            raise DataError(f"{folder / CONFIG} is of {found}; this version reads {MODEL_TYPE}, format {FORMAT}.")
        weights = load_file(folder / WEIGHTS)
        normal = {part.name: weights.pop(f"normalization.{part.name}").numpy() for part in fields(Normalization)}
        networks = []
        for number in range(len(config["seeds"])):
            network = FlowNetwork(FlowNetworkConfig(**config["network"]))
            prefix = f"networks.{number}."
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            try:
                network.load_state_dict(own)
            except RuntimeError as error:
                raise DataError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from error
            networks.append(network)
        return cls._of(config["columns"], Normalization(**normal), networks, config["seeds"], config["least_flow"])
