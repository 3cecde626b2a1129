"""What stands behind `./pants run path:task --`: ours first, the rest is the task's."""

from __future__ import annotations

import re

import pytest

from flyte_pack.errors import UsageError
from flyte_pack.run.options import HELP, OURS, RunOptions, split


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], RunOptions()),
        (["--n", "5"], RunOptions(rest=("--n", "5"))),
        (["--help"], RunOptions(rest=("--help",))),
        (["--root-dir", "src"], RunOptions(root_dir="src")),
        (["--root-dir=src"], RunOptions(root_dir="src")),
        (["--root-dir", "."], RunOptions(root_dir=".")),
        (["--copy-style", "all", "--n", "5"], RunOptions(copy_style="all", rest=("--n", "5"))),
        (
            ["--copy-style=none", "--root-dir=a=b", "train"],
            RunOptions(copy_style="none", root_dir="a=b", rest=("train",)),
        ),
        (["--root-dir=a", "--root-dir=b"], RunOptions(root_dir="b")),
        # Ours come first: further on they are the task's.
        (["train", "--root-dir", "src"], RunOptions(rest=("train", "--root-dir", "src"))),
        (["--n=5", "--copy-style=all"], RunOptions(rest=("--n=5", "--copy-style=all"))),
        # A `--` ends ours, and goes.
        (["--", "--root-dir", "src"], RunOptions(rest=("--root-dir", "src"))),
        (["--root-dir=a", "--", "--root-dir=b"], RunOptions(root_dir="a", rest=("--root-dir=b",))),
        (["--", "--", "x"], RunOptions(rest=("--", "x"))),
        (["x", "--", "y"], RunOptions(rest=("x", "--", "y"))),
        # Not ours: other spellings.
        (["--root_dir", "src"], RunOptions(rest=("--root_dir", "src"))),
        (["--root", "src"], RunOptions(rest=("--root", "src"))),
        (["--root-dirs=x"], RunOptions(rest=("--root-dirs=x",))),
        # Those for --remote are ours beside it, in any order.
        (["--remote", "--n", "5"], RunOptions(remote=True, rest=("--n", "5"))),
        (
            ["--endpoint", "e", "--remote", "--insecure", "--domain=d", "--n", "5"],
            RunOptions(
                remote=True,
                of_deploying=("--endpoint=e", "--insecure", "--domain=d"),
                rest=("--n", "5"),
            ),
        ),
        (["--domain", "d", "--n", "5"], RunOptions(rest=("--domain", "d", "--n", "5"))),
        (["--detach", "--remote"], RunOptions(remote=True, detach=True)),
        (["--detach"], RunOptions(rest=("--detach",))),
        (["--remote", "--", "--domain", "d"], RunOptions(remote=True, rest=("--domain", "d"))),
        (["--", "--remote"], RunOptions(rest=("--remote",))),
        (["--n", "5", "--remote"], RunOptions(rest=("--n", "5", "--remote"))),
        (
            ["--remote", "--copy-style=none", "--root-dir", "a"],
            RunOptions(remote=True, copy_style="none", root_dir="a"),
        ),
        (["--remote", "--deployed"], RunOptions(remote=True, deployed="")),
        (
            ["--remote", "--deployed", "--n", "5"],
            RunOptions(remote=True, deployed="", rest=("--n", "5")),
        ),
        (
            ["--remote", "--deployed", "v1", "x"],
            RunOptions(remote=True, deployed="v1", rest=("x",)),
        ),
        (["--remote", "--deployed=v1", "x"], RunOptions(remote=True, deployed="v1", rest=("x",))),
        (["--remote", "--deployed", "--", "x"], RunOptions(remote=True, deployed="", rest=("x",))),
        (
            ["--remote", "--deployment", "a:b", "--image", "n=u", "--no-image-check"],
            RunOptions(
                remote=True, deployment="a:b", of_deploying=("--image=n=u", "--no-image-check")
            ),
        ),
    ],
)
def test_our_options_are_taken_off_the_front(argv: list[str], options: RunOptions):
    assert split(argv) == options


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--root-dir"], "--root-dir needs a value"),
        (["--copy-style"], "--copy-style needs a value"),
        (["--root-dir="], "--root-dir needs a value"),
        (["--root-dir", ""], "--root-dir needs a value"),
        (["--root-dir", "--copy-style", "all"], "--root-dir needs a value"),
        (["--root-dir", "--", "x"], "--root-dir needs a value"),
        (["--copy-style", "some"], "one of auto, all, none, not 'some'"),
        (["--copy-style=ALL"], "one of auto, all, none, not 'ALL'"),
        (["--remote", "--endpoint"], "--endpoint needs a value"),
        (["--endpoint", "--remote"], "--endpoint needs a value"),
        (["--remote", "--deployment="], "--deployment needs a value"),
        (["--remote", "--in-image"], "runs it on this machine: leave one out"),
        (["--remote", "--engine", "docker"], "give --in-image too"),
        (["--remote", "--deployed", "--copy-style", "all"], "leave --copy-style out"),
        (["--remote", "--deployed", "--image=a=b"], "leave --image out"),
        (["--remote", "--upload=flyte", "--deployed"], "leave --upload out"),
        (["--remote", "--deployed", "--no-image-check"], "leave --no-image-check out"),
    ],
)
def test_what_cant_be_understood_is_refused(argv: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        split(argv)


@pytest.mark.parametrize("option", OURS)
def test_the_help_has_a_sentence_for_each(option: str):
    assert re.search(rf"^  .*{option}\b", HELP, re.MULTILINE)


def test_the_arguments_are_left_as_they_were():
    argv = ["--root-dir", "src", "x"]
    split(argv)
    assert argv == ["--root-dir", "src", "x"]
