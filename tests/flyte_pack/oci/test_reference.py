"""References to images are completed as Docker does, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack.names import InvalidName
from flyte_pack.oci.reference import Reference, is_loopback

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("python", "docker.io", "library/python", "latest", None),
        ("python:3.12-slim", "docker.io", "library/python", "3.12-slim", None),
        (f"python@{D}", "docker.io", "library/python", None, D),
        (f"python:3.12@{D}", "docker.io", "library/python", "3.12", D),
        ("library/python", "docker.io", "library/python", "latest", None),
        ("org/app", "docker.io", "org/app", "latest", None),
        ("org/team/app:1", "docker.io", "org/team/app", "1", None),
        ("docker.io/python", "docker.io", "library/python", "latest", None),
        ("docker.io/library/python:3", "docker.io", "library/python", "3", None),
        ("index.docker.io/python:3", "docker.io", "library/python", "3", None),
        ("index.docker.io/org/app", "docker.io", "org/app", "latest", None),
        # A first part is a host if it has a dot or a port, or is localhost; a bare word is none.
        ("ghcr.io/org/app:1", "ghcr.io", "org/app", "1", None),
        ("ghcr.io/app", "ghcr.io", "app", "latest", None),
        ("localhost/app:1", "localhost", "app", "1", None),
        ("localhost:5000/app", "localhost:5000", "app", "latest", None),
        ("registry:5000/a/b:t", "registry:5000", "a/b", "t", None),
        ("registry/a/b:t", "docker.io", "registry/a/b", "t", None),
        ("127.0.0.1:5001/app@" + D, "127.0.0.1:5001", "app", None, D),
        ("[::1]:5000/app:1", "[::1]:5000", "app", "1", None),
        ("REG.example/app:Tag_1.x-y", "REG.example", "app", "Tag_1.x-y", None),
    ],
)
def test_what_is_left_out_is_what_docker_takes_it_for(text, registry, repository, tag, digest):
    assert Reference.parse(text) == Reference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Python", "org/App", "a//b", "/a", "a/", "a:", "a:b:c", ":tag", "@" + D, "a b"),
        *("a@sha256:0", "a@" + D.upper(), f"a@{D}@{D}", "a:" + "t" * 129, "a/b:.t", "-a/b", "a/b-"),
        *("https://ghcr.io/a", "user:secret@ghcr.io/a", "a\n", "ghcr.io/größe", "a/../b", "a/./b"),
        *("localhost:port/a", "ghcr.io:123456/a", "a/" * 300 + "b:t", "a__b___c/d"),
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(InvalidName):
        Reference.parse(text)


def test_a_refusal_does_not_repeat_what_may_be_a_password():
    with pytest.raises(InvalidName) as caught:
        Reference.parse("user:planted-secret@ghcr.io/a")
    assert "planted-secret" not in str(caught.value)


component = st.from_regex(r"[a-z0-9]{1,9}((\.|_|__|-)[a-z0-9]{1,9})?", fullmatch=True)
registries = st.sampled_from(["docker.io", "ghcr.io", "localhost:5000", "127.0.0.1:1", "[::1]:2"])


@given(
    registries,
    st.lists(component, min_size=2, max_size=4).map("/".join),
    st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.none() | st.just(D),
)
def test_a_reference_is_what_its_text_says(registry, repository, tag, digest):
    reference = Reference(registry, repository, tag if tag or digest else "latest", digest)
    assert Reference.parse(str(reference)) == reference
    assert reference.name == f"{registry}/{repository}"


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        *((host, True) for host in ("localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1")),
        *(("[::1]", True), ("[::1]:5000", True)),
        *((host, False) for host in ("docker.io", "localhost.evil.io", "127.0.0.1.evil.io:80")),
        *((host, False) for host in ("10.0.0.1:5000", "[::2]", "128.0.0.1", "notlocalhost", "")),
    ],
)
def test_only_this_machine_is_loopback(registry, loopback):
    assert is_loopback(registry) == loopback
