"""Models and the state of training on disk: safetensors and JSON, never pickle.

A finished model is a folder with `model.safetensors`, `arch.json`, `schema.json`, `stats.json` and the manifest. A
checkpoint is the state of one arm in training: its latest and its best weights, the optimizer's moments and where in
the data it stands.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from prerank.core.errors import InputError
from prerank.core.outputs import Days, Manifest, read_manifest
from prerank.logs.schema import Schema, load_schema
from prerank.models.arch import Arch, load_arch
from prerank.models.ranker import Scorer
from prerank.models.scorers import scorer_of
from prerank.models.stats import Stats, load_stats

Epoch = dict[str, object]
"""An epoch's numbers by their names in MLflow (`train/loss`, `val/auc`) and `epoch`; of a search, what its architecture
is as well, as JSON holds it."""


@dataclass
class State:
    """Where the training of one arm stands."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the epoch under way."""
    sums: dict[str, Tensor | float] = field(default_factory=dict)
    """Sums of the losses over those steps; numbers alone where it is saved."""
    best: float | None = None
    best_epoch: int = -1
    history: list[Epoch] = field(default_factory=list)
    wait_share: float = 0.0
    """Of the time of the last epoch's steps, what passed in waiting for batches: of the machine, not of what is
    learned, and so no part of the history."""

    def numbers(self, epoch: int = -1) -> dict[str, float]:
        """Of an epoch, by default the last, what is a number."""
        return {name: value for name, value in self.history[epoch].items() if isinstance(value, int | float)}


def save_state(
    folder: Path, name: str, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
) -> None:
    """Writes `<name>.latest.safetensors`, `<name>.best.safetensors` and `<name>.json` into a checkpoint's folder."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optim.{index}.{key}": value for key, value in moments.items()}
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        folder / f"{name}.latest.safetensors",
    )
    save_best(folder, name, state, best)


def save_best(folder: Path, name: str, state: State, best: dict[str, Tensor]) -> None:
    """Writes what outlives an arm's training: its best weights and its history."""
    save_file(best, folder / f"{name}.best.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(asdict(state)))


def load_state(
    folder: Path, name: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, Tensor]]:
    """Puts the latest weights and moments back; returns the state and the best weights so far."""
    tensors = load_file(folder / f"{name}.latest.safetensors")
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optim."):
            _, index, moment = key.split(".")
            moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return load_best(folder, name)


def load_best(folder: Path, name: str) -> tuple[State, dict[str, Tensor]]:
    return State(**json.loads((folder / f"{name}.json").read_text())), load_file(folder / f"{name}.best.safetensors")


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU."""
    return copied(model.state_dict())


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU."""
    return {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}


class Proof(TypedDict):
    """Of the clicked items of the validation day's candidates: the share in the first K, and the AUC of the rest."""

    hit_rate: float
    auc: float


class ModelManifest(Manifest):
    """`manifest.json` of a finished model."""

    split: Days
    """Of the samples: what the model has not seen."""
    best: dict[str, float]
    """The epoch whose weights these are."""
    history: list[dict[str, float]]
    rising: NotRequired[bool]
    """Whether the most epochs that it had ended its training, rather than its patience."""
    dealt: NotRequired[dict[str, int]]
    """How its training samples were dealt: `batch`, `lanes`, and the `passes` over them that an epoch is."""
    proof: NotRequired[dict[str, Proof]]
    """Of a teacher: what it finds, and what small models on a single group of its features find."""
    variants: NotRequired[dict[str, float]]
    """Of a teacher that was trained in several: the AUC by which the best was kept."""
    agreement: NotRequired[dict[str, float]]
    """Of a teacher: see `prerank.training.agreement`."""


def model_manifest(folder: Path, *, kind: str) -> ModelManifest:
    """Of a finished `teacher` or `student`; raises InputError where it is unfinished or of another kind."""
    return cast(ModelManifest, read_manifest(folder, kind=kind))


@dataclass(frozen=True)
class Model:
    """A finished model as read back from its folder."""

    ranker: Scorer
    arch: Arch
    schema: Schema
    manifest: ModelManifest


def write_model(folder: Path, *, arch: Arch, schema: Schema, stats: Stats, best: dict[str, Tensor]) -> None:
    """Everything of a finished model but its manifest, into a folder on this machine."""
    save_file(best, folder / "model.safetensors")
    arch.save(folder / "arch.json")
    schema.save(folder)
    (folder / "stats.json").write_text(
        json.dumps({name: stats[name] for name in arch.features if name in stats}) + "\n"
    )


def load_model(folder: Path, *, kind: str) -> Model:
    """Reads a finished `teacher` or `student`; raises InputError where it is unfinished or does not fit itself."""
    manifest = model_manifest(folder, kind=kind)
    arch, schema = load_arch(folder / "arch.json"), load_schema(folder)
    ranker = scorer_of(arch, schema.select(arch.features, where=str(folder / "arch.json")), load_stats(folder))
    weights = (folder / "model.safetensors").read_bytes()
    try:
        ranker.load_state_dict(load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{folder}/model.safetensors: does not fit schema.json and arch.json beside it: {error}"
        ) from error
    for name, values in ranker.state_dict().items():
        if not values.isfinite().all():
            raise InputError(
                f"{folder}/model.safetensors: {name} holds what is no number: damaged, or of a training that diverged; "
                "copy it again, or train with a lower optim.lr"
            )
    return Model(ranker.eval(), arch, schema, manifest)


@lru_cache(maxsize=256)
def known_model(folder: Path, fingerprint: str, kind: str) -> Model:
    """`load_model`, once a process, as Ray keeps its workers; another model at the same place is another key."""
    return load_model(folder, kind=kind)


def require_same_features(model: Model, schema: Schema, *, folder: Path, where: Path) -> None:
    """Raises InputError if data at `where` declare a feature that the model reads otherwise than it was trained on."""
    for name in model.arch.features:
        there = schema.by_name.get(name)
        here = model.schema.by_name[name]
        if there is None:
            raise InputError(f"{where}/schema.json: feature {name!r} is missing; the model in {folder} reads it")
        for key in ("side", "kind", "size", "missing", "hash"):
            if getattr(there, key) != getattr(here, key):
                raise InputError(
                    f"{where}/schema.json: feature {name!r} has {key} {getattr(there, key)!r}, but the model in "
                    f"{folder} was trained with {getattr(here, key)!r}; train it again, or take its own logs"
                )
