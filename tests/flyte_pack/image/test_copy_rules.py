"""Copied files and folders land where Flyte's builder puts them, and `.dockerignore` leaves out what it leaves out."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack.image.copy_rules import DockerIgnore, file_destination, folder_destination
from tests.support.flyte_env import flyte_python

WORKDIR = "/home/flyte/task"


def flyte(program: str, given: Any) -> Any:
    """What the real SDK makes of `given`, by a program that sets `answer`."""
    done = subprocess.run(
        [str(flyte_python()), "-c", f"import json, sys\ngiven = json.load(sys.stdin)\n{program}\nprint(json.dumps(answer))"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- where things go ------------------------------------------------------------------------------

FOLDERS = [
    # src, dst, copy_contents_only, where the contents are
    ("assets", ".", False, "home/flyte/task/assets"),
    ("assets", ".", True, "home/flyte/task"),
    ("a/b/assets", ".", False, "home/flyte/task/assets"),
    ("a/b/assets", ".", True, "home/flyte/task"),
    # Any other destination receives the contents, as with COPY.
    ("assets", "data", False, "home/flyte/task/data"),
    ("assets", "data", True, "home/flyte/task/data"),
    ("assets", "data/", False, "home/flyte/task/data"),
    ("assets", "./data/x", False, "home/flyte/task/data/x"),
    ("assets", "./", False, "home/flyte/task"),
    ("assets", "/", False, ""),
    ("assets", "/srv/assets", False, "srv/assets"),
    ("assets", "/srv/assets/", True, "srv/assets"),
    ("assets", "..", False, "home/flyte"),
    ("assets", "../other", True, "home/flyte/other"),
    ("assets", "../../../../..", True, ""),
]


@pytest.mark.parametrize(("src", "dst", "contents", "place"), FOLDERS)
def test_a_folder_goes_where_flyte_puts_it(src, dst, contents, place):
    assert folder_destination(src, dst, contents, WORKDIR) == place


def test_the_table_of_folders_is_what_flyte_does():
    """Flyte turns the three into the source and destination of a COPY, which copies a folder's contents."""
    answers = flyte(
        "from pathlib import Path\n"
        "import flyte\n"
        "answer = [flyte.Image.from_base('x').clone(name='n', registry='r', extendable=True)"
        ".with_source_folder(Path(src), dst, contents)._layers[-1].dst for src, dst, contents in given]",
        [row[:3] for row in FOLDERS],
    )
    for (src, dst, contents, place), copied_to in zip(FOLDERS, answers):
        # With a destination that is no `.`, and contents only, there is nothing left to decide.
        assert folder_destination("any", f"{copied_to}/", True, WORKDIR) == place, (
            src,
            dst,
            contents,
        )


@pytest.mark.parametrize(
    ("src", "dst", "place"),
    [
        ("settings.json", ".", "home/flyte/task/settings.json"),
        ("a/settings.json", ".", "home/flyte/task/settings.json"),
        ("a/settings.json", "", "home/flyte/task/settings.json"),
        ("a/settings.json", "./", "home/flyte/task/settings.json"),
        ("a/settings.json", "conf/", "home/flyte/task/conf/settings.json"),
        ("a/settings.json", "conf/.", "home/flyte/task/conf/settings.json"),
        ("a/settings.json", "..", "home/flyte/settings.json"),
        # Anything else is the file's new name.
        ("a/settings.json", "conf", "home/flyte/task/conf"),
        ("a/settings.json", "conf/other.json", "home/flyte/task/conf/other.json"),
        ("a/settings.json", "/etc/app.json", "etc/app.json"),
        ("a/settings.json", "/etc/app/", "etc/app/settings.json"),
        ("a/settings.json", "/", "settings.json"),
        ("a/settings.json", "../../../../../x", "x"),
        (".env", ".", "home/flyte/task/.env"),
    ],
)
def test_a_file_goes_where_copy_puts_it(src, dst, place):
    assert file_destination(src, dst, WORKDIR) == place


@given(
    st.sampled_from(["a", "a/b", "a/b.c"]),
    st.lists(st.sampled_from([".", "..", "x", "y.z", ""]), max_size=6).map("/".join),
    st.sampled_from(["/", "/w", "/home/flyte/task"]),
    st.booleans(),
)
def test_no_destination_leaves_the_image(src, dst, workdir, flag):
    for place in (file_destination(src, dst, workdir), folder_destination(src, dst, flag, workdir)):
        assert not place.startswith("/")
        assert ".." not in place.split("/")


# --- .dockerignore --------------------------------------------------------------------------------

TREE = [
    *("a.py", "b.pyc", "README.md", "data.csv", "x[1].txt", "!odd", "#odd", "star*", "a b.txt"),
    *("src/a.py", "src/b.pyc", "src/deep/c.py", "src/deep/er/d.pyc", "src/README.md"),
    *("build/out.bin", "build/keep/this.txt", "sub/build/out.bin", "tests/test_a.py"),
    *("node_modules/m/index.js", "file1.log", "file22.log", "logs/file1.log", "größe.txt"),
]

PATTERNS = {
    "nothing": "",
    "comments and blank lines": "# *.py\n\n   \n#",
    "a name at the top": "README.md",
    "a pattern at the top": "*.pyc",
    "a pattern anywhere": "**/*.pyc",
    "a folder": "build",
    "a folder with a slash": "build/",
    "a folder from the top": "/build",
    "a folder anywhere": "**/build",
    "a folder's contents": "build/*",
    "all below a folder": "build/**",
    "one level": "*/*.py",
    "two levels": "*/*/*.py",
    "any levels between": "src/**/d.pyc",
    "no level between": "src/**/a.py",
    "one character": "file?.log",
    "characters": "file[0-9].log",
    "characters not": "file[^0-9].log",
    "a bracket that is one": r"x\[1\].txt",
    "a star that is one": r"star\*",
    "everything": "*",
    "everything everywhere": "**",
    "everything but": "*\n!src\n",
    "everything but one file below": "*\n!src/deep/c.py",
    "back and forth": "*.md\n!README.md\nREADME.*",
    "the last decides": "!README.md\n*.md",
    "a file in a folder that is out": "build\n!build/keep/this.txt",
    "a folder in a folder that is out": "build\n!build/keep",
    "all of a kind but": "**/*.py\n!src/a.py",
    "white space around": "  *.pyc  \t",
    "white space within": "a b.txt",
    "a dot before": "./src/a.py",
    "dots within": "src/../tests",
    "an exclusion with a space": "*.md\n! README.md",
    "not ASCII": "größe.*",
    "a windows file": "*.pyc\r\n*.md\r\n",
    "a folder twice": "src/deep/\nsrc",
    "half a name": "READ",
    "half a path": "deep",
}


def kept(text: str) -> set[str]:
    return set(DockerIgnore.parse(text).kept(TREE))


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("*.pyc", {"b.pyc"}),
        ("**/*.pyc", {"b.pyc", "src/b.pyc", "src/deep/er/d.pyc"}),
        ("build", {"build/out.bin", "build/keep/this.txt"}),
        ("**/build", {"build/out.bin", "build/keep/this.txt", "sub/build/out.bin"}),
        ("build\n!build/keep", {"build/out.bin"}),
        ("src/**/a.py", {"src/a.py"}),
        ("*/*.py", {"src/a.py", "tests/test_a.py"}),
        ("file[^0-9].log", set()),
        ("file[^2].log", {"file1.log"}),
        (r"x\[1\].txt", {"x[1].txt"}),
        (r"star\*", {"star*"}),
        ("[[]x", set()),
        ("[a-c].p[x-z]", {"a.py"}),
        ("file[12-].log", {"file1.log"}),
        ("#a.py", set()),
        (r"\#odd", {"#odd"}),
        (r"\!odd", {"!odd"}),
        ("deep", set()),
    ],
)
def test_dockerignore_is_read_as_docker_documents_it(text, ignored):
    assert set(TREE) - kept(text) == ignored


def test_what_is_left_out_is_what_flyte_leaves_out(tmp_path):
    for path in TREE:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    answers = flyte(
        "import os\n"
        "from flyte._internal.imagebuild.docker import PatternMatcher\n"
        "root, texts = given\n"
        "def lines(text):\n"
        "    stripped = [line.strip() for line in text.splitlines()]\n"
        "    return [line for line in stripped if line and not line.startswith('#')]\n"
        "answer = [[p for p in PatternMatcher(lines(t)).walk(root) if os.path.isfile(os.path.join(root, p))] for t in texts]",
        [str(tmp_path), list(PATTERNS.values())],
    )
    differ = {
        name for (name, text), answer in zip(PATTERNS.items(), answers) if set(answer) != kept(text)
    }
    # In these, Flyte's own matcher is not Docker's: it knows neither a backslash nor `^`.
    assert differ == {"a bracket that is one", "a star that is one", "characters not"}


@pytest.mark.parametrize(
    "pattern",
    ["[", "[]", "[a", "a[b-", "\\", "[!a]", "[z-a]", "***", "**a", "[[:alpha:]]", "(", "+"],
)
def test_a_pattern_that_cannot_be_one_is_no_crash(pattern):
    DockerIgnore.parse(pattern).ignores("a/b.py")


patterns = st.text("ab*?/[]!.\\^-", max_size=9)


@given(
    st.lists(patterns, max_size=4).map("\n".join), st.sampled_from(["a", "a/b", "b/a.b/a", "ab"])
)
def test_any_text_is_read(text, path):
    assert DockerIgnore.parse(text).ignores(path) in (True, False)
