"""The options of this backend: `[flyte]` for a repository's habits, `[flyte-pack]` for the tool that packs."""

from __future__ import annotations

from typing import Iterable

from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.option.option_types import BoolOption, DictOption, StrListOption, StrOption
from pants.option.subsystem import Subsystem
from pants.util.strutil import help_text, softwrap

from pants_flyte.target_types import COPY_STYLES


class FlyteSubsystem(Subsystem):
    options_scope = "flyte"
    name = "Flyte"
    help = help_text(
        """
        Code bundles and deployments for Flyte, computed from the dependency graph.

        Write a `flyte_task` in a BUILD file (`pants help flyte_task`), then `pants package`, `pants run` and
        `pants experimental-deploy`. The options below are what holds where a target says nothing.
        """
    )

    copy_style = StrOption(
        default="auto",
        help=softwrap(
            f"""
            What a task or bundle ships where its `copy_style` field is not set; one of
            {", ".join(f"`{style}`" for style in COPY_STYLES)}.
            """
        ),
    )
    root_dir = StrOption(
        default=None,
        help=softwrap(
            """
            The directory, relative to the build root, that is the top of every bundle whose
            `root_dir` field is not set. Unset means that source roots are stripped.
            """
        ),
    )
    project = StrOption(
        default="flytesnacks",
        help="The Flyte project of a `flyte_deployment` that names none.",
    )
    domain = StrOption(
        default="development",
        help="The Flyte domain of a `flyte_deployment` that names none.",
    )
    store = StrOption(
        default=None,
        help=softwrap(
            """
            Where bundles and deployment records go, a URI such as `s3://bucket/path` or
            `file:///srv/flyte`; a relative `file://` path starts at the build root. Unset means the
            directory `flyte` below `--distdir`.
            """
        ),
    )
    endpoint = StrOption(
        default=None,
        help=softwrap(
            """
            The Flyte control plane that deployments register their tasks with, such as
            `flyte.example.com`. Unset means the one in Flyte's own `config.yaml`, where there is one.
            """
        ),
    )
    insecure = BoolOption(
        default=False,
        help="Whether that endpoint speaks plain HTTP, without TLS.",
        advanced=True,
    )
    org = StrOption(
        default=None,
        help="The organization at the endpoint, where it serves several.",
        advanced=True,
    )
    deploy_config = StrOption(
        default=None,
        help=softwrap(
            """
            A YAML file, from the build root, with settings of deployments; see the field `config` in
            `pants help flyte_deployment`.
            """
        ),
    )
    import_env_vars = StrListOption(
        default=[],
        help=softwrap(
            """
            Environment variables that the modules of tasks see while they are imported to be
            registered, as `NAME` or `NAME=value`, besides `PATH`, `HOME`, `TMPDIR` and the locale.
            What a module reads of them can change what is registered, so they count for versions.
            """
        ),
        advanced=True,
    )
    images = DictOption[str](
        help=softwrap(
            """
            Which image each name stands for that the `image` field of a `flyte_task` uses, such as
            `{"trainer": "ghcr.io/org/trainer:2026.1"}`.
            """
        ),
    )
    registries = StrListOption(
        default=[],
        help=softwrap(
            """
            Where images are pushed whose `registries` field is not set, each a host, perhaps with a
            path, such as `ghcr.io/org`.
            """
        ),
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
        help="Labels of every image; the `labels` of a `flyte_image` come on top.",
        advanced=True,
    )
    version = StrOption(
        default=None,
        help=softwrap(
            """
            What `{version}` in an image's tags stands for when it is published by itself:
            `pants --flyte-version=1.4 publish path/to:image`.
            """
        ),
    )
    insecure_registries = StrListOption(
        default=[],
        help=softwrap(
            """
            Hosts (with their ports) of registries that are spoken to over plain HTTP. Nothing keeps
            others on the way from reading credentials and changing images. A registry on
            this machine (`localhost:5000`) needs no entry.
            """
        ),
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
            "**/BUILD",
            "**/BUILD.*",
        ],
        help=softwrap(
            """
            What `copy_style="all"` leaves out, as globs from the build root, on top of what Pants
            ignores (`[GLOBAL].pants_ignore`, `.gitignore`). What the entry points reach in the
            graph is never left out.
            """
        ),
        advanced=True,
    )
    infer_lost_imports = BoolOption(
        default=True,
        help=softwrap(
            """
            Whether to infer the dependencies on modules that Pants' own parser of Python sources
            loses: of `import a, b` it keeps `a` alone, and `b` would be missing from bundles. What
            is found is resolved as every other import: `[python-infer]` and the comment
            `# pants: no-infer-dep` hold for it. A source in which nothing can be lost costs next
            to nothing.
            """
        ),
        advanced=True,
    )
    dry_run = BoolOption(
        default=False,
        help=softwrap(
            """
            Whether `experimental-deploy` only tells what every deployment would do, and writes nothing anywhere:
            `pants --flyte-dry-run --changed-since=main experimental-deploy`. (Its own `--dry-run`, which
            later versions of Pants have, does the same.)
            """
        ),
    )
    deploy_env_vars = StrListOption(
        default=[],
        help=softwrap(
            """
            More environment variables that the `experimental-deploy` goal hands to the deploy
            program, as `NAME` or `NAME=value`; it has `PATH`, `HOME`, and those by which stores,
            registries and Flyte are known to be configured. (`run` hands over the whole environment.)
            """
        ),
        advanced=True,
    )


class FlytePackSubsystem(Subsystem):
    """A plain subsystem, not one of Pants' tool bases: those refuse a requirements lock in 2.33."""

    options_scope = "flyte-pack"
    help = "The program that packs bundles and deploys them; it comes with this backend."

    lockfile = StrOption(
        default="resource://flyte_pack/flyte-pack.lock",
        help=softwrap(
            """
            The lock file of what the program needs from others (a codec), as a path from the
            build root: a requirements file, with hashes, or a PEX lock file. The default comes
            with the backend. Another codec version may give other archive bytes for the same
            content.
            """
        ),
        advanced=True,
    )
    image_lockfile = StrOption(
        default="resource://flyte_pack/flyte-image.lock",
        help="As `lockfile`, for what building images needs: the codec, and the installer of packages.",
        advanced=True,
    )
    deploy_lockfile = StrOption(
        default="resource://flyte_pack/flyte-deploy.lock",
        help="As `lockfile`, for what deploying, pushing and running images needs: clients of stores and registries.",
        advanced=True,
    )
    interpreter_constraints = StrListOption(
        default=["CPython>=3.9,<3.15"],
        help="The Python that the program may run on; it has no part in what it makes.",
        advanced=True,
    )

    deploy_interpreter_constraints = StrListOption(
        default=["CPython>=3.10,<3.15"],
        help=softwrap(
            """
            As `interpreter_constraints`, for what deploys, pushes and runs images. Under CPython 3.9 the
            profiles, SSO and roles of AWS can not be used.
            """
        ),
        advanced=True,
    )

    def constraints(self, lockfile: str) -> InterpreterConstraints:
        """Of the program with what the option `lockfile` names."""
        options: Iterable[str] = (
            self.deploy_interpreter_constraints
            if lockfile == "deploy_lockfile"
            else self.interpreter_constraints
        )
        return InterpreterConstraints(options)
