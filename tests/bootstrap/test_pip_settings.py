"""Pants hears what the user told pip, and never in place of what he told Pants."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.bootstrapping import BOOTSTRAP, PYTHON

A, B, C = (f"http://127.0.0.1:9/{name}/" for name in "abc")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BOOTSTRAP / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


pip_settings = _load("pip_settings")
pex_cli = _load("pex_cli")
launch = _load("launch")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the pip of this CPython."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([PYTHON, "-m", "venv", directory], check=True)
    return directory


@pytest.fixture
def home(tmp_path: Path, environment: Path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    yield tmp_path
    (environment / "pip.conf").unlink(missing_ok=True)


# Files by place; `site` is the pip.conf of the environment.
CASES = {
    "nothing said": ({}, {}),
    "a file of the user": ({".config/pip/pip.conf": f"[global]\nindex-url = {A}\n"}, {}),
    "the old place": ({".pip/pip.conf": f"[global]\nindex_url = {A}\n"}, {}),
    "XDG_CONFIG_HOME": (
        {"elsewhere/pip/pip.conf": f"[global]\nindex-url: {A}\n"},
        {"XDG_CONFIG_HOME": "HOME/elsewhere"},
    ),
    "the site's outweighs the user's": (
        {
            ".config/pip/pip.conf": f"[global]\nindex-url = {A}\n",
            "site": f"[global]\nindex-url = {B}\n",
        },
        {},
    ),
    "[install] outweighs [global] of a stronger file": (
        {
            ".config/pip/pip.conf": f"[install]\nindex-url = {A}\n",
            "site": f"[global]\nindex-url = {B}\n",
        },
        {},
    ),
    "PIP_CONFIG_FILE in place of the user's": (
        {
            ".config/pip/pip.conf": f"[global]\nindex-url = {A}\nextra-index-url = {C}\n",
            "own.conf": f"[global]\nindex-url = {B}\n",
        },
        {"PIP_CONFIG_FILE": "HOME/own.conf"},
    ),
    "no files at all": (
        {".config/pip/pip.conf": f"[global]\nindex-url = {A}\n"},
        {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": C},
    ),
    "a variable outweighs every file": (
        {"site": f"[install]\nindex-url = {A}\nextra-index-url = {C}\n"},
        {"PIP_INDEX_URL": B},
    ),
    "several, on lines of their own": (
        {".config/pip/pip.conf": f"[global]\nextra-index-url =\n    {A}\n    {B}\n"},
        {"PIP_FIND_LINKS": "HOME/wheels ~/wheels http://127.0.0.1:9/links.html"},
    ),
    "folders that hold nothing": ({}, {"PIP_FIND_LINKS": "HOME/empty HOME/missing"}),
    "no index": ({}, {"PIP_NO_INDEX": "true", "PIP_FIND_LINKS": "HOME/wheels"}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_reads_what_pip_reads(
    case: str, home: Path, environment: Path, default_index: str
) -> None:
    """pip's own first lines are the measure: `Looking in indexes: ...`, `Looking in links: ...`."""
    files, variables = CASES[case]
    for place, text in files.items():
        path = environment / "pip.conf" if place == "site" else home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # A machine's own /etc/pip.conf takes part on both sides.
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    env.update({name: value.replace("HOME", str(home)) for name, value in variables.items()})
    said = _pip_says(environment, env)

    settings = pip_settings.read(env, prefix=str(environment))

    places = [place for place in settings.places(default_index) if place not in settings.find_links]
    # pip does not name its default index where that is the only one.
    assert _places(said, "indexes") == ([] if places == [default_index] else places)
    # It names folders that hold nothing, but takes nothing from them.
    links = [link for link in _places(said, "links") if not link.endswith(("empty", "missing"))]
    assert links == [link.replace("file://", "") for link in settings.find_links]


@pytest.fixture(scope="module")
def default_index(environment: Path) -> str:
    """pip's own index, as it names it beside another one."""
    env = {"HOME": "/none", "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": A}
    return _places(_pip_says(environment, env), "indexes")[0]


def _pip_says(environment: Path, env: dict[str, str]) -> str:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--retries=0", "--timeout=1"]
    command = [*pip, "install", "no-such-project-of-pants-flyte"]
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def test_no_index_is_not_the_default_index() -> None:
    env = {"HOME": "/none", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    assert pip_settings.read(env, prefix="/none").places("the default") == ()


def _places(output: str, kind: str) -> list[str]:
    match = re.search(f"^Looking in {kind}: (.*)$", output, re.MULTILINE)
    return match[1].split(", ") if match else []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PIP_CERT": "HOME/own.pem", "SSL_CERT_FILE": "HOME/other.pem"}, "own.pem"),
        ({"REQUESTS_CA_BUNDLE": "HOME/other.pem"}, "other.pem"),
        ({"CURL_CA_BUNDLE": "HOME/other.pem"}, "other.pem"),
        ({"SSL_CERT_FILE": "HOME/other.pem"}, "other.pem"),
        ({"PIP_CERT": "HOME/missing.pem", "SSL_CERT_FILE": "HOME/other.pem"}, "other.pem"),
        ({}, None),
    ],
)
def test_certificates(home: Path, variables: dict[str, str], expected: str | None) -> None:
    for name in ("own.pem", "other.pem"):
        (home / name).write_text("")
    env = {name: value.replace("HOME", str(home)) for name, value in variables.items()}
    env.update(HOME=str(home), PIP_CONFIG_FILE=os.devnull)
    cert = pip_settings.read(env, prefix="/none").cert
    assert cert == (str(home / expected) if expected else None)


def test_a_configuration_file_that_nobody_can_read_is_left_to_pip(home: Path) -> None:
    (home / "own.conf").write_text("index-url = before any section\n")
    env = {"HOME": str(home), "PIP_CONFIG_FILE": str(home / "own.conf"), "PIP_INDEX_URL": A}
    assert pip_settings.read(env, prefix="/none").index_url == A


# What Pants is told.


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    directory = tmp_path / "installed"
    (directory / "pex-cli").mkdir(parents=True)
    (directory / "pex-cli" / "known_versions").write_text("v1|linux_x86_64|00|1\n")
    return directory


def _additions(
    installed: Path, variables: dict[str, str], toml: str = "", rc: str = ""
) -> dict[str, str]:
    root = installed.parent / "root"
    root.mkdir()
    (root / "pants.toml").write_text('[GLOBAL]\npants_version = "2.17.1"\n' + toml)
    (root / ".pants.rc").write_text(rc)
    env = {"HOME": str(root), "PIP_CONFIG_FILE": os.devnull, **variables}
    added = launch.additions(env, str(installed), str(root), str(BOOTSTRAP))
    assert not env.keys() & added.keys(), "what the user has set stays as it is"
    assert added.pop("NO_SCIE_WARNING") == "1"
    assert added.pop("PANTS_BIN_NAME", "unset") == (
        "unset" if "pants_bin_name" in toml else "./pants"
    )
    return added


PEX_CLI = (
    "PANTS_PEX_CLI_VERSION",
    "PANTS_PEX_CLI_URL_TEMPLATE",
    "PANTS_PEX_CLI_KNOWN_VERSIONS",
)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"PIP_INDEX_URL": A}, {"PANTS_PYTHON_REPOS_INDEXES": [A]}),
        (
            {"PIP_EXTRA_INDEX_URL": f"{A} {B}"},
            {"PANTS_PYTHON_REPOS_INDEXES": ("+", [A, B])},
        ),
        (
            {"PIP_INDEX_URL": A, "PIP_EXTRA_INDEX_URL": B},
            {"PANTS_PYTHON_REPOS_INDEXES": [A, B]},
        ),
        ({"PIP_NO_INDEX": "1"}, {"PANTS_PYTHON_REPOS_INDEXES": []}),
        ({"PIP_FIND_LINKS": A}, {"PANTS_PYTHON_REPOS_FIND_LINKS": ("+", [A])}),
        (
            {"PIP_PROXY": "proxy:80", "NO_PROXY": "a", "HTTPS_PROXY": "http://other"},
            {
                "PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS": (
                    "+",
                    ["http_proxy=http://proxy:80", "https_proxy=http://proxy:80", "NO_PROXY"],
                )
            },
        ),
        (
            {"https_proxy": "http://u:p@other", "HTTPS_PROXY": "http://other"},
            {"PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS": ("+", ["https_proxy", "HTTPS_PROXY"])},
        ),
    ],
)
def test_what_pants_is_told(installed: Path, variables: dict, expected: dict) -> None:
    added = _additions(installed, variables)
    tool = [added.pop(name) for name in PEX_CLI]
    assert tool == ["v1", f"file://{installed}/pex-cli/pex", "['v1|linux_x86_64|00|1']"]
    assert {name: _parsed(value) for name, value in added.items()} == expected


def test_messages_call_pants_what_a_user_types_or_says(installed: Path) -> None:
    assert "PANTS_BIN_NAME" not in _additions(installed, {}, 'pants_bin_name = "p"\n')


def _parsed(value: str):
    """A list option: a list, or `+` and a list."""
    return ("+", ast.literal_eval(value[1:])) if value.startswith("+") else ast.literal_eval(value)


ALL = {
    "PIP_INDEX_URL": A,
    "PIP_FIND_LINKS": B,
    "PIP_CERT": "/dev/null",
    "HTTPS_PROXY": C,
}
ALL_ADDED = {
    "PANTS_PYTHON_REPOS_INDEXES",
    "PANTS_PYTHON_REPOS_FIND_LINKS",
    "PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS",
    *PEX_CLI,
}


@pytest.mark.parametrize(
    ("variables", "toml", "rc", "left_alone"),
    [
        ({}, "", "", set()),
        ({"PANTS_PYTHON_REPOS_INDEXES": "[]"}, "", "", {"PANTS_PYTHON_REPOS_INDEXES"}),
        ({"PANTS_PYTHON_REPOS_FIND_LINKS": "[]"}, "", "", {"PANTS_PYTHON_REPOS_FIND_LINKS"}),
        ({}, '[python-repos]\nindexes = ["x"]\n', "", {"PANTS_PYTHON_REPOS_INDEXES"}),
        ({}, "", '[python-repos]\nindexes = ["x"]\n', {"PANTS_PYTHON_REPOS_INDEXES"}),
        ({}, "# [python-repos] indexes\n", "", set()),
        ({}, '[pex-cli]\nversion = "v2"\n', "", set(PEX_CLI)),
        ({"PANTS_PEX_CLI_VERSION": "v2"}, "", "", set(PEX_CLI)),
        (
            {"PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS": "[]"},
            "",
            "",
            {"PANTS_SUBPROCESS_ENVIRONMENT_ENV_VARS"},
        ),
    ],
)
def test_what_the_user_told_pants_stays(
    installed: Path, variables: dict, toml: str, rc: str, left_alone: set
) -> None:
    added = _additions(installed, {**ALL, **variables}, toml, rc)
    assert added.keys() == ALL_ADDED - left_alone


@pytest.mark.parametrize("configured", [False, True])
def test_certificates_for_pants(installed: Path, configured: bool) -> None:
    bundle = installed / "own.pem"
    bundle.write_text("")
    toml = 'ca_certs_path = "/x.pem"\n' if configured else ""
    added = _additions(installed, {"PIP_CERT": str(bundle)}, toml)
    assert added.get("PANTS_CA_CERTS_PATH") == (None if configured else str(bundle))


def test_a_path_that_a_url_would_escape_is_given_as_a_link(tmp_path: Path) -> None:
    """Pants opens the path of a file:// URL as it is written."""
    directory = tmp_path / "home of é"
    directory.mkdir()
    (directory / "pex").write_text("the tool")
    for _ in range(2):
        plain = pex_cli.plain_path(str(directory / "pex"))
        assert plain.isascii()
        assert " " not in plain
        assert Path(plain).read_text() == "the tool"
    shutil.rmtree(Path(plain).parent)
