"""What modules need, as `code.code_scan` reads it: by directory, or by another Python.

Also what they bind, and which wheels have them.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from typing import Dict, List, Mapping, Optional

from pants.build_graph.address import Address
from pants.engine.fs import Digest, FileContent, PathGlobs
from pants.engine.process import Process
from pants.util.logging import LogLevel

from flyte_pack.code.bound_names import Bound, bound_in
from flyte_pack.code.code_scan import CodeScan, scan_code
from flyte_pack.code.wheel_modules import Answer, Question
from pants_flyte import engine
from pants_flyte.globs import exactly, literal_glob

logger = logging.getLogger(__name__)

_SCANNER = (
    *("__init__", "bound_names", "code_scan", "data_reads", "dynamic_scan", "import_scan"),
    *("module_scan", "paths", "syntax", "values"),
)
_RUN_SCANNER = (
    "import sys; sys.path.insert(0, '__scanner'); from flyte_pack.code.code_scan import main; "
    "sys.exit(main(sys.argv[1:]))"
)


def _directory_globs(directory: str) -> PathGlobs:
    """The same question as for lost imports, so that each directory is read once."""
    literal = literal_glob(directory)
    return PathGlobs([os.path.join(literal, "*.py"), os.path.join(literal, "*.pyi")])


async def scans_of(address: Address, files: Mapping[str, Optional[Digest]]) -> Dict[str, CodeScan]:
    """By path. files: each with the digest that holds it; None: the repository."""
    plain = [path for path, digest in files.items() if digest is None]
    directories = sorted({os.path.dirname(path) for path in plain})
    found: Dict[str, CodeScan] = {}
    unread: Dict[str, bytes] = {}
    wanted = set(plain)
    for of in await engine.scans_in_each([_directory_globs(one) for one in directories]):
        found.update((path, scan) for path, scan in of.by_path.items() if path in wanted)
    others = [
        *(await engine.contents_matching(exactly(sorted(wanted - found.keys())))),
        *(await _held(files)),
    ]
    for file in others:
        try:
            found[file.path] = scan_code(file.content, file.path)
        except (SyntaxError, ValueError):
            unread[file.path] = file.content
    failed = sorted(path for path, scan in found.items() if scan.problem)
    unread.update({f.path: f.content for f in await engine.contents_matching(exactly(failed))})
    if unread:
        found.update(await scanned_elsewhere(address, unread))
    return found


async def bound_by(files: Mapping[str, Optional[Digest]]) -> Dict[str, Bound]:
    """What modules bind at their top level, by path. files: as of `scans_of`."""
    plain = [path for path, digest in files.items() if digest is None]
    found = dict(zip(plain, await engine.bound_in_each([exactly([path]) for path in plain])))
    found.update((file.path, bound_in(file.content, file.path)) for file in await _held(files))
    return found


async def _held(files: Mapping[str, Optional[Digest]]) -> List[FileContent]:
    by_digest: Dict[Digest, List[str]] = defaultdict(list)
    for path, digest in files.items():
        if digest is not None:
            by_digest[digest].append(path)
    contents: List[FileContent] = []
    for digest, paths in by_digest.items():
        contents += await engine.contents(await engine.subset(digest, exactly(paths)))
    return contents


# Named caches with unpacked wheels: of `image_packages`, and Pants' own.
_WHEELS = {"flyte_uv": ".cache/flyte_uv", "pex_root": ".cache/pex_root"}


async def answer_of(address: Address, question: Question) -> Answer:
    """What the wheels at hand say; nothing where they do not."""
    python = await engine.find_python(await engine.interpreter_constraints([address]))
    program = "flyte_pack/code/wheel_modules.py"
    (source,) = await engine.contents(
        await engine.subset(await engine.program_sources(), exactly([program]))
    )
    # One that had not all wheels fails, so that Pants asks again when there may be more.
    result = await engine.run_process(
        Process(
            [python.path, "-ISs", program, "question.json", *_WHEELS.values()],
            input_digest=await engine.create_digest(
                {program: source.content, "question.json": question.to_json()}
            ),
            append_only_caches=_WHEELS,
            description=f"Look for modules in the wheels of {address}",
            level=LogLevel.DEBUG,
        )
    )
    try:
        return Answer.from_json(result.stdout)
    except (ValueError, TypeError):
        said = result.stderr.decode(errors="replace").strip()
        logger.debug(f"{address}: {python.path} cannot look into wheels: {said}")
        return Answer()


async def scanned_elsewhere(address: Address, sources: Mapping[str, bytes]) -> Dict[str, CodeScan]:
    """By the Python that the code is for: its syntax may be newer than that of this one."""
    python = await engine.find_python(await engine.interpreter_constraints([address]))
    programs = await engine.contents(
        await engine.subset(
            await engine.program_sources(),
            exactly(["flyte_pack/__init__.py", *(f"flyte_pack/code/{n}.py" for n in _SCANNER)]),
        )
    )
    result = await engine.run_process(
        Process(
            [python.path, "-ISc", _RUN_SCANNER, *sorted(sources)],
            input_digest=await engine.create_digest(
                {**{f"__scanner/{p.path}": p.content for p in programs}, **sources}
            ),
            description=f"Look for imports in {len(sources):,} files of {address}",
            level=LogLevel.DEBUG,
        )
    )
    if result.exit_code != 0:
        said = result.stderr.decode(errors="replace").strip()
        logger.debug(f"{address}: {python.path} cannot look for imports: {said}")
        return {}
    return {path: CodeScan.from_json(raw) for path, raw in json.loads(result.stdout).items()}
