"""An image's config: what is read of it, and what is refused before it is an argument or a variable."""

from __future__ import annotations

import json

import pytest

from flyte_pack.oci.config import ImageConfig
from flyte_pack.oci.model import InvalidImage

LONG = "x" * 200_000
NESTED = json.loads("[" * 60 + "]" * 60)


def document(**settings):
    return {
        "os": "linux",
        "architecture": "amd64",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": []},
    }


def parse(whole):
    return ImageConfig.parse(json.dumps(whole).encode(), "it")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"Env": ["A=x\0--bind\0/\0/host"]}, "`Env` holds a NUL"),
        ({"Env": ["A\0=x"]}, "`Env` holds a NUL"),
        ({"Env": ["A=\ud800"]}, "`Env` holds U+D800, which is not a character"),
        ({"Env": ["A=\x1b[2J"]}, "`Env` holds a control character, U+001B"),
        ({"Env": [f"A={LONG}"]}, "`Env` is longer than 131,071 bytes"),
        ({"Env": ["=x"]}, "`Env` has a variable whose name is empty or has line ends"),
        ({"Env": [""]}, "`Env` has a variable whose name is empty or has line ends"),
        ({"Env": ["A\nB=x"]}, "`Env` has a variable whose name is empty or has line ends"),
        ({"Env": [f"A{i}=x" for i in range(2_001)]}, "`Env` has more than 2,000 variables"),
        ({"Env": "A=x"}, "`Env` is not a list of strings"),
        ({"Env": [1]}, "`Env` is not a list of strings"),
        ({"Entrypoint": ["a", "b\0"]}, "`Entrypoint` holds a NUL"),
        ({"Entrypoint": ["", "b"]}, "`Entrypoint` names no program: its first word is empty"),
        ({"Cmd": ["\udcff"]}, "`Cmd` holds U+DCFF, which is not a character"),
        ({"Cmd": ["", "b"]}, "`Cmd` names no program: its first word is empty"),
        ({"User": "0\0"}, "`User` holds a NUL"),
        ({"User": "a\nroot"}, "`User` holds a control character, U+000A"),
        ({"User": LONG}, "`User` is longer than 4,095 bytes"),
        ({"User": 0}, "`User` is not a string"),
        ({"User": []}, "`User` is not a string"),
        ({"WorkingDir": "/a\0--bind"}, "`WorkingDir` holds a NUL"),
        ({"WorkingDir": "/a\nb"}, "`WorkingDir` holds a control character, U+000A"),
        ({"WorkingDir": f"/{LONG}"}, "`WorkingDir` is longer than 4,095 bytes"),
        ({"Labels": {"a\n": "b"}}, "the name of a label holds a control character, U+000A"),
        ({"Labels": {"a": "\0"}}, "the label a holds a NUL"),
        ({"Labels": {"a": 1}}, "`Labels`: not an object of strings"),
        ({"Labels": ["a"]}, "`Labels`: not an object of strings"),
        ({"Volumes": {"/a\0": {}}}, "`config` has a text that holds a NUL"),
        (
            {"ExposedPorts": {"80\x1b": {}}},
            "`config` has a text that holds a control character, U+001B",
        ),
        (
            {"StopSignal": "\ud800"},
            "`config` has a text that holds U+D800, which is not a character",
        ),
        ({"Volumes": NESTED}, "`config` is nested more than 50 deep"),
        ({"Volumes": [float("nan")]}, "`config` has a number that JSON cannot have"),
    ],
)
def test_a_word_that_could_become_another_is_refused(settings, problem):
    with pytest.raises(InvalidImage) as refused:
        parse(document(**settings))
    assert str(refused.value) == f"it: {problem}"


@pytest.mark.parametrize("key", ["os", "architecture", "variant"])
@pytest.mark.parametrize("word", ["a\0", "\x1b[2J", "\ud800", "x" * 101])
def test_a_platform_is_a_word(key, word):
    with pytest.raises(InvalidImage, match=r"the platform (holds|is longer)"):
        parse({**document(), key: word})


def test_a_history_with_odd_texts_is_left_out_as_it_only_informs():
    assert parse({**document(), "history": [{"created_by": "a\tb\n"}]}).history
    assert parse({**document(), "history": [{"created_by": "\0"}]}).history == ()
    assert parse({**document(), "history": [{"a": NESTED}]}).history == ()


@pytest.mark.parametrize("key", ["Entrypoint", "Cmd"])
def test_one_empty_word_is_no_command(key):
    config = parse(document(**{key: [""]}))
    assert config.entrypoint == config.cmd == ()


def test_an_entry_point_may_be_given_an_empty_word():
    assert parse(document(Entrypoint=["a"], Cmd=["", "b"])).cmd == ("", "b")


def test_what_is_legal_is_read_and_written_as_it_is():
    env = {
        "EMPTY": "",
        "A": "=b==",
        "-x": "--bind",
        "U": "ü日\u202e",
        "L": "a\n\tb\r\n",
        "a b": " c ",
    }
    config = parse(
        document(
            Env=["A=first", *(f"{name}={value}" for name, value in env.items())],
            Entrypoint=["/bin/sh", "-c", "one\ntwo", ""],
            Labels={"a": "several\nlines"},
            Volumes={"/data": {}},
        )
    )
    assert config.env == env
    assert config.entrypoint == ("/bin/sh", "-c", "one\ntwo", "")
    assert ImageConfig.parse(config.to_json(), "it").to_json() == config.to_json()
