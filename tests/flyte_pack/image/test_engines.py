"""How a container engine's client is told what to run: no value of a variable is an argument."""

from __future__ import annotations

import os

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.engines import container_environment
from flyte_pack.image.running import private_file

SECRET = "S3CR3T"


@pytest.mark.parametrize(
    "line",
    [
        f"HTTPS_PROXY=http://user:{SECRET}@proxy:3128",
        f'GOOGLE_SERVICE_ACCOUNT_KEY={{"private_key": "{SECRET}\\n"}}',
        f"DOCKER_AUTH_CONFIG={SECRET}",
        f"GODEBUG={SECRET}",
        f"LD_PRELOAD=/x/{SECRET}.so",
        f"PATH=/bin:/a b/{SECRET}",
        f"A==b={SECRET}=",
        f"A=-{SECRET}",
        f"A=ü{SECRET}",
    ],
)
def test_a_variable_of_one_line_is_in_a_file_of_nobody_elses(line):
    name, _, value = line.partition("=")
    ours = {"PATH": "/bin", "HTTPS_PROXY": "http://other"}
    assert container_environment({name: value}, ours) == ([], ours, [line])


@pytest.mark.parametrize(
    "value",
    ["two\nlines", "a\r", "a # b", "'a'", '"a"', "`a`", " a", "a ", "#a", "x" * 70_000, "\udcff"],
)
def test_what_a_file_cannot_carry_is_in_the_clients_environment(value):
    options, environment, lines = container_environment({"A": value}, {"PATH": "/bin"})
    assert (options, lines) == (["--env", "A"], [])
    assert environment == {"PATH": "/bin", "A": value}


def test_an_odd_name_is_in_the_clients_environment():
    assert container_environment({"a b": "c"}, {}) == (["--env", "a b"], {"a b": "c"}, [])


def test_an_empty_value_is_no_secret():
    """Given by its name alone it would be left out, or be what the client has."""
    ours = {"HTTPS_PROXY": "x"}
    assert container_environment({"HTTPS_PROXY": ""}, ours) == (["--env", "HTTPS_PROXY="], ours, [])


def test_a_variable_of_the_client_is_not_replaced():
    with pytest.raises(UserError, match=r"^PATH is set here too, .*: unset it here$"):
        container_environment({"PATH": "a\nb"}, {"PATH": "/bin"})
    assert container_environment({"A": "b\n"}, {"A": "b\n"})[0] == ["--env", "A"]


@pytest.mark.parametrize("env", [{"": "a"}, {"A=B": "c"}, {"A\0": "b"}, {"A": "b\0"}])
def test_what_can_be_no_variable_is_refused(env):
    with pytest.raises(UserError, match="cannot be a variable"):
        container_environment(env, {})


@pytest.mark.parametrize("nameless", ["in memory", "in a directory"])
def test_a_private_file_is_read_from_its_beginning_and_has_no_name(nameless, monkeypatch):
    if nameless == "in a directory":  # where there is no memfd_create, as on macOS
        monkeypatch.delattr(os, "memfd_create")
    fd = private_file("a=b\n\udcff" * 100_000)
    try:
        with open(f"/dev/fd/{fd}", "rb") as file:
            assert file.read() == b"a=b\n\xff" * 100_000
        assert os.fstat(fd).st_nlink == 0
    finally:
        os.close(fd)
