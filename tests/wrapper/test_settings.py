"""What the environment decides."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_runtime_python.errors import UsageFault
from digitalhub_runtime_python.settings import ServeSettings, Settings

VARIABLES = [
    "PROJECT_NAME", "RUN_ID", "DHPY_RUN_FILE", "DHCORE_ENDPOINT", "DHPY_WORKSPACE", "DHPY_CACHE",
    "DHPY_REPORT_TIMEOUT", "DHPY_DEADLINE", "DHPY_TERMINATION_LOG", "DHPY_LOG_FORMAT",
    "DHPY_LOG_LEVEL", "DHCORE_ACCESS_TOKEN", "AWS_REGION", "GIT_TOKEN",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(max_size=10)))
def test_any_environment_gives_settings_or_names_the_variable(environ: dict[str, str]) -> None:
    try:
        settings = Settings.from_env(environ)
    except UsageFault as fault:
        assert fault.code == "usage/setting"
        assert any(fault.message.startswith(f"{name} is ") for name in environ)
    else:
        assert settings.workspace
        assert settings.report_timeout > 0


def test_nothing_set_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings.workspace == Path(tempfile.gettempdir())
    assert settings.cache is None
    assert settings.run_file is None
    assert settings.deadline is None
    assert settings.report_timeout == 120
    assert (settings.log_format, settings.log_level) == ("text", "INFO")


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    environ = dict.fromkeys(VARIABLES, " ")
    del environ["AWS_REGION"], environ["GIT_TOKEN"]
    assert Settings.from_env(environ) == Settings.from_env(environ)
    assert Settings.from_env(environ).workspace == Path(tempfile.gettempdir())


def test_a_kubernetes_service_of_the_same_name_sets_no_port() -> None:
    link = {"DHPY_PORT": "tcp://192.0.2.7:80", "DHPY_SERVICE_HOST": "192.0.2.7"}
    assert ServeSettings.from_env(link).port == ServeSettings().port


def test_values_are_read_as_they_are_meant() -> None:
    settings = Settings.from_env(
        {
            "DHCORE_ENDPOINT": "https://core.example/ ",
            "DHCORE_DEFAULT_FILES_STORE": "s3://bucket/",
            "DHPY_LOG_LEVEL": "debug",
            "DHPY_LOG_FORMAT": "JSON",
            "DHPY_DEADLINE": "1.5",
            "AWS_REGION": "r",
            "S3_BUCKET": "b",
            "AWS_EMPTY": "",
            "GIT_TOKEN": "t",
        }
    )
    assert settings.endpoint == "https://core.example"
    assert settings.files_store == "s3://bucket"
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")
    assert settings.deadline == 1.5
    assert settings.store_options == {"AWS_REGION": "r", "S3_BUCKET": "b"}
    assert settings.tokens == {"GIT_TOKEN": "t"}


def test_no_secret_is_in_the_repr() -> None:
    settings = Settings.from_env(
        {
            "DHCORE_ACCESS_TOKEN": "secret-1",
            "DHCORE_PASSWORD": "secret-2",
            "AWS_SECRET_ACCESS_KEY": "secret-3",
            "GIT_TOKEN": "secret-4",
            "OWN_SECRET": "secret-5",
        }
    )
    assert "secret-" not in repr(settings)
    assert "secret-" not in repr(settings.credentials)
    assert settings.secret_values(["OWN_SECRET"]) == {f"secret-{n}" for n in range(1, 6)}


@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf", "1e300", "١s"])
def test_seconds_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(UsageFault, match="DHPY_DEADLINE is"):
        Settings.from_env({"DHPY_DEADLINE": value})


def test_the_termination_log_is_used_where_it_is_asked_for_or_there_is_one(tmp_path: Path) -> None:
    asked = tmp_path / "not-there-yet"
    assert Settings.from_env({"DHPY_TERMINATION_LOG": str(asked)}).termination_log == asked
    here = Path("/dev/termination-log")
    assert Settings.from_env({}).termination_log == (here if here.exists() else None)
