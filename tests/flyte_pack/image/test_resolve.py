"""`image-resolve` finds what an image's code needs of a lock file, and nothing more."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from flyte_pack.errors import UserError
from flyte_pack.image.pins import Lock, Pin
from flyte_pack.image.resolve import needed, parse_roots
from flyte_pack.image.wheel_target import InterpreterTarget, WheelTarget
from tests.support.image_tools import Tools
from tests.support.wheels import AMD64, ARM64, Wheel, lock_of, serve_index

TARGETS = {
    "amd64": WheelTarget("3.12", "linux/amd64"),
    "arm64": WheelTarget("3.12", "linux/arm64"),
    "3.10": WheelTarget("3.10", "linux/amd64"),
}

# One graph, which a lock has itself, or wheels have.
REQUIRES = {
    "app": ("lib>=1", "speed[fast]; platform_machine=='x86_64'", "tomli; python_version<'3.11'"),
    "lib": ("Common_Name", "docs; extra=='docs'", "win; sys_platform=='win32'"),
    "speed": ("native; extra=='fast'", "slow; extra=='slow'"),
    "common-name": (),
    "native": ("common-name",),
    "docs": ("theme",),
    "theme": ("docs",),  # in a circle
    "tomli": (),
    "unrelated": ("common-name",),
    "slow": (),
    "odd": ("common-name; sys_platform~='linux'",),
}
EXTRAS = {"lib": ("docs",), "speed": ("fast", "slow")}
WHEELS = [
    Wheel(name, requires=requires, extras=EXTRAS.get(name, ()))
    for name, requires in REQUIRES.items()
]

CLOSURES = {
    "what is asked for, transitively": ("lib", "amd64", "common-name lib"),
    "a name however it is written": ("COMMON.name", "amd64", "common-name"),
    "an extra": ("lib[docs]", "amd64", "common-name docs lib theme"),
    "an extra that another asks for": ("app", "amd64", "app common-name lib native speed"),
    "another platform": ("app", "arm64", "app common-name lib"),
    "another Python": ("app", "3.10", "app common-name lib native speed tomli"),
    "several roots": (
        "unrelated\n\n# words\nslow  # more words",
        "amd64",
        "common-name slow unrelated",
    ),
    "two extras": ("speed[fast,slow]", "amd64", "common-name native slow speed"),
    "one root twice": ("speed[slow]\nspeed[fast]", "amd64", "common-name native slow speed"),
    "a marker that holds": ("slow; python_version>='3.11'", "amd64", "slow"),
    "a marker that does not": ("slow; python_version<'3.11'\ntomli", "amd64", "tomli"),
    "a marker that compares what has no order": ("slow; os_name~='posix'", "amd64", "slow"),
    "such a one of a distribution": ("odd", "amd64", "common-name odd"),
    "nothing": ("", "amd64", ""),
    "nothing for this platform": ("slow; sys_platform=='win32'", "amd64", ""),
}


def graph_lock(**left_out: object) -> Lock:
    pins = {
        name: Pin(name, "1.0", ("sha256:" + "a" * 64,), tuple(map(Requirement, requires)))
        for name, requires in REQUIRES.items()
        if name not in left_out
    }
    return Lock(pins, has_graph=True)


@pytest.fixture(scope="module")
def index():
    with serve_index(WHEELS) as url:
        yield url


@pytest.fixture
def tools(tmp_path, index):
    return Tools(tmp_path, index)


@pytest.mark.parametrize(("roots", "target", "closure"), CLOSURES.values(), ids=CLOSURES)
def test_the_closure_by_a_locks_own_graph(roots, target, closure):
    found = needed(graph_lock(), parse_roots(roots), TARGETS[target])
    assert [pin.name for pin in found] == closure.split()


@pytest.mark.parametrize(("roots", "target", "closure"), CLOSURES.values(), ids=CLOSURES)
def test_the_closure_by_the_metadata_of_wheels(roots, target, closure, tools):
    chosen = TARGETS[target]
    done = tools.resolve(lock_of(WHEELS), roots, python=chosen.python, platform=chosen.platform)
    assert (done.code, done.stderr) == (0, "")
    names = re.findall(r"^([a-z-]+)==1.0 \\$", done.out.read_text(), re.MULTILINE)
    assert names == closure.split()


def test_what_comes_out_is_the_locks_own_pin_with_all_its_hashes(tools):
    done = tools.resolve(lock_of(WHEELS), "slow")
    (slow,) = [wheel for wheel in WHEELS if wheel.name == "slow"]
    assert done.out.read_text() == f"slow==1.0 \\\n    --hash=sha256:{slow.sha256}\n"


def test_the_name_of_the_resolve_is_not_in_what_comes_out(tools):
    """So two images that need the same share all that follows."""
    one = tools.resolve(lock_of(WHEELS), "lib", "--resolve", "one").out.read_bytes()
    two = tools.resolve(lock_of(reversed(WHEELS)), "lib>=1", "--resolve", "two").out.read_bytes()
    assert one == two


def test_an_older_version_stays_where_the_index_has_a_newer_one(tmp_path):
    old, new = Wheel("a"), Wheel("a", "2.0", requires=("unlocked",))
    with serve_index([old, new]) as index:
        done = Tools(tmp_path, index).resolve(lock_of([old]), "a")
    assert done.out.read_text().startswith("a==1.0 ")


LACKING = {
    "by who needs it": (
        "lib",
        ("common-name",),
        "lib 1.0 needs common-name, and {lock} does not have it",
    ),
    "by all who need it": (
        "lib\nnative",
        ("common-name",),
        "lib 1.0 and native 1.0 need common-name, and {lock} does not have it",
    ),
    "asked for by the code": (
        "gone",
        (),
        "the image's code needs gone, and {lock} does not have it",
    ),
    "in another version": (
        "lib>=2",
        (),
        "the image's code asks for lib>=2, and {lock} has 1.0: make it anew",
    ),
}


@pytest.mark.parametrize("kind", ["graph", "metadata"])
@pytest.mark.parametrize(("roots", "left_out", "message"), LACKING.values(), ids=LACKING)
def test_what_a_lock_lacks_is_named(kind, roots, left_out, message, tools):
    if kind == "graph":
        lock = graph_lock(**dict.fromkeys(left_out))
        with pytest.raises(UserError) as error:
            needed(lock, parse_roots(roots), TARGETS["amd64"], "the lock")
        assert message.format(lock="the lock") in str(error.value)
    else:
        text = lock_of(wheel for wheel in WHEELS if wheel.name not in left_out)
        done = tools.resolve(text, roots)
        assert done.code == 1
        assert not done.out.exists()
        expected = message.format(lock="the lock file of the resolve ml")
        assert done.stderr.startswith(f"flyte_pack image-resolve: {expected}")


def test_what_is_locked_for_other_platforms_only_is_said_to_be(tools):
    lock = (
        lock_of([Wheel("lib")])
        + f"common-name==1.0 ; sys_platform=='win32' --hash=sha256:{'a' * 64}\n"
    )
    done = tools.resolve(lock, "lib")
    assert "has it only for others than linux/amd64 and CPython 3.12" in done.stderr


def test_pip_tools_leaving_setuptools_out_is_explained():
    lock = Lock({"a": Pin("a", "1.0", ("x",), (Requirement("setuptools"),))}, has_graph=True)
    with pytest.raises(UserError, match="--allow-unsafe"):
        needed(lock, parse_roots("a"), TARGETS["amd64"])


def test_what_the_lock_was_told_to_exclude_is_not_missed():
    pins = {"a": Pin("a", "1.0", ("x",), (Requirement("gone"),))}
    lock = Lock(pins, excluded=frozenset(["gone"]), has_graph=True)
    assert needed(lock, parse_roots("a"), TARGETS["amd64"]) == [pins["a"]]


UNUSABLE = {
    "a URL in the lock": (
        "lib @ https://user:secret@example.org/lib-1.0-py3-none-any.whl\n",
        "lib",
        "needs lib, but it comes from a URL",
    ),
    "no hash in the lock": ("lib==1.0\n", "lib", "needs lib 1.0, but it has no SHA-256"),
    "a root by URL": (
        "",
        "lib @ git+https://user:secret@example.org/lib",
        "lib is asked for by URL",
    ),
    "a root that is none": ("", "lib ==", "lib == is not a requirement"),
    "a lock that is none": ("<html>", "lib", "a.lock: line 1: <html> is not a pinned requirement"),
}


@pytest.mark.parametrize(("lock", "roots", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_can_not_be_used_is_refused(lock, roots, message, tools):
    done = tools.resolve(lock, roots)
    assert done.code == 1
    assert message in done.stderr
    assert "secret" not in done.stderr
    assert not done.out.exists()


def test_a_wheel_for_another_platform_only_is_an_error_that_names_it(tmp_path):
    wheels = [Wheel("app", requires=("native",)), Wheel("native", tag=AMD64)]
    with serve_index(wheels) as index:
        tools = Tools(tmp_path, index)
        assert tools.resolve(lock_of(wheels), "app").code == 0
        done = tools.resolve(lock_of(wheels), "app", platform="linux/arm64")
    assert done.code == 1
    assert "native 1.0 has no wheel for linux/arm64 and CPython 3.12" in done.stderr
    assert "manylinux_2_28_aarch64" in done.stderr


def test_a_lock_for_two_platforms_serves_both(tmp_path):
    wheels = [
        Wheel("native", tag=AMD64),
        Wheel("native", tag=ARM64, requires=("only-arm",)),
        Wheel("only-arm"),
    ]
    with serve_index(wheels) as index:
        done = Tools(tmp_path, index).resolve(lock_of(wheels), "native", platform="linux/arm64")
    assert done.code == 0, done.stderr
    assert done.out.read_text().count("--hash") == 3


def test_an_index_that_can_not_be_reached_is_an_error_without_its_password(tmp_path):
    tools = Tools(tmp_path, "http://user:secret@127.0.0.1:9/simple/")
    done = tools.resolve(lock_of(WHEELS), "lib")
    assert done.code == 1
    assert "the package index cannot be reached" in done.stderr
    assert "secret" not in done.stderr


def test_an_index_that_wants_a_password_is_said_to(tmp_path):
    with serve_index(WHEELS, password="secret") as index:
        done = Tools(tmp_path, index).resolve(lock_of(WHEELS), "lib")
        assert "the package index refuses us" in done.stderr
        known = index.replace("//", "//user:secret@")
        assert Tools(tmp_path / "known", known).resolve(lock_of(WHEELS), "lib").code == 0


def test_settings_of_the_shell_that_would_change_the_result_are_not_heeded(tools, tmp_path):
    (tmp_path / "c.txt").write_text("lib==99\n")
    done = tools.resolve(
        lock_of(WHEELS), "lib", UV_CONSTRAINT=str(tmp_path / "c.txt"), UV_PRERELEASE="nonsense"
    )
    assert done.code == 0, done.stderr


def test_packages_may_be_chosen_for_an_interpreter_of_this_machine():
    """Of whatever system: its markers hold, not those of an image."""
    target = InterpreterTarget.asked(sys.executable)
    assert target.minor == "{}.{}".format(*sys.version_info)
    assert target.marker_environment == default_environment()
    lock = Lock({"a": Pin("a", "1", (), ()), "b": Pin("b", "1", (), ())}, has_graph=True)
    here = f"sys_platform == '{sys.platform}'"
    roots = parse_roots(f"a; {here}\nb; {here.replace('==', '!=')}")
    assert [pin.name for pin in needed(lock, roots, target)] == ["a"]
    with pytest.raises(
        UserError, match="the task's code needs c, and the lock file does not have it"
    ):
        needed(lock, parse_roots("c"), target)


@pytest.mark.parametrize("path", ["/no/such/python", "/bin/false"])
def test_an_interpreter_that_does_not_work_is_named(path):
    with pytest.raises(UserError, match=f"^{path}, to choose packages for: "):
        InterpreterTarget.asked(path)
