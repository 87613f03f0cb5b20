"""The check of a GPU in its form, on the CPU, and that it asks for no more than torch, numpy, Arrow and safetensors."""

import json
import subprocess
import sys

import pytest

from prerank.benchmarks import gpu
from prerank.benchmarks.peers.items import items_of
from prerank.models.options import Distill

OTHERS = (
    "ray",
    "mlflow",
    "pydantic",
    "tyro",
    "rich",
    "optuna",
    "onnx",
    "lightgbm",
    "pandas",
    "scipy",
    "yaml",
    "psutil",
)


@pytest.mark.slow
def test_its_form_on_a_cpu(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--requests", "64", "--items", "20", "--rounds", "1", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    found = {one["name"]: one for one in told["figures"]}
    assert told["device"] == "CPU" and found["resumed weights"]["value"] == 0
    assert all(found[f"parity, {name}: gradient"]["value"] == 0 for name in gpu.arms())
    assert 0 < found["parity, all: loss in bfloat16"]["value"] < gpu.BF16
    assert "NOT KEPT" not in capsys.readouterr().out.replace("loop, of the bare", "")[:3000]


def test_it_has_every_loss_once():
    arms = gpu.arms()
    assert {arm.hard for arm in arms.values()} == set(gpu.HARD) | {"listwise", "clicks"}
    weighted = {name for name in vars(Distill()) if any(getattr(arm.distill, name) for arm in arms.values())}
    assert {"score", "kl", "contrast", "relations"} < weighted


@pytest.mark.slow
def test_it_imports_nothing_else():
    blocked = f"import sys; sys.modules.update(dict.fromkeys({OTHERS!r}))"  # None: the import fails
    subprocess.run([sys.executable, "-c", f"{blocked}; import prerank.benchmarks.gpu"], check=True)


def test_no_gpu_is_said(capsys, monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--device cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_items_are_those_of_the_batches(tmp_path):
    gpu.write_samples(tmp_path / "0.parquet", 64, 12)
    course = gpu.Course(gpu.arms()["all"], tmp_path / "0.parquet", gpu.torch.device("cpu"))
    batches = course.batches(packed=False)
    columns, clicked_N = items_of(batches, gpu.FEATURES)
    assert len(clicked_N) == sum(len(batch.request_I) for batch in batches) and clicked_N.sum() == 64
    assert columns["tags"].shape == (len(clicked_N), 3) and columns["item"].min() >= 1
    batch, user = batches[0], batches[0].features["of_user"]
    assert (columns["of_user_3"][: len(batch.request_I)] == user[batch.request_I, 3].numpy()).all()
