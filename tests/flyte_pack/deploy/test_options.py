"""The deploy options are the same for the build rules and for the program, and parsing them does nothing else."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from flyte_pack.deploy.config import Settings
from flyte_pack.deploy.options import HELP, DeployOptions, parse
from flyte_pack.errors import UsageError
from tests.support.deploying import SOURCE_ROOT


def of(command="deploy", which=None, **settings) -> DeployOptions:
    return DeployOptions(command=command, which=which, settings=Settings(**settings))


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ("", DeployOptions()),
        ("--dry-run", DeployOptions(dry_run=True)),
        (
            "--version v1 --project p --domain=d --copy-style none --root-dir ./src/ --store file://dist/x --repair",
            DeployOptions(
                settings=Settings(
                    version="v1",
                    project="p",
                    domain="d",
                    copy_style="none",
                    root_dir="src",
                    store="file://dist/x",
                ),
                repair=True,
            ),
        ),
        (
            "--image a=reg.example/a:1 --image=b=reg.example/b:2",
            of(images=(("a", "reg.example/a:1"), ("b", "reg.example/b:2"))),
        ),
        ("--root-dir .", of(root_dir=".")),
        ("--output json", DeployOptions(output="json")),
        ("list", DeployOptions(command="list")),
        ("--domain d list", of(domain="d", command="list")),
        ("list --domain d", of(domain="d", command="list")),
        ("show", DeployOptions(command="show")),
        ("show v1", DeployOptions(command="show", which="v1")),
        ("show --output json v1", DeployOptions(command="show", which="v1", output="json")),
        ("rollback v1 --dry-run", DeployOptions(command="rollback", which="v1", dry_run=True)),
        ("diff", DeployOptions(command="diff")),
        ("diff v1 -1", DeployOptions(command="diff", which="v1", other="-1")),
        ("diff v1 --checkout", DeployOptions(command="diff", which="v1", checkout=True)),
        ("rollback", DeployOptions(command="rollback")),
        ("rollback -2 --dry-run", DeployOptions(command="rollback", which="-2", dry_run=True)),
        ("--dry-run rollback -1", DeployOptions(command="rollback", which="-1", dry_run=True)),
        (
            "--endpoint localhost:8090 --insecure --org acme --flyte-config ~/.flyte/config.yaml --config ./ops/d.yaml",
            DeployOptions(
                settings=Settings(
                    endpoint="localhost:8090",
                    insecure=True,
                    org="acme",
                    flyte_config="~/.flyte/config.yaml",
                ),
                config="ops/d.yaml",
            ),
        ),
        ("--endpoint https://flyte.example/", of(endpoint="https://flyte.example/")),
        ("--endpoint dns:///f.example", of(endpoint="dns:///f.example")),
        ("--no-register --no-image-check", DeployOptions(register=False, image_check=False)),
        ("--upload flyte", DeployOptions(upload="flyte")),
        (
            "rollback v1 --endpoint f.example",
            of(endpoint="f.example", command="rollback", which="v1"),
        ),
        ("verify", DeployOptions(command="verify")),
        ("verify v1", DeployOptions(command="verify", which="v1")),
        ("verify --all", DeployOptions(command="verify", all_versions=True)),
        ("prune", DeployOptions(command="prune")),
        (
            "prune --yes --keep 5 --older-than 30",
            DeployOptions(command="prune", yes=True, keep=5, older_than=30),
        ),
        ("prune --older-than 0", DeployOptions(command="prune", older_than=0)),
        ("export out", DeployOptions(command="export", directory="out")),
        ("export /mnt/usb v1", DeployOptions(command="export", directory="/mnt/usb", which="v1")),
        (
            "import /mnt/usb --registry reg.example/x/ --store file:///srv/x --no-register --repair",
            DeployOptions(
                command="import",
                directory="/mnt/usb",
                settings=Settings(registry="reg.example/x", store="file:///srv/x"),
                register=False,
                repair=True,
            ),
        ),
        ("--help", DeployOptions(command="help")),
        ("list -h", DeployOptions(command="help")),
    ],
)
def test_what_a_user_may_type(typed, options):
    assert parse(shlex.split(typed)) == options


@pytest.mark.parametrize(
    ("typed", "packages"),
    [("", True), ("--dry-run", True), ("list", False), ("show", False), ("rollback v", False), ("--help", False),
     ("verify", False), ("prune", False), ("export d", False), ("import d", False), ("--endpoint h:1", True)],
)  # fmt: skip
def test_only_deploying_needs_packages(typed, packages):
    assert parse(shlex.split(typed)).packages is packages


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("deploy", "unknown command 'deploy'"),
        ("lsit", "list, show, diff, rollback, verify, prune, export, import"),
        ("list v1", "list takes no VERSION"),
        ("show v1 v2", "show takes at most one VERSION"),
        ("rollback v1 v2", "rollback takes at most one VERSION"),
        ("rollback -0", "cannot be a version"),
        ("rollback ../x", "cannot be a version"),
        ("--version ''", "cannot be a version"),
        ("--version a/b", "cannot be a version"),
        ("--domain ..", "cannot be a domain"),
        ("--project 'a b'", "cannot be a project"),
        ("--copy-style some", "--copy-style"),
        ("--output yaml", "--output"),
        ("--root-dir /src", "--root-dir"),
        ("--root-dir ../src", "--root-dir"),
        ("--image trainer", "NAME=URI"),
        ("--image trainer=trainer", "not an image"),
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
        ("verify v1 v2", "verify takes at most one VERSION"),
        ("verify v1 --all", "a VERSION or --all, not both"),
        ("prune v1", "prune takes no VERSION"),
        ("export", "export takes a folder"),
        ("export a v1 v2", "export takes a folder, and at most one VERSION"),
        ("export a ../v", "cannot be a version"),
        ("export a --dry-run", "export has no --dry-run"),
        ("import", "import takes one folder"),
        ("import ''", "import DIR: expected a path"),
        ("import a --version v", "--version is for deploying; import does not take it"),
        ("--keep 3", "--keep is for prune; deploying does not take it"),
        ("list --yes", "--yes is for prune; list does not take it"),
        (
            "verify --endpoint h:1",
            "--endpoint is for deploying, rollback, import, promote and prune; verify",
        ),
        ("list --insecure", "--insecure is for deploying, rollback, import, promote and prune"),
        ("verify --no-register", "--no-register is for"),
        ("rollback v1 --registry h:1", "--registry is for deploying, import and promote"),
        ("rollback v1 --no-image-check", "--no-image-check is for deploying"),
        ("prune --yes --dry-run", "--yes and --dry-run contradict"),
        ("prune --keep 0", "--keep takes a whole number from 1"),
        ("prune --keep five", "not 'five'"),
        ("prune --keep -1", "--keep"),
        ("prune --older-than 1.5", "--older-than takes a whole number"),
        ("prune --older-than 99999999999999999999999", "--older-than takes a whole number"),
        ("--config /etc/x.yaml", "--config takes a file below the build root"),
        ("--config ../x.yaml", "--config takes a file below the build root"),
        ("--endpoint flyte.example/path", "--endpoint: an endpoint is a host"),
        ("--endpoint s3://flyte.example", "--endpoint: an endpoint is a host"),
        ("--endpoint h:123456", "--endpoint: an endpoint is a host"),
        ("--endpoint ''", "--endpoint: an endpoint is a host"),
        ("--insecure --endpoint https://h", "leave one out"),
        ("--org a/b", "cannot be an org"),
        ("--registry https://h", "--registry: a registry is a host"),
        ("--upload s3", "--upload"),
        ("--flyte-config ''", "--flyte-config: expected a path"),
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
        "--endpoint https://user:hunter2@flyte.example",
        "--endpoint flyte.example/hunter2",
        "--registry user:hunter2@reg.example",
    ],
)
def test_a_password_is_refused_and_not_repeated(typed):
    with pytest.raises(UsageError) as error:
        parse(shlex.split(typed))
    assert "hunter2" not in str(error.value)


def test_every_option_is_in_the_help():
    told = {
        "images": "image",
        "all_versions": "all",
        "register": "no-register",
        "from_domain": "from",
        "image_check": "no-image-check",
    }
    names = vars(DeployOptions()).keys() - {"command", "which", "other", "directory", "settings"}
    for name in names | vars(Settings()).keys():
        option = told.get(name, name)
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
