"""Apps reach a control plane as Flyte itself would deploy them, with each version of Flyte that is supported."""

from __future__ import annotations

import pytest

from tests.support.apps import FILES, NAMES, deploy_as_flyte_does, requests
from tests.support.control_plane import code, control_plane, entry, registrar, unpacked
from tests.support.flyte_versions import MATRIX

MODULE, POINT = "services.app", "services/app.py"


def app(name="served", **fields):
    return entry(f"{POINT}:{name}", "app", address=f"services:{name}", **fields)


@pytest.mark.parametrize("line", MATRIX)
@pytest.mark.parametrize("apps", ["upsert", "exists"])
def test_what_is_deployed_is_what_flytes_own_deploy_deploys(tmp_path, line, apps):
    root = unpacked(tmp_path / "code", FILES)
    with (
        control_plane(tmp_path / "theirs", "--apps", apps, line=line) as theirs,
        control_plane(tmp_path / "ours", "--apps", apps, line=line) as ours,
    ):
        deploy_as_flyte_does(theirs, line, root, MODULE, "everything")
        with registrar(ours, line) as process:
            point = entry(f"{POINT}:everything")
            described = process.describe([code(root, point)])
            versions = {one.name: "v1" for one in described.tasks}
            done = list(process.register(versions))
        assert {one.name for one in described.tasks if one.kind == "app"} == NAMES
        assert {one.name for one in done} == NAMES | {"tasks.double", "everything.ask"}
        assert requests(ours) == requests(theirs)
        assert set(requests(ours)) == NAMES
        assert {t["name"] for t in ours.state()["tasks"]} == {"tasks.double", "everything.ask"}
