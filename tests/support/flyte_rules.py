"""A build root with the backend's real rules in it, and what packaging a target there makes.

Pants' own `RuleRunner` runs the rules: real inference, real packer, real PEX, no process of its
own.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import escape as glob_escape
from glob import glob
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from pants.backend.project_info import dependents
from pants.backend.project_info.dependents import Dependents, DependentsRequest
from pants.backend.python import register as python_backend
from pants.backend.python.macros.python_artifact import PythonArtifact
from pants.backend.shell import register as shell_backend
from pants.base.build_root import BuildRoot
from pants.build_graph.address import Address, AddressInput
from pants.core import register as core_backend
from pants.core.goals.deploy import DeployProcess
from pants.core.goals.package import BuiltPackage
from pants.core.goals.publish import PublishProcesses
from pants.core.goals.run import RunRequest
from pants.core.goals.tailor import PutativeTargets, UniquelyNamedPutativeTargets
from pants.engine.addresses import Addresses
from pants.engine.fs import Digest, DigestContents
from pants.engine.goal import Goal
from pants.engine.internals.parametrize import Parametrize
from pants.engine.internals.scheduler import ExecutionError
from pants.engine.target import (
    AllTargets,
    Dependencies,
    DependenciesRequest,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.testutil.rule_runner import (
    PYTHON_BOOTSTRAP_ENV,
    GoalRuleResult,
    QueryRule,
    RuleRunner,
)
from pants.util.frozendict import FrozenDict
from pants.vcs import changed
from pants.vcs.changed import ChangedAddresses, ChangedRequest, DependentsOption
from pants.version import PANTS_SEMVER

from flyte_pack.manifest import Manifest
from flyte_pack.task_link import TaskLink
from pants_flyte import register as flyte_backend
from pants_flyte.build_types import BuiltImage, ImageRequest
from pants_flyte.errors import FlyteTargetError
from pants_flyte.goals.deploy import DeployDeploymentFieldSet, RunDeploymentFieldSet
from pants_flyte.goals.package import (
    PackageBundleFieldSet,
    PackageImageFieldSet,
    PackageTaskFieldSet,
)
from pants_flyte.goals.publish import PublishImageRequest
from pants_flyte.goals.run import RunTaskFieldSet
from pants_flyte.goals.run_image import RunBaseImageFieldSet, RunImageFieldSet
from pants_flyte.goals.tailor import PutativeFlyteTargetsRequest
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.target_types import FlyteApp, FlyteTask
from tests.support.layouts import Layout

# So Pants' goals ask for dependencies.
_SPECIAL_CASED: dict[str, Any]
if PANTS_SEMVER.release < (2, 18):
    _SPECIAL_CASED = {"include_special_cased_deps": True}
else:
    from pants.engine.target import AlwaysTraverseDeps

    _SPECIAL_CASED = {"should_traverse_deps_predicate": AlwaysTraverseDeps()}

_LAUNCHER = Path(__file__).resolve().parents[2] / "build-support" / "bootstrap"
_BACKENDS = (core_backend, python_backend, shell_backend, flyte_backend)

_OPTIONS = (
    "--python-enable-resolves",
    "--python-resolves={'python-default': 'locks/default.txt', 'other': 'locks/other.txt'}",
    "--no-python-resolves-generate-lockfiles",
    "--python-bootstrap-search-path=['<PYENV>', '<PATH>']",
    "--source-root-patterns=['/']",
)
# A flag would outweigh the `interpreter_constraints` fields of targets, and can not be given twice.
_ENVIRONMENT = {
    "PANTS_PYTHON_INTERPRETER_CONSTRAINTS": "['CPython>=3.9,<3.14']",
    "PANTS_PYTHON_INFER_USE_RUST_PARSER": "true",
}


@dataclass(frozen=True)
class Bundle:
    """An archive and its manifest; `files` are its contents by path, `modes` their modes."""

    archive: bytes
    manifest: Manifest
    files: Mapping[str, bytes]
    modes: Mapping[str, int]

    @property
    def paths(self) -> set[str]:
        return set(self.files)

    @property
    def why(self) -> dict[str, tuple[str, str | None]]:
        """For each path: the reason, and who caused it."""
        return {file.path: (file.reason, file.by) for file in self.manifest.files}

    @property
    def owners(self) -> dict[str, str | None]:
        return {file.path: file.owner for file in self.manifest.files}


@dataclass(frozen=True)
class Packaged:
    """What `package` of one target wrote, by its path below `dist`, and said."""

    artifacts: Mapping[str, bytes]
    said: str

    @property
    def link(self) -> TaskLink:
        return TaskLink.from_json(
            self._one(".json", but_not=(".manifest.json", ".cdx.json", "/index.json"))
        )

    @property
    def bundle(self) -> Bundle:
        archive = self._one(".tar.gz")
        files: dict[str, bytes] = {}
        modes: dict[str, int] = {}
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert member.isreg(), f"{member.name} is no regular file"
                assert content is not None
                files[member.name] = content.read()
                modes[member.name] = member.mode
        manifest = Manifest.from_json(self._one(".manifest.json"))
        assert [file.path for file in manifest.files] == list(files)
        return Bundle(archive, manifest, files, modes)

    def _one(self, ending: str, *, but_not: tuple[str, ...] = ()) -> bytes:
        (found,) = (
            content
            for path, content in self.artifacts.items()
            if path.endswith(ending) and not path.endswith(but_not)
        )
        return found


class RuleRoot:
    """A build root. One is shared by many tests, each of which starts with an empty one."""

    def __init__(
        self,
        *bootstrap_args: str,
        more_rules: Iterable[Any] = (),
        more_backends: Iterable[ModuleType] = (),
    ) -> None:
        backends: tuple[Any, ...] = (*_BACKENDS, *more_backends)
        self.runner = RuleRunner(
            rules=[
                *(rule for backend in backends for rule in backend.rules()),
                *more_rules,
                QueryRule(BuiltPackage, [PackageBundleFieldSet]),
                QueryRule(BuiltPackage, [PackageTaskFieldSet]),
                QueryRule(BuiltPackage, [PackageImageFieldSet]),
                QueryRule(BuiltImage, [ImageRequest]),
                QueryRule(PublishProcesses, [PublishImageRequest]),
                QueryRule(RunRequest, [RunBaseImageFieldSet]),
                QueryRule(RunRequest, [RunImageFieldSet]),
                QueryRule(RunRequest, [RunTaskFieldSet]),
                QueryRule(RunRequest, [RunDeploymentFieldSet]),
                QueryRule(DeployProcess, [DeployDeploymentFieldSet]),
                QueryRule(PutativeTargets, [PutativeFlyteTargetsRequest]),
                QueryRule(UniquelyNamedPutativeTargets, [PutativeTargets]),
                *dependents.rules(),
                QueryRule(Dependents, [DependentsRequest]),
                *changed.rules(),
                QueryRule(ChangedAddresses, [ChangedRequest]),
                QueryRule(Address, [AddressInput]),
                QueryRule(AllTargets, []),
                QueryRule(Addresses, [DependenciesRequest]),
                QueryRule(TransitiveTargets, [TransitiveTargetsRequest]),
            ],
            target_types=[t for backend in backends for t in backend.target_types()],
            objects={"parametrize": Parametrize, "python_artifact": PythonArtifact},
            bootstrap_args=bootstrap_args,
        )
        self.path = Path(self.runner.build_root)
        self.options()

    def options(self, *more: str, env: Mapping[str, str] | None = None) -> None:
        """Set options anew: those that all these tests want, and `more`.

        What follows `--` may be among them.
        """
        BuildRoot().path = str(self.path)  # a runner that was made since has set its own
        self._set = (*_OPTIONS, *more)
        self._env = {**launcher_environment(self.path), **_ENVIRONMENT, **(env or {})}
        self.runner.set_options(self._set, env=self._env, env_inherit=PYTHON_BOOTSTRAP_ENV)

    def goal(self, goal: type[Goal], *args: str) -> GoalRuleResult:
        """What `pants GOAL ARGS` prints, under the options that are set."""
        return self.runner.run_goal_rule(
            goal,
            global_args=self._set,
            args=args,
            env=self._env,
            env_inherit=PYTHON_BOOTSTRAP_ENV,
        )

    def clear(self) -> None:
        """Remove every file, and set the options back."""
        # What the last test was refused is answered before all that it asked for is known. The rest
        # goes on, and must not find half of the next test's files.
        with suppress(ExecutionError):
            self.runner.request(AllTargets, [])
        gone = []
        for path in self.path.iterdir():
            if path.name in (".pants.d", "BUILDROOT"):  # the runner's own
                continue
            inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
            gone += [str(p.relative_to(self.path)) for p in (path, *inside)]
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.changed(*gone)
        self.options()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files; text is dedented."""
        for path, content in files.items():
            data = content if isinstance(content, bytes) else dedent(content).lstrip("\n").encode()
            self.runner.write_files({path: data})

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.path / path).read_text()
        assert old in text
        self.write({path: text.replace(old, new)})

    def changed(self, *paths: str) -> None:
        """Say that these have changed behind the runner's back."""
        above = {str(p) for path in paths for p in (Path(path), *Path(path).parents)}
        self.runner.scheduler.invalidate_files({"" if p == "." else p for p in above})

    def make_executable(self, path: str) -> None:
        os.chmod(self.path / path, stat.S_IMODE((self.path / path).stat().st_mode) | 0o111)
        self.changed(path)

    def target(self, spec: str) -> Any:
        return self.runner.get_target(self.address(spec))

    def address(self, spec: str) -> Address:
        """An address as Pants prints it, such as `dir:name@key=value` or `dir/file.py:../name`."""
        parsed = AddressInput.parse(spec, description_of_origin="a test")
        return self.runner.request(Address, [parsed])

    def dependencies(self, spec: str, *, special_cased: bool = False) -> list[str]:
        """What a target depends on, as Pants' `dependencies` goal has it, sorted."""
        every = _SPECIAL_CASED if special_cased else {}
        request = DependenciesRequest(self.target(spec).get(Dependencies), **every)
        return sorted(a.spec for a in self.runner.request(Addresses, [request]))

    def transitive(self, spec: str) -> set[str]:
        """What `dependencies --transitive` and `paths` see. An error where that has a cycle."""
        request = TransitiveTargetsRequest([self.address(spec)], **_SPECIAL_CASED)
        found = self.runner.request(TransitiveTargets, [request])
        return {target.address.spec for target in found.dependencies}

    def dependents(self, spec: str) -> set[str]:
        """What a change of this target reaches, as `--changed-dependents=transitive` has it."""
        request = DependentsRequest([self.address(spec)], transitive=True, include_roots=False)
        return {a.spec for a in self.runner.request(Dependents, [request])}

    def changed_by(self, *paths: str, dependents: bool = True) -> set[str]:
        """What `--changed-since` selects where these files have changed, with
        `--changed-dependents=transitive` or without.
        """
        which = DependentsOption.TRANSITIVE if dependents else DependentsOption.NONE
        # Later versions can be told of lines, too.
        more = {} if PANTS_SEMVER.release < (2, 30) else {"sources_blocks": FrozenDict()}
        request = ChangedRequest(sources=paths, dependents=which, **more)
        found = self.runner.request(ChangedAddresses, [request])
        return {address.spec for address in found}

    def tailored(self, *directories: str) -> str:
        """What `tailor` would write into the BUILD files of these directories."""
        request = PutativeFlyteTargetsRequest(directories)
        found = self.runner.request(PutativeTargets, [request])
        named = self.runner.request(UniquelyNamedPutativeTargets, [found]).putative_targets
        return "".join(
            f"# {one.path or '//'}\n{one.generate_build_file_stanza('    ')}" for one in named
        )

    def package(self, spec: str) -> Packaged:
        target = self.target(spec)
        field_sets = {
            FlyteApp: PackageTaskFieldSet,
            FlyteTask: PackageTaskFieldSet,
            FlyteImage: PackageImageFieldSet,
        }
        field_set = field_sets.get(type(target), PackageBundleFieldSet)
        built = self.runner.request(BuiltPackage, [field_set.create(target)])
        contents = self.contents(built.digest)
        # Each file is one of the artifacts, or in one: an image is a directory.
        artifacts = [artifact.relpath for artifact in built.artifacts]
        assert None not in artifacts
        tops = {_artifact_of(path, artifacts) for path in contents}
        assert tops == set(artifacts)
        said = (line for artifact in built.artifacts for line in artifact.extra_log_lines)
        return Packaged(contents, "\n".join(said))

    def built_image(self, spec: str, code: bool | None = None) -> BuiltImage:
        """What the rules know of an image; code: whether a task asks for its code."""
        return self.runner.request(BuiltImage, [ImageRequest(self.address(spec), code)])

    def image(self, spec: str, code: bool | None = None) -> Layout:
        """The layout of an image."""
        built = self.built_image(spec, code)
        return Layout.of(self.contents(built.digest), below=built.layout)

    def contents(self, digest: Digest) -> dict[str, bytes]:
        return {c.path: c.content for c in self.runner.request(DigestContents, [digest])}

    def bundle(self, spec: str) -> Bundle:
        return self.package(spec).bundle

    def refusal(self, spec: str) -> str:
        """The error for a user's mistake in the target that `package` refuses."""
        with pytest.raises(ExecutionError) as caught:
            self.package(spec)
        return refusal(caught.value)


def _artifact_of(path: str, artifacts: Iterable[str]) -> str:
    (found,) = [one for one in artifacts if f"{path}/".startswith(f"{one}/")]
    return found


def refusal(error: ExecutionError) -> str:
    """The message of our own error, which is what Pants shows; anything else is a fault of ours."""
    (cause,) = error.wrapped_exceptions
    assert isinstance(cause, FlyteTargetError), repr(cause)
    assert str(cause).startswith(f"{cause.address}: ")
    return str(cause)


def launcher_environment(root: Path) -> dict[str, str]:
    """What this repository's `./pants` sets: where the PEX tool is that it has made, and package
    indexes.

    Nothing where it never ran: the official launcher's users get the tool from where Pants gets it.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    made = sorted(
        glob(os.path.join(glob_escape(cache), "pants-flyte", "pants-2.17.1", "cpython-*"))
    )
    if not made:
        return {}
    spec = spec_from_file_location("launch", _LAUNCHER / "launch.py")
    assert spec is not None
    assert spec.loader is not None
    launch = module_from_spec(spec)
    spec.loader.exec_module(launch)
    added = launch.additions(dict(os.environ), made[0], str(root), str(_LAUNCHER))
    # Another Pants wants another PEX tool, and whoever runs the tests on it says which.
    return {**added, **{n: v for n, v in os.environ.items() if n.startswith("PANTS_PEX_CLI_")}}
