"""Images, ports, paths, options and times in deploy/ are those of the code."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from asgictl.config import SILENT_SECONDS, Bind
from tests.conftest import Machine, free_port, until
from tests.deploy.manifests import DEPLOY, built, module, of_kind, python, roles, run, tool

OVERLAYS = pytest.mark.parametrize("overlay", ["base", "keda"])
SCALED_OBJECT = Path(__file__).with_name("scaled_object.schema.json")
DOCKERFILE = (DEPLOY.parent / "Dockerfile").read_text()


@OVERLAYS
def test_objects_are_what_kubernetes_and_keda_take(overlay: str, tmp_path: Any) -> None:
    module("kubernetes_validate")
    module("check_jsonschema")
    own = [each for each in re.split(r"^---\n", built(overlay), flags=re.M) if "keda.sh/" not in each]
    (tmp_path / "objects.yaml").write_text("---\n".join(own))
    python("kubernetes_validate", "--strict", "--quiet", tmp_path / "objects.yaml")
    scaled = of_kind("ScaledObject", overlay)
    assert len(scaled) == (2 if overlay == "keda" else 0)
    for name, each in scaled.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(each))
        python("check_jsonschema", "--schemafile", SCALED_OBJECT, tmp_path / f"{name}.json")


def test_keda_alone_has_the_count_of_what_it_scales() -> None:
    deployments = of_kind("Deployment", "keda")
    for each in of_kind("ScaledObject", "keda").values():
        assert "replicas" not in deployments.pop(each["spec"]["scaleTargetRef"]["name"])["spec"]
    assert [each["spec"]["replicas"] for each in deployments.values()] == [2]


def test_compose_is_what_its_schema_says() -> None:
    module("check_jsonschema")
    python("check_jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_systemd_takes_the_units(tmp_path: Any) -> None:
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text().replace("/opt/asgictl/bin/asgictl", "/bin/true")  # which must exist
        (tmp_path / path.name.replace("@.", "@1.")).write_text(text)
    run(tool("systemd-analyze"), "verify", "--man=no", *tmp_path.iterdir())


def test_each_role_is_a_command_with_its_options_and_has_the_time_that_its_stop_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for role in roles():
        with monkeypatch.context() as patch:
            options = role.parsed(patch)
        assert role.needed_seconds(options) < role.stop_seconds, role.where
        if "redis" in options:
            assert options["name"] == "mysite", role.where


@pytest.mark.slow
def test_roles_as_pods_run_them_answer_their_probes(machine: Machine, url_of_valkey: str, tmp_path: Path) -> None:
    """With ports of their own."""
    (tmp_path / "app.py").write_text(
        "from asgictl import Application\napp = Application(http=print, background={'job': print})\n"
    )
    machine.directory = tmp_path
    machine.environment["ASGICTL_TARGET"] = "app:app"
    running, probed = [], []
    try:
        for each in of_kind("Deployment").values():
            (container,) = each["spec"]["template"]["spec"]["containers"]
            port = free_port()
            ports = {"0.0.0.0:8000": f"127.0.0.1:{machine.port}", "0.0.0.0:9000": f"127.0.0.1:{port}"}
            arguments = [ports.get(word, word) for word in container["args"]]
            running.append(machine.popen(*arguments, "--redis", url_of_valkey, "--name", "mysite"))
            for probe in ("livenessProbe", "readinessProbe"):
                probed.append(f"http://127.0.0.1:{port}{container[probe]['httpGet']['path']}")
        for url in probed:
            until(lambda: answers(url), f"{url} answers")  # noqa: B023 - not kept
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate(timeout=60)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=60) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_pods_are_of_the_dockerfiles_image() -> None:
    """ENTRYPOINT is asgictl, so arguments are a role's; USER is the uid; and nothing is written but below /tmp."""
    uid = int(re.findall(r"useradd --uid (\d+)", DOCKERFILE)[0])
    assert 'ENTRYPOINT ["asgictl"]' in DOCKERFILE
    for each in of_kind("Deployment").values():
        pod = each["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsUser"] == uid
        assert container["image"] == "mysite:1"
        assert "command" not in container


def test_ports_are_those_that_are_listened_on() -> None:
    exposed = re.findall(r"^EXPOSE (\d+)", DOCKERFILE, re.M)
    for name, each in of_kind("Deployment").items():
        template = each["spec"]["template"]
        (container,) = template["spec"]["containers"]
        given = dict(zip(container["args"], container["args"][1:], strict=False))
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        listened = {"probe": given["--probe-port"].rpartition(":")[2]}
        if name == "interface":
            listened["http"] = Bind(given["--bind"]).url.rpartition(":")[2]
            assert [listened["http"]] == exposed
        assert ports == listened
        assert template["metadata"]["annotations"]["prometheus.io/port"] == listened["probe"]
        assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} == {"probe"}
    (service,) = of_kind("Service").values()
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    for name, policy in of_kind("NetworkPolicy").items():
        named = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert named == ({"http", "probe"} if name == "interface" else {"probe"})


def test_probes_leave_time_to_processes_and_balancers() -> None:
    for name, each in of_kind("Deployment").items():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        live, ready = container["livenessProbe"], container["readinessProbe"]
        assert live["periodSeconds"] * live["failureThreshold"] > 2 * SILENT_SECONDS, "it ends itself before"
        if name == "interface":
            delay = float(container["args"][container["args"].index("--shutdown-delay") + 1])
            assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < delay
