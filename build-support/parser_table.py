"""Which imports Pants' own parser loses or invents, counted over real code, against our scan of it.

Has Pants analyse the standard library of the Python that runs this, and each of the wheels named
(`python-dump-source-analysis` in a build root of its own), and compares name by name.
Prints a line for each library, and each difference that is not of the kind `import a, b`.

  pip download --no-deps --only-binary :all: --dest /tmp/wheels django pandas ...
  python3 build-support/parser_table.py [--pants ./pants] [--pants-version 2.17.1] /tmp/wheels/*.whl
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "python"))

from flyte_pack.code.import_scan import StatedImport, is_suspect, stated_imports
from tests.support.build_root import CHECKOUT, clean_environment

PANTS_TOML = """\
[GLOBAL]
pants_version = "{version}"
backend_packages = ["pants.backend.python", "pants.backend.experimental.python"]

[anonymous-telemetry]
enabled = false

[source]
root_patterns = ["/*"]

[python]
interpreter_constraints = ["CPython>=3.11"]

[python-infer]
imports = false
"""


def standard_library() -> Iterator[tuple[str, bytes]]:
    top = Path(sysconfig.get_path("stdlib"))
    for path in sorted(top.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield str(path.relative_to(top)), path.read_bytes()


def wheel(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".py") and ".data/" not in name:
                yield name, archive.read(name)


def pants_finds(pants: str, version: str, root: Path) -> dict[str, set[str]]:
    """For each file of the build root, the names that Pants' parser finds in it."""
    rust = "use_rust_parser = true\n" if version.startswith("2.17.") else ""
    (root / "pants.toml").write_text(PANTS_TOML.format(version=version) + rust)
    done = subprocess.run(
        [
            *(pants, "--no-pantsd", "python-dump-source-analysis"),
            *("--analysis-flavor=raw_dependency_inference", "::"),
        ],
        cwd=root,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {
        analysis["fs"]["address"].split(":")[0]: set(analysis["identified"]["imports"])
        for analysis in json.loads(done.stdout)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pants", default=str(CHECKOUT / "pants"))
    parser.add_argument("--pants-version", default="2.17.1")
    parser.add_argument("--wheels-alone", action="store_true", help="no standard library")
    parser.add_argument("wheels", nargs="*", type=Path)
    options = parser.parse_args()

    libraries = {}
    if not options.wheels_alone:
        libraries[f"python{sys.version_info[0]}.{sys.version_info[1]}"] = standard_library()
    libraries.update({path.name.split("-")[0]: wheel(path) for path in options.wheels})
    heads = (
        "files",
        "suspect",
        "not UTF-8",
        "imports",
        "lost: comma",
        "lost: other",
        "left",
        "invented",
    )
    print(f"{'Pants ' + options.pants_version:16}" + "".join(f"{head:>13}" for head in heads))
    totals: Counter[str] = Counter()
    details: list[str] = []
    for library, files in libraries.items():
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as scratch:
            sources = written(files, Path(scratch) / library, counts)
            found = pants_finds(options.pants, options.pants_version, Path(scratch))
        for name, content in sources.items():
            compare(f"{library}/{name}", content, found[f"{library}/{name}"], counts, details)
        totals += counts
        print(f"{library:16}" + "".join(f"{counts[head]:>13}" for head in heads), flush=True)
    print(f"{'all':16}" + "".join(f"{totals[head]:>13}" for head in heads))
    print(*details, sep="\n")


def written(
    files: Iterator[tuple[str, bytes]], directory: Path, counts: Counter[str]
) -> dict[str, bytes]:
    """Write the files, but for those that Pants would stop at.

    Each directory has a target: what Pants tells of a file names all files of its target.
    """
    sources = {}
    for name, content in files:
        try:
            content.decode()
        except UnicodeDecodeError:
            counts["not UTF-8"] += 1
            continue
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        (path.parent / "BUILD").write_text('python_sources(sources=["*.py"])\n')
        sources[name] = content
    return sources


def compare(
    path: str, content: bytes, theirs: set[str], counts: Counter[str], details: list[str]
) -> None:
    package = ".".join(Path(path).parts[1:-1])
    stated = {i.module: i for i in reversed(stated_imports(content, package))}
    suspect = is_suspect(content)
    lost = [stated[name] for name in stated if name not in theirs]
    other = [found for found in lost if not _is_after_comma(found, theirs)]
    invented = sorted(theirs - set(stated))
    counts.update(
        {
            "files": 1,
            "suspect": suspect,
            "imports": len(stated),
            "lost: comma": len(lost) - len(other),
            "lost: other": len(other),
            "left": 0 if suspect else len(lost),
            "invented": len(invented),
        }
    )
    left = "" if suspect else ", not suspected"
    details += [f"{path}:{i.line}: lost {i.module}{left}" for i in other]
    details += [f"{path}: invented {name!r}" for name in invented]


def _is_after_comma(lost: StatedImport, theirs: set[str]) -> bool:
    return lost.first != lost.module and lost.first in theirs


if __name__ == "__main__":
    main()
