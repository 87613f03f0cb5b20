"""Where a release of Ray has moved what we use of its internals, one of these fails; so does a use in another file."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import prerank
from prerank.core.cluster import private
from prerank.core.errors import InputError

ROOT = Path(prerank.__file__).parents[1]
PRIVATE = Path(private.__file__)

DOCUMENTED = {
    *("ray", "ray.actor", "ray.data", "ray.train", "ray.train.torch", "ray.util.scheduling_strategies"),
    *("ray.tune", "ray.tune.experiment", "ray.tune.logger", "ray.tune.schedulers"),
    *("ray.tune.search", "ray.tune.search.optuna"),
}
"""Modules that stand in Ray's reference."""
VARIABLES = {
    *("RAY_ADDRESS", "RAY_AIR_NEW_OUTPUT"),
    *("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_STRICT_METRIC_CHECKING", "TUNE_GLOBAL_CHECKPOINT_S"),
}
"""Environment variables that do: docs.ray.io, "Environment variables used by Ray Tune"."""


def undocumented(tree: ast.AST) -> Iterator[str]:
    """What a file uses of Ray that its reference does not have."""
    of_ray = {"ray"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "ray":
            for alias in node.names:
                of_ray.add(alias.asname or alias.name)
                if node.module not in DOCUMENTED or alias.name.startswith("_"):
                    yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ray":
                    of_ray.add(alias.asname or "ray")
                    if alias.name not in DOCUMENTED:
                        yield alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"(RAY|TUNE)_[A-Za-z_]+", node.value) and node.value not in VARIABLES:
                yield node.value
            if re.fullmatch(r"ray\.[a-z_.]*\b_[a-z_.]+", node.value):
                yield node.value
    for node in ast.walk(tree):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"[\w.]+", dotted) and dotted.split(".")[0] in of_ray and "._" in dotted:
            yield dotted


def test_no_other_file_uses_what_ray_does_not_document():
    files = [path for top in ("prerank", "workflows", "tune_spaces") for path in (ROOT / top).rglob("*.py")]
    assert PRIVATE in files and len(files) > 100
    found = {str(path.relative_to(ROOT)): set(undocumented(ast.parse(path.read_text()))) for path in files}
    assert {path for path, uses in found.items() if uses} == {str(PRIVATE.relative_to(ROOT))}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("def f():\n    from ray._private import ray_constants", "ray._private.ray_constants"),
        ("import ray.train.v2._internal.constants as c", "ray.train.v2._internal.constants"),
        ("if TYPE_CHECKING:\n    from ray.tune.search.sample import Domain", "ray.tune.search.sample.Domain"),
        ("from ray.data import _internal", "ray.data._internal"),
        ("import ray\nray._private.worker.global_worker", "ray._private.worker"),
        ("from ray import tune\ntune.Tuner._local_tuner", "tune.Tuner._local_tuner"),
        ("import os\nos.environ['RAY_TRAIN_HEALTH_CHECK_INTERVAL_S'] = '1'", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"),
        ("logging.getLogger('ray._private.worker')", "ray._private.worker"),
    ],
)
def test_a_planted_use_is_found(planted, found):
    assert found in set(undocumented(ast.parse(planted)))


def test_a_cluster_of_this_process_listens_on_loopback(monkeypatch):
    from ray._private import ray_constants, services

    monkeypatch.setenv(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "1")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr("ray._private.worker._global_node", None)
    private.listen_on_loopback()
    assert services.get_node_ip_address() == "127.0.0.1"  # of this process
    assert not ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, True)  # of those that it starts


def test_the_logger_of_the_token():
    from ray._private.authentication import authentication_token_setup

    assert authentication_token_setup.logger.name == private.TOKEN_LOGGER


def test_a_jobs_copy_of_its_working_directory(tmp_path):
    from ray._private import ray_constants
    from ray._private.runtime_env.working_dir import WorkingDirPlugin

    resources = tmp_path / ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME
    WorkingDirPlugin(str(resources), None)
    (there,) = resources.iterdir()
    assert there.relative_to(tmp_path).parts == private.JOB_FOLDERS


def test_no_secret_is_shipped_with_a_trial(monkeypatch):
    from ray.tune import Trainable
    from ray.tune.execution import class_cache

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted")

    def shipped() -> dict[str, str]:
        return class_cache._ActorClassCache().get(Trainable)._default_options["runtime_env"]["env_vars"]

    assert "planted" in shipped().values()
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", {*class_cache.ENV_VARS_TO_PROPAGATE})
    private.ship_no_secrets()
    assert shipped() and "planted" not in shipped().values()


def test_the_variables_that_ray_reads(monkeypatch):
    import inspect

    from ray.train.v2._internal.execution.controller import controller
    from ray.tune.execution import experiment_state

    monkeypatch.setattr(os, "environ", {})
    private.report_without_waiting()
    private.keep_every_checkpoint_quietly()
    of_train, of_tune = os.environ
    assert of_train == controller.HEALTH_CHECK_INTERVAL_S_ENV_VAR
    assert "HEALTH_CHECK_INTERVAL_S_ENV_VAR" in inspect.getsource(controller.TrainController)
    assert f'"{of_tune}"' in inspect.getsource(experiment_state)


def test_the_trainer_without_a_process_group():
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    trainer = private.trainer_without_process_group()
    assert trainer is DataParallelTrainer and issubclass(TorchTrainer, trainer)
    assert trainer._get_train_func is TorchTrainer._get_train_func  # the rest is the same


def test_the_file_that_lists_the_checkpoints_of_a_training(tmp_path):
    from ray.train.v2._internal.execution.storage import StorageContext

    storage = StorageContext(str(tmp_path), experiment_dir_name="run")
    assert Path(storage.checkpoint_manager_snapshot_path) == tmp_path / "run" / private.CHECKPOINTS
    (tmp_path / "run").mkdir(exist_ok=True)
    private.drop_torn(tmp_path / "run")
    assert (tmp_path / "run").exists()
    Path(storage.checkpoint_manager_snapshot_path).write_text('{"a":')
    private.drop_torn(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_space_is_made_of():
    from ray import tune

    assert private.parts_of(tune.choice(["a", "b"])) == ["a", "b"]
    assert private.parts_of(tune.uniform(0.5, 2)) == private.Range(0.5, 2, whole=False, logs=False)
    assert private.parts_of(tune.loguniform(0.5, 2)) == private.Range(0.5, 2, whole=False, logs=True)
    assert private.parts_of(tune.randint(1, 9)) == private.Range(1, 9, whole=True, logs=False)
    assert private.parts_of(tune.lograndint(1, 9)) == private.Range(1, 9, whole=True, logs=True)
    assert private.parts_of(tune.sample_from(lambda spec: 1)) is None


def test_what_an_error_of_ray_was_raised_for():
    from ray.exceptions import RayTaskError
    from ray.train import ControllerError, WorkerGroupError

    fault = InputError("column 'x' is missing")
    for error in (
        RayTaskError("f", "traceback", fault, proctitle="ray::f", pid=1, ip="127.0.0.1"),
        WorkerGroupError("of a worker", {0: fault}),
        ControllerError(fault),
    ):
        assert fault in private.causes(error)
