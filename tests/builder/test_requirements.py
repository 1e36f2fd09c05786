from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitalhub_python_builder.requirements import normalise, parse_requirements, redact
from digitalhub_runtime_python.errors import EnvironmentFault


def test_the_documented_requirements_are_accepted():
    names = [r.name for r in parse_requirements(["numpy", "pandas>1, <3", "scikit-learn==1.2.0"])]
    assert names == ["numpy", "pandas", "scikit-learn"]


@pytest.mark.parametrize(
    "good",
    [
        "requests[socks]>=2 ; python_version < '3.12'",
        "name @ https://host/name-1-py3-none-any.whl#sha256=ab",
        "name @ git+https://host/owner/name.git@main",
        "name @ file:///tmp/name-1-py3-none-any.whl",
        "numpy  # as in a requirements.txt",
    ],
)
def test_what_pep_508_allows_is_accepted(good):
    assert len(parse_requirements([good])) == 1


def test_comments_and_empty_lines_are_left_out():
    assert parse_requirements(["", "   ", "# a comment", "numpy"])[0].name == "numpy"


@pytest.mark.parametrize(
    "bad",
    [
        "--index-url=https://elsewhere/simple",
        "-r other.txt",
        "-e .",
        "numpy\n--index-url=https://elsewhere/simple",
        "numpy\r--pre",
        "numpy\0",
        "numpy ==",
        "./folder",
        "name @ git+ext::sh -c touch% /tmp/x",
        "name @ ftp://host/x.whl",
        "name @ /etc/passwd",
        "numpy; rm -rf /",
        "git+https://host/name.git",
    ],
)
def test_what_is_no_requirement_is_refused_by_name(bad):
    with pytest.raises(EnvironmentFault) as caught:
        parse_requirements(["pandas", bad])
    assert caught.value.code == "environment/requirement"
    assert repr(bad) in caught.value.message


@pytest.mark.parametrize("bad", [None, 3, ["numpy"], {"name": "numpy"}])
def test_a_requirement_that_is_no_string_is_refused(bad):
    with pytest.raises(EnvironmentFault, match="not a string"):
        parse_requirements([bad])


def test_one_string_in_place_of_a_list_is_refused():
    with pytest.raises(EnvironmentFault, match="a list of strings"):
        parse_requirements("numpy")


def test_a_password_in_a_url_is_not_in_the_message():
    with pytest.raises(EnvironmentFault) as caught:
        parse_requirements(["name @ ftp://me:s3cret@host/x.whl"])
    assert "s3cret" not in str(caught.value)
    assert redact("see https://me:s3cret@host/x") == "see https://***@host/x"


def test_spellings_of_the_same_set_are_normalised_to_one():
    one = normalise(["Scikit_Learn==1.2.0", "pandas>1, <3", "requests[socks,security]"])
    other = normalise(
        ["requests[security,socks] ", "pandas<3,>1", "scikit-learn ==1.2.0", "pandas>1,<3"]
    )
    assert one == other


def test_normalised_requirements_are_requirements_again():
    lines = [
        "name @ https://host/a.whl ; python_version < '3.12'",
        "b[x]>=1; sys_platform == 'linux'",
    ]
    assert normalise(normalise(lines)) == normalise(lines)


@given(st.text(max_size=80))
def test_any_text_is_a_requirement_or_refused(text):
    try:
        lines = normalise([text])
    except EnvironmentFault:
        return
    assert all("\n" not in line and not line.startswith("-") for line in lines)
