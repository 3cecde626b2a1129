"""Pants' own targets take ours: an `archive` of what a task packages."""

from __future__ import annotations

import io
import tarfile

import pytest
from pants.core.goals.package import BuiltPackage
from pants.core.target_types import ArchiveFieldSet
from pants.testutil.rule_runner import QueryRule

from tests.support.flyte_rules import RuleRoot


@pytest.fixture(scope="module")
def root() -> RuleRoot:
    return RuleRoot(more_rules=[QueryRule(BuiltPackage, [ArchiveFieldSet])])


def test_an_archive_takes_a_bundle_with_its_manifest_and_its_link(root: RuleRoot):
    root.write(
        {
            "ml/BUILD": 'python_sources()\nflyte_task(name="t", entry_point="t.py:env")\n'
            'archive(name="all", packages=[":t"], format="tar")\n',
            "ml/t.py": 'import flyte\nenv = flyte.TaskEnvironment("e")\n@env.task\ndef a(): ...\n',
        }
    )
    field_set = ArchiveFieldSet.create(root.target("ml:all"))
    built = root.runner.request(BuiltPackage, [field_set])
    (archive,) = root.contents(built.digest).values()
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert {f"ml/t.{ending}" for ending in ("json", "manifest.json", "tar.gz")} <= set(
            opened.getnames()
        )
