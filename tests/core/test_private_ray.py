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
    *(
        "ray",
        "ray.actor",
        "ray.data",
        "ray.exceptions",
        "ray.train",
        "ray.train.torch",
        "ray.util.scheduling_strategies",
    ),
    *("ray.tune", "ray.tune.experiment", "ray.tune.logger", "ray.tune.schedulers"),
    *("ray.tune.search", "ray.tune.search.optuna"),
}
"""Modules that stand in Ray's reference."""
VARIABLES = {
    *("RAY_ADDRESS", "RAY_AIR_NEW_OUTPUT", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"),
    *("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_STRICT_METRIC_CHECKING", "TUNE_GLOBAL_CHECKPOINT_S"),
    "TUNE_DISABLE_SIGINT_HANDLER",
}
"""Environment variables that do: docs.ray.io, "Environment variables used by Ray Tune", "Ray token authentication"."""


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


@pytest.mark.slow
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


def test_the_trainers():
    import inspect
    import signal

    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    one, several = private.trainer(workers=1), private.trainer(workers=2)
    assert issubclass(several, TorchTrainer) and issubclass(TorchTrainer, DataParallelTrainer)
    assert issubclass(one, DataParallelTrainer) and not issubclass(one, TorchTrainer)
    assert one._get_train_func is TorchTrainer._get_train_func  # the rest is the same
    # Theirs is the one place where a handler is set, and ours sets none.
    source = inspect.getsource(DataParallelTrainer)
    assert source.count("signal.signal(") == 1 and "self._register_sigint_handler(controller)" in source
    assert "signal.signal(" in inspect.getsource(DataParallelTrainer._register_sigint_handler)
    before = signal.getsignal(signal.SIGINT)
    for trainer in (one, several):
        trainer._register_sigint_handler(None, None)
        assert signal.getsignal(signal.SIGINT) is before


def test_ray_sets_no_handler_of_sigterm(monkeypatch):
    import inspect
    import signal

    from ray._private import node, utils, worker

    set_ = utils.set_sigterm_handler
    before = signal.getsignal(signal.SIGTERM)
    with private.signals_left_alone():
        utils.set_sigterm_handler(lambda number, frame: None)
    assert signal.getsignal(signal.SIGTERM) is before and utils.set_sigterm_handler is set_
    for module in (node, worker):  # both call it by this name
        source = inspect.getsource(module)
        assert "ray._private.utils.set_sigterm_handler(" in source and "signal.signal(" not in source


def test_the_loggers_of_tracebacks():
    from ray.data import exceptions
    from ray.data._internal.execution import streaming_executor_state

    assert (exceptions.logger.name, streaming_executor_state.logger.name) == private.TRACEBACK_LOGGERS


def test_errors_that_nobody_asked_for(monkeypatch):
    import inspect

    from ray._private import worker

    monkeypatch.setattr(os, "environ", {})
    private.no_word_of_unhandled_errors()
    (name,) = os.environ
    assert f'"{name}" in os.environ' in inspect.getsource(worker.Worker.raise_errors)


def test_the_names_of_errors():
    import torch
    from ray import exceptions
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    assert all(hasattr(exceptions, name) for name in (*private.OUT_OF_MEMORY, *private.OUT_OF_DISK, *private.KILLED))
    assert torch.OutOfMemoryError.__name__ in private.OUT_OF_MEMORY
    fault = InputError("x")
    assert fault in private.causes(UserExceptionWithTraceback(fault, "traceback"))


def test_the_names_of_sockets(tmp_path):
    from ray._private import node, utils

    fits, longer = f"/{'x' * (private.SOCKET_BYTES - 1)}", f"/{'x' * private.SOCKET_BYTES}"
    utils.validate_socket_filepath(fits)
    with pytest.raises(OSError, match="107 bytes"):
        utils.validate_socket_filepath(longer)
    import inspect

    assert f'"{private.SOCKETS.split("/")[2]}"' in inspect.getsource(node.Node)


def test_the_cluster_of_the_last_start(monkeypatch, tmp_path):
    from ray._private import utils

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert private.folder_of_temporary_files() == str(tmp_path)
    (tmp_path / "ray").mkdir()
    assert private.address_of_the_last_start() is None
    utils.write_ray_address("127.0.0.1:6399")
    assert private.address_of_the_last_start() == "127.0.0.1:6399"


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


def test_what_an_error_said_before_ray_wrote_below_it():
    from ray.data._internal.util import _annotate_exception_with_retry_context as annotated

    tried = {"description": "apply UDF transform", "attempts": 1, "max_attempts": 1, "total_backoff_s": 0.0}
    error = annotated(InputError("a.parquet: broken"), exception_str="", **tried)
    assert "retried_map_errors" in str(error) and private.own_words(str(error)) == "a.parquet: broken"
    assert private.own_words("one line\nand another") == "one line\nand another"


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
