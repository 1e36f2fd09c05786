"""The parts of an address; whatever it is, no password shows."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digitalhub_runtime_python.errors import SourceFault
from digitalhub_runtime_python.sources.uri import SourceUri, parse, redact

DIGEST = "ab" * 32

ROWS = [
    ("main.py", {"scheme": "", "url": "main.py", "file_name": "main.py"}),
    ("./a#b.py", {"scheme": "", "url": "./a#b.py"}),
    ("a.zip#:src", {"archive": True, "url": "a.zip", "subfolder": "src"}),
    ("zip+a.bin", {"archive": True, "url": "a.bin"}),
    ("file:///a%20b/c.py", {"scheme": "file", "url": "/a b/c.py"}),
    ("https://h/a.py", {"scheme": "https", "url": "https://h/a.py", "file_name": "a.py"}),
    ("HTTPS://H:8443/a.py", {"scheme": "https", "url": "https://h:8443/a.py"}),
    ("https://[::1]:8/a.py", {"url": "https://[::1]:8/a.py"}),
    ("https://h/dl?id=3", {"url": "https://h/dl?id=3", "file_name": "main.py", "shown": "https://h/dl?…"}),
    ("https://h/my%20job.py", {"file_name": "my job.py"}),
    ("https://h/a%2Fb.py", {"file_name": "b.py"}),
    ("https://u:p%40w@h/a.py", {"url": "https://h/a.py", "user": "u", "password": "p@w", "shown": "https://h/a.py"}),
    (f"https://h/a.py#sha256={DIGEST.upper()}", {"sha256": DIGEST, "url": "https://h/a.py"}),
    (f"zip+https://h/a#:x/y&sha256={DIGEST}", {"sha256": DIGEST, "subfolder": "x/y", "archive": True}),
    ("https://h/a.ZIP", {"archive": True}),
    ("git+https://h:1/r.git", {"scheme": "git+https", "url": "https://h:1/r.git", "ref": "", "archive": False}),
    ("git+https://h/r#main", {"ref": "main", "subfolder": ""}),
    ("git+https://h/r#feature/a&b=c", {"ref": "feature/a&b=c"}),
    ("git+https://h/r#v1:src/app/", {"ref": "v1", "subfolder": "src/app"}),
    ("git+https://h/r#:src", {"ref": "", "subfolder": "src"}),
    ("git+https://h/r#main:.", {"ref": "main", "subfolder": ""}),
    ("git+http://h:3000/r", {"url": "http://h:3000/r"}),
    ("git+https://h/code.zip", {"archive": False}),
    ("git+ssh://git@h:22/r", {"url": "ssh://git@h:22/r", "user": ""}),
    ("git://h/r", {"url": "https://h/r"}),
    ("git+https://tok@h/r", {"user": "tok", "password": "", "shown": "git+https://h/r"}),
    ("s3://b/a b/c#1.py", {"scheme": "s3", "url": "s3://b/a b/c#1.py", "file_name": "c#1.py"}),
    ("zip+s3://b/k/archive.zip", {"scheme": "s3", "url": "s3://b/k/archive.zip", "archive": True}),
    (f"s3://b/k.py#sha256={DIGEST}", {"url": "s3://b/k.py", "sha256": DIGEST}),
    ("ftp://h/a.py", {"scheme": "ftp"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts"), ROWS, ids=[text for text, _ in ROWS])
def test_an_address_is_taken_apart(text, parts):
    uri = parse(f"  {text}\n")
    assert {name: getattr(uri, name) for name in parts} == parts


@pytest.mark.parametrize(
    "text",
    [
        "git+https://h/r#--upload-pack=touch /tmp/x",
        "git+https://h/r#-x",
        "git+https://-oProxyCommand=x/r",
        "git+ssh://-oProxyCommand=x/r",
        "git+ssh://-l@h/r",
        "git+ssh://git:pw@h/r",
        "git+ssh://git@h:team/r",
        "git+https://h/r#a b",
        "git+https://h/r#a..b",
        "git+https://h/r#a^{tree}",
        "git+https://h/r#@{u}",
        "git+https://h/r#refs/heads/*",
        "git+https://h/r#main:../x",
        "git+https://h/r#main:/etc",
        "git+https://h/r#main:a:b/../../c",
        "git+https:///r",
        "zip+git+https://h/r",
        "https://h:99999/a.py",
        "https://h:x/a.py",
        "https://[::1/a.py",
        "https://h/a.py#L10",
        "https://h/a.py#sha256=12",
        "https://h/a.py#:src",
        f"https://h/a.zip#sha256={DIGEST}&sha256={DIGEST}",
        "zip+https://h/a#:..",
        "zip+https://h/a#:C:/x",
        "https://h/a\x00.py",
        "https://h/a\nb.py",
        "https://u%0a:p@h/a.py",
        "file://host/a.py",
        "file://a.py",
        "file:///a%00b.py",
        "zip+",
        "a\ud800.py",
    ],
)
def test_what_is_malformed_or_would_be_an_option_is_refused(text):
    with pytest.raises(SourceFault) as caught:
        parse(text)
    assert caught.value.code == "source/uri"


PREFIXES = [
    "https",
    "http",
    "zip+https",
    "git+https",
    "git+http",
    "git+ssh",
    "git",
    "s3",
    "file",
    "",
]


@given(st.sampled_from(PREFIXES), st.text(max_size=80))
@example("git+https", "[")
@example("https", "h/\ud800")
def test_any_text_is_parsed_or_refused(prefix, text):
    try:
        uri = parse(f"{prefix}://{text}" if prefix else text)
    except SourceFault as fault:
        assert fault.code in ("source/uri", "source/missing")
        return
    assert isinstance(uri, SourceUri)
    assert ".." not in uri.subfolder.split("/")
    assert not uri.subfolder.startswith("/")
    assert not uri.ref.startswith("-")
    assert "/" not in uri.file_name


WORDS = st.text(string.ascii_letters + string.digits, min_size=6, max_size=12)


@given(
    st.sampled_from(["https", "zip+https", "git+https", "git+http", "git+ssh", "git", "s3", "ftp"]),
    WORDS.map(lambda word: f"S3CRET{word}"),
    st.text("/:@?#[]% &=\\é\n", max_size=4),
    st.booleans(),
    st.sampled_from(["", ":8080", ":bad", ":team", "/p?x=1", "/p#main", "/p#..", "/p#:../x"]),
)
def test_no_password_shows_whatever_else_is_wrong(scheme, word, odd, quoted, rest):
    password = quote(word + odd + word, safe="") if quoted else word + odd + word
    text = f"{scheme}://user:{password}@host.example{rest}"
    try:
        uri = parse(text)
    except SourceFault as fault:
        assert word not in str(fault)
        assert fault.__cause__ is None or word not in str(fault.__cause__)
        return
    if "?" in odd or "#" in odd or "/" in odd or "\\" in odd or "\n" in odd:
        return  # then, by the rules of URLs, the password ends there and the rest is path or query
    assert word not in uri.shown
    assert word not in repr(uri)


def test_free_text_loses_its_passwords():
    text = "cloning https://u:p@ss@host/r failed"
    assert redact(text) == "cloning https://***@host/r failed"
