"""The files of cluster/: against the schemas of KubeRay, Kubernetes and `ray up`, and against rules of our own.

No cluster is asked. Each check is also given a manifest with a planted fault, which it has to find.
"""

import copy
import importlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from guides import commands, parsed
from jsonschema import Draft202012Validator

from prerank.core.errors import InputError

pytestmark = pytest.mark.slow  # reads the schemas of KubeRay, and starts MLflow's server

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared/data/kuberay-crds"))
GUIDE = (CLUSTER / "README.md").read_text()
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LOCKED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
KUBERNETES = kubernetes_validate.latest_version()
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|AUTH\b|CREDENTIAL|_KEY|BACKEND_STORE_URI", re.IGNORECASE)
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

Object = dict[str, Any]


def manifests() -> list[Object]:
    """All objects of Kubernetes in cluster/, each a copy of its own."""
    files = [path for path in sorted(CLUSTER.glob("*.yaml")) if path.name not in ("ray-up.yaml", "runtime_env.yaml")]
    return [copy.deepcopy(found) for path in files for found in yaml.load_all(path.read_text(), yaml.CSafeLoader)]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(found for found in objects if (found["kind"], found["metadata"]["name"]) == (kind, name))


def cluster_of(found: Object) -> Object | None:
    """The cluster that an object of KubeRay describes."""
    if found["kind"] == "RayCluster":
        return found["spec"]
    return found["spec"].get("rayClusterSpec") if found["kind"] == "RayJob" else None


def groups(found: Object) -> Iterator[Object]:
    spec = cluster_of(found)
    if spec:
        yield spec["headGroupSpec"]
        yield from spec.get("workerGroupSpecs", [])


def templates(found: Object) -> Iterator[tuple[str, Object]]:
    """The pods that an object makes, by a name for messages."""
    name = found["metadata"]["name"]
    if found["kind"] in ("Deployment", "StatefulSet"):
        yield name, found["spec"]["template"]
    for group in groups(found):
        yield f"{found['kind']} {name} {group.get('groupName', 'head')}", group["template"]
    if "submitterPodTemplate" in found.get("spec", {}):
        yield f"{name} submitter", found["spec"]["submitterPodTemplate"]


def walk(value: Any) -> Iterator[Object]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from walk(inner)


def quantity(value: str | int) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(value)).groups()
    return float(number) * UNITS[unit]


# Schemas


def closed(schema: Object) -> Object:
    """A schema of a CRD as JSON Schema that refuses keys it does not name, where Kubernetes would drop them."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema = {"additionalProperties": False, **schema}
    inner = {key: closed(value) for key, value in schema.items() if key in ("items", "additionalProperties") and value}
    properties = {key: closed(value) for key, value in schema.get("properties", {}).items()}
    return {**schema, **inner, **({"properties": properties} if properties else {})}


@cache
def crd(kind: str) -> Draft202012Validator:
    return Draft202012Validator(closed(json.loads((CRDS / f"{kind.lower()}s.v1.json").read_text())))


def schema_faults(found: Object) -> list[str]:
    """What the schemas of KubeRay or Kubernetes say against an object and its pods."""
    faults = []
    checks = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod} for _, pod in templates(found)]
    if found["apiVersion"] != "ray.io/v1":
        checks.append(found)
    elif CRDS.is_dir():
        faults += [f"{error.json_path}: {error.message}" for error in crd(found["kind"]).iter_errors(found)]
    for check in checks:
        try:
            kubernetes_validate.validate(check, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{error.json_path}: {error.message}")
    return faults


@pytest.mark.parametrize("found", manifests(), ids=lambda found: f"{found['kind']}-{found['metadata']['name']}")
def test_manifests_fit_their_schemas(found):
    assert schema_faults(found) == []
    if found["apiVersion"] == "ray.io/v1" and not CRDS.is_dir():
        pytest.skip("all but its pods: the schemas of KubeRay are not here, set KUBERAY_CRDS")


def data_pod(cluster: Object) -> Object:
    return cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]


@pytest.mark.parametrize(
    ("kind", "name", "plant", "said"),
    [
        ("RayCluster", "prerank", lambda c: c["spec"]["workerGroupSpecs"][0].update(minReplica=1), "minReplica"),
        ("RayCluster", "prerank", lambda c: c["spec"]["authOptions"].update(mode="tokens"), "tokens"),
        ("RayCluster", "prerank", lambda c: c["spec"]["workerGroupSpecs"][0].pop("groupName"), "groupName"),
        ("RayCluster", "prerank", lambda c: data_pod(c)["containers"][0].update(volumeMount=[]), "volumeMount"),
        ("RayCluster", "prerank", lambda c: data_pod(c)["containers"][0].pop("name"), "name"),
        ("RayJob", "prerank-pipeline", lambda j: j["spec"].update(backOffLimit=1), "backOffLimit"),
        ("RayJob", "prerank-pipeline", lambda j: j["spec"].update(backoffLimit="three"), "three"),
        ("Service", "prerank-mlflow", lambda s: s["spec"].update(typ="ClusterIP"), "typ"),
        ("StatefulSet", "prerank-redis", lambda s: s["spec"].pop("selector"), "selector"),
    ],
)
def test_schemas_find_planted_faults(kind, name, plant, said):
    if kind.startswith("Ray") and not CRDS.is_dir():
        pytest.skip("the schemas of KubeRay are not here: set KUBERAY_CRDS")
    found = named(manifests(), kind, name)
    plant(found)
    assert any(said in fault for fault in schema_faults(found))


def ray_up_faults(config: Object) -> str:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(config))
    except (ValidationError, ValueError) as error:
        return str(error)
    return ""


def ray_up() -> Object:
    return yaml.load((CLUSTER / "ray-up.yaml").read_text(), yaml.CSafeLoader)


def test_ray_up_is_what_ray_expects():
    assert ray_up_faults(ray_up()) == ""
    assert "idle_timeout" in ray_up_faults(ray_up() | {"idle_timeout": 3})
    assert "head_node_type" in ray_up_faults(ray_up() | {"head_node_type": "other"})
    assert "many" in ray_up_faults(ray_up() | {"max_workers": "many"})


def test_ray_up_exposes_nothing_and_runs_no_task_on_the_head():
    config = ray_up()
    head, *workers = config["available_node_types"].values()
    assert head["resources"] == {"CPU": 0}
    for kind in (head, *workers):  # without them Ray makes a group that lets in SSH from everywhere
        assert kind["node_config"]["SecurityGroupIds"] and kind["node_config"]["SubnetIds"]
    assert all(kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for kind in workers)
    assert "InstanceMarketOptions" not in head["node_config"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in workers)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert not any(SECRET.search(option.partition("=")[0]) for option in config["docker"]["run_options"])


# Rules of our own


def rule_faults(objects: list[Object]) -> list[str]:
    """What our rules say against the objects."""
    faults = []
    for found in objects:
        kind, name = found["kind"], found["metadata"]["name"]
        if kind != "Namespace" and found["metadata"].get("namespace") != "prerank":
            faults.append(f"{kind} {name}: not in the namespace")
        if kind in ("Secret", "Ingress"):
            faults.append(f"{kind} {name}: not to be in a manifest")
        if kind == "Service" and found["spec"].get("type") != "ClusterIP":
            faults.append(f"Service {name}: not ClusterIP")
        faults += [f"{kind} {name}: {fault}" for fault in literal_secrets(found)]
        for where, pod in templates(found):
            faults += [f"{where}: {fault}" for fault in pod_faults(pod["spec"])]
            is_head = where.endswith("head")  # its autoscaler talks to Kubernetes
            if not is_head and pod["spec"].get("automountServiceAccountToken") is not False:
                faults.append(f"{where}: has a token of Kubernetes")
        spec = cluster_of(found)
        if spec:
            faults += [f"{kind} {name}: {fault}" for fault in cluster_faults(spec)]
    faults += address_faults(objects)
    return faults


def literal_secrets(found: Object) -> Iterator[str]:
    for inner in walk(found):
        if SECRET.search(str(inner.get("name", ""))) and "value" in inner:
            yield f"{inner['name']} is written down"
        for key in ("redisPassword", "redisUsername"):
            if "value" in inner.get(key, {}):
                yield f"{key} is written down"
        for value in inner.values():
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and re.search(r"://[^/\s]*:[^/\s]*@", text) for text in texts):
                yield f"a password in {value}"


def pod_faults(pod: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")) or any(
        "hostPath" in volume for volume in pod.get("volumes", [])
    ):
        yield "reaches the host"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        yield from (f"{container['name']} {fault}" for fault in container_faults(container, pod))
        image, tag = re.fullmatch(r"(.*?)(?::([\w.-]+))?", container["image"]).groups()
        if tag in (None, "latest"):
            yield f"{container['name']}: no version in {image}"
        if "prerank" in image and tag != VERSION:
            yield f"{container['name']}: image {tag}, version {VERSION}"
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        claims = {"data"} if "postgres" in image or "redis" in image else set()
        if not mounted <= volumes | claims:
            yield f"{container['name']} mounts {mounted - volumes}, which is not there"


def container_faults(container: Object, pod: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = pod.get("securityContext", {}) | own
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        yield "may be root"
    if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "may gain privileges"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    for which in ("requests", "limits"):
        missing = {"cpu", "memory"} - container.get("resources", {}).get(which, {}).keys()
        if missing:
            yield f"has no {which} of {', '.join(sorted(missing))}"


def cluster_faults(spec: Object) -> Iterator[str]:
    if spec["rayVersion"] != LOCKED["ray"]:
        yield f"rayVersion {spec['rayVersion']}, tested with {LOCKED['ray']}"
    if spec.get("authOptions", {}).get("mode") != "token":
        yield "no token"
    head = spec["headGroupSpec"]
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "tasks on the head"
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress"):
        yield "the head is exposed"
    options = spec["autoscalerOptions"]
    yield from (f"autoscaler {fault}" for fault in container_faults(options, head["template"]["spec"]))
    for group in (head, *spec["workerGroupSpecs"]):
        name, pod = group.get("groupName", "head"), group["template"]["spec"]
        container = pod["containers"][0]
        mount = next((m["name"] for m in container.get("volumeMounts", []) if m["mountPath"] == "/dev/shm"), None)
        shm = next((v["emptyDir"] for v in pod["volumes"] if v["name"] == mount and "emptyDir" in v), {})
        store = int(group["rayStartParams"].get("object-store-memory", 0))
        if shm.get("medium") != "Memory" or not 0 < store <= quantity(shm.get("sizeLimit", 0)):
            yield f"{name}: /dev/shm does not hold the object store"
        if quantity(shm.get("sizeLimit", 0)) >= quantity(container["resources"]["limits"]["memory"]):
            yield f"{name}: /dev/shm takes all memory"
        if name != "head" and not any("spot" in str(toleration) for toleration in pod.get("tolerations", [])):
            yield f"{name}: not on spot machines"


def address_faults(objects: list[Object]) -> Iterator[str]:
    """Every host of ours that is named is a service, and every selector finds a pod."""
    services = [found for found in objects if found["kind"] == "Service"]
    there = {f"{s['metadata']['name']}:{port['port']}" for s in services for port in s["spec"]["ports"]}
    for address in sorted(set(re.findall(r"prerank-[a-z-]+:\d+", yaml.safe_dump_all(objects) + GUIDE))):
        if address not in there:
            yield f"{address} is no service"
    labels = [pod.get("metadata", {}).get("labels", {}) for found in objects for _, pod in templates(found)]
    for found in objects:
        wanted = found["spec"].get("selector") if found["kind"] == "Service" else None
        if found["kind"] == "NetworkPolicy":
            wanted = found["spec"]["podSelector"].get("matchLabels")
        if wanted and "ray.io/is-ray-node" not in wanted and not any(wanted.items() <= have.items() for have in labels):
            yield f"{found['kind']} {found['metadata']['name']} selects no pod"


def test_manifests_keep_our_rules():
    assert rule_faults(manifests()) == []


def mlflow_pod(objects: list[Object]) -> Object:
    return named(objects, "Deployment", "prerank-mlflow")["spec"]["template"]["spec"]


def ray_spec(objects: list[Object]) -> Object:
    return named(objects, "RayCluster", "prerank")["spec"]


def service(objects: list[Object]) -> Object:
    return named(objects, "Service", "prerank-mlflow")["spec"]


def data_group(objects: list[Object]) -> Object:
    return ray_spec(objects)["workerGroupSpecs"][0]


LEAK = {"name": "DB_PASSWORD", "value": "planted"}


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda o: mlflow_pod(o)["securityContext"].pop("runAsNonRoot"), "prerank-mlflow: mlflow may be root"),
        (lambda o: mlflow_pod(o)["containers"][0]["securityContext"].update(runAsUser=0), "may be root"),
        (lambda o: mlflow_pod(o)["containers"][0].pop("securityContext"), "mlflow may gain privileges"),
        (lambda o: mlflow_pod(o)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda o: mlflow_pod(o)["containers"][0]["resources"].pop("limits"), "has no limits of cpu, memory"),
        (lambda o: mlflow_pod(o)["containers"][0]["resources"]["requests"].pop("cpu"), "has no requests of cpu"),
        (lambda o: mlflow_pod(o)["containers"][0].update(image="REGISTRY/prerank:0.0.9"), "image 0.0.9"),
        (lambda o: mlflow_pod(o)["containers"][0].update(image="redis"), "no version in redis"),
        (lambda o: mlflow_pod(o)["containers"][0]["env"].append(LEAK), "DB_PASSWORD is written down"),
        (lambda o: mlflow_pod(o)["containers"][0]["command"].append("--x=a://u:p@h"), "a password in"),
        (lambda o: mlflow_pod(o).update(hostNetwork=True), "reaches the host"),
        (lambda o: mlflow_pod(o).pop("automountServiceAccountToken"), "has a token of Kubernetes"),
        (lambda o: mlflow_pod(o).pop("volumes"), "mounts {'tmp'}, which is not there"),
        (lambda o: service(o).update(type="LoadBalancer"), "Service prerank-mlflow: not ClusterIP"),
        (lambda o: service(o).update(selector={"app": "other"}), "prerank-mlflow selects no pod"),
        (lambda o: service(o)["ports"][0].update(port=5001), "prerank-mlflow:5000 is no service"),
        (
            lambda o: o.append({"kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}, "spec": {}}),
            "Secret x: not to be in a manifest",
        ),
        (lambda o: ray_spec(o)["gcsFaultToleranceOptions"]["redisPassword"].update(value="p"), "redisPassword is"),
        (lambda o: ray_spec(o).update(rayVersion="2.59.0"), "rayVersion 2.59.0"),
        (lambda o: ray_spec(o).pop("authOptions"), "no token"),
        (lambda o: ray_spec(o)["headGroupSpec"].update(serviceType="NodePort"), "the head is exposed"),
        (lambda o: ray_spec(o)["headGroupSpec"]["rayStartParams"].pop("num-cpus"), "tasks on the head"),
        (lambda o: ray_spec(o)["autoscalerOptions"].pop("securityContext"), "autoscaler may gain privileges"),
        (lambda o: data_group(o)["template"]["spec"]["tolerations"].clear(), "data: not on spot"),
        (lambda o: data_group(o)["template"]["spec"]["containers"][0]["volumeMounts"].pop(0), "data: /dev/shm does"),
        (lambda o: data_group(o)["rayStartParams"].update({"object-store-memory": str(11 << 30)}), "data: /dev/shm"),
        (
            lambda o: data_group(o)["template"]["spec"]["containers"][0]["resources"]["limits"].update(memory="9Gi"),
            "data: /dev/shm takes all memory",
        ),
    ],
)
def test_rules_find_planted_faults(plant, said):
    objects = manifests()
    plant(objects)
    assert any(said in fault for fault in rule_faults(objects)), rule_faults(objects)


def test_the_job_brings_the_cluster_that_stays():
    objects = manifests()
    stays, job = ray_spec(objects), named(objects, "RayJob", "prerank-pipeline")["spec"]
    stays.pop("gcsFaultToleranceOptions")
    assert job["rayClusterSpec"] == stays
    assert job["backoffLimit"] > 0 and job["shutdownAfterJobFinishes"]
    environment = yaml.safe_load(job["runtimeEnvYAML"])
    assert environment.keys() <= {"env_vars", "working_dir"}
    assert not any(SECRET.search(name) for name in environment["env_vars"])


def test_the_job_finds_room_on_the_cluster():
    """Its workers fit on what the groups can grow to, and each on one pod."""
    job = named(manifests(), "RayJob", "prerank-pipeline")["spec"]
    config = parsed(job["entrypoint"])
    group = next(g for g in job["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "train")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert config.compute.gpu and config.compute.workers <= group["maxReplicas"] * int(limits["nvidia.com/gpu"])
    assert config.compute.lanes % config.compute.workers == 0 and config.compute.cpus <= int(limits["cpu"])


def test_mlflow_lets_in_those_who_are_sent_to_it():
    from mlflow.server.security_utils import is_allowed_host_header

    objects = manifests()
    (allowed,) = (a for a in mlflow_pod(objects)["containers"][0]["command"] if a.startswith("--allowed-hosts="))
    hosts = allowed.partition("=")[2].split(",")
    env = ray_spec(objects)["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    sent_to = next(entry["value"] for entry in env if entry["name"] == "MLFLOW_TRACKING_URI").partition("://")[2]
    assert all(is_allowed_host_header(hosts, host) for host in (sent_to, "127.0.0.1:5000", "localhost:5000"))
    assert not any(is_allowed_host_header(hosts, host) for host in ("evil.example", "prerank-mlflow.evil:5000"))


# The guide


LINES = commands(GUIDE)


def secrets_made(lines: list[str]) -> set[tuple[str, str]]:
    made = set()
    for line in lines:
        name = re.search(r"create secret generic (\S+)", line)
        made |= {(name[1], key) for key in re.findall(r"(?:--from-file=|[' n])(\w+)=[%$]", line)} if name else set()
    return made


def secrets_used(objects: list[Object]) -> set[tuple[str, str]]:
    refs = [inner["secretKeyRef"] for inner in walk(objects) if "secretKeyRef" in inner]
    tokens = {inner["secretName"] for inner in walk(objects) if "secretName" in inner}
    return {(ref["name"], ref["key"]) for ref in refs} | {(name, "auth_token") for name in tokens}


def test_the_guide_makes_every_secret_and_no_other():
    used = secrets_used(manifests())
    assert secrets_made(LINES) == used
    assert len({name for name, _ in used}) == 4
    without = [line for line in LINES if "prerank-redis " not in line]
    assert used - secrets_made(without) == {("prerank-redis", "password")}


RUN = [line for line in LINES if "python -m workflows." in line]


@pytest.mark.parametrize("command", RUN, ids=lambda line: re.search(r"workflows\.\w+", line)[0])
def test_commands_of_the_guide_parse(command):
    config = parsed(command)
    if hasattr(config, "check"):
        config.check()


def test_a_flag_that_is_not_there_is_found():
    with pytest.raises(InputError, match=r"Unrecognized options: --compute.worker, 4"):
        parsed("python -m workflows.pipeline --logs a --out b --compute.worker 4")
    assert len(RUN) == 5


def tool(line: str) -> None:
    """Parses a command line of `ray` or `mlflow`, and runs nothing; raises click's errors."""
    name, *words = shlex.split(line)
    command = importlib.import_module({"mlflow": "mlflow.cli", "ray": "ray.scripts.scripts"}[name]).cli
    while isinstance(command, click.Group):
        name = words.pop(0)
        command = command.get_command(click.Context(command), name)
    command.make_context(name, words)


def tool_lines() -> list[str]:
    lines = [re.sub(r"(\s*(&|> /dev/null|#.*))+$", "", line) for line in LINES]
    config = ray_up()
    lines += [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    lines.append(shlex.join(mlflow_pod(manifests())["containers"][0]["command"]))
    return [line for line in lines if line.startswith(("ray ", "mlflow "))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own modules
def test_command_lines_of_ray_and_mlflow_parse():
    lines = tool_lines()
    assert {" ".join(line.split()[:2]) for line in lines} >= {"ray start", "ray job", "ray up", "ray down", "mlflow ui"}
    for line in lines:
        tool(line)
    with pytest.raises(click.NoSuchOption):
        tool("ray start --head --dashboard-hosts 127.0.0.1")
    with pytest.raises(click.NoSuchOption):
        tool("mlflow server --allowed-host x")


def test_the_guide_lists_every_file():
    files = {path.name for path in CLUSTER.iterdir() if path.is_file()} - {"README.md"}
    assert files <= set(re.findall(r"^\| `([\w.-]+)` \|", GUIDE, re.MULTILINE))


# The image


def test_the_image_has_the_versions_that_were_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = re.search(r"^FROM python:([\d.]+)-slim$", DOCKERFILE, re.MULTILINE)[1]
    assert f"(Python {python})" in (ROOT / "constraints.txt").read_text()
    instructions = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for install in re.findall(r"pip install ([^&\n]*)", instructions):
        assert "-c constraints.txt" in install or install.split() == ["--no-deps", "."]
    assert all(LOCKED[name] == version for name, version in re.findall(r"([\w-]+)==([\w.]+)", instructions))
    wanted = [re.match(r"[\w-]+", line)[0] for line in project["dependencies"]]
    assert {"boto3", "psycopg2-binary", *wanted} <= {name.lower() for name in LOCKED}


def test_the_image_is_not_root_and_has_no_secret():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000"]
    assert not SECRET.search("\n".join(re.findall(r"^(?:ARG|ENV) .*$", DOCKERFILE, re.MULTILINE)))
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source for sources in copied for source in sources} == let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_every_file_names_the_same_version():
    for path in CLUSTER.iterdir():
        for tag in re.findall(r"/prerank:(\S+?)`?(?=\s|$)", path.read_text()):
            assert tag == VERSION, f"{path.name}: {tag}"
