"""The targets a user writes in BUILD files, and their fields."""

from __future__ import annotations

import os
import re
from typing import List, Optional, Tuple

from pants.backend.python.target_types import InterpreterConstraintsField, PythonResolveField
from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address, UnparsedAddressInputs
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    AsyncFieldMixin,
    Dependencies,
    DictStringToStringField,
    IntField,
    InvalidFieldException,
    OverridesField,
    SpecialCasedDependencies,
    StringField,
    StringSequenceField,
    TargetGenerator,
    TriBoolField,
    ValidNumbers,
)
from pants.util.docutil import bin_name
from pants.util.strutil import help_text

from flyte_pack.ignore_files import IGNORE_FILES
from flyte_shim.paths import path_problem
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import literal_glob
from pants_flyte.loop import FlyteRestartableField
from pants_flyte.named_files import FileNamingTarget, NamedFilesField, NamesFiles, path_from_root

# The ways to ship code; `none` makes no bundle.
BUNDLE_COPY_STYLES = ("auto", "all")
COPY_STYLES = (*BUNDLE_COPY_STYLES, "none")

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}

_COPY_STYLE_HELP = help_text("""
    - `auto`: what the entry points reach in the dependency graph: modules (also those imported
    only inside functions or for type checking), resources, declared files, and the `__init__.py`
    files above them.

    - `all`: that, and every other file under `root_dir` that neither Pants nor the repository
    ignores (by a `.gitignore` or `.flyteignore` at any depth) and `[flyte].all_excludes` does not
    match. `--changed-since` sees those below the BUILD file.
""")


A_SIZE = "give a size such as `50 MB`, in `B`, `kB`, `MB` or `GB`"


def bytes_in(size: str) -> Optional[int]:
    """What a size such as `50 MB` means; None if it means nothing, or none."""
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(B|kB|MB|GB)\s*", size)
    return int(float(found[1]) * _UNITS[found[2]]) or None if found else None


class PathField(StringField, AsyncFieldMixin, NamesFiles):
    """A file or directory: relative to the BUILD file, or with `//` before it to the build root."""

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if path_from_root(address, value or "") is None:
            raise InvalidFieldException(
                f"The `{cls.alias}` field in target {address} is {value!r}, which leaves the build "
                "root."
            )
        if value is not None and (path_from_root(address, value) or "").startswith("-"):
            raise InvalidFieldException(
                f"The `{cls.alias}` field in target {address} is {value!r}, which begins with `-`, "
                "as an option does."
            )
        return value

    @property
    def path(self) -> Optional[str]:
        """From the build root, normalised; None where unset."""
        return None if self.value is None else path_from_root(self.address, self.value)

    @property
    def named_paths(self) -> Tuple[str, ...]:
        return () if self.path is None else (self.path,)


class CodeTarget(FileNamingTarget):
    """A target with a `copy_style`: `all` reads what lies beside the code, owned or not."""

    @property
    def takes_all(self) -> bool:
        styles = (FlyteTaskCopyStyleField, FlyteBundleCopyStyleField)
        return any(self.get(style).value == "all" for style in styles)

    def named_paths(self) -> Tuple[str, ...]:
        named = super().named_paths()
        if not self.takes_all:
            return named
        root = self[FlyteRootDirField].value
        # Without a root it is the source root, which is not known here: take the BUILD file's.
        path = path_from_root(self.address, "" if root is None else f"//{root}")
        return named if path is None else (*named, path)

    def ignore_files_above(self) -> Tuple[str, ...]:
        if not self.takes_all:
            return ()
        paths: List[str] = []
        directory = self.address.spec_path
        while directory:
            directory = os.path.dirname(directory)
            paths += [os.path.join(directory, name) for name in IGNORE_FILES]
        return tuple(paths)


class FlyteRootDirField(StringField):
    alias = "root_dir"
    help = help_text("""
        The directory, relative to the build root, that becomes the top of the bundle: all paths in
        the bundle are relative to it, and it is what Flyte calls `root_dir`. `"."` is the
        build root itself. Every file of the bundle must lie below it.

        Leave it out unless you need it: then the source root of each file is stripped (see
        `pants roots`), which is where imports start, so that they work from the bundle's top.
        `files` targets keep their path from the build root.

        If unset, `[flyte].root_dir` holds.
    """)


class FlyteMaxSizeField(StringField):
    alias = "max_size"
    help = help_text(f"""
        The most that the files of the bundle may hold, unpacked: `"50 MB"` (or `B`, `kB`, `GB`, in
        powers of ten). A larger bundle is an error that names what makes it so; one of more than 90
        % is a warning. What ships at what cost: `{bin_name()} flyte-explain path/to:target`.

        If unset, `[flyte].max_size` holds.
    """)

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and bytes_in(value) is None:
            raise InvalidFieldException(
                f"The `{cls.alias}` field in target {address} is {value!r}; {A_SIZE}."
            )
        return value

    @property
    def bytes(self) -> Optional[int]:
        return None if self.value is None else bytes_in(self.value)


class FlyteMaxFilesField(IntField):
    alias = "max_files"
    valid_numbers = ValidNumbers.positive_only
    help = "As `max_size`, for the number of files. If unset, `[flyte].max_files` holds."


class FlyteSbomField(TriBoolField):
    alias = "sbom"
    help = help_text("""
        Whether `package` writes a software bill of materials (SBOM) beside the bundle, with the
        ending `.cdx.json`: CycloneDX 1.6, with each file of the bundle, its hash and its target,
        and the third-party distributions that the code needs, as the lock file has them. A
        deployment puts it into the store beside the bundle.

        If unset, `[flyte].sbom` holds.
    """)


class FlyteAllowSecretsField(StringSequenceField):
    alias = "allow_secrets"
    help = help_text("""
        Files that may ship whatever they hold or are called, as globs relative to the BUILD file
        (`//` before one means the build root): `allow_secrets=["testdata/*.pem"]`. What has
        variables also takes `"env:NAME"`: a task or app for a variable of that name, a
        `flyte_image` for a variable or label. An entry that allows nothing is warned of.

        A single line is better allowed by a comment on it: `# pragma: allowlist secret`. For a
        whole repository there are `[flyte].allow_secrets` and `[flyte].secrets_baseline`.
    """)


class FlyteMissingField(StringField):
    alias = "missing"
    valid_choices = ("error", "warn", "ignore")
    help = help_text("""
        What to do where the code imports a module, or reads a file, that is not there when it runs:
        `error`, `warn` or `ignore`. A comment `# flyte: missing-ok` settles a single line.

        If unset, `[flyte].missing` holds.
    """)


class FlyteProvidedModulesField(StringSequenceField):
    alias = "provided_modules"
    help = (
        "Modules that the container has by itself, such as those of its base image, with all below "
        'them: `provided_modules=["torch"]`. Imports of them are never missing. They come on top '
        "of `[flyte].provided_modules`."
    )


class FlyteBundleCopyStyleField(StringField):
    alias = "copy_style"
    valid_choices = BUNDLE_COPY_STYLES
    help = (
        f"Which files go into the bundle.\n\n{_COPY_STYLE_HELP}\n\n"
        "If unset, `[flyte].copy_style` holds."
    )


class FlyteTaskCopyStyleField(StringField):
    alias = "copy_style"
    valid_choices = COPY_STYLES
    help = (
        f"How the task's code reaches its container.\n\n{_COPY_STYLE_HELP}\n\n"
        "- `none`: no bundle; the code is in the image.\n\n"
        "If unset, `[flyte].copy_style` holds. A `flyte_deployment` can override it."
    )


def output_path_help(what: str, name: str) -> str:
    """Help of an `output_path`; name: the output of a target `src/app:name`."""
    target = name.partition(".")[0]
    return (
        f"{what}\n\nIf unset, it is the path of the BUILD file with dots, then the target's name: "
        f"`src/app:{target}` is `src.app/{name}`."
    )


def checked_output_path(field: OutputPathField, path: str) -> str:
    """`path`, the value of `output_path`. Raises `FlyteTargetError` if no program can take it."""
    problem = path_problem(path)
    if literal_glob(path) != path:  # Pants collects what a process writes by globs
        problem = "a path with one of the characters `*?[!`"
    elif path.startswith("-"):
        problem = "a path that begins with `-`, as an option does"
    if problem:
        raise FlyteTargetError(
            field.address, f"`output_path` is {problem}; give one below `--distdir`: {path!a:.200}."
        )
    return path


class FlyteBundleOutputPathField(OutputPathField):
    help = output_path_help(
        "Where the archive goes, below `--distdir`; must end in `.tar.gz`. The manifest is written "
        "beside it, with the ending `.manifest.json`.",
        "code.tar.gz",
    )


class FlyteTaskOutputPathField(OutputPathField):
    help = output_path_help(
        "Where the task's JSON file goes, below `--distdir`; must end in `.json`. The bundle is "
        "written beside it, with the endings `.tar.gz` and `.manifest.json`.",
        "train.json",
    )


# --- addresses and images ------------------------------------------------------------------------


def is_address(image: str) -> bool:
    """Whether an `image` means a target: `:name`, `//dir:name`, or `dir/...:name` without a host.

    `library/debian:12` could be both; the image is written `docker.io/library/debian:12`.
    """
    if image.startswith((":", "//")):
        return True
    first, slash, rest = image.partition("/")
    if "@" in image or not slash or ":" not in rest:
        return False
    return first != "localhost" and not any(c in first for c in ".:")


class OneAddressField(SpecialCasedDependencies):
    """The address of one target, as text or as a list of one."""

    # `help` shows the type of `raw_value`.
    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[Tuple[str, ...]]:  # type: ignore[override]
        one = [raw_value] if isinstance(raw_value, str) else raw_value
        value = super().compute_value(one, address)
        if value is not None and len(value) != 1:
            raise InvalidFieldException(
                f"The `{cls.alias}` field in target {address} takes one, such as "
                f'`{cls.alias}=":{cls.alias}"`; it has {len(value)}.'
            )
        return value


class ImageReferenceField(OneAddressField):
    """One image. The target depends on it only if the text is an address."""

    @property
    def text(self) -> Optional[str]:
        """What the user wrote."""
        return self.value[0] if self.value else None

    def to_unparsed_address_inputs(self) -> UnparsedAddressInputs:
        return UnparsedAddressInputs(
            [image for image in self.value or () if is_address(image)],
            owning_address=self.address,
            description_of_origin=f"the `{self.alias}` from the target {self.address}",
        )


# --- flyte_bundle --------------------------------------------------------------------------------


class FlyteBundleDependenciesField(Dependencies):
    required = True
    supports_transitive_excludes = True
    help = (
        'The roots of the bundle: addresses of the code to ship, such as `["./workflows.py", '
        '"libs/features"]`. The bundle holds everything that they reach.'
    )


class FlyteBundle(CodeTarget):
    alias = "flyte_bundle"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteBundleDependenciesField,
        FlyteBundleCopyStyleField,
        FlyteRootDirField,
        FlyteMaxSizeField,
        FlyteMaxFilesField,
        FlyteSbomField,
        FlyteAllowSecretsField,
        FlyteMissingField,
        FlyteProvidedModulesField,
        FlyteBundleOutputPathField,
        PythonResolveField,
        InterpreterConstraintsField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        A code bundle: a reproducible `.tar.gz` of the code that its dependencies reach, with a
        manifest that names each file's owner and the reason it is there.

        You need this target only to share one bundle among several `flyte_task` targets; a task
        without one makes its own.

            flyte_bundle(
                name="code",
                dependencies=["./train.py", "./predict.py"],
            )

        `{bin_name()} package path/to:code` writes `dist/path.to/code.tar.gz` and
        `dist/path.to/code.manifest.json`.
    """)


# --- flyte_task ----------------------------------------------------------------------------------


class FlyteTaskDependenciesField(Dependencies):
    supports_transitive_excludes = True
    help = (
        "What to ship besides what the entry point reaches, such as plugins that are found by "
        "name, or `files` that are opened by path. Do not list the module of `entry_point`: it is "
        "inferred."
    )


class FlyteEntryPointField(StringField, AsyncFieldMixin):
    alias = "entry_point"
    required = True
    value: str
    help = help_text("""
        The task to run, as `file.py:name`, the file relative to the BUILD file:
        `entry_point="workflows.py:train"`. The name is that of a task (`@env.task def train()`),
        or of a `flyte.TaskEnvironment`, which stands for all its tasks in that file.

        The file is read, never imported, to check that the name exists. The dependency on the
        file's owner is inferred.
    """)


def _image_help(what: str) -> str:
    return f"The container image that {what}:\n\n{_IMAGE_HELP}"


_IMAGE_HELP = help_text("""
    - the address of a `flyte_image`, such as `":image"` or `"services/ml:image"`;

    - the address of a `docker_image` of Pants' own, which the deployment builds and pushes (or,
    with `[flyte].build_docker_images = false`, finds published), and takes by digest;

    - a reference, such as `"ghcr.io/org/trainer:2026.1"` or one with a digest (on Docker Hub,
    write the host: `"docker.io/org/trainer:2026.1"`);

    - a name (a word without `/`, `:` or `@`, such as `"trainer"`) that `images` of the
    `flyte_deployment`, `[flyte].images` or `--image trainer=URI` maps to a reference.

    Leave it out where the code's own `flyte.Image` needs no build.
""")


class FlyteTaskImageField(ImageReferenceField):
    alias = "image"
    help = _image_help("the task runs in")


class FlyteTaskBundleField(OneAddressField):
    alias = "bundle"
    help = (
        'The address of a `flyte_bundle` to use instead of a bundle of its own: `bundle=":code"`. '
        "It must hold the entry point. `root_dir` and `copy_style` are then the bundle's, and "
        "must not be set here."
    )


class FlyteTask(CodeTarget):
    alias = "flyte_task"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteEntryPointField,
        FlyteTaskDependenciesField,
        FlyteTaskImageField,
        FlyteTaskBundleField,
        FlyteTaskCopyStyleField,
        FlyteRootDirField,
        FlyteMaxSizeField,
        FlyteMaxFilesField,
        FlyteSbomField,
        FlyteAllowSecretsField,
        FlyteMissingField,
        FlyteProvidedModulesField,
        FlyteTaskOutputPathField,
        FlyteRestartableField,
        PythonResolveField,
        InterpreterConstraintsField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        A Flyte task (or all tasks of one environment): the link of its code, its image and the
        directory that imports start from.

            flyte_task(
                name="train",
                entry_point="workflows.py:train",
                image="ghcr.io/org/trainer:2026.1",
            )

        `{bin_name()} package path/to:train` writes its code bundle (`dist/path.to/train.tar.gz`,
        with `train.manifest.json`) and `train.json`, which names them, the image and the exact
        container command.

        `{bin_name()} run path/to:train -- --n 5` runs it on this machine, from that bundle, with
        Flyte's own local runner; `-- --help` shows the task's inputs. `--root-dir DIR` and
        `--copy-style STYLE`, where they come first, override this target's fields.
        `-- --in-image --n 5` runs it in its image, `-- --remote --n 5` has Flyte run it.
    """)


class FlyteTasksFilesField(StringSequenceField):
    """No field of sources: the files have owners, which `dependencies` infer."""

    alias = "files"
    default = ("*.py",)
    help = help_text("""
        The files to look for environments in, as globs relative to the BUILD file:
        `files=["workflows/*.py", "!workflows/old_*.py"]`. Tests are left out.
    """)


class FlyteTasksOverridesField(OverridesField):
    help = help_text("""
        Fields of single tasks, by the names that follow the `#` of their addresses:
        `overrides={"train.env": {"image": ":gpu"}}`.
    """)


class FlyteTasks(TargetGenerator):
    alias = "flyte_tasks"
    generated_target_cls = FlyteTask
    core_fields = (*COMMON_TARGET_FIELDS, FlyteTasksFilesField, FlyteTasksOverridesField)
    copied_fields = COMMON_TARGET_FIELDS
    moved_fields = tuple(
        field
        for field in FlyteTask.core_fields
        if field not in (*COMMON_TARGET_FIELDS, FlyteEntryPointField, FlyteTaskOutputPathField)
    )
    help = help_text(f"""
        A `flyte_task` for each `flyte.TaskEnvironment` with tasks that the files make.

            flyte_tasks(name="tasks", image=":image")

        With `env = flyte.TaskEnvironment(...)` in `train.py` there is a target
        `path/to:tasks#train.env`. `{bin_name()} list path/to:` shows all, and
        `flyte_deployment(tasks=["path/to:tasks"])` deploys them. An app needs a `flyte_app`.
    """)


# --- flyte_app -----------------------------------------------------------------------------------


class FlyteAppEntryPointField(FlyteEntryPointField):
    help = help_text("""
        The app, as `file.py:name`, the file relative to the BUILD file:
        `entry_point="dashboard.py:app_env"`. The name is that of a `flyte.app.AppEnvironment`, or
        of one of its kinds, such as `FastAPIAppEnvironment`.

        The file is read, never imported, to check that the name exists. The dependency on the
        file's owner is inferred.
    """)


class FlyteAppDependenciesField(FlyteTaskDependenciesField):
    help = (
        "What to ship besides what the entry point reaches, such as pages and templates "
        "(`resources`), or a script that `args` of the app start. What `include` of the app names "
        "is inferred, and so is the module of `entry_point`."
    )


class FlyteAppImageField(FlyteTaskImageField):
    help = _image_help("serves the app")


class FlyteAppOutputPathField(FlyteTaskOutputPathField):
    help = output_path_help(
        "Where the app's JSON file goes, below `--distdir`; must end in `.json`. The bundle is "
        "written beside it, with the endings `.tar.gz` and `.manifest.json`.",
        "dashboard.json",
    )


class FlyteApp(FlyteTask):
    """Packaged as a task is."""

    alias = "flyte_app"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteAppEntryPointField,
        FlyteAppDependenciesField,
        FlyteAppImageField,
        FlyteTaskBundleField,
        FlyteTaskCopyStyleField,
        FlyteRootDirField,
        FlyteMaxSizeField,
        FlyteMaxFilesField,
        FlyteSbomField,
        FlyteAllowSecretsField,
        FlyteMissingField,
        FlyteProvidedModulesField,
        FlyteAppOutputPathField,
        FlyteRestartableField,
        PythonResolveField,
        InterpreterConstraintsField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        A Flyte app, such as an API, a dashboard or a model server: the link of its code, its image
        and the directory that imports start from.

            flyte_app(name="dashboard", entry_point="dashboard.py:app_env", image=":image")

        `{bin_name()} package path/to:dashboard` writes its code bundle
        (`dist/path.to/dashboard.tar.gz`, with `dashboard.manifest.json`) and `dashboard.json`,
        which names them, the image and the container command.

        `{bin_name()} run path/to:dashboard` serves it on this machine, from that bundle, as its
        container does; Ctrl-C ends it. `-- --help` shows its options.

        A `flyte_deployment` that has it among its `tasks` deploys it. So does one with a task whose
        environment depends on it (`depends_on=[app_env]`); then it needs this target only for an
        image or a bundle of its own.
    """)


# --- flyte_deployment ----------------------------------------------------------------------------


class FlyteDeploymentDependenciesField(Dependencies):
    help = "Not needed: `tasks` names what a deployment ships."


class FlyteDeploymentTasksField(SpecialCasedDependencies):
    alias = "tasks"
    required = True
    help = (
        "Addresses of the `flyte_task` and `flyte_app` targets to deploy together, under one "
        'version: `["services/ml:train", "services/etl:ingest"]`.'
    )


class FlyteDeploymentCopyStyleField(StringField):
    alias = "copy_style"
    valid_choices = COPY_STYLES
    help = (
        'Overrides the `copy_style` of all its tasks: say, `"auto"` for development, and `"none"` '
        "for production, where the code is in the images. `none` needs a `version`."
    )


class FlyteDeploymentProjectField(StringField):
    alias = "project"
    help = (
        "The Flyte project to deploy to. If unset: `-- --project`, the settings file (`config`) "
        "or `[flyte].project`."
    )


class FlyteDeploymentDomainField(StringField):
    alias = "domain"
    help = (
        "The Flyte domain (`development`, `staging`, `production`, ...). One target makes several "
        'deployments: `domain=parametrize("staging", "production")`. If unset: `-- --domain` or '
        "`[flyte].domain`."
    )


class FlyteDeploymentVersionField(StringField):
    alias = "version"
    help = (
        "The version of the deployment and all its tasks. If unset, each task has a version of "
        "its own, computed from all that decides what it runs (where its bundle lies and what it "
        "holds, image, command, project, domain). Then only what changed is registered anew, and "
        "the same deployment to the same store has the same versions on every machine. `-- "
        "--version` overrides it."
    )


class FlyteDeploymentStoreField(StringField):
    alias = "store"
    help = (
        "Where bundles and deployment records go, a URI such as `s3://bucket/path`, "
        "`gs://bucket/path`, `abfs://container@account.dfs.core.windows.net/path` or "
        "`file:///srv/flyte`. A relative `file://` path starts at the build root. If unset: the "
        "settings file (`config`) or `[flyte].store`."
    )


class FlyteDeploymentImagesField(DictStringToStringField):
    alias = "images"
    help = (
        'Maps names of images to references: `images={"trainer": "ghcr.io/org/trainer:2026.1"}`. '
        "A name is what a task's `image` field says, or the `ref_name` of the `flyte_image` it "
        "uses, which is then neither built nor pushed. Comes before `[flyte].images`; `-- --image "
        "trainer=URI` overrides both."
    )


class FlyteDeploymentRegistryField(StringField):
    alias = "registry"
    help = (
        "Where the `flyte_image` targets of its tasks are pushed: a host, perhaps with a path, "
        'such as `"ghcr.io/org"`. Overrides the images\' own `registries`; `-- --registry` '
        "overrides it."
    )


class FlyteDeploymentEndpointField(StringField):
    alias = "endpoint"
    help = (
        "The Flyte control plane that the tasks are registered with, such as "
        '`"flyte.example.com"`. If unset: the settings file (`config`), `[flyte].endpoint` or '
        "Flyte's own `config.yaml`, which also says how to log in. Without an endpoint, the "
        "deployment is only stored and recorded. `-- --endpoint` overrides it."
    )


class FlyteDeploymentInsecureField(TriBoolField):
    alias = "insecure"
    help = "Whether the endpoint speaks plain HTTP, without TLS."


class FlyteDeploymentOrgField(StringField):
    alias = "org"
    help = "The organization at the endpoint, where it serves several."


class FlyteDeploymentProvenanceField(TriBoolField):
    alias = "provenance"
    help = (
        "Whether a new version gets a statement of what it was made from, in the store, and each "
        "image that is built for it one beside it in the registry: in-toto's, with SLSA's "
        "provenance, of the commit, the lock files, the bases and the outputs. If unset, "
        "`[flyte].provenance` holds."
    )


class FlyteDeploymentConfigField(PathField):
    alias = "config"
    help = (
        "A YAML file, relative to the BUILD file (`//` before it means the build root), with "
        "settings of deployments: `endpoint`, `insecure`, `org`, `flyte_config`, `store`, "
        "`registry`, `project` and `images`, and under `domains` the same for single domains. The "
        "fields of this target override it. If unset: `[flyte].deploy_config`; `-- --config` "
        "overrides both."
    )


class FlyteDeployment(FileNamingTarget):
    alias = "flyte_deployment"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteDeploymentDependenciesField,
        FlyteDeploymentTasksField,
        FlyteDeploymentCopyStyleField,
        FlyteDeploymentProjectField,
        FlyteDeploymentDomainField,
        FlyteDeploymentVersionField,
        FlyteDeploymentStoreField,
        FlyteDeploymentImagesField,
        FlyteDeploymentRegistryField,
        FlyteDeploymentEndpointField,
        FlyteDeploymentInsecureField,
        FlyteDeploymentOrgField,
        FlyteDeploymentConfigField,
        FlyteDeploymentProvenanceField,
        FlyteRestartableField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        Tasks and apps that go out together: what `run` and `experimental-deploy` act on.

            flyte_deployment(
                name="deploy",
                tasks=["services/ml:train", "services/etl:ingest"],
                domain="staging",
            )

        `{bin_name()} run path/to:deploy` packages the tasks, pushes their images, uploads what the
        store lacks, writes a deployment record, and registers the tasks with Flyte (`endpoint`); a
        second run finds nothing to do. After `--` come options (`--dry-run`, `--version V`,
        `--domain D`, `--endpoint HOST`, `--output json`, ...) and subcommands: `list`, `show`,
        `rollback VERSION`, `verify`, `prune`, `export`, `import`. `-- --help` lists them all.

        `{bin_name()} experimental-deploy ::` deploys every deployment, `{bin_name()}
        --changed-since=main --changed-dependents=transitive experimental-deploy` those that a
        branch has changed.
    """)
