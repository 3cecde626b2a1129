"""Runs the check of completeness over code that is known to be complete, to find false alarms.

    python build-support/check_the_world.py [DIRECTORY ...]

Each DIRECTORY has top-level modules and packages, as `site-packages` has; without one, the standard
library of this Python and its own site-packages. Each distribution counts as first-party code that
ships whole: what is told of it then is a false alarm, or a fault of that code. Prints all that would
be an error, how many names nobody knows, and the time a megabyte takes.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src/python"))

from flyte_pack.code.bound_names import bound_in
from flyte_pack.code.code_scan import scan_code
from flyte_pack.code.completeness import (
    ERROR,
    QUIET,
    Finding,
    Module,
    Surroundings,
    ThirdParty,
    missing_imports,
    names_of,
)

_SKIPPED = ("__pycache__", "test", "tests", "site-packages", "dist-packages", "lib2to3", "idlelib")


def modules_in(top: Path) -> tuple[list[Module], set[str], int]:
    """The modules that can be parsed, the names of all, and how many bytes they have."""
    modules, names, size = [], set(), 0
    for path in sorted(top.rglob("*")):
        inside = path.relative_to(top)
        if any(part in _SKIPPED or part.endswith(".dist-info") for part in inside.parts):
            continue
        if path.suffix in (".so", ".pyd"):
            names.add(".".join((*inside.parts[:-1], inside.name.partition(".")[0])))
        if path.suffix != ".py" or not path.is_file():
            continue
        parts = inside.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        source = path.read_bytes()
        size += len(source)
        names.add(name)
        try:
            scan = scan_code(source, str(inside))
        except (SyntaxError, ValueError):
            continue  # a template, or a test of a parser
        modules.append(Module(str(inside), name, is_package, scan))
    return modules, names, size


def findings_in(top: Path) -> tuple[list[Finding], str]:
    start = time.process_time()
    modules, names, size = modules_in(top)
    scanned = time.process_time()
    around = Surroundings(
        shipped=names_of(names),
        repository={},
        third_party=ThirdParty(),
        resolve="",
        minors=(sys.version_info[1],),
    )
    found = missing_imports(modules, around, lambda path: bound_in((top / path).read_bytes(), path))
    return found, (
        f"{top}: {len(modules):,} modules, {(scanned - start) / max(size / 1e6, 1e-9):.2f} s a MB, "
        f"compared in {(time.process_time() - scanned) / max(len(modules), 1) * 1e6:.0f} us a module"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="*", type=Path)
    given = parser.parse_args().directory
    paths = sysconfig.get_paths()
    for top in given or [Path(paths["stdlib"]), Path(paths["purelib"])]:
        found, about = findings_in(top)
        errors = [one for one in found if one.certainty == ERROR]
        unsure = [one for one in found if one.certainty not in (ERROR, QUIET)]
        print(f"{about}; {len(errors)} errors, {len(unsure)} names that nobody knows")
        for one in errors:
            print(f"  {one}")


if __name__ == "__main__":
    main()
