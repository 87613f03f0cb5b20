"""The trials of a sweep by Optuna alone: the peer of the benchmark `sweep`, not of the product.

    python -m prerank.benchmarks.peers.optuna_sweep SAMPLES OUT TRIALS EPOCHS

A process a core, which share a study by its journal, as Optuna has it for several; each trains its part of the trials
one after the other, without Ray. None is stopped early, and the best is neither trained once more nor evaluated.
"""

import os
import sys
from pathlib import Path

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from torch.multiprocessing.spawn import spawn

from prerank.training.student import Distill, Optim, train

STUDY = "sweep"


def sweep(samples: Path, out: Path, trials: int, epochs: int, k: int = 150) -> optuna.Study:
    """The study, with all of its trials; `tune_spaces/smoke.py` is the space."""
    out.mkdir(parents=True)
    study = optuna.create_study(storage=_journal(out), study_name=STUDY, direction="maximize")
    parts = [len(part) for part in np.array_split(np.arange(trials), os.cpu_count() or 1) if len(part)]
    spawn(_part, (samples, out, parts, epochs, k), nprocs=len(parts))
    return study


def _part(rank: int, samples: Path, out: Path, parts: list[int], epochs: int, k: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        optim = Optim(epochs=epochs, lr=trial.suggest_float("optim.lr", 3e-4, 3e-3, log=True))
        distill = Distill(score=trial.suggest_float("distill.score", 0.3, 3.0, log=True))
        student = train(samples, out / str(trial.number), k=k, distill=distill, optim=optim)
        return student.model.manifest["best"][f"val/recall_at_{k}"]

    sampler = optuna.samplers.RandomSampler(seed=rank)
    study = optuna.load_study(storage=_journal(out), study_name=STUDY, sampler=sampler)
    study.optimize(objective, n_trials=parts[rank])


def _journal(out: Path) -> optuna.storages.JournalStorage:
    return optuna.storages.JournalStorage(JournalFileBackend(str(out / "journal.log")))


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
