"""The control plane in a cluster: its objects are as written down, secret of nothing, and its image has what it needs.

`golden/installing.yaml` is to be read; `DHPY_WRITE_GOLDEN=1` writes it anew. The real cluster is in tests/kubernetes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from digitalhub_python_control.installing import chart, image, manifests
from digitalhub_python_control.installing.manifests import Installation
from digitalhub_python_control.running.kubernetes import rights
from digitalhub_python_control.running.kubernetes.settings import KubernetesSettings
from digitalhub_python_control.settings import ControlSettings
from digitalhub_runtime_python.errors import UsageFault

GOLDEN = Path(__file__).parent / "golden" / "installing.yaml"
GIVEN = Installation(
    "registry.example/team/digitalhub-runtime-python-control:1.0.0",
    namespace="functions",
    storage_class="fast",
    pull_secret="login",
    allow_from=("ingress",),
    settings={"DHPY_IMAGES": "registry.example/team", "DHPY_REGISTRY": "registry.example/functions"},
)  # fmt: skip
CLI = [sys.executable, "-c", "from digitalhub_runtime_python.cli import main; main()", "control-plane", "manifests"]  # fmt: skip


def of_kind(installation: Installation, kind: str) -> dict[str, Any]:
    (found,) = [one for one in manifests.objects(installation) if one["kind"] == kind]
    return found


def environment(installation: Installation) -> dict[str, str]:
    (container,) = of_kind(installation, "Deployment")["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_the_objects_of_a_control_plane_are_as_written_down() -> None:
    made = yaml.safe_dump_all(json.loads(json.dumps(manifests.objects(GIVEN))), sort_keys=False)
    if os.environ.get("DHPY_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text()


def test_its_variables_are_settings_that_the_control_plane_takes() -> None:
    variables = {**environment(GIVEN), "DHPY_TOKEN": "t"}
    control = ControlSettings.from_env(variables)
    cluster = KubernetesSettings.from_env(variables, control)
    cluster.check_callback()
    assert (control.engine, control.port, str(control.home)) == ("kubernetes", 8080, "/var/lib/dhpy/home")  # fmt: skip
    assert cluster.callback == "http://dhpy.functions.svc:8080"
    assert (cluster.instance, cluster.registry) == ("dhpy", "registry.example/functions")


def test_service_policy_and_deployment_mean_the_same_pods_and_the_same_port() -> None:
    deployment = of_kind(GIVEN, "Deployment")
    template = deployment["spec"]["template"]
    (port,) = template["spec"]["containers"][0]["ports"]
    wanted = deployment["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= template["metadata"]["labels"].items()
    assert of_kind(GIVEN, "Service")["spec"]["selector"] == wanted
    policy = of_kind(GIVEN, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == wanted
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]
    assert of_kind(GIVEN, "Service")["spec"]["ports"][0]["targetPort"] == port["name"]


def test_two_installations_in_a_namespace_share_no_object_and_no_run() -> None:
    other = Installation("image", name="other", namespace="functions")
    named = [{(o["kind"], o["metadata"]["name"]) for o in manifests.objects(i)} for i in (GIVEN, other)]  # fmt: skip
    assert not named[0] & named[1]
    assert environment(GIVEN)["DHPY_KUBERNETES_INSTANCE"] != environment(other)["DHPY_KUBERNETES_INSTANCE"]  # fmt: skip


def test_the_account_has_the_rights_that_are_used_and_no_other() -> None:
    assert of_kind(GIVEN, "Role")["rules"] == rights.role("dhpy", "functions")["rules"]
    (subject,) = of_kind(GIVEN, "RoleBinding")["subjects"]
    account = of_kind(GIVEN, "ServiceAccount")["metadata"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


def test_an_address_given_for_pods_goes_before_the_services_own() -> None:
    other = Installation("image", settings={"DHPY_CALLBACK_URL": "https://runs.example"})
    assert environment(other)["DHPY_CALLBACK_URL"] == "https://runs.example"


@pytest.mark.parametrize("variable", sorted(manifests.SECRETS))
def test_a_secret_is_refused_as_a_setting_and_named_without_its_value(variable: str) -> None:
    with pytest.raises(UsageFault, match=variable) as caught:
        Installation("image", settings={variable: "hidden-value"})
    assert "hidden-value" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Dhpy"}, {"name": "1a"}, {"name": "a" * 60}, {"namespace": "a.b"}, {"image": "a b"}, {"image": ""},
        {"storage": "much"}, {"memory": "-1"}, {"cpu": "1 core"}, {"allow_from": ("*",)},
        {"settings": {"DHPY_REGISTRI": "x"}}, {"settings": {"DHPY_HOME": "/x"}},
    ],
)  # fmt: skip
def test_what_a_cluster_would_refuse_or_nothing_would_read_is_refused_before(changes: dict[str, Any]) -> None:  # fmt: skip
    with pytest.raises(UsageFault):
        Installation(**{"image": "image", **changes})


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_value_of_a_setting_comes_through_yaml_as_it_is(value: str) -> None:
    made = manifests.objects(Installation("image", settings={"DHPY_IMAGES": value}))
    assert list(yaml.safe_load_all(yaml.safe_dump_all(made, sort_keys=False))) == made


def test_the_command_prints_what_kubectl_takes() -> None:
    env = {**os.environ, "DHPY_IMAGES": "registry.example/team"}
    done = subprocess.run([*CLI, "--namespace", "functions"], env=env, capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(yaml.safe_load_all(done.stdout)) == manifests.objects(
        Installation(image.reference(env), namespace="functions", settings={"DHPY_IMAGES": "registry.example/team"})
    )  # fmt: skip
    done = subprocess.run([*CLI, "--set", "DHPY_TOKEN=x"], capture_output=True, text=True)
    assert done.returncode == 2 and "the Secret dhpy" in done.stderr


def test_its_image_has_the_packages_with_their_data_and_requirements_with_both_extras() -> None:
    packages = image.packages()
    for name in (
        "digitalhub_python_control/__main__.py", "digitalhub_python_control/console/templates/base.html",
        "digitalhub_python_builder/images/matrix.json", "digitalhub_python_builder/images/locks/3.11-full.txt",
        "digitalhub_runtime_python/entry.py",
    ):  # fmt: skip
        assert name in packages, sorted(n for n in packages if n.endswith(".html"))[:5]
    wanted = " ".join(image.requirements())
    assert "kubernetes" in wanted and "psycopg" in wanted and "extra" not in wanted


# The chart

HELM = shutil.which("helm") or shutil.which("helm", path="/root/go/bin")
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed")


def rendered(folder: Path, release: str, namespace: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:  # fmt: skip
    chart.write(folder / "chart", "team/image:1")
    (folder / "given.yaml").write_text(json.dumps(values))
    command = [str(HELM), "template", release, str(folder / "chart"), "-n", namespace, "-f", str(folder / "given.yaml")]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True)


@needs_helm
@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({}, {}),
        (
            {"image": "other:2", "secret": "mine", "storage": "1Ti", "storageClass": "fast", "cpu": "2", "memory": "1Gi",
             "pullSecret": "login", "allowFrom": ["a", "b"], "settings": {"DHPY_IMAGES": "x/y", "DHPY_LOG_FORMAT": "json: {"}},
            {"image": "other:2", "secret": "mine", "storage": "1Ti", "storage_class": "fast", "cpu": "2", "memory": "1Gi",
             "pull_secret": "login", "allow_from": ("a", "b"), "settings": {"DHPY_IMAGES": "x/y", "DHPY_LOG_FORMAT": "json: {"}},
        ),
        ({"settings": {"DHPY_CALLBACK_URL": "https://x"}}, {"settings": {"DHPY_CALLBACK_URL": "https://x"}}),
    ],
)  # fmt: skip
def test_the_chart_renders_the_objects_of_the_manifests(
    tmp_path: Path, values: dict[str, Any], changes: dict[str, Any]
) -> None:
    done = rendered(tmp_path, "plane", "functions", values)
    assert done.returncode == 0, done.stderr
    wanted = manifests.objects(Installation(**{"image": "team/image:1", "name": "plane", "namespace": "functions", **changes}))  # fmt: skip
    made = list(yaml.safe_load_all(done.stdout))

    def comparable(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sorted by kind, and variables by name: their order means nothing."""
        found = json.loads(json.dumps(objects))
        for one in found:
            if one["kind"] == "Deployment":
                one["spec"]["template"]["spec"]["containers"][0]["env"].sort(key=lambda e: e["name"])  # fmt: skip
        return sorted(found, key=lambda one: one["kind"])

    assert comparable(made) == comparable(wanted)


@needs_helm
@pytest.mark.parametrize("variable", ["DHPY_TOKEN", "DHPY_HOME"])
def test_the_chart_refuses_what_the_manifests_refuse(tmp_path: Path, variable: str) -> None:
    done = rendered(tmp_path, "plane", "functions", {"settings": {variable: "hidden-value"}})
    assert done.returncode != 0 and variable in done.stderr and "hidden-value" not in done.stderr


def test_a_charts_template_is_whole_and_uses_every_value(tmp_path: Path) -> None:
    """What can be told without helm."""
    files = chart.files("team/image:1")
    text = files["templates/control-plane.yaml"]
    assert "standin" not in text and "76543" not in text
    blocks = re.findall(r"\{\{- (range|with|if|end)\b", text)
    assert blocks.count("end") * 2 == len(blocks)
    for value in yaml.safe_load(files["values.yaml"]):
        assert f".Values.{value}" in text, value
    chart.write(tmp_path / "new", "image")
    with pytest.raises(UsageFault, match="is there already"):
        chart.write(tmp_path / "new", "image")


def test_the_variables_that_the_manifests_set_are_those_that_they_refuse() -> None:
    assert set(environment(Installation("image"))) == manifests.OWN
