"""What bubblewrap is told of a hostile image: never more than the image may say."""

from __future__ import annotations

import json
import os
import random

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.engines import container_environment
from flyte_pack.image.running import Command
from flyte_pack.image.unpacked import _Bubblewrap, _find_user
from flyte_pack.oci.config import ImageConfig
from tests.support.fuzzing import fuzz

GOOD = {
    "os": "linux",
    "architecture": "amd64",
    "created": "2026-01-01T00:00:00Z",
    "config": {
        "Env": ["PATH=/bin", "A=b=c", "EMPTY="],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo a"],
        "User": "app:staff",
        "WorkingDir": "/srv/app",
        "Labels": {"a": "b"},
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGTERM",
    },
    "rootfs": {"type": "layers", "diff_ids": []},
    "history": [{"created_by": "RUN x", "empty_layer": True}],
}
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:\n"
GROUP = "staff:x:50:\n"
ODD = (
    *(
        "",
        "\0",
        "a\0--bind\0/\0/host",
        "\ud800",
        "\udcff",
        "\x1b[2J",
        "\n",
        "a\nb",
        "=",
        "=x",
        "A=",
        "-",
    ),
    *(
        "--bind",
        "/",
        "..",
        "/../../x",
        "//",
        "a" * 300,
        "/x" * 3_000,
        "b" * 140_000,
        "٣",
        "²",
        "0" * 40,
    ),
    *(
        "-1",
        "4294967295",
        "99999999999999999999",
        "9" * 5_000,
        "0:0:0",
        ":",
        ":0",
        "1e3",
        "\u202e",
        "\u2028",
    ),
    *(0, -1, 2**70, 1e308, True, None, [], {}, [""], [[]], {"a": []}, [None], ["A=b", "A=c"]),
)


class Root:
    """A small image that is unpacked, and what bubblewrap is told of a config."""

    def __init__(self, path):
        self.path = str(path)
        os.makedirs(f"{path}/etc", exist_ok=True)
        self.lists(PASSWD, GROUP)

    def lists(self, passwd, group):
        for name, text in (("passwd", passwd), ("group", group)):
            with open(f"{self.path}/etc/{name}", "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))

    def plan(self, config):
        """The program's words, bubblewrap's arguments as it reads them, the variables."""
        user = _find_user(self.path, config.user or "")
        runner = _Bubblewrap(self.path, config, user, "bwrap")
        command = Command(("true",))
        words = runner._words(command)
        settings = runner._settings(command, runner._prepare(command))
        os.fsencode(settings)
        assert settings.endswith("\0")
        return words, settings[:-1].split("\0"), runner._environment(command)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def config_of(document):
    return ImageConfig.parse(json.dumps(document).encode(), "it")


def variables(arguments):
    """What bubblewrap sets: `--setenv NAME VALUE`, to the end."""
    at = arguments.index("--clearenv") + 1
    triples = [arguments[i : i + 3] for i in range(at, len(arguments), 3)]
    assert all(len(triple) == 3 and triple[0] == "--setenv" for triple in triples), triples
    return {name: value for _, name, value in triples}


def test_legal_variables_arrive_as_they_are(root):
    env = {
        "EMPTY": "",
        "A": "=b==",
        "-x": "--bind",
        "U": "ü日\u202e",
        "L": "a\n\tb\r\n",
        "LAST": "",
    }
    settings = {"Env": [f"{name}={value}" for name, value in env.items()], "User": "app"}
    _, arguments, _ = root.plan(config_of({**GOOD, "config": settings}))
    found = variables(arguments)
    assert {name: found[name] for name in env} == env
    assert found["HOME"] == "/home/app"
    assert list(found)[-1] == "LAST"


@pytest.mark.parametrize(
    ("user", "passwd", "group", "problem"),
    [
        ("app", "app:x:1000:1000::/home\0--bind\0/\0/host:\n", "", "the image's /etc/passwd: a home holds a NUL"),
        ("app", "app:x:1000:1000::/\x1b[2J:\n", "", "the image's /etc/passwd: a home holds a control character, U+001B"),
        ("app", "app:x:4294967295:0::/:\n", "", "the image's user 'app' is not in its /etc/passwd"),
        ("app", "app:x:٣:0::/:\n", "", "the image's user 'app' is not in its /etc/passwd"),
        ("app", "b:x:1:1::/:\x0bapp:x:0:0::/:\n", "", "the image's user 'app' is not in its /etc/passwd"),
        ("4294967295", "", "", "the image's user '4294967295' is not in its /etc/passwd"),
        ("9" * 5_000, "", "", f"the image's user '{'9' * 79} is not in its /etc/passwd"),
        ("²", "", "", r"the image's user '\xb2' is not in its /etc/passwd"),
        ("-1", "", "", "the image's user '-1' is not in its /etc/passwd"),
        ("0:-1", "", "", "the image's group '-1' is not in its /etc/group"),
        ("0:g", "", "g:x:" + "1" * 5_000 + ":\n", "the image's group 'g' is not in its /etc/group"),
    ],
)  # fmt: skip
def test_an_odd_user_is_refused(root, user, passwd, group, problem):
    root.lists(passwd, group)
    with pytest.raises(UserError) as refused:
        _find_user(root.path, user)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("app", (1000, 1000)),
        ("app:staff", (1000, 50)),
        ("7", (7, 0)),
        (":7", (0, 7)),
        ("0007", (7, 0)),
    ],
)
def test_a_user_is_found(root, user, ids):
    found = _find_user(root.path, user)
    assert (found.uid, found.gid) == ids


def test_lists_that_cannot_be_read_are_refused(root):
    os.unlink(f"{root.path}/etc/passwd")
    os.symlink("passwd", f"{root.path}/etc/passwd")
    with pytest.raises(
        UserError, match=r"^the image's /etc/passwd cannot be read: Too many levels"
    ):
        _find_user(root.path, "app")


@pytest.mark.parametrize("workdir", ["/etc/passwd/x", "/loop/x", f"/{'x' * 300}"])
def test_a_working_directory_that_cannot_be_is_refused(root, workdir):
    os.symlink("loop", f"{root.path}/loop")
    with pytest.raises(UserError, match="cannot be made in the image: "):
        root.plan(config_of({**GOOD, "config": {"WorkingDir": workdir}}))


@pytest.mark.parametrize("workdir", ["", "srv", "srv/../etc", "/../../x"])
def test_a_working_directory_is_below_the_images_root(root, workdir):
    _, arguments, _ = root.plan(config_of({**GOOD, "config": {"WorkingDir": workdir}}))
    assert arguments[arguments.index("--chdir") + 1].startswith("/")
    assert not os.path.exists(os.path.join(os.path.dirname(root.path), "x"))


def odd(rng: random.Random, value):
    """`value` with one thing in it changed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        changed = value.copy()
        if rng.random() < 0.1:
            del changed[key]
        elif isinstance(value, dict) and rng.random() < 0.1:
            changed[rng.choice([one for one in ODD if isinstance(one, str)])] = changed.pop(key)
        else:
            changed[key] = odd(rng, value[key])
        return changed
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randint(0, len(value))
        return value[:at] + str(rng.choice(ODD)) + value[at:]
    return rng.choice(ODD)


def test_an_odd_config_is_refused_or_says_no_more_than_it_may(root):
    ran, told = 0, []
    for rng in fuzz(1_500):
        document = GOOD
        for _ in range(rng.randint(1, 3)):
            document = odd(rng, document)
        passwd = odd(rng, PASSWD) if rng.random() < 0.3 else PASSWD
        group = odd(rng, GROUP) if rng.random() < 0.1 else GROUP
        root.lists(str(passwd), str(group))
        try:
            config = config_of(document)
            words, arguments, environment = root.plan(config)
        except UserError as error:
            told.append(str(error))
            continue
        ran += 1
        assert words[0]
        assert variables(arguments) == environment
        assert arguments[: arguments.index("--clearenv")].count("--bind") == 1
        options, given, lines = container_environment(config.env, {})
        assert {
            **{name: given[name] for name in options[1::2] if "=" not in name},
            **dict(
                line.split("=", 1) for line in (*lines, *(o for o in options[1::2] if "=" in o))
            ),
        } == config.env
        assert ImageConfig.parse(config.to_json(), "it").to_json() == config.to_json()
    assert ran > 100
    assert max(map(len, told)) < 1_000
