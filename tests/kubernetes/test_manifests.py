"""Manifests are pure: every parameter of a task, in every spelling, becomes the same objects.

`golden/` has them as YAML, to be read; `DHPY_WRITE_GOLDEN=1` writes them anew. What a real API server makes
of them is tested in test_admission.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from units import CASES, SETTINGS, unit

from digitalhub_python_control.running.kubernetes import manifests, names, parameters, profiles
from digitalhub_python_control.running.kubernetes.merging import merged
from digitalhub_runtime_python.errors import UsageFault

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("case", CASES)
def test_the_objects_of_a_run_are_as_written_down(case: str) -> None:
    made = [manifests.secret(unit(case), SETTINGS), *manifests.of(unit(case), SETTINGS)]
    text = yaml.safe_dump_all(json.loads(json.dumps(made)), sort_keys=False)
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("DHPY_WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("case", CASES)
def test_no_value_of_a_secret_is_outside_the_secret(case: str) -> None:
    asked = unit(case)
    rest = json.dumps(manifests.of(asked, SETTINGS))
    assert asked.secret_env
    for value in asked.secret_env.values():
        assert value not in rest


SPELLINGS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "node_selector": [
        ({"node_selector": [{"key": "disk", "value": "ssd"}]}, {"node_selector": {"disk": "ssd"}}),
        ({"node_selector": [{"key": "disk", "value": "ssd"}]}, {"nodeSelector": {"disk": "ssd"}}),
    ],
    "tolerations": [
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "toleration_seconds": 3}]},
            {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 3}]},
        )
    ],
    "affinity": [
        (
            {
                "affinity": {
                    "node_affinity": {
                        "preferred_during_scheduling_ignored_during_execution": [
                            {
                                "weight": 5,
                                "preference": {
                                    "match_expressions": [
                                        {"key": "k", "operator": "In", "values": ["v"]}
                                    ]
                                },
                            }
                        ]
                    }
                }
            },
            {
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "weight": 5,
                                "preference": {
                                    # The one form that SDK 0.14's own model lets pass.
                                    "node_selector_terms": [
                                        {
                                            "matchExpressions": [
                                                {"key": "k", "operator": "In", "values": ["v"]}
                                            ]
                                        }
                                    ]
                                },
                            }
                        ]
                    }
                }
            },
        )
    ],
    "resources": [
        (
            {"resources": {"cpu": "500m", "mem": "1Gi", "gpu": 1}},
            {
                "resources": {
                    "requests": {"cpu": "500m", "memory": "1Gi", "gpu": "1"},
                    "limits": {"mem": "1Gi", "gpu": 1},
                }
            },
        )
    ],
    "volumes": [
        (
            {
                "volumes": [
                    {
                        "volume_type": "empty_dir",
                        "name": "v",
                        "mount_path": "/v",
                        "spec": {"size_limit": "1Gi"},
                    }
                ]
            },
            {
                "volumes": [
                    {
                        "volumeType": "emptyDir",
                        "name": "v",
                        "mountPath": "/v",
                        "spec": {"sizeLimit": "1Gi"},
                    }
                ]
            },
        )
    ],
    "classes": [
        (
            {"runtime_class": "kata", "priority_class": "high", "backoff_limit": 2},
            {"runtimeClassName": "kata", "priorityClassName": "high", "backoffLimit": 2},
        )
    ],
    "replicas": [({"replicas": "2:5"}, {"replicas": [2, 5]}), ({"replicas": "2:5"}, {"replicas": {"min": 2, "max": 5}})],
    "service": [({"service_type": "ClusterIP"}, {"serviceType": "ClusterIP"})],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_both_spellings_ask_for_the_same(name: str) -> None:
    for one, other in SPELLINGS[name]:
        asked = parameters.read(one)
        assert asked == parameters.read(other)
        assert asked != parameters.Asked()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"node_selectr": []}, "'node_selector'"),
    ({"node_selector": [{"kee": "a", "value": "b"}]}, "'key'"),
    ({"node_selector": [{"key": "a"}]}, "key and value"),
    ({"node_selector": {"a": 1}}, "node_selector.a must be text"),
    ({"affinity": {"node_afinity": {}}}, "'nodeAffinity'"),
    ({"affinity": {"pod_affinity": {"required_during_scheduling": []}}}, "requiredDuringSchedulingIgnoredDuringExecution"),
    ({"affinity": {"pod_affinity": {"required_during_scheduling_ignored_during_execution": [{"topology": "x"}]}}}, "topologyKey"),
    ({"tolerations": [{"operator": "Exist"}]}, "'Exists'"),
    ({"tolerations": [{"effect": "NoScheduling"}]}, "'NoSchedule'"),
    ({"tolerations": {"key": "a"}}, "must be a list"),
    ({"resources": {"memry": "1Gi"}}, "'memory'"),
    ({"resources": {"cpu": "1 core"}}, "cpu"),
    ({"resources": {"cpu": True}}, "cpu"),
    ({"resources": {"mem": "-1Gi"}}, "mem"),
    ({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}, "more than its limit"),
    ({"resources": {"requests": {"gpus": 2}}}, "'gpu'"),
    ({"volumes": [{"volume_type": "host_path", "name": "v", "mount_path": "/v"}]}, "host_path"),
    ({"volumes": [{"volume_type": "empty_dir", "name": "V", "mount_path": "/v"}]}, "lower-case"),
    ({"volumes": [{"volume_type": "empty_dir", "name": "v", "mount_path": "v"}]}, "absolute"),
    ({"volumes": [{"volume_type": "empty_dir", "name": "v"}]}, "mountPath"),
    ({"volumes": [{"volume_type": "empty_dir", "name": "v", "mount_path": "/v", "spec": {"sise_limit": "1Gi"}}]}, "'sizeLimit'"),
    ({"volumes": [{"volume_type": "empty_dir", "name": "v", "mount_path": f"/{p}"} for p in "ab"]}, "Two volumes"),
    ({"replicas": 0}, "At least 1"),
    ({"replicas": "5:2"}, "least"),
    ({"replicas": "two"}, "range"),
    ({"service_type": "NodePorts"}, "'NodePort'"),
    ({"service_type": "ExternalName"}, "outside the cluster"),
    ({"service_name": "My_Service"}, "lower-case"),
    ({"backoff_limit": -1}, "backoff_limit"),
    ({"backoff_limit": 1, "backoffLimit": 2}, "twice"),
    ({"runtime_class": 3}, "must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "named"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_is_not_known_is_an_error_that_names_it(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageFault) as caught:
        parameters.read(spec)
    assert named in f"{caught.value} {caught.value.hint}"


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text())
def test_no_two_projects_or_runs_share_a_name_or_a_label(a: str, b: str, c: str, d: str) -> None:
    if (a, c) != (b, d):
        assert names.object_name(a, c or "x", 0) != names.object_name(b, d or "x", 1)
        assert names.claim_name(a, c) != names.claim_name(b, d)
    if a != b:
        assert names.label(a) != names.label(b)


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_every_name_is_one_that_kubernetes_takes(project: str, run: str) -> None:
    import re

    for made in (names.object_name(project, run, 12), names.claim_name(project, run), names.alias_name(project, run, run)):  # fmt: skip
        assert re.fullmatch(
            r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?|[a-z0-9][-a-z0-9]{0,61}[a-z0-9]", made
        )
    for value in names.labels(project, run, run, "job", project).values():
        assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


def test_a_profile_goes_before_what_the_user_says_and_its_defaults_behind() -> None:
    profile = profiles.read(
        {
            "id": "gpu",
            "defaults": {"resources": {"gpu": 1}, "backoff_limit": 3},
            "labels": {"kueue.x-k8s.io/queue-name": "research"},
            "pod": {
                "metadata": {"annotations": {"a": "1"}},
                "spec": {
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                    "nodeSelector": {"pool": "gpu"},
                    "containers": [
                        {"name": "function", "resources": {"limits": {"cpu": "2"}}},
                        {"name": "sidecar", "image": "busybox"},
                    ],
                },
            },
            "job": {"spec": {"suspend": True}},
        },
        "a test",
    )
    spec = {"backoff_limit": 1, "tolerations": [{"key": "mine", "operator": "Exists"}]}
    asked = parameters.read(spec, profile.defaults)
    made = manifests.job(unit("job", asked=asked, profile=profile), SETTINGS)
    pod = made["spec"]["template"]["spec"]
    assert made["spec"]["suspend"] is True
    assert made["spec"]["backoffLimit"] == 1
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert [t["key"] for t in pod["tolerations"]] == ["mine", "gpu"]
    assert [c["name"] for c in pod["containers"]] == ["function", "sidecar"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1", "cpu": "2"}
    assert pod["containers"][0]["image"], "merged, not replaced"
    assert made["spec"]["template"]["metadata"]["annotations"]["a"] == "1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id: a\npods: {}\n", "'pod'"),
        ("name: a\n", "no id"),
        ("id: a\n---\nid: a\n", "twice"),
        ("id: a\npod: []\n", "not a mapping"),
        ("id: [\n", "cannot be read"),
    ],
)
def test_a_malformed_profile_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "profiles.yaml").write_text(text)
    with pytest.raises(UsageFault, match=named):
        profiles.load(tmp_path)


def test_an_unknown_profile_is_an_error_that_names_the_nearest() -> None:
    known = {"gpu-small": profiles.Profile("gpu-small")}
    with pytest.raises(UsageFault, match="gpu-small"):
        profiles.chosen(known, "gpu-smal")
    assert profiles.chosen(known, "") == profiles.Profile()


def test_strategic_merge_deletes_and_replaces_where_it_is_told_to() -> None:
    base = {"containers": [{"name": "a", "x": 1}, {"name": "b"}], "keep": 1, "map": {"a": 1}}
    patch = {
        "containers": [{"name": "b", "$patch": "delete"}],
        "keep": None,
        "map": {"$patch": "replace", "b": 2},
    }
    assert merged(base, patch) == {"containers": [{"name": "a", "x": 1}], "map": {"b": 2}}


def test_a_dollar_of_a_users_variable_is_not_expanded() -> None:
    made = manifests.job(unit("job", env={"A": "$(HOME) $5"}), SETTINGS)
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "A", "value": "$$(HOME) $5"} in env


def test_a_user_cannot_move_the_port_that_the_probes_ask() -> None:
    made = manifests.deployment(unit("serve", env={"DHPY_PORT": "1", "DHPY_WORKERS": "3"}), SETTINGS)  # fmt: skip
    env = {e["name"]: e.get("value") for e in made["spec"]["template"]["spec"]["containers"][0]["env"]}  # fmt: skip
    assert env["DHPY_PORT"] == "8080"
    assert env["DHPY_WORKERS"] == "3"
