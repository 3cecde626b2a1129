"""An inventory is CycloneDX 1.6 by its schema and its own library, and says what is there."""

from __future__ import annotations

import json

import pytest
from cyclonedx.model import HashAlgorithm
from cyclonedx.model.component import ComponentType

from flyte_pack.bundle import pack
from flyte_pack.bundle_plan import BundlePlan, PlanFile
from flyte_pack.errors import UserError
from flyte_pack.image.wheel_target import WheelTarget
from flyte_pack.inventory.bundle import main as pack_with_inventory
from flyte_pack.inventory.layers import distribution, read_layer
from flyte_pack.inventory.plan import (
    BundleInventory,
    CodeFile,
    ImageInventory,
    PackagesWanted,
    PlatformPart,
)
from flyte_pack.inventory.program import main
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.model import Platform, blob_path
from flyte_shim.hashing import sha256_bytes
from tests.support.cyclonedx import by_name, read_bom

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
HASH, OTHER = "a" * 64, "b" * 64
SITE = "opt/venv/lib/python3.12/site-packages"
TARGET = WheelTarget("3.12", "linux/amd64")

PIP = (
    f"flyte==2.12.1 --hash=sha256:{HASH}\nnumpy==2.2.1 --hash=sha256:{HASH} --hash=sha256:{OTHER}\n"
)
PYLOCK = f"""\
lock-version = "1.0"
created-by = "test"

[[packages]]
name = "flyte"
version = "2.12.1"
wheels = [{{ name = "flyte-2.12.1-py3-none-any.whl", url = "https://x/flyte-2.12.1-py3-none-any.whl", hashes = {{ sha256 = "{HASH}" }} }}]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(kind, plan, out="x.cdx.json"):
    """What the command writes, twice the same."""
    path = "plan.json"
    with open(path, "wb") as file:
        file.write(plan.to_json())
    for _ in range(2):
        assert main([f"--{kind}", path, "--out", out]) == 0
        with open(out, "rb") as file:
            written = file.read()
    return written


# --- bundles -------------------------------------------------------------------------------------


def bundle(here, requirements=(), lock=None, owner="libs/a.py", address="services:train"):
    (here / "sources").mkdir(exist_ok=True)
    (here / "sources" / "a.py").write_text("a = 1\n")
    (here / "sources" / "b.csv").write_text("1,2\n")
    plan = BundlePlan(
        "auto",
        None,
        (),
        (
            PlanFile("a.py", "libs/a.py", owner, "imported", None),
            PlanFile("b.csv", "data/b.csv", None, "all", None),
        ),
    )
    (here / "bundle.json").write_bytes(plan.to_json())
    summary = pack(plan, "sources", "x.tar.gz", "x.manifest.json", "x.summary.json")
    if lock is not None:
        (here / "resolve.lock").write_text(lock)
    wanted = PackagesWanted(tuple(requirements), None if lock is None else "resolve.lock", "3.12")
    listed("packages", wanted, out="packages.json")
    asked = BundleInventory(address, "x.manifest.json", ((owner, "libs:libs"),), "packages.json")
    (here / "inventory.json").write_bytes(asked.to_json())
    return summary, packed(here)


def packed(here):
    """The inventory that the packer writes, twice the same."""
    argv = [
        "inventory.json",
        "x.cdx.json",
        "--plan",
        "bundle.json",
        "--sources",
        "sources",
        "--archive",
        "x.tar.gz",
    ]
    argv += ["--manifest", "x.manifest.json", "--summary", "x.summary.json"]
    written = []
    for _ in range(2):
        assert pack_with_inventory(argv) == 0
        written.append((here / "x.cdx.json").read_bytes())
    assert written[0] == written[1]
    return written[0]


def test_a_bundle_is_named_by_its_content_and_holds_its_files_by_target(here):
    summary, data = bundle(here)
    bom = read_bom(data)
    top = bom.metadata.component
    assert (top.type, top.name) == (ComponentType.APPLICATION, "services:train")
    assert top.version == summary.content_hash
    assert [(h.alg, h.content) for h in top.hashes] == [
        (HashAlgorithm.SHA_256, summary.archive_hash)
    ]
    found = by_name(bom)
    assert set(found) == {"libs:libs", "data/b.csv"}
    (file,) = found["libs:libs"].components
    assert (file.type, file.name) == (ComponentType.FILE, "libs/a.py")
    assert next(iter(file.hashes)).content == sha256_bytes(b"a = 1\n")
    assert found["data/b.csv"].type is ComponentType.FILE
    assert b'"timestamp"' not in data


def test_another_content_has_another_serial_number(here):
    numbers = {
        read_bom(bundle(here, address=address)[1]).serial_number
        for address in ("services:train", "services:train", "services:other")
    }
    assert len(numbers) == 2


def test_what_the_code_needs_has_the_version_and_the_hashes_of_the_lock_file(here):
    bom = read_bom(bundle(here, ("NumPy>=2", "absent", "flyte; python_version < '3'"), PIP)[1])
    found = by_name(bom)
    assert str(found["numpy"].purl) == "pkg:pypi/numpy@2.2.1"
    (reference,) = found["numpy"].external_references
    assert {one.content for one in reference.hashes} == {HASH, OTHER}
    assert found["absent"].version is None
    assert "flyte" not in found  # not on that Python


def test_without_a_graph_in_the_lock_file_it_says_that_more_may_be_needed(here):
    document = json.loads(bundle(here, ("numpy",), PIP)[1])
    assert {"aggregate": "incomplete", "dependencies": ["what-is-listed"]} in document[
        "compositions"
    ]
    document = json.loads(bundle(here)[1])
    assert "incomplete" not in [one["aggregate"] for one in document["compositions"]]


def test_the_graph_of_a_lock_file_leads_to_what_is_needed_in_turn(here):
    lock = {
        "locked_resolves": [
            {
                "platform_tag": None,
                "locked_requirements": [
                    {
                        "project_name": name,
                        "version": "1.0",
                        "requires_dists": needs,
                        "artifacts": [
                            {
                                "url": f"https://x.example/{name}-1.0-py3-none-any.whl",
                                "algorithm": "sha256",
                                "hash": HASH,
                            }
                        ],
                    }
                    for name, needs in (("one", ["two"]), ("two", []), ("three", []))
                ],
            }
        ]
    }
    data = bundle(here, ("one",), json.dumps(lock))[1]
    assert {"one", "two"} == {n for n, c in by_name(read_bom(data)).items() if c.purl}
    depends = {one["ref"]: one.get("dependsOn") for one in json.loads(data)["dependencies"]}
    assert depends["pkg:pypi/one@1.0"] == ["pkg:pypi/two@1.0"]


# --- images --------------------------------------------------------------------------------------


def layer(**files):
    """A layer of these files, by path with `__` for `/`; gives its digest."""
    with LayerWriter(".") as writer:
        for path, content in sorted(files.items()):
            writer.add_bytes(path, content)
        return writer.finish("a test's").digest


def metadata(name, version, *lines):
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
    return "\n".join([*head, "", "Name: of the text"]).encode()


def packages(*texts):
    return layer(
        **{f"{SITE}/p{number}.dist-info/METADATA": text for number, text in enumerate(texts)}
    )


def image(platforms, files=(), base="docker.io/library/python:3.12-slim", in_registry=True):
    plan = ImageInventory(
        "services:image", f"sha256:{HASH}", base, in_registry, tuple(platforms), tuple(files)
    )
    return listed("image", plan)


def part(*layers, platform=AMD64, pins=None):
    return PlatformPart(platform, f"sha256:{OTHER}", layers, "3.12", None, pins)


def test_an_image_has_its_base_by_digest_and_its_distributions_with_licences(here):
    (here / "pins.txt").write_text(f"a-b==1.0 --hash=sha256:{HASH}\n")
    found = packages(
        metadata("A.B", "1.0", "License-Expression: MIT OR Apache-2.0", "Requires-Dist: c-d"),
        metadata("c_d", "2", "License: BSD", "Requires-Dist: a_b ; extra == 'x'"),
        metadata(
            *(
                "e",
                "3",
                "License: a long text",
                "Classifier: License :: OSI Approved :: MIT License",
            ),
            "Classifier: License :: OSI Approved",
        ),
        metadata("f", "4", "License: " + "x" * 200),
    )
    data = image([part(found, pins="pins.txt")])
    components = by_name(read_bom(data))
    base = components.pop("docker.io/library/python:3.12-slim")
    assert base.version == f"sha256:{OTHER}"
    assert str(base.purl) == (
        f"pkg:oci/python@sha256:{OTHER}?repository_url=docker.io/library/python&tag=3.12-slim"
    )
    assert {name: str(one.purl) for name, one in components.items()} == {
        "a-b": "pkg:pypi/a-b@1.0",
        "c-d": "pkg:pypi/c-d@2",
        "e": "pkg:pypi/e@3",
        "f": "pkg:pypi/f@4",
    }
    licences = {
        name: [getattr(found, "value", None) or found.name for found in one.licenses]
        for name, one in components.items()
    }
    assert licences == {"a-b": ["MIT OR Apache-2.0"], "c-d": ["BSD"], "e": ["MIT License"], "f": []}
    assert next(iter(components["a-b"].external_references)).hashes
    depends = {one["ref"]: one.get("dependsOn", []) for one in json.loads(data)["dependencies"]}
    assert depends["pkg:pypi/a-b@1.0"] == ["pkg:pypi/c-d@2"]
    assert depends["pkg:pypi/c-d@2"] == []


def test_what_is_on_one_platform_says_which(here):
    both, one = packages(metadata("a", "1")), packages(metadata("b", "1"))
    bom = read_bom(image([part(both, one), part(both, platform=ARM64)], in_registry=False))
    found = {
        one.name: sorted(p.value for p in one.properties) for one in bom.components if one.purl
    }
    assert found == {"a": [], "b": ["linux/amd64"]}
    bases = [one for one in bom.components if one.type is ComponentType.CONTAINER]
    assert sorted(p.value for one in bases for p in one.properties) == [
        "linux/amd64",
        "linux/arm64",
    ]
    assert {one.purl for one in bases} == {None}


def test_an_image_has_its_code_the_shim_and_debian_packages(here):
    control = b"Package: libgomp1\nArchitecture: amd64\nVersion: 12.2.0-14+deb12u1\nDepends: libc6 (>= 2.17), gcc-12-base\n"
    digest = layer(
        **{
            "home/flyte/task/a.py": b"a = 1\n",
            f"{SITE}/flyte_shim/__init__.py": b"",
            "var/lib/dpkg/status.d/libgomp1": control,
            "var/lib/dpkg/status.d/libgomp1.md5sums": b"\xff\n",
        }
    )
    files = [CodeFile("home/flyte/task/a.py", "services:lib")]
    found = by_name(read_bom(image([part(digest)], files)))
    (file,) = found["services:lib"].components
    assert next(iter(file.hashes)).content == sha256_bytes(b"a = 1\n")
    assert found["flyte-shim"].version
    assert str(found["libgomp1"].purl) == "pkg:deb/debian/libgomp1@12.2.0-14%2Bdeb12u1?arch=amd64"


def test_a_file_that_no_layer_has_is_an_error(here, capsys):
    plan = ImageInventory(
        "services:image",
        f"sha256:{HASH}",
        "base",
        False,
        (part(layer(a=b"")),),
        (CodeFile("b", None),),
    )
    (here / "plan.json").write_bytes(plan.to_json())
    assert main(["--image", "plan.json", "--out", "out.json"]) == 1
    assert "no layer has 'b'" in capsys.readouterr().err
    assert not (here / "out.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Name: a\n",
        b"Name: a b\nVersion: 1\n",
        b"Name: a\nVersion: 1\x1b[2J\n",
        b"Name: ../a\nVersion: 1\n",
        b"\xff\xfe\0",
    ],
)
def test_metadata_without_name_and_version_is_an_error(text):
    with pytest.raises(UserError, match=r"METADATA of a distribution: its (name|version) is"):
        distribution(text, TARGET)


def test_metadata_that_is_odd_elsewhere_is_taken():
    found = distribution(metadata("a", "1", "Requires-Dist: ???", "License: \xe9\x1b"), TARGET)
    assert found.name == "a"
    assert found.requires == ()


@pytest.mark.parametrize("marker", ['os_name ~= "posix"', 'extra ~= "x"'])
def test_a_requirement_whose_marker_compares_what_has_no_order_counts(marker):
    text = metadata("a", "1", f"Requires-Dist: b; {marker}", 'Requires-Dist: c; os_name == "nt"')
    assert distribution(text, TARGET).requires == ("b",)


def test_metadata_of_any_size_is_not_read_into_memory(here):
    digest = layer(**{f"{SITE}/p.dist-info/METADATA": b"Name: a\nVersion: 1\n" + b"x" * (5 << 20)})
    with pytest.raises(UserError, match="too much"):
        read_layer(blob_path(digest), ())
