"""The training loop on a GPU: its speed beside a bare loop's, its parity with the CPU, a checkpoint and its resumption.

    python -m prerank.benchmarks.gpu --out gpu.json

Needs torch, numpy, pyarrow and safetensors alone, on made-up samples, and some minutes: no Ray, no MLflow, no logs.
`--device cpu` and `--requests 256` try its form where there is no GPU. Ends with 1 where a parity is not kept.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, cast, get_args

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from prerank.benchmarks.made_up import FEATURES, STATS, WIDTH, write_samples
from prerank.core.storage import parquet
from prerank.models import checkpoint
from prerank.models.batch import Batch
from prerank.models.checkpoint import State
from prerank.models.distill import Distiller
from prerank.models.options import Arm, Distill, Hard, Optim
from prerank.models.ranker import Ranker
from prerank.samples.batches import columns
from prerank.samples.cut import training_batches
from prerank.samples.reader import Reader
from prerank.training import loop
from prerank.training.tables import mark_large

LOSS, GRADIENT, BF16, RESUMED = 1e-4, 1e-3, 1e-2, 1e-3
"""The largest differences from the CPU in float32, as shares: of the loss and of the gradient in float32, of the loss
in bfloat16; and of the resumed weights from those of a run that was not cut, as a GPU sums in any order."""
OF_BARE = 0.8
HARD: tuple[Hard, ...] = get_args(Hard)
NAMES = tuple(feature.name for feature in FEATURES)


@dataclass(frozen=True)
class Found:
    """One figure; `kept`: whether what it should hold does, None where nothing is asked of it."""

    name: str
    value: float
    unit: str
    kept: bool | None = None


def arms() -> dict[str, Arm]:
    """Every loss once, and all that go together."""
    optim, base = Optim(epochs=2, batch=64, epoch_steps=1), Arm("base", NAMES, (256, 128, 64))
    base = replace(base, strategies=("exposed", "low_rank_negatives", "rank_pairs", "bin_pairs"), optim=optim)
    hard = {of: replace(base, hard=of) for of in HARD}
    of_lists = {of: replace(base, hard=of, unexposed_ratio=3.0) for of in ("listwise", "clicks")}
    ways = ("logits", "centred", "softmax")
    distilled = {f"score {on}": Distill(score=1.0, on=cast(Literal["logits"], on)) for on in ways}
    distilled |= {"kl": Distill(kl=1.0), "contrast": Distill(contrast=10.0), "relations": Distill(relations=1.0)}
    distilled |= {"free contrast": Distill(contrast=10.0, head="free", positives="item")}
    distilled |= {"all": Distill(score=1.0, kl=1.0, contrast=10.0, relations=1.0)}
    return hard | of_lists | {name: replace(base, distill=distill) for name, distill in distilled.items()}


class Course:
    """An arm with its samples on a device."""

    def __init__(self, arm: Arm, path: Path, device: torch.device) -> None:
        tables = dict(_row_groups(path))
        reader = Reader((path,), columns(arm, "teacher_score"), arm.optim.batch, tables=tables)
        self.lesson = loop.Lesson(arm, FEATURES, reader, lambda _: {}, "teacher_score")
        torch.manual_seed(0)
        distiller = Distiller(Ranker(FEATURES, arm.widths, STATS), arm, WIDTH)
        mark_large(distiller, device)
        self.device, self.model = device, distiller.to(device)
        self.optimizer, self.state = loop.make_optimizer(self.model, arm), State()

    def epoch(self, model: nn.Module | None = None) -> None:
        fed = loop.feed(self.lesson, self.model, self.state, epochs=self.state.epoch + 1)
        for _ in loop.steps(self.lesson, model or self.model, self.optimizer, self.state, fed):
            pass
        self.wait()
        self.state.epoch, self.state.step = self.state.epoch + 1, 0

    def batches(self, *, packed: bool = True) -> list[Batch]:
        """Of the first epoch; packed: as the loop has them, or each feature by itself."""
        of, pack = self.lesson, self.model.student.embed.packed if packed else dict
        tables = ((0, table) for table in of.reader.epoch(0))
        made = training_batches(tables, of.arm, of.features, of.teacher_score, packed=pack)
        return [batch.to(self.device) for batch in chain.from_iterable(made)]

    def bare(self, batches: list[Batch], model: Callable[..., tuple[torch.Tensor, object]]) -> None:
        for batch in batches:
            with loop.autocast_on(self.device):
                loss, _ = model(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.lesson.arm.optim.clip)
            self.optimizer.step()
        self.wait()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gradient(self, batch: Batch, *, bf16: bool = False) -> tuple[float, torch.Tensor]:
        """The loss of a batch, and its gradient in one vector."""
        autocast = torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()
        self.model.zero_grad(set_to_none=True)
        with autocast:
            loss, _ = self.model(batch.to(self.device))
        loss.backward()
        parts = [
            p.grad.to_dense() if p.grad.is_sparse else p.grad for p in self.model.parameters() if p.grad is not None
        ]
        return float(loss.detach()), torch.cat([part.detach().float().cpu().reshape(-1) for part in parts])


def _row_groups(path: Path) -> list[tuple[tuple[Path, int], pa.Table]]:
    with parquet(path) as file:
        return [((path, index), file.read_row_group(index)) for index in range(file.num_row_groups)]


def parity(path: Path, device: torch.device) -> list[Found]:
    """Of every loss, on the same batch and weights."""
    found = []
    for name, arm in arms().items():
        here, there = Course(arm, path, torch.device("cpu")), Course(arm, path, device)
        batch = here.batches()[0]
        loss, gradient = here.gradient(batch)
        other, other_gradient = there.gradient(batch)
        rough, _ = there.gradient(batch, bf16=True)
        of_gradient = float((other_gradient - gradient).norm() / gradient.norm())
        for what, value, most in (
            ("loss", abs(other / loss - 1), LOSS),
            ("gradient", of_gradient, GRADIENT),
            ("loss in bfloat16", abs(rough / loss - 1), BF16),
        ):
            found.append(Found(f"parity, {name}: {what}", value, f"of the CPU's, at most {most:g}", value <= most))
    return found


def speed(path: Path, device: torch.device, rounds: int) -> list[Found]:
    """Items a second of the loop with all losses beside a bare one on batches that are on the device already."""
    arm = arms()["all"]
    ours, bare = Course(arm, path, device), Course(arm, path, device)
    batches = bare.batches()
    items = sum(len(batch.request_I) for batch in batches)
    turns: dict[str, Callable[[], object]] = {"loop": ours.epoch, "bare": lambda: bare.bare(batches, bare.model)}
    with _one_rank(device):
        if device.type == "cuda":
            turns["compiled"] = _compiled(path, device, batches)
            turns["NCCL, one rank"] = _distributed(path, device)
        seconds, failed = _in_turns(turns, rounds)
    found = [Found(f"{name}: speed", items / taken, "items/s") for name, taken in seconds.items()]
    share = seconds["bare"] / seconds["loop"]
    found.append(Found("loop, of the bare loop's speed", share, f"at least {OF_BARE:g}", share >= OF_BARE))
    found.append(Found("loop: waiting for batches", ours.state.wait_share, "of its time"))
    found.append(Found("loop: a step", 1000 * seconds["loop"] / len(batches), "ms"))
    weights = sum(p.numel() for layer in ours.model.student.layers for p in layer.parameters())
    flops = 6 * weights * items / seconds["bare"]  # a multiplication and an addition, forwards and twice backwards
    found.append(Found("bare: layers' arithmetic", flops / 1e9, "GFLOP/s"))
    found.append(Found("bare: layers' arithmetic", flops / _product_flops(device), "of a large product's in bfloat16"))
    if device.type == "cuda":
        found.append(Found("peak memory", torch.cuda.max_memory_allocated(device) / 2**20, "MiB"))
    return [*found, *(Found(f"{name}: failed, {why}", float("nan"), "") for name, why in failed.items())]


def _compiled(path: Path, device: torch.device, batches: list[Batch]) -> Callable[[], object]:
    course = Course(arms()["all"], path, device)
    model = torch.compile(course.model, dynamic=True)
    return lambda: course.bare(batches, model)


def _distributed(path: Path, device: torch.device) -> Callable[[], object]:
    course = Course(arms()["all"], path, device)
    wrapped = DistributedDataParallel(course.model, device_ids=[device])
    return lambda: course.epoch(wrapped)


@contextmanager
def _one_rank(device: torch.device) -> Iterator[None]:
    """Of NCCL, where there is a GPU."""
    if device.type != "cuda":
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("nccl", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def _product_flops(device: torch.device) -> float:
    """Operations a second of one large product of matrices in bfloat16: what the card does at best."""
    n = 8192 if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        float((a @ a)[0, 0])  # waits for it
        seconds.append(time.perf_counter() - begun)
    return 2 * n**3 / min(seconds)


def _in_turns(turns: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], dict[str, str]]:
    """The medians after one round that is not counted, and what failed, for which nothing here is needed."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    failed: dict[str, str] = {}
    for _ in range(rounds + 1):
        for name in [name for name in turns if name not in failed]:
            begun = time.perf_counter()
            try:
                turns[name]()
            except Exception as error:
                if name in ("loop", "bare"):
                    raise
                failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(of[1:]) for name, of in seconds.items() if name not in failed}, failed


def resumed(path: Path, device: torch.device) -> Found:
    """Two epochs against one, its checkpoint, and another from there."""
    arm = arms()["all"]
    whole, cut, after = (Course(arm, path, device) for _ in range(3))
    whole.epoch()
    whole.epoch()
    cut.epoch()
    with tempfile.TemporaryDirectory() as name:
        checkpoint.save_state(Path(name), "cut", cut.state, cut.model, cut.optimizer, {})
        after.state, _ = checkpoint.load_state(Path(name), "cut", after.model, after.optimizer)
    after.epoch()
    pairs = zip(whole.model.state_dict().values(), after.model.state_dict().values(), strict=True)
    worst = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs if a.is_floating_point())
    most = RESUMED if device.type == "cuda" else 0.0
    return Found("resumed weights", worst, f"from those of one run, at most {most:g}", worst <= most)


def measured(device: torch.device, *, requests: int, items: int, rounds: int) -> dict[str, object]:
    """All figures, with the card."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.parquet"
        write_samples(path, requests, items)
        found = [*parity(path, device), *speed(path, device, rounds), resumed(path, device)]
    return {"device": card, "torch": torch.__version__, "figures": [asdict(one) for one in found]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--requests", type=int, default=4096)
    parser.add_argument("--items", type=int, default=100, help="of a request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that torch can use; --device cpu tries the form of the figures")
    said = measured(torch.device(asked.device), requests=asked.requests, items=asked.items, rounds=asked.rounds)
    print(f"{said['device']}, torch {said['torch']}")
    figures = cast(list[dict[str, object]], said["figures"])
    for one in figures:
        kept = {True: "kept", False: "NOT KEPT", None: ""}[cast(bool | None, one["kept"])]
        print(f"{one['name']:44} {one['value']:14.6g} {one['unit']}  {kept}")
    if asked.out:
        asked.out.write_text(json.dumps(said, indent=1))
    return int(any(one["kept"] is False and str(one["name"]).startswith(("parity", "resumed")) for one in figures))


if __name__ == "__main__":
    sys.exit(main())
