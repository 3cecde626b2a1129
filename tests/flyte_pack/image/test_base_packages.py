"""The packages that a base has in a virtual environment stay, but for those that are locked."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from flyte_pack.image.base import BaseFacts, BaseImage
from flyte_pack.image.base_files import BaseReader
from flyte_pack.image.environment import beside, environment_of
from flyte_pack.image.layer import pack_layer
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.image.unpack import unpack
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.model import OCI_LAYER, Descriptor, blob_path, digest_of
from tests.support.bases import base_image, base_platform
from tests.support.images import layout_of, tar_of

SITE = "lib/python3.11/site-packages"
ENV = ["PATH=/usr/local/bin", "PYTHON_VERSION=3.11.7"]
PYTHON = ("usr/local/bin/python3.11", b"\x7fELF\0003.11.7\0")


def venv(top, members=(), cfg=b"home = /usr/local/bin\n"):
    """A virtual environment at `top` with these members below its packages."""
    return [
        (f"{top}/pyvenv.cfg", cfg),
        (f"{top}/bin/python", "/usr/local/bin/python3.11"),
        (f"{top}/bin/python3", "python"),
        *((f"{top}/{SITE}/{path}", content) for path, content in members),
    ]


def wheel(name, version, *files, record=True, also=()):
    """What installing a wheel of these files leaves. also: listed, too."""
    info = f"{name}-{version}.dist-info"
    rows = "".join(f"{path},,\n" for path in (*files, *also, f"{info}/RECORD"))
    return [
        *((path, f"# {name} {version}\n".encode()) for path in files),
        (f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
        *([(f"{info}/RECORD", rows.encode())] if record else []),
    ]


def environment(members, python=None, **config):
    """What a base of these members has, as its lock file hands it on."""
    tar = tar_of(PYTHON, *members)
    reader, base = BaseReader(), base_platform(**{"Env": ENV, **config})
    reader.add(Descriptor(OCI_LAYER, digest_of(tar), len(tar)), [tar], "a layer")
    image = base_image(replace(base, facts=reader.facts(base, python)))
    (locked,) = BaseImage.from_json(image.to_json()).platforms
    return environment_of(locked, python, None)


PLUG = wheel("plug", "1.0", "plug/__init__.py", "plug/gone.py", "plug_extra.py")
OTHER = wheel("other", "3.0", "other.py")


@pytest.mark.parametrize(
    ("members", "hidden"),
    [
        ([*PLUG, *OTHER], {"plug", "plug-1.0.dist-info", "plug_extra.py"}),
        # Names are compared as PyPA normalizes them.
        (wheel("Plug", "1.0", "x.py"), {"Plug-1.0.dist-info", "x.py"}),
        # Others have files in the same directories.
        ([*wheel("plug", "1", "ns/plug/a.py", "ns/both.py"), *wheel("o", "1", "ns/o.py", "ns/both.py")],
         {"ns/plug", "plug-1.dist-info"}),
        # Bytecode goes with its source, whoever compiled it.
        ([*wheel("plug", "1", "plug.py"), ("__pycache__/plug.cpython-311.pyc", b""),
          ("__pycache__/other.cpython-311.pyc", b""), ("other.py", b"")],
         {"__pycache__/plug.cpython-311.pyc", "plug-1.dist-info", "plug.py"}),
        ([*wheel("plug", "1", "plug/a.py"), ("plug/__pycache__/a.cpython-311.opt-1.pyc", b"")],
         {"plug", "plug-1.dist-info"}),
        # What nobody's RECORD lists stays.
        ([*wheel("plug", "1", "plug/a.py"), ("plug/data.txt", b"")], {"plug/a.py", "plug-1.dist-info"}),
        # Programs, and what leads out of the environment or is not there.
        ([*wheel("plug", "1", also=["../../../bin/plug", "../../../bin/none", "no/such", "/opt/venv/abs",
                                    "../../../../../usr/local/bin/python3.11", "/usr/local/bin"])],
         {"plug-1.dist-info", "../../../bin/plug", "../../../abs"}),
        ([("plug-1.0-py3.11.egg/plug.py", b""), ("plug-1.0-py3.11.egg/EGG-INFO/PKG-INFO", b"")],
         {"plug-1.0-py3.11.egg"}),
        # An image of ours as a base: its shim is replaced whatever is locked.
        ([("flyte_shim/cli.py", b""), ("flyte_shim/old.py", b""), ("pants_flyte_base.pth", b"")],
         {"flyte_shim", "pants_flyte_base.pth"}),
    ],
)  # fmt: skip
def test_what_is_locked_replaces_the_bases_and_all_else_stays(members, hidden):
    members = [("nobodys.py", b""), *members]
    programs = [("opt/venv/bin/plug", b"#!/opt/venv/bin/python\n"), ("opt/venv/abs", b"")]
    found, left = beside(environment([*venv("opt/venv", members), *programs]), {"plug"})
    assert found.keeps
    places = {path if path.startswith("..") else f"{SITE}/{path}" for path in hidden}
    assert set(left.paths) == {f"opt/venv/{path.replace('../../../', '')}" for path in places}
    assert any("/opt/venv stay importable, after the locked ones" in note for note in found.notes)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        (venv("opt/venv", wheel("plug", "1.0", "plug.py", record=False)), "it has no RECORD"),
        (venv("opt/venv", [("plug-1.0-py3.11.egg-info", b"")]), "plug 1.0 is not known"),
        (venv("opt/venv", [("plug.egg-link", b"/src\n")]), "of the base's plug is not known"),
        (venv("opt/venv", [("plug-1.0.dist-info/RECORD", b"\xff\xfe")]), "it has no RECORD"),
        ([("opt/venv/lib/python3.10/site-packages/plug.py", b""),
          ("opt/venv/pyvenv.cfg", b"home = /usr/local/bin\n")], "the locked packages are there"),
        ([("opt/venv/data", b"")], "the locked packages are there"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_left_out_as_a_whole(members, why):
    found, left = beside(environment([*members, *venv("x")]), {"plug"})
    assert left.paths == ("opt/venv",)
    assert "what the base has in /opt/venv is left out" in " ".join(found.notes)
    assert why in " ".join(found.notes)


@pytest.mark.parametrize(
    ("python", "env", "joined"),
    [
        ("/opt/venv/bin/python", [], ["/opt/venv"]),
        ("/opt/venv/bin/python3", [], ["/opt/venv"]),
        ("/usr/local/bin/python3.11", [], ["/opt/venv"]),
        ("/srv/env/bin/python3", [], [f"/srv/env/{SITE}", "/opt/venv"]),
        # Python itself looks for pyvenv.cfg beside the path that it is called by.
        ("/link/python", [], ["/opt/venv"]),
        ("/chain", [], [f"/srv/env/{SITE}", "/opt/venv"]),
        (None, ["PATH=/opt/venv/bin:/usr/local/bin"], ["/opt/venv"]),
        (None, ["PATH=/usr/local/bin:/srv/env/bin"], ["/opt/venv"]),
        (None, ["PATH=/srv/env/bin:/usr/local/bin"], [f"/srv/env/{SITE}", "/opt/venv"]),
        (None, ["PATH=/usr/local/bin", "VIRTUAL_ENV=/srv/env"], [f"/srv/env/{SITE}", "/opt/venv"]),
        (None, ["PATH=/none:rel", "VIRTUAL_ENV=rel"], ["/opt/venv"]),
    ],
)  # fmt: skip
def test_the_environment_is_the_one_that_the_bases_programs_use(python, env, joined):
    members = [
        *venv("opt/venv", OTHER),
        *venv("srv/env", PLUG, b"home = /usr/local/bin\ninclude-system-site-packages = false\n"),
        ("usr/local/bin/python3", "python3.11"),
        ("link", "srv/env/bin"),
        ("chain", "a/one"),
        ("a/one", "../two"),
        ("two", "/srv/env/bin/python3"),
    ]
    found, left = beside(
        environment(members, python, Env=["PYTHON_VERSION=3.11.7", *env]), {"plug"}
    )
    assert (found.interpreter, found.version) == ("/usr/local/bin/python3.11", "3.11.7")
    assert f"the base's packages in {' and '.join(reversed(joined))} stay" in " ".join(found.notes)
    elsewhere = len(joined) > 1
    assert found.packages == ((f"/srv/env/{SITE}",) if elsewhere else ())
    # Its own programs find the locked one.
    link = (f"srv/env/{SITE}/pants_flyte_locked.pth", f"/opt/venv/{SITE}\n")
    assert left.texts == ((link,) if elsewhere else ())
    assert found.isolated == elsewhere


LOOK = """if True:
    import importlib.metadata, importlib.util, json, sys
    sys.path[:0] = path = json.loads(sys.argv[1])
    print(*sorted(f"{d.metadata['Name']}-{d.version}" for d in importlib.metadata.distributions(path=path)))
    print(*(name for name in ("plug.gone", "other", "nobodys") if importlib.util.find_spec(name)))
"""


def test_packages_that_an_environment_has_by_a_link_are_hidden_where_they_are():
    members = [*venv("opt/venv"), *((f"srv/site/{path}", content) for path, content in PLUG)]
    members.append((f"opt/venv/{SITE}", "/srv/site"))
    found, left = beside(environment(members), {"plug"})
    assert found.packages == ("/srv/site",)  # our directory takes the place of the link
    names = ("plug", "plug-1.0.dist-info", "plug_extra.py")
    assert left.paths == ("opt/venv", *(f"srv/site/{name}" for name in names))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("top", ["opt/venv", "srv/env"])
def test_one_version_is_importable_in_the_image(tmp_path, top, record):
    """Real layers, unpacked, and a Python that looks into them."""
    plug = wheel("plug", "1.0", "plug/__init__.py", "plug/gone.py", record=record)
    members = venv(top, [*plug, *OTHER, ("nobodys.py", b"")])
    found, left = beside(environment(members, f"/{top}/bin/python"), {"plug"})
    texts = tuple((path, text, 0o644) for path, text in left.texts)
    plan = LayerPlan(left.what, (0, 0), (), texts=texts, hidden=left.paths)
    (tmp_path / "sources").mkdir()
    layer = pack_layer(plan, str(tmp_path / "sources"), str(tmp_path / "out"))
    hiding = gzip.decompress((tmp_path / "out" / blob_path(layer.digest)).read_bytes())
    ours = [(f"opt/venv/{SITE}/{p}", c) for p, c in wheel("plug", "2.0", "plug/__init__.py")]
    layers = [tar_of(PYTHON, *members), hiding, tar_of(*ours)]
    layout = open_layout(str(layout_of(tmp_path / "layout", layers)))
    (image,) = layout.images(layout.tops()[0])
    root = tmp_path / "root"
    root.mkdir()
    unpack(layout, image.manifest.layers, str(root))
    path = [f"{root}/opt/venv/{SITE}", *(f"{root}{place}" for place in found.packages)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOOK, json.dumps(path)], capture_output=True, text=True
    )
    there = "other-3.0 plug-2.0\nother nobodys\n" if record else "plug-2.0\n\n"
    assert (done.stdout, done.stderr) == (there, "")


def test_flyte_of_the_base_counts_while_it_stays():
    flyte = wheel("flyte", "2.0", "flyte/__init__.py")
    assert beside(environment(venv("opt/venv", flyte)), set())[0].has_flyte
    odd = [*flyte, *wheel("plug", "1", "plug.py", record=False)]
    assert not beside(environment(venv("opt/venv", odd)), {"plug"})[0].has_flyte
    assert beside(environment(venv("opt/venv", odd)), set())[0].has_flyte


def test_a_lock_file_from_before_has_what_is_in_our_place_left_out():
    """Until the base is locked again, which reads its layers once more."""
    before = BaseFacts("/usr/local/bin/python3.11", "3.11.7", occupied=True, packages=("/srv/p",))
    assert not before.is_whole
    found = environment_of(replace(base_platform(), facts=before), None, None)
    settled, left = beside(found, {"plug"})
    assert (settled.packages, left.paths) == (("/srv/p",), ("opt/venv",))
    assert BaseFacts("/usr/local/bin/python3.11").is_whole
