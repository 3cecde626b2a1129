"""Tasks reach a control plane as Flyte itself would register them, with each version of Flyte that is supported."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flyte_pack
from flyte_pack.deploy.flyte_processes import Registered, RegistrationError
from flyte_pack.store.opening import open_store
from tests.support.control_plane import (
    IMAGE,
    SCRIPT,
    code,
    control_plane,
    entry,
    registrar,
    unpacked,
)
from tests.support.fake_secrets import FAKES
from tests.support.flyte_versions import MATRIX, NEWEST, pinned, python_with_flyte
from tests.support.object_stores import clean_environment, seaweedfs, unique

PYTHON_PATH = str(Path(flyte_pack.__file__).parent.parent)
TASKS = {"ml.train", "ml.score", "leaf.double"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


def test_a_secret_in_a_variable_is_seen_and_not_repeated(tmp_path):
    (text,) = FAKES["hugging-face-token"]
    token = text.partition("=")[2]
    files = {
        "p/train.py": "import flyte\n"
        f"env = flyte.TaskEnvironment('e', image='i:1', env_vars={{'A': 'x', 'HF': {token!r}}})\n"
        "@env.task\ndef train() -> int: return 1\n",
    }
    with registrar() as process:
        described = process.describe(
            [code(unpacked(tmp_path, files), entry("p/train.py:train", "task"))]
        )
    (leak,) = described.leaks
    assert leak.about.endswith(": task e.train")
    assert leak[1:] == ("HF", "hugging-face-token")


@pytest.mark.parametrize("line", MATRIX)
def test_an_environment_is_registered_with_what_it_depends_on_once(tmp_path, line):
    root = unpacked(tmp_path / "code")
    with control_plane(tmp_path / "plane") as plane, registrar(plane, line) as process:
        described = process.describe([code(root)])
        assert described.flyte == pinned(line)
        assert {task.name for task in described.tasks} == TASKS
        assert plane.state()["requests"] == {}, "describing asks nothing"
        versions = {task.name: f"v-{task.spec[:8]}" for task in described.tasks}
        first = list(process.register(versions))
        assert {(one.name, one.version) for one in first} == set(versions.items())
        assert {one.status for one in first} == {"new"}
        assert {one.status for one in process.register(versions)} == {"present"}
        assert plane.tasks == versions
        for kept in plane.state()["tasks"]:
            told = next(task for task in described.tasks if task.name == kept["name"])
            command = [part.replace("${VERSION}", kept["version"]) for part in told.command]
            assert kept["command"] == command
            assert kept["command"][-4:] == [
                *("mod", "services.ml.workflows", "instance", told.attribute)
            ]
            assert (kept["project"], kept["domain"]) == ("bikes", "development")
            assert kept["image"] == IMAGE
            assert kept["triggers"] == list(told.triggers)
            assert command[command.index("--tgz") + 1] == "s3://bundles/archives/ab.tar.gz"
            assert command[command.index("--dest") + 1] == "."


@pytest.mark.parametrize("line", MATRIX)
def test_what_is_registered_is_what_flytes_own_deploy_registers(tmp_path, line):
    root = unpacked(tmp_path / "code")
    program = f"""
import os, sys, pathlib
os.environ["DO_NOT_TRACK"] = "1"
sys.path.insert(0, {root!r})
import flyte
from flyte.models import CodeBundle, SerializationContext
flyte.init(endpoint=sys.argv[1], insecure=True, project="bikes", domain="development",
           root_dir=pathlib.Path({root!r}), sync_local_sys_paths=False)
from services.ml.workflows import env
from flyte._deploy import plan_deploy
from flyte._deployer import DeploymentContext, get_deployer
from flyte._internal.imagebuild.image_builder import ImageCache
import asyncio
envs = {{n: e for p in plan_deploy(env) for n, e in p.envs.items()}}
context = SerializationContext(project="bikes", domain="development", version="v1", root_dir=pathlib.Path({root!r}),
    code_bundle=CodeBundle(tgz="s3://bundles/archives/ab.tar.gz", destination=".", computed_version="ab" * 32),
    image_cache=ImageCache(image_lookup={{n: {IMAGE!r} for n in envs}}))
async def main():
    for e in envs.values():
        await get_deployer(type(e))(DeploymentContext(environment=e, serialization_context=context))
asyncio.run(main())
os._exit(0)  # a thread of Flyte's may abort a Python that takes itself down
"""
    with control_plane(tmp_path / "theirs") as theirs, control_plane(tmp_path / "ours") as ours:
        subprocess.run(
            [str(python_with_flyte(line)), "-I", "-c", program, theirs.endpoint],
            check=True,
            cwd=root,
        )
        with registrar(ours, line) as process:
            process.describe([code(root)])
            list(process.register(dict.fromkeys(TASKS, "v1")))
        assert {task["name"] for task in theirs.state()["tasks"]} == TASKS
        assert _comparable(ours) == _comparable(theirs)


def _comparable(plane):
    """Each request, with what the compressed image cache says for how it is spelled."""
    found = {}
    for task in plane.state()["tasks"]:
        args = task["request"]["spec"]["taskTemplate"]["container"]["args"]
        at = args.index("--image-cache") + 1
        args[at] = json.loads(gzip.decompress(base64.b64decode(args[at])))
        for trigger in task["request"].get("triggers", ()):
            inputs = trigger["spec"]["offloadedInputData"]
            # Each of the two has its own directory.
            inputs["uri"] = inputs["uri"].partition(f"{plane.directory}")[2]
        found[task["name"]] = task["request"]
    return found


def test_with_a_task_goes_what_it_may_start_without_triggers(tmp_path, plane):
    root = unpacked(tmp_path)
    with registrar(plane) as process:
        described = process.describe([code(root, entry("services/ml/workflows.py:train", "task"))])
        assert {task.name: task.along for task in described.tasks} == {
            one: one != "ml.train" for one in TASKS
        }
        assert not any(task.triggers for task in described.tasks if task.along)
        assert list(process.register({"ml.train": "alone"})) == [
            Registered("ml.train", "alone", "new")
        ]


def test_what_goes_along_gives_way_to_what_is_named_and_to_other_bundles(tmp_path):
    files = {
        "p/envs.py": "import flyte\nenv = flyte.TaskEnvironment('e', image='i:1')\n",
        "p/fit.py": "from p.envs import env\n@env.task\ndef fit() -> int: return 1\n",
        "p/train.py": "from p.envs import env\nfrom p.fit import fit\n@env.task\ndef train() -> int: return fit()\n",
        "p/score.py": "from p.envs import env\nfrom p.fit import fit\n@env.task\ndef score() -> int: return fit()\n",
    }
    roots = {name: unpacked(tmp_path / name, files) for name in ("train", "score", "fit")}

    def codes(*names):
        made = []
        for name in names:
            one = entry(f"p/{name}.py:{name}", "task")
            made.append(code(roots[name], dataclasses.replace(one, address=f"p:{name}")))
        return made

    with registrar() as process:
        for names, owner in ((("train", "score"), "p:train"), (("train", "fit"), "p:fit")):
            described = process.describe(codes(*names))
            found = {task.name: (task.address, task.along) for task in described.tasks}
            assert found == {
                **{f"e.{name}": (f"p:{name}", False) for name in names},
                "e.fit": (owner, "fit" not in names),
            }


def test_what_cannot_go_along_is_left_out_with_a_warning(tmp_path):
    files = {
        "p/train.py": "import flyte\nenv = flyte.TaskEnvironment('e', image='i:1')\n"
        "other = flyte.TaskEnvironment('o', image=None)\nenv.depends_on.append(other)\n"
        "@env.task\ndef train() -> int: return 1\n@other.task\ndef fit() -> int: return 1\n",
    }
    with registrar() as process:
        described = process.describe(
            [code(unpacked(tmp_path, files), entry("p/train.py:train", "task"))]
        )
    assert [task.name for task in described.tasks] == ["e.train"]
    assert any("o.fit has no image" in warning for warning in described.warnings)


@pytest.mark.parametrize("line", MATRIX)
def test_an_environment_has_its_tasks_in_other_modules(tmp_path, line):
    files = {
        "p/envs.py": "import flyte\nenv = flyte.TaskEnvironment('e', image='i:1')\n",
        "p/load.py": "from p.envs import env\n@env.task\ndef load() -> int: return 1\n",
        "p/steps/fit.py": "from p.envs import env\n@env.task\ndef fit() -> int: return 1\n",
    }
    root = unpacked(tmp_path / "code", files)
    one = dataclasses.replace(entry("p/envs.py:env"), modules=("p.load", "p.steps.fit"))
    with registrar(line=line) as process:
        described = process.describe([code(root, one)])
    assert {task.name: task.command[-4:] for task in described.tasks} == {
        "e.load": ("mod", "p.load", "instance", "load"),
        "e.fit": ("mod", "p.steps.fit", "instance", "fit"),
    }


def test_only_the_tasks_that_are_named_are_registered(tmp_path):
    root = unpacked(tmp_path / "code")
    with control_plane(tmp_path / "plane") as plane, registrar(plane) as process:
        process.describe([code(root)])
        list(process.register({"ml.score": "one"}))
        assert plane.tasks == {"ml.score": "one"}
        assert plane.requests("DeployTask") == 1


ELSEWHERE = """\
    import flyte
    from flyte.extras import ContainerTask
    from flyte.models import NativeInterface

    greet = ContainerTask(
        name="greet",
        image="alpine:3.18",
        input_data_dir="/in",
        output_data_dir="/out",
        outputs={"said": str},
        command=["sh", "-c", "echo hello"],
    )
    containers = flyte.TaskEnvironment.from_task("containers", greet)

    class Query(flyte.extend.TaskTemplate):
        def custom_config(self, context):
            return {"statement": "SELECT 1"}

        async def execute(self, **_):
            return None

    query = Query(
        name="query", interface=NativeInterface({}, {}), task_type="some_connector", image=None
    )
    queries = flyte.TaskEnvironment.from_task("queries", query)
    env = flyte.TaskEnvironment(name="ml", depends_on=[containers, queries])

    @env.task
    async def train(n: int = 1) -> int:
        return n
"""


@pytest.mark.parametrize(
    ("line", "point", "kind", "image", "names"),
    [
        *(
            (one, "w.py:env", "environment", IMAGE, {"ml.train", "greet", "query"})
            for one in MATRIX
        ),
        (NEWEST, "w.py:containers", "environment", None, {"greet"}),
        (NEWEST, "w.py:queries", "environment", None, {"query"}),
        (NEWEST, "w.py:greet", "task", None, {"greet"}),
        (NEWEST, "w.py:query", "task", None, {"query"}),
    ],
)
def test_what_runs_in_another_container_or_elsewhere_is_registered_as_flyte_does(
    tmp_path, line, point, kind, image, names
):
    root = unpacked(tmp_path / "code", {"w.py": ELSEWHERE})
    with control_plane(tmp_path / "plane") as plane, registrar(plane, line) as process:
        described = process.describe([code(root, entry(point, kind, image))])
        assert {task.name for task in described.tasks} == names
        attributes = {task.attribute for task in described.tasks}
        assert {name.rpartition(".")[2] for name in names} == attributes
        list(process.register(dict.fromkeys(names, "v1")))
        for task in plane.state()["tasks"]:
            template = task["request"]["spec"]["taskTemplate"]
            if task["name"] == "greet":
                assert template["type"] == "raw-container"
                assert (task["image"], task["command"]) == (
                    "alpine:3.18",
                    ["sh", "-c", "echo hello"],
                )
            elif task["name"] == "query":
                assert (template["type"], task["image"]) == ("some_connector", "")
                assert template["custom"] == {"statement": "SELECT 1"}


TALKATIVE = """\
    import flyte

    long = "ä" * 2000
    env = flyte.TaskEnvironment(name="ml", description=long)

    def train(n: int = 1) -> int:
        return n

    train.__doc__ = f"{long}\\n\\nl{long}\\n"
    hourly = flyte.Trigger(name="t", automation=flyte.FixedRate(60), description=long)
    train = env.task(triggers=(hourly,))(train)
"""


def test_a_text_that_a_backend_cuts_within_a_character_is_cut_before_it(tmp_path):
    root = unpacked(tmp_path / "code", {"w.py": TALKATIVE})
    with control_plane(tmp_path / "plane") as plane, registrar(plane) as process:
        process.describe([code(root, entry("w.py:env"))])
        list(process.register({"ml.train": "v1"}))
        [task] = plane.state()["tasks"]
        documentation = task["request"]["spec"]["documentation"]
        texts = [
            task["request"]["spec"]["environment"]["description"],
            documentation["shortDescription"],
            task["request"]["triggers"][0]["spec"]["description"],
            documentation["longDescription"],
        ]
        assert [len(text.encode()) for text in texts] == [254, 254, 254, 2047]


def test_modules_of_two_bundles_never_meet(tmp_path, plane):
    """The same module name with another content: each is described by its own."""
    one, two = (
        unpacked(
            tmp_path / name,
            {
                "tasks.py": f"""
                    import flyte, sys
                    env = flyte.TaskEnvironment(name="{name}", env_vars={{"SEEN": "{name}"}})
                    @env.task
                    def work() -> int:
                        return 1
                """
            },
        )
        for name in ("one", "two")
    )
    entries = [entry("tasks.py:env", address=f"services:{name}") for name in ("one", "two")]
    with registrar(plane) as process:
        described = process.describe([code(one, entries[0]), code(two, entries[1])])
        assert {(task.name, task.address) for task in described.tasks} == {
            ("one.work", "services:one"),
            ("two.work", "services:two"),
        }
        list(process.register({"one.work": "x1", "two.work": "x2"}))
    env = {task["name"]: task["env"] for task in plane.state()["tasks"]}
    assert env["one.work"] == {"SEEN": "one"}
    assert env["two.work"] == {"SEEN": "two"}


def test_many_bundles_are_not_all_kept_in_memory(tmp_path, plane, monkeypatch):
    """Those that are not are imported once more, and are told to Flyte as they were described."""
    monkeypatch.setattr("flyte_pack.deploy.registration._KEPT", 1)
    imports = tmp_path / "imports"
    codes = []
    for name in ("first", "second", "third"):
        tasks = f"""
            import flyte
            open({str(imports)!r}, "a").write("{name}\\n")
            env = flyte.TaskEnvironment(name="{name}")
            @env.task
            def work() -> int:
                return 1
        """
        root = unpacked(tmp_path / name, {"tasks.py": tasks})
        codes.append(code(root, entry("tasks.py:env", address=f"services:{name}")))
    with registrar(plane) as process:
        described = process.describe(codes)
        versions = {task.name: f"many-{task.spec[:8]}" for task in described.tasks}
        list(process.register({"first.work": versions["first.work"]}))
        assert sorted(imports.read_text().split()) == ["first", "second", "third"]
        list(process.register(versions))
    assert sorted(imports.read_text().split()) == ["first", "second", "second", "third", "third"]
    assert versions.items() <= plane.tasks.items()


@pytest.mark.parametrize(
    ("name", "said"), [("SIGINT", "interrupted"), ("SIGTERM", "stopped by SIGTERM")]
)
def test_a_signal_while_modules_are_imported_ends_all_processes_at_once(tmp_path, name, said):
    files = {
        "tasks.py": f"""
            import os, subprocess, time
            child = subprocess.Popen(["sleep", "600"])
            with open({str(tmp_path / "new")!r}, "w") as file:
                file.write(f"{{os.getpid()}} {{child.pid}}")
            os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "at")!r})
            time.sleep(600)
        """
    }
    root = unpacked(tmp_path / "code", files)
    program = f"""
import sys
from flyte_pack.command import guarded
from tests.support.control_plane import *
def work():
    with registrar() as process:
        process.describe([code({root!r}, entry("tasks.py:env"))])
sys.exit(guarded("", work))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PYTHON_PATH, *filter(None, sys.path)])},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "at").exists():
        assert process.poll() is None
        time.sleep(0.05)
    number = getattr(signal, name)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (128 + number, f"{said}\n")
    for pid in (tmp_path / "at").read_text().split():
        status = Path(f"/proc/{pid}/stat")
        # The one that adopts it may not have asked for its end yet.
        assert not status.exists() or ") Z " in status.read_text()


def test_the_current_domain_is_known_at_module_level_and_specs_are_per_domain(tmp_path):
    root = unpacked(
        tmp_path,
        {
            "tasks.py": """
                import flyte
                env = flyte.TaskEnvironment(name="etl", env_vars={"WHERE": flyte.current_domain()})
                @env.task
                def work() -> int:
                    return 1
            """
        },
    )
    specs = {}
    for domain in ("staging", "production"):
        with registrar(domain=domain) as process:
            (task,) = process.describe([code(root, entry("tasks.py:env"))]).tasks
            specs[domain] = task.spec
    assert specs["staging"] != specs["production"]


def test_task_modules_see_the_bundle_and_their_resolve_and_nothing_else(tmp_path, monkeypatch):
    """Neither the deploy program's modules and environment, nor what is in the directory that it is started in."""
    root = unpacked(
        tmp_path / "code",
        {
            "tasks.py": """
                import importlib.util, os, sys
                import flyte
                assert sys.path[0] == os.getcwd() == os.path.dirname(__file__)
                assert "SECRET_OF_THE_CALLER" not in os.environ
                assert os.environ["GIVEN"] == "yes"
                for name in ("flyte_pack", "flyte_shim", "stray", "flyte_side", "describe", "words"):
                    assert importlib.util.find_spec(name) is None, name
                print("to stdout")
                env = flyte.TaskEnvironment(name="etl")
                @env.task
                def work() -> int:
                    return 1
            """
        },
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "stray.py").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "planted")
    with registrar(
        import_environ={"PATH": os.defpath, "GIVEN": "yes", "PYTHONPATH": PYTHON_PATH}
    ) as p:
        assert p.describe([code(root, entry("tasks.py:env"))]).tasks


def test_embedded_code_has_no_bundle_in_its_command(tmp_path):
    root = unpacked(tmp_path)
    with registrar() as process:
        for task in process.describe([code(root, uri=None)]).tasks:
            assert "--tgz" not in task.command
            assert task.command[-4:-1] == ("mod", "services.ml.workflows", "instance")


def test_what_is_registered_survives_a_restart_and_an_old_version_keeps_its_content(tmp_path):
    root = unpacked(tmp_path / "code")
    with control_plane(tmp_path / "plane") as plane, registrar(plane) as process:
        process.describe([code(root)])
        list(process.register({"ml.score": "v1"}))
        before = plane.state()["tasks"]
    with control_plane(tmp_path / "plane") as plane, registrar(plane) as process:
        process.describe([code(root, uri="s3://bundles/archives/other.tar.gz")])
        with pytest.raises(RegistrationError, match="other content under version v1 already"):
            list(process.register({"ml.score": "v1"}))
        assert plane.state()["tasks"] == before


@pytest.mark.parametrize("line", MATRIX)
def test_an_upload_goes_through_the_control_plane(tmp_path, line):
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(b"content")
    with control_plane(tmp_path / "plane") as plane, registrar(plane, line) as process:
        uri = process.upload(str(file), "ab.tar.gz")
        assert uri.startswith("file://")
        assert uri.endswith("/ab.tar.gz")
        assert Path(uri[len("file://") :]).read_bytes() == b"content"
        assert process.upload(str(file), "ab.tar.gz") == uri


def test_an_upload_reaches_a_bucket_that_its_user_has_no_rights_to(tmp_path, monkeypatch):
    """By a URL that the control plane signs."""
    clean_environment(monkeypatch)
    store, prefix = seaweedfs(), unique()
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(b"content")
    uploads = ["--uploads", f"{store.uri}/{prefix}"]
    with control_plane(tmp_path / "plane", *uploads, environ=store.env) as plane:
        with registrar(plane) as process:
            uri = process.upload(str(file), "ab.tar.gz")
    directory, _, name = uri.rpartition("/")
    assert directory.startswith(f"{store.uri}/{prefix}/bikes/development/")
    for key, value in store.reader.items():
        monkeypatch.setenv(key, value)
    assert open_store(directory, "/").read(name, 100) == b"content"


def test_no_process_is_left(tmp_path, plane):
    """Not what task modules started either, and also where the program that registers is killed."""
    pids = tmp_path / "pids"
    root = unpacked(
        tmp_path / "code",
        {
            "tasks.py": f"""
                import os, subprocess
                import flyte
                child = subprocess.Popen(["sleep", "300"])
                open({str(pids)!r}, "a").write(f"{{os.getpid()}} {{child.pid}} ")
                env = flyte.TaskEnvironment(name="etl")
                @env.task
                def work() -> int:
                    return 1
            """
        },
    )
    with registrar(plane) as process:
        process.describe([code(root, entry("tasks.py:env"))])
        assert all(_lives(int(pid)) for pid in pids.read_text().split())
    _wait_for_the_end(pids)
    pids.unlink()
    program = f"""
import os
from tests.support.control_plane import *
with registrar() as process:
    process.describe([code({root!r}, entry("tasks.py:env"))])
    print("described", flush=True)
    import time; time.sleep(300)
"""
    killed = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([PYTHON_PATH, *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "described\n"
    killed.kill()
    killed.communicate()
    _wait_for_the_end(pids)


def test_a_control_plane_ends_with_the_program_that_started_it(tmp_path):
    program = f"""
import subprocess, sys
server = subprocess.Popen({[str(python_with_flyte()), str(SCRIPT), str(tmp_path)]!r}, stdout=subprocess.PIPE, text=True)
server.stdout.readline()
print(server.pid, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    (tmp_path / "pids").write_text(parent.stdout.readline())
    assert _lives(int((tmp_path / "pids").read_text()))
    parent.kill()
    parent.communicate()
    _wait_for_the_end(tmp_path / "pids")


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for_the_end(pids):
    deadline = time.monotonic() + 120
    while any(_lives(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)
