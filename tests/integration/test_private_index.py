"""What docs/private-indexes.md says, with real Pants and an index that wants a password."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.build_root import CHECKOUT, PANTS_TOML, BuildRoot
from tests.support.wheels import Wheel, lock_of, serve_index

PAGE = (CHECKOUT / "docs" / "private-indexes.md").read_text()
PUBLIC, PRIVATE = "https://pypi.org/simple/", "https://pypi.example.com/simple/"
PASSWORD = "planted-7f3a"
WHEEL = Wheel("pftest-private", files={"pftest_private.py": "value = 42\n"})
FILES = {
    "BUILD": """
        python_requirement(name="private", requirements=["pftest-private==1.0"])
        python_source(name="hello", source="hello.py")
        flyte_base_image(name="base", source="host")
        flyte_image(name="image", base=":base", dependencies=[":hello"])
        """,
    "hello.py": "import pftest_private\nprint(pftest_private.value)\n",
}


def block(language: str) -> str:
    """The page's block in this language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture(scope="module")
def index() -> Iterator[str]:
    with serve_index([WHEEL], password=PASSWORD) as url:
        yield url


@pytest.fixture(scope="module")
def root(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildRoot]:
    """Set up as the page says, but for the file with the login, which is not there yet."""
    said = block("toml").replace(PRIVATE, index)
    assert index in said
    assert PUBLIC in said
    path = tmp_path_factory.mktemp("private") / "root"
    root = BuildRoot(path, env={"NETRC": str(path.parent / "netrc")})
    toml = PANTS_TOML.format(src=str(CHECKOUT / "src" / "python"), roots=["/"])
    root.write({"pants.toml": toml + said, "3rdparty/python/default.lock": lock_of([WHEEL])})
    root.write(FILES)
    yield root
    root.stop()


def test_an_image_without_the_login_is_refused_with_what_to_write(root: BuildRoot) -> None:
    done = root.pants("package", "//:image", check=False)
    assert done.returncode == 1
    assert "//:image: pftest-private" in done.stderr
    for word in ("`[python-repos].indexes`", "netrc", "`[subprocess-environment].env_vars`"):
        assert word in done.stderr


def test_a_lock_file_without_the_login_fails_with_what_the_page_says_of_it(
    root: BuildRoot, index: str
) -> None:
    (words,) = re.findall(r"is pip's, `([^`]+)`", PAGE)
    command = ("--python-resolves-generate-lockfiles", "generate-lockfiles")
    for indexes in ([PUBLIC, index], [index]):
        done = root.pants(f"--python-repos-indexes={indexes}", *command, check=False)
        assert done.returncode == 1
        assert words in done.stderr


def test_lock_files_environments_and_images_get_the_packages(root: BuildRoot) -> None:
    login = block("text").replace("pypi.example.com", "127.0.0.1").replace(" me ", " user ")
    (root.path.parent / "netrc").write_text(login.replace("the-password-or-token", PASSWORD))
    lock = root.path / "3rdparty" / "python" / "default.lock"
    for arguments in (
        ("--python-resolves-generate-lockfiles", "generate-lockfiles"),
        ("run", "hello.py"),
        ("package", "//:image"),
    ):
        done = root.pants(*arguments)
        assert PASSWORD not in done.stdout + done.stderr
        if arguments[0] == "run":
            assert done.stdout == "42\n"
    assert "pftest_private-1.0" in lock.read_text()
    assert PASSWORD not in lock.read_text()
