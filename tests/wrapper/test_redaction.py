"""No form of a secret gets past: a table of forms, each with secrets that hypothesis makes."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Callable
from urllib.parse import quote, quote_plus, urlencode
from xml.sax import saxutils

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from walking import run_entity, run_process

from digitalhub_runtime_python.redaction import MARK, Hiding, forms, hide, replaced, secret_values

PEM = "\n".join(
    [
        "-----BEGIN PRIVATE KEY-----",
        *textwrap.wrap(base64.b64encode(bytes(range(256)) * 3).decode(), 64),
        "Zm9v",
        "-----END PRIVATE KEY-----",
        "",
    ]
)

PATIENT = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
LINE = st.characters(exclude_characters="\r\n" + MARK)
ASCII = st.characters(min_codepoint=33, max_codepoint=126)
SECRETS = st.one_of(
    st.text(LINE, min_size=6, max_size=40),
    st.text(ASCII, min_size=6, max_size=80),
    st.sampled_from(["p@ss/w:rd&1", "a b+c%d=", 'it\'s "quoted"', "c:\\temp\\\u00e9", "x" * 500]),
).map(str.strip).filter(lambda text: len(text) >= 6)  # fmt: skip


def in_base64(before: str) -> Callable[[str], str]:
    return lambda secret: base64.b64encode((before + secret + "tail").encode("utf-8", "surrogatepass")).decode()  # fmt: skip


def quoted(secret: str) -> str:
    return quote(secret, "", errors="surrogatepass")


TEXTS: dict[str, Callable[[str], str]] = {
    "as it is": lambda s: f"<{s}>",
    "repr": repr,
    "repr with quotes": lambda s: repr([s, "'", '"']),
    "repr of a text with both quotes": lambda s: repr(s + "'\""),
    "ascii": ascii,
    "repr of bytes": lambda s: repr(s.encode("utf-8", "surrogatepass")),
    "in an exception's args": lambda s: repr(KeyError({"password": s})),
    "JSON": lambda s: json.dumps({"token": s}),
    "JSON as it is": lambda s: json.dumps({"token": s}, ensure_ascii=False),
    "JSON with its slashes": lambda s: json.dumps(s).replace("/", "\\/"),
    "JSON in JSON": lambda s: json.dumps({"body": json.dumps({"token": s})}),
    "repr of JSON": lambda s: repr(json.dumps({"token": s})),
    "of a URL": lambda s: f"https://u:{quoted(s)}@host/",
    "of a URL in small letters": lambda s: re.sub("%..", lambda m: m[0].lower(), quoted(s)),
    "of a path": lambda s: quote(s, errors="surrogatepass"),
    "of a form": lambda s: quote_plus(s, errors="surrogatepass"),
    "of a query": lambda s: urlencode({"next": f"https://h/?t={quoted(s)}"}),
    "HTML": html.escape,
    "HTML and JSON of Go's": lambda s: json.dumps(s).translate(
        {60: "\\u003c", 62: "\\u003e", 38: "\\u0026"}
    ),
    "XML": saxutils.escape,
    "a shell's word": shlex.quote,
    "base64": in_base64(""),
    "base64 in second place": in_base64("u"),
    "base64 in third place": in_base64("u:"),
    "base64 in lines": lambda s: base64.encodebytes(s.encode("utf-8", "surrogatepass")).decode(),
    "base64 without padding": lambda s: (
        base64.b64encode(s.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    ),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(
        s.encode("utf-8", "surrogatepass")
    ).decode(),
    "hexadecimal": lambda s: s.encode("utf-8", "surrogatepass").hex(),
}


@pytest.mark.parametrize("shape", TEXTS.values(), ids=TEXTS)
@PATIENT
@given(secret=SECRETS)
def test_a_secret_is_found_in_whatever_form_it_comes(
    shape: Callable[[str], str], secret: str
) -> None:
    clean = hide(shape(secret), forms([secret]))
    assert MARK in clean
    # What is left is what stands around it, and of base64 the characters that it shares with that.
    assert len("".join(clean.replace(MARK, "").split())) <= len(shape("")) + 4


@pytest.mark.parametrize("shape", TEXTS.values(), ids=TEXTS)
def test_no_line_of_a_key_is_left_in_whatever_form_the_key_comes(
    shape: Callable[[str], str],
) -> None:
    clean = hide(shape(PEM), forms([PEM]))
    assert MARK in clean
    assert not [line for line in PEM.splitlines() if line in clean and "-----" not in line]
    assert (
        len(clean.replace(MARK, "")) <= len(shape("")) + 200
    )  # the first and last line, and breaks


@PATIENT
@given(secret=SECRETS | st.just(PEM), before=st.text(), after=st.text(), data=st.data())
def test_a_secret_is_found_however_the_output_is_cut(
    secret: str, before: str, after: str, data: st.DataObject
) -> None:
    content = f"{before}{secret}{after}".encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=8).map(sorted))
    hiding = Hiding(forms([secret]))
    shown = b"".join(hiding.add(content[a:b]) for a, b in zip([0, *cuts], [*cuts, len(content)]))
    shown += hiding.rest()
    lines = [line for line in secret.splitlines() if line and "-----" not in line]
    assert not [line for line in lines if line.encode("utf-8", "surrogatepass") in shown]


@PATIENT
@given(
    secrets=st.sets(st.text("ab1-", min_size=4, max_size=9), min_size=1, max_size=4),
    content=st.lists(st.text("ab1-\n", max_size=9), max_size=8).map("".join), size=st.integers(1, 9),
)  # fmt: skip
def test_pieces_show_what_the_whole_shows_though_one_secret_is_within_another(
    secrets: set[str], content: str, size: int
) -> None:
    data = "".join([*secrets, content, *sorted(secrets)]).encode()
    looked_for = forms(secrets)
    hiding = Hiding(looked_for)
    shown = b"".join(hiding.add(data[at : at + size]) for at in range(0, len(data), size))
    shown += hiding.rest()
    assert not [form for form in looked_for if form in shown]
    assert shown == replaced(data, looked_for)


def test_a_line_that_is_complete_is_shown_at_once_and_a_beginning_is_not() -> None:
    hiding = Hiding(forms(["s3cret-value"]))
    assert hiding.add(b"10 %\r20 %") == b"10 %\r20 %"
    assert hiding.add(b"\nthe s3cret") == b"\nthe "
    assert hiding.add(b"\n") == b"s3cret\n"
    assert hiding.rest() == b""


@PATIENT
@given(st.lists(st.text(max_size=3) | st.sampled_from(["true", "false", "None", "null", "1", "----", " ", "\n"])))  # fmt: skip
def test_a_value_that_is_too_short_to_be_told_from_words_shreds_nothing(values: list[str]) -> None:
    text = "File main.py, line 1: true, None, null, false ---- •"
    assert forms(values) == []
    assert hide(text, forms(values)) == text


@pytest.mark.parametrize("secret", ["a1b2", "Xy9!", "4711", "mY-pw"])
def test_a_short_value_that_is_no_word_is_found(secret: str) -> None:
    assert hide(f"pin {secret}.", forms([secret])) == f"pin {MARK}."


@pytest.mark.parametrize(
    "name, value, secret",
    [
        ("DHCORE_ACCESS_TOKEN", "tok-en-1", "tok-en-1"),
        ("AWS_SECRET_ACCESS_KEY", "key-1234", "key-1234"),
        ("OPENAI_API_KEY", "sk-12345", "sk-12345"),
        ("MY_DB_PASSWORD", "p4ssword", "p4ssword"),
        ("DATABASE_URL", "postgresql://u:p%40ss/1@h/db", "p@ss/1"),
        ("UV_DEFAULT_INDEX", "https://__token__:abcdef1@h/simple", "abcdef1"),
        ("REPO", "git+https://ghp_0123456789abcdef@github.com/a/b", "ghp_0123456789abcdef"),
        ("MINE", "chosen-1", "chosen-1"),
        ("PWD", "/home/user", None),
        ("AWS_ACCESS_KEY_ID", "AKIA1234", None),
        ("OAUTH2_TOKEN_ENDPOINT", "https://host/token", None),
        ("MAX_TOKENS", "4096", None),
        ("HOST", "https://host:8080/a@b", None),
        ("REPO", "ssh://git@github.com/a/b", None),
    ],
)
def test_what_an_environment_keeps_secret_is_known_by_name_and_by_url(
    name: str, value: str, secret: str | None
) -> None:
    found = secret_values({name: value}, ["MINE"])
    assert secret in found if secret else found == set()


RAISING = """
import base64, json, os
def f():
    secret = os.environ["MINE"]
    raise ValueError({"password": secret}, json.dumps(secret), base64.b64encode(b"u:" + secret.encode()), "x" * 3900 + secret)
"""


@pytest.mark.parametrize("secret", ["p@ss \"w'rd/1", PEM], ids=["password", "key"])
def test_no_report_log_or_termination_message_shows_a_secret_nor_a_piece_that_was_cut(
    tmp_path: Path, secret: str
) -> None:
    entity = run_entity(RAISING, secrets=["MINE"])
    place = tmp_path / "termination"
    done = run_process(tmp_path, entity, MINE=secret, DHPY_TERMINATION_LOG=str(place))
    assert done.exit_status == 1
    for text in (json.dumps(done.status, ensure_ascii=False), done.stderr, place.read_text("utf-8")):  # fmt: skip
        assert "ValueError" in text or text.startswith("\ufffd")
        assert MARK in text
        for line in secret.splitlines():
            assert "-----" in line or (line not in text and line[:6] not in text)
