"""The options of this backend: `[flyte]` for targets, `[flyte-pack]` for the program."""

from __future__ import annotations

from enum import Enum
from typing import Any, Iterable, Optional, Tuple

from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.option.option_types import (
    ArgsListOption,
    BoolOption,
    DictOption,
    EnumOption,
    IntOption,
    StrListOption,
    StrOption,
)
from pants.option.subsystem import Subsystem
from pants.util.strutil import help_text

from flyte_pack.errors import UserError
from pants_flyte.target_types import A_SIZE, COPY_STYLES, bytes_in


class UnownedFiles(Enum):
    WARNING = "warning"
    IGNORE = "ignore"


class Missing(Enum):
    ERROR = "error"
    WARN = "warn"
    IGNORE = "ignore"


VARIABLE = "env:"  # before the name of a variable, in what allows secrets


def variables_among(entries: Iterable[str]) -> Tuple[str, ...]:
    return tuple(one[len(VARIABLE) :] for one in entries if one.startswith(VARIABLE))


class Secrets(Enum):
    ERROR = "error"
    WARN = "warn"
    IGNORE = "ignore"


class ImageBytecode(Enum):
    RELEASE = "release"
    MINOR = "minor"
    OFF = "off"


class FlyteSubsystem(Subsystem):
    options_scope = "flyte"
    name = "Flyte"
    help = help_text("""
        Code bundles and deployments for Flyte, computed from the dependency graph.

        Write a `flyte_task` in a BUILD file (`pants help flyte_task`), then `pants package`,
        `pants run` and `pants experimental-deploy`. The options below are the defaults of targets.
    """)

    copy_style = StrOption(
        default="auto",
        help=f"What tasks and bundles without `copy_style` ship; one of {', '.join(COPY_STYLES)}.",
    )
    root_dir = StrOption(
        default=None,
        help="The directory, relative to the build root, that is the top of every bundle whose "
        "`root_dir` field is not set. Unset means that source roots are stripped.",
    )
    max_size = StrOption(
        default=None,
        help="The most that the files of a bundle may hold, unpacked, where its `max_size` field "
        "is not set: `50 MB`.",
    )
    max_files = IntOption(
        default=None,
        help="The most files that a bundle may have, where its `max_files` field is not set.",
    )
    image_max_size = StrOption(
        default=None,
        help="The most that a machine may have to pull of an image whose `max_size` field is not "
        "set, all layers on one platform: `2 GB`.",
    )
    sbom = BoolOption(
        default=False,
        help="Whether bundles and images whose `sbom` field is not set get a software bill of "
        "materials (CycloneDX): beside them below `--distdir`, in the store, and in the registry.",
    )
    provenance = BoolOption(
        default=False,
        help="Whether new versions of deployments whose `provenance` field is not set get a "
        "statement of what they were made from (in-toto, SLSA), in the store, and images that they "
        "or `publish` push one in the registry.",
    )
    large_file = StrOption(
        default="50 MB",
        help="Packaging warns of single files above this size; the empty string turns it off.",
    )
    secrets = EnumOption(
        default=Secrets.ERROR,
        help="What to do about secrets in bundles and images, such as keys of clouds, tokens, "
        "private keys and `.env` files: docs/guards.md has the list. `error` refuses to package "
        "them.",
    )
    allow_secrets = StrListOption(
        default=[],
        help="Files that may ship whatever they hold or are called, as globs from the build root: "
        "`tests/data/**`; or `env:NAME`, for variables of tasks, apps and images. The field "
        "`allow_secrets` of a target says the same for that alone.",
    )
    secrets_baseline = StrOption(
        default=None,
        help="A file, from the build root, that lists what looks like a secret and is none: a "
        "baseline as `detect-secrets scan` writes it. An entry counts for its file, on any line, "
        "unless `detect-secrets audit` has called it a real secret.",
    )
    project = StrOption(
        default="flytesnacks", help="The Flyte project of a `flyte_deployment` that names none."
    )
    domain = StrOption(
        default="development", help="The Flyte domain of a `flyte_deployment` that names none."
    )
    store = StrOption(
        default=None,
        help="Where bundles and deployment records go, a URI such as `s3://bucket/path` or "
        "`file:///srv/flyte`; a relative `file://` path starts at the build root. Unset means "
        "the directory `flyte` below `--distdir`.",
    )
    endpoint = StrOption(
        default=None,
        help="The Flyte control plane that deployments register their tasks with, such as "
        "`flyte.example.com`. Unset means the one in Flyte's own `config.yaml`, if any.",
    )
    insecure = BoolOption(
        default=False, help="Whether that endpoint speaks plain HTTP, without TLS.", advanced=True
    )
    org = StrOption(
        default=None,
        help="The organization at the endpoint, where it serves several.",
        advanced=True,
    )
    report_dir = StrOption(
        default=None,
        help="A directory, from the build root, into which `publish` and deployments write what "
        "they did as JSON, for scripts: `publish.ADDRESS.json`, `deploy.ADDRESS.json`, with "
        "digests, versions, and what was new or unchanged. Unset means none.",
    )
    tailor = BoolOption(
        default=True,
        help="Whether `tailor` proposes a `flyte_task` for each environment and a `flyte_app` for "
        "each app without one, a `flyte_deployment` for their directory, and `resources` or "
        "`files` for data that modules read by constant paths and no target owns.",
    )
    deploy_config = StrOption(
        default=None,
        help="A YAML file, from the build root, with settings of deployments; see the field "
        "`config` in `pants help flyte_deployment`.",
    )
    import_env_vars = StrListOption(
        default=[],
        help="Environment variables that the modules of tasks see while they are imported to be "
        "registered, as `NAME` or `NAME=value`, besides `PATH`, `HOME`, `TMPDIR` and the "
        "locale. A module that reads them may register something else, so they are part of "
        "the version.",
        advanced=True,
    )
    standby = BoolOption(
        default=True,
        help="After a deployment that registered something, have two processes import Flyte and "
        "wait for the next one, which then needs not wait for that; and after a local run one for "
        "the next run. They have no credentials, are used once, and end with Pants' daemon or "
        "after a quarter of an hour. On Linux, and where the daemon is in use.",
        advanced=True,
    )
    images = DictOption[str](
        help="Maps names that the `image` field of a `flyte_task` may use to image references, "
        'such as `{"trainer": "ghcr.io/org/trainer:2026.1"}`.',
    )
    build_docker_images = BoolOption(
        default=True,
        help="Whether a deployment builds and pushes the `docker_image` targets that its tasks run "
        "in. Otherwise it takes what their first tag stands for in the registry: `publish` them "
        "before, perhaps on another machine, as deploying then needs no Docker.",
    )
    registries = StrListOption(
        default=[],
        help="Where images without a `registries` field are pushed: hosts, perhaps with a path, "
        "such as `ghcr.io/org`, or names with `@`, of `[flyte].named_registries`.",
    )
    named_registries = DictOption[Any](
        help="Registries that `registries` and `registry` may call by name, say `@prod`:\n\n"
        "    [flyte.named_registries.prod]\n"
        '    address = "ghcr.io/org"\n'
        '    extra_image_tags = ["latest"]\n'
        '    repository = "{full_directory}/{name}"\n'
        "    skip_push = false\n\n"
        "Only `address` is needed. The tags come on top of the image's. The `repository` takes the "
        "place of the image's, and may hold `{target_repository}`, which is that. With `skip_push` "
        "nothing is pushed there.",
        fromfile=True,
    )
    repository = StrOption(
        default="{path}/{name}",
        help="The `repository` of images that do not set it; see `pants help flyte_image`.",
    )
    image_tags = StrListOption(
        default=["{content_hash}"],
        help="The `image_tags` of images that do not set them; see `pants help flyte_image`.",
    )
    image_labels = DictOption[str](
        help="Labels of every image; the `labels` of a `flyte_image` come on top.", advanced=True
    )
    image_bytecode = EnumOption(
        default=ImageBytecode.RELEASE,
        help="Which CPython compiles the modules in images, of those in "
        "`[python-bootstrap].search_path`. `release`: one of the base's very release, such as "
        "3.12.4, so that all machines that have one make the same image. `minor`: another 3.12, "
        "if there is no such one: the image starts as fast, and its digest depends on the machine. "
        "`off`: none, unless an image has `bytecode=True`, which wants `release`.",
    )
    version = StrOption(
        default=None,
        help="What `{version}` in an image's tags stands for when it is published by itself: "
        "`pants --flyte-version=1.4 publish path/to:image`.",
    )
    insecure_registries = StrListOption(
        default=[],
        help="Hosts (with their ports) of registries to speak to over plain HTTP. Others on the "
        "network can then read credentials and change images. A registry on this machine "
        "(`localhost:5000`) needs no entry.",
        advanced=True,
    )
    apt_mirrors = DictOption[str](
        help="Where the Debian packages of images (`apt_packages`) are fetched instead of from the "
        "repositories that their base names: `{'http://deb.debian.org/debian': "
        "'https://mirror.example.com/debian'}`. Lock files name the base's repositories.",
        advanced=True,
    )
    all_excludes = StrListOption(
        default=[
            "**/__pycache__/**",
            "**/*.pyc",
            "**/.*",
            "**/.*/**",
            "**/*.egg-info/**",
            "**/venv/**",
            "**/node_modules/**",
            "**/tests/**",
            "**/test_*.py",
            "**/*_test.py",
            "**/conftest.py",
            "**/BUILD",
            "**/BUILD.*",
        ],
        help='What `copy_style="all"` leaves out, as globs from the build root, besides what Pants '
        "ignores (`[GLOBAL].pants_ignore`) and what `.gitignore` and `.flyteignore` files at any "
        "depth match, and virtual environments (directories with a `pyvenv.cfg`, or conda's). "
        "Folders that images copy leave out the same. What is asked for ships: a folder that is "
        "named itself, and what the entry points reach in the graph, such as tests in "
        "`dependencies`.",
        advanced=True,
    )
    infer_lost_imports = BoolOption(
        default=True,
        help="Whether to infer dependencies from imports that Pants' own parser loses: of `import "
        "a, b` it keeps only `a`, and bundles would lack `b`. They are resolved as every "
        "other import: `[python-infer]` and the comment `# pants: no-infer-dep` apply.",
        advanced=True,
    )
    infer_named_in_code = BoolOption(
        default=True,
        help="Whether to infer dependencies on what code names by a constant without importing it: "
        'modules (`importlib.import_module("a.b")`, `python -m a.b` in a subprocess, tables of '
        "lazy modules, plugins that `pkgutil` finds in a package), and files that a target owns "
        '(`Path(__file__).parent / "x.json"`, `importlib.resources`, `open("data/x.csv")`).',
        advanced=True,
    )
    infer_named_in_data = BoolOption(
        default=False,
        help="Whether to infer dependencies from YAML, JSON, TOML and INI files that `resources` "
        "or `files` own, on the modules of the repository that they name by dotted words, or that "
        "hold what is named: Hydra's `_target_: models.resnet.ResNet`, a factory in settings. For "
        "such words in Python sources (Django's `INSTALLED_APPS`, `pydantic.ImportString`) Pants "
        "has `[python-infer].string_imports`.",
        advanced=True,
    )
    unowned_files = EnumOption(
        default=UnownedFiles.WARNING,
        help="What to do about files beside packed modules that no target owns, and which are "
        "therefore in no bundle or image. A single file is no longer told once any target "
        "owns it, whether or not something depends on that.",
    )
    missing = EnumOption(
        default=Missing.ERROR,
        help="What to do where the code of a bundle or image imports a module, or reads a file, "
        "that is not there when it runs; where the `missing` field of the target is not set. An "
        "import whose module is not known to be missing is a warning at most. One that the code "
        "does without (in `try: ... except ImportError`, under `TYPE_CHECKING`) is told of by "
        "`lint` alone.",
    )
    provided_modules = StrListOption(
        default=[],
        help="Modules that every container has by itself, such as those of a base image, with all "
        'below them: `["torch", "company.runtime"]`. Imports of them are never missing. '
        "Targets have a field of that name.",
    )
    dry_run = BoolOption(
        default=False,
        help="Whether `experimental-deploy` only shows what every deployment would do, and writes "
        "nothing: `pants --flyte-dry-run --changed-since=main experimental-deploy`. Its own "
        "`--dry-run`, in later versions of Pants, does the same.",
    )
    deploy_env_vars = StrListOption(
        default=[],
        help="More environment variables that `experimental-deploy` passes to the deploy program, "
        "as `NAME` or `NAME=value`, besides `PATH`, `HOME`, and those that configure stores, "
        "registries and Flyte. (`run` passes the whole environment.)",
        advanced=True,
    )

    @property
    def most_bytes(self) -> Optional[int]:
        """What `max_size` means. Raises `UserError`."""
        return _most("max_size", self.max_size)

    @property
    def most_image_bytes(self) -> Optional[int]:
        """What `image_max_size` means. Raises `UserError`."""
        return _most("image_max_size", self.image_max_size)

    @property
    def allowed_files(self) -> Tuple[str, ...]:
        """Globs of `allow_secrets`."""
        return tuple(one for one in self.allow_secrets if not one.startswith(VARIABLE))

    @property
    def allowed_variables(self) -> Tuple[str, ...]:
        """Names of variables in `allow_secrets`."""
        return variables_among(self.allow_secrets)

    @property
    def large_file_bytes(self) -> Optional[int]:
        """What `large_file` means; None: no size is told. Raises `UserError`."""
        return _most("large_file", self.large_file or None)


def _most(option: str, value: Optional[str]) -> Optional[int]:
    if value is None:
        return None
    found = bytes_in(value)
    if found is None:
        raise UserError(f"`[flyte].{option}` is {value!r}; {A_SIZE}")
    return found


class FlyteDeploySubsystem(Subsystem):
    """Apart from `[flyte]`, which nearly every rule reads: arguments are others each time."""

    options_scope = "flyte-experimental-deploy"
    name = "the deploy program"
    help = "What `experimental-deploy` passes to the program that deploys."

    args = ArgsListOption(
        example="--dry-run --domain staging",
        passthrough=True,
        extra_help="They may follow `--` instead: `pants experimental-deploy path:deploy -- "
        "--dry-run`. Each deployment gets them; `pants run path:deploy -- --help` lists them.",
    )


class FlytePackSubsystem(Subsystem):
    """A plain subsystem: Pants' tool bases refuse a requirements lock in 2.33."""

    options_scope = "flyte-pack"
    help = "The program that packs bundles and deploys them; it comes with this backend."

    lockfile = StrOption(
        default="resource://flyte_pack/flyte-pack.lock",
        help="The lock file of the program's third-party packages (a codec), as a path from the "
        "build root: a requirements file with hashes, or a PEX lock file. The default comes "
        "with the backend. Another codec version may give other archive bytes for the same "
        "content.",
        advanced=True,
    )
    image_lockfile = StrOption(
        default="resource://flyte_pack/flyte-image.lock",
        help="As `lockfile`, for building images: the codec, and the installer of packages.",
        advanced=True,
    )
    deploy_lockfile = StrOption(
        default="resource://flyte_pack/flyte-deploy.lock",
        help="As `lockfile`, for deploying, pushing and running images: clients of stores.",
        advanced=True,
    )
    interpreter_constraints = StrListOption(
        default=["CPython>=3.9,<3.15"],
        help="The Python that the program may run on; it does not affect the output.",
        advanced=True,
    )

    deploy_interpreter_constraints = StrListOption(
        default=["CPython>=3.10,<3.15"],
        help="As `interpreter_constraints`, for deploying, pushing and running images. Under "
        "CPython 3.9 AWS profiles, SSO and roles cannot be used.",
        advanced=True,
    )

    def constraints(self, lockfile: str) -> InterpreterConstraints:
        """Of the program with the packages of the option `lockfile`."""
        options: Iterable[str] = (
            self.deploy_interpreter_constraints
            if lockfile == "deploy_lockfile"
            else self.interpreter_constraints
        )
        return InterpreterConstraints(options)
