"""What DigitalHub Core takes differs by version; nothing is dropped in silence."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.sdk import core
from sdk.conftest import Script

ALL = {
    "node_selector": [{"key": "disk", "value": "ssd"}],
    "tolerations": [{"key": "a", "operator": "Exists", "toleration_seconds": 5}],
    "affinity": {"node_affinity": {"required_during_scheduling_ignored_during_execution": {"node_selector_terms": []}}},
    "runtime_class": "nvidia",
    "priority_class": "high",
    "backoff_limit": 1,
}  # fmt: skip


class Platform:
    """The SDK's client, of a platform that says what it is."""

    def __init__(self, version: str | None, name: str = "dhcore") -> None:
        self.version, self.name, self.asked = version, name, 0

    def __call__(self) -> Platform:
        return self

    def read_object(self, api: str) -> dict[str, Any]:
        assert api == "/.well-known/configuration"
        self.asked += 1
        if self.version is None:
            raise RuntimeError("404")
        return {"dhcore_version": self.version, "dhcore_name": self.name}


def warned(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    logger = logging.getLogger("dhpy-test-core")
    monkeypatch.setattr(core, "logger", logger)  # the SDK's own loggers do not propagate
    return caplog


def test_since_0_15_what_core_takes_from_profiles_only_is_kept_and_warned_about(
    caplog: Any,
) -> None:
    kept = core.translated({**ALL, "profile": None}, Platform("0.15.1-SNAPSHOT"))
    assert {name: kept[name] for name in ALL} == ALL
    said = warned(caplog)
    assert all(name in said for name in ALL)
    assert "Core 0.15" in said and "profile=" in said


def test_before_0_15_they_reach_the_pod_in_kubernetes_spelling(caplog: Any) -> None:
    kept = core.translated(
        {k: v for k, v in ALL.items() if k != "backoff_limit"}, Platform("0.14.3")
    )
    assert kept["affinity"] == {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}
        }
    }
    assert kept["tolerations"] == [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]
    assert warned(caplog) == ""


@pytest.mark.parametrize(
    "version, kind, given, sent",
    [
        ("0.15.1", "empty_dir", {"size_limit": "200Mi"}, {"sizeLimit": "200Mi"}),
        ("0.15.1", "empty_dir", {"sizeLimit": "200Mi"}, {"sizeLimit": "200Mi"}),
        ("0.14.3", "empty_dir", {"sizeLimit": "200Mi"}, {"size_limit": "200Mi"}),
        ("0.14.3", "empty_dir", {"size_limit": "200Mi"}, {"size_limit": "200Mi"}),
        (None, "empty_dir", {"size_limit": "1"}, {"size_limit": "1", "sizeLimit": "1"}),
        ("0.15.1", "ephemeral", {"size": "1Gi", "storage_class": "fast"}, {"size": "1Gi", "storageClass": "fast"}),
        ("0.14.3", "ephemeral", {"storageClass": "fast"}, {"storage_class": "fast"}),
        ("0.15.1", "persistent_volume_claim", {"storageClass": "fast"}, {"storage_class": "fast"}),
        ("0.15.1", "shared_volume", {"claim_name": "c", "subPath": "d"}, {"claimName": "c", "subPath": "d"}),
    ],
)  # fmt: skip
def test_a_volumes_keys_are_spelled_as_the_platforms_version_reads_them(
    version: str | None, kind: str, given: dict[str, str], sent: dict[str, str]
) -> None:
    volume = {"volume_type": kind, "name": "v", "mount_path": "/v", "spec": given}
    values = core.translated({"volumes": [volume]}, Platform(version))
    assert values["volumes"] == [{**volume, "spec": sent}]
    assert volume["spec"] == given


def test_the_embedded_control_plane_gets_what_was_written_and_others_are_asked_only_if_need_be(
    caplog: Any,
) -> None:
    values = {
        **ALL,
        "volumes": [
            {
                "volume_type": "empty_dir",
                "name": "v",
                "mount_path": "/v",
                "spec": {"size_limit": "1"},
            }
        ],
    }
    assert core.translated(values, Platform("1.0", core.OWN_NAME)) is values
    asked = Platform("0.15.1")
    core.translated({"resources": {"cpu": "1"}}, asked)
    core.check_python("PYTHON3_11", asked)
    assert asked.asked == 0
    assert warned(caplog) == ""


@pytest.mark.parametrize(
    "version, python, known",
    [
        ("0.15.1-SNAPSHOT", "PYTHON3_9", "PYTHON3_10, PYTHON3_11, PYTHON3_12, PYTHON3_13"),
        ("0.15.0", "PYTHON3_14", "PYTHON3_10, PYTHON3_11, PYTHON3_12, PYTHON3_13"),
        ("0.16.0", "PYTHON3_9", "PYTHON3_10"),
        ("0.14.3", "PYTHON3_13", "PYTHON3_9, PYTHON3_10, PYTHON3_11, PYTHON3_12"),
    ],
)
def test_a_python_that_core_has_no_image_for_is_refused_with_cores_list(
    version: str, python: str, known: str
) -> None:
    with pytest.raises(UsageFault) as fault:
        core.check_python(python, Platform(version))
    assert fault.value.code == "usage/python-version"
    assert python in fault.value.message and known in fault.value.hint


@pytest.mark.parametrize(
    "version, name, python",
    [
        ("0.14.3", "dhcore", "PYTHON3_9"),
        ("0.15.1", "dhcore", "PYTHON3_13"),
        ("0.16.0", "dhcore", "PYTHON3_14"),
        ("1.0", core.OWN_NAME, "PYTHON3_9"),
        (None, "", "PYTHON3_9"),
    ],
)
def test_other_pythons_are_left_to_the_platform(version: str, name: str, python: str) -> None:
    core.check_python(python, Platform(version, name))


def test_threads_that_use_the_plug_in_first_at_once_register_it_once(script: Script) -> None:
    seen = script(
        """
        import concurrent.futures, sys, threading
        import digitalhub as dh
        dh.get_or_create_project(PROJECT)
        sys.setswitchinterval(1e-6)
        gate = threading.Barrier(8)
        def use(n):
            gate.wait()
            function = dh.new_function(project=PROJECT, name=f"f{n}", kind="python", handler="f",
                                       code="def f(n): return n", python_version=VERSION)
            return function.run("job", local_execution=True, parameters={"n": n}).result("output_0")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            show(results=list(pool.map(use, range(8))))
        """
    )
    assert seen.results == list(range(8))
