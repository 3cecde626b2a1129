"""The deploy options are the same for the build rules and for the program, and parsing them does nothing else."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from flyte_pack.deploy.options import HELP, DeployOptions, UsageError, parse
from tests.support.deploying import SOURCE_ROOT


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("", DeployOptions()),
        ("--dry-run", DeployOptions(dry_run=True)),
        (
            "--version v1 --project p --domain=d --copy-style none --root-dir ./src/ --store file://dist/x --repair",
            DeployOptions(
                version="v1",
                project="p",
                domain="d",
                copy_style="none",
                root_dir="src",
                store="file://dist/x",
                repair=True,
            ),
        ),
        (
            "--image a=reg.example/a:1 --image=b=reg.example/b:2",
            DeployOptions(images=(("a", "reg.example/a:1"), ("b", "reg.example/b:2"))),
        ),
        ("--root-dir .", DeployOptions(root_dir=".")),
        ("--output json", DeployOptions(output="json")),
        ("list", DeployOptions(command="list")),
        ("--domain d list", DeployOptions(command="list", domain="d")),
        ("list --domain d", DeployOptions(command="list", domain="d")),
        ("show", DeployOptions(command="show")),
        ("show v1", DeployOptions(command="show", which="v1")),
        ("show --output json v1", DeployOptions(command="show", which="v1", output="json")),
        ("rollback v1 --dry-run", DeployOptions(command="rollback", which="v1", dry_run=True)),
        ("--help", DeployOptions(command="help")),
        ("list -h", DeployOptions(command="help")),
    ],
)
def test_what_a_user_may_type(typed, options):
    assert parse(shlex.split(typed)) == options


@pytest.mark.parametrize(
    ("typed", "packages"),
    [("", True), ("--dry-run", True), ("list", False), ("show", False), ("rollback v", False), ("--help", False)],
)  # fmt: skip
def test_only_deploying_needs_packages(typed, packages):
    assert parse(shlex.split(typed)).packages is packages


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("deploy", "unknown command 'deploy'"),
        ("lsit", "list, show, rollback"),
        ("list v1", "list takes no VERSION"),
        ("show v1 v2", "show takes at most one VERSION"),
        ("rollback", "rollback takes one VERSION"),
        ("rollback v1 v2", "rollback takes one VERSION"),
        ("rollback ../x", "can not be a version"),
        ("--version ''", "can not be a version"),
        ("--version a/b", "can not be a version"),
        ("--domain ..", "can not be a domain"),
        ("--project 'a b'", "can not be a project"),
        ("--copy-style some", "--copy-style"),
        ("--output yaml", "--output"),
        ("--root-dir /src", "--root-dir"),
        ("--root-dir ../src", "--root-dir"),
        ("--image trainer", "NAME=URI"),
        ("--image trainer=trainer", "no image"),
        ("--image a=r.example/a --image a=r.example/b", "twice"),
        ("--store dist/flyte", "file://dist/flyte"),
        ("--store ftp://host/x", "ftp://"),
        ("--dryrun", "unknown option '--dryrun'"),
        ("--dry", "unknown option '--dry'"),
        ("--version", "--version"),
        ("list --repair", "--repair is for deploying"),
        ("show --image a=r.example/a", "--image is for deploying"),
        ("rollback v1 --version v2", "--version is for deploying"),
        ("list --copy-style all", "--copy-style is for deploying"),
    ],
)
def test_what_can_not_be_understood_raises_and_neither_prints_nor_exits(typed, said, capfd):
    with pytest.raises(UsageError) as error:
        parse(shlex.split(typed))
    assert said in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "typed",
    [
        "--store s3://key:hunter2@bucket/x",
        "--store file://user:hunter2@host/x",
        "--store 'https://host/x?sig=hunter2'",
        "--sotre s3://key:hunter2@bucket/x",
        "--sotre=s3://key:hunter2@bucket/x",
        "s3://key:hunter2@bucket/x",
        "--image a=user:hunter2@reg.example/a:1",
        "--image a=https://user:hunter2@reg.example/a",
        "--image user:hunter2@reg.example/a:1",
        "--image user:hunter2@reg.example/a=b",
    ],
)
def test_a_password_is_refused_and_not_repeated(typed):
    with pytest.raises(UsageError) as error:
        parse(shlex.split(typed))
    assert "hunter2" not in str(error.value)


def test_every_option_is_in_the_help():
    for option in vars(DeployOptions()).keys() - {"command", "which", "images"} | {"image", "help"}:
        assert f"  --{option.replace('_', '-')} " in HELP


def test_parsing_needs_the_standard_library_only():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flyte_pack.deploy.options import parse; parse(['list']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'flyte', 'isal', 'pants', 'subprocess'}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, SOURCE_ROOT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
