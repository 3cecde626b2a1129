"""The report as bytes: always the same, in ASCII, with a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import flyte_pack.report
from flyte_pack.explain import Edge
from flyte_pack.report.compact import compact
from tests.support import reports
from tests.support.browser import vendor
from tests.support.containers import need

VENDORED = Path(flyte_pack.report.__file__).parent / "vendor"


def test_the_same_document_is_the_same_page():
    made = reports.report(reports.content(reports.forecast()))
    assert made.isascii()
    code = (
        "import hashlib; from tests.support import reports;"
        "print(hashlib.sha256(reports.report(reports.content(reports.forecast())).encode()).hexdigest())"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7", "LC_ALL": "C"}  # fmt: skip
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)  # fmt: skip
    assert said.stdout.strip() == hashlib.sha256(made.encode()).hexdigest()


def test_the_policy_names_each_script_and_style_and_no_place():
    made = reports.report(reports.content(reports.forecast()))
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', made)
    assert found
    policy = found[1].replace("&#x27;", "'")
    for inline in re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", made, re.S):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 3
    assert not re.search(r"unsafe|https?:|\*", policy)
    assert not re.search(r'\b(?:src|href)="(?!data:|#)', made.partition("<script")[0])


def test_no_resource_ends_its_element():
    for resource in ("vendor/libraries.js", "page.css", *(f"scripts/{p.name}" for p in (VENDORED.parent / "scripts").iterdir())):  # fmt: skip
        text = (VENDORED.parent / resource).read_text()
        assert not re.search(r"</(?:script|style)|<!--", text, re.I), resource
        assert text.isascii(), resource


def test_the_compact_form_says_the_same():
    graph = reports.forecast()
    document = json.loads(json.dumps(reports.content(graph)))
    small = compact(document, [graph])
    names, (artifact,) = small["names"], small["artifacts"]
    steps = artifact["steps"]

    def way(step: int) -> list[dict[str, str]]:
        if step < 0:
            return []
        name, reason, before = steps[3 * step : 3 * step + 3]
        return [*way(before), {"name": names[name], "reason": names[reason]}]

    columns = artifact["files"]
    for at, file in enumerate(document["artifacts"][0]["files"]):
        assert way(columns["step"][at]) == file["way"]
        assert names[columns["path"][at]] == file["path"]
        assert columns["size"][at] == file["size"]
    edges = artifact["edges"]
    assert [
        Edge(names[a], names[b], names[c]) for a, b, c in zip(edges[::3], edges[1::3], edges[2::3])
    ] == list(graph.edges())
    assert "graph" not in artifact


def test_the_libraries_are_what_the_lock_file_pins():
    need("nodejs", "npm")
    done = vendor("--check")
    assert done.returncode == 0, done.stderr


def test_each_library_comes_with_its_licence():
    licenses = (VENDORED / "LICENSES.txt").read_text()
    assert "d3-hierarchy 3.1.3 (ISC)" in licenses
    assert "@dagrejs/dagre 3.1.3 (MIT)" in licenses
    assert "Permission is hereby granted" in reports.report(reports.content(reports.forecast()))
