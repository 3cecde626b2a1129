"""The targets for images, `flyte_base_image` and `flyte_image`, and their fields."""

from __future__ import annotations

import os
import re
from typing import Any, Iterable, Mapping, Optional, Tuple, Type

from pants.backend.python.target_types import InterpreterConstraintsField, PythonResolveField
from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address
from pants.engine.target import (
    COMMON_TARGET_FIELDS,
    AsyncFieldMixin,
    BoolField,
    Dependencies,
    DictStringToStringField,
    Field,
    InvalidFieldException,
    InvalidFieldTypeException,
    StringField,
    StringSequenceField,
    TriBoolField,
)
from pants.util.docutil import bin_name
from pants.util.frozendict import FrozenDict
from pants.util.strutil import help_text

from flyte_pack.image.apt_lock import PACKAGE, REQUEST
from pants_flyte import engine
from pants_flyte.named_files import FileNamingTarget, NamedFilesField, NamesFiles, path_from_root
from pants_flyte.target_types import (
    FlyteAllowSecretsField,
    FlyteMaxSizeField,
    FlyteMissingField,
    FlyteProvidedModulesField,
    FlyteRootDirField,
    FlyteSbomField,
    OneAddressField,
    PathField,
)

HOST = "host"
_FULL_VERSION = re.compile(r"3\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")


# --- flyte_base_image ----------------------------------------------------------------------------


class FlyteBaseImageField(StringField):
    alias = "image"
    help = help_text(f"""
        The image in a registry, such as `"docker.io/library/python:3.12-slim"`. What it is pinned
        to is in the lock file, which `{bin_name()} run path/to:base -- lock` writes.

        Give this or `source`.
    """)


class FlyteBaseSourceField(PathField):
    alias = "source"
    help = help_text("""
        An image that needs no registry: the path, relative to the BUILD file (`//` before it means
        the build root), of an OCI image layout (a directory) or of an archive (as `docker save` or
        `skopeo copy ... oci-archive:` write them); or `"host"`.

        `"host"` puts a base together from this machine: a CPython that Pants finds, the libraries
        that it needs, a shell, certificates. It takes about a second and no network, to try images
        out. Do not use it in production: what is in it is not pinned, and nobody scans it or
        patches it. Images made on it are labelled `dev.pants-flyte.not-for-production`.
    """)

    @property
    def named_paths(self) -> Tuple[str, ...]:
        return () if self.value == HOST else super().named_paths


class FlyteBaseLockfileField(PathField):
    alias = "lockfile"
    help = help_text("""
        The lock file, relative to the BUILD file (`//` before it means the build root); to be
        committed. If unset, it is the target's name with the ending `.lock.json`.
    """)

    @property
    def path(self) -> str:
        return super().path or os.path.join(
            self.address.spec_path, f"{self.address.target_name}.lock.json"
        )


class FlyteBaseDependenciesField(Dependencies):
    help = "Not needed: the files that the other fields name are known."


class FlyteBasePlatformsField(StringSequenceField):
    alias = "platforms"
    default = ("linux/amd64",)
    help = help_text("""
        The platforms to lock (or to take from an archive), such as `["linux/amd64",
        "linux/arm64"]`. A base from the host has the host's alone.
    """)


class FlyteBasePythonField(StringField):
    alias = "python"
    help = help_text("""
        The image's Python, its absolute path with the version: `"/usr/bin/python3.11"`.

        Not needed for Docker's official Python images and for `source="host"`.
    """)


class FlyteBasePythonVersionField(StringField):
    alias = "python_version"
    help = help_text("""
        The full version of the image's Python, such as `"3.11.7"`. Environment markers and
        `Requires-Python` of the packages are evaluated for it.

        Usually not needed: it is found in the image's own files, or in the variable
        `PYTHON_VERSION` of Docker's official Python images. If it is neither found nor set, the
        first release of the minor version counts.
    """)

    @classmethod
    def compute_value(cls, raw_value: Optional[str], address: Address) -> Optional[str]:
        value = super().compute_value(raw_value, address)
        if value is not None and not _FULL_VERSION.fullmatch(value):
            raise InvalidFieldException(
                f"The `{cls.alias}` field in target {address} is {value!r}; give a full version of "
                'CPython, such as "3.11.7".'
            )
        return value


class FlyteBaseRefField(StringField):
    alias = "ref"
    help = help_text("""
        The name of the image in `source`, where that holds several: `ref="v2"`. In a layout it is
        the annotation `org.opencontainers.image.ref.name` in `index.json`; in an archive of
        `docker save` it is a tag, such as `"team/base:v2"`.
    """)


class FlyteBaseGlibcField(StringField):
    alias = "glibc"
    help = help_text("""
        The version of the C library (glibc) in the image, such as `"2.34"`, which
        `ldd --version` prints there. Wheels for it and for older versions are taken.

        Usually not needed: it is found in the image's own files, when the base is locked or read.
        If it is neither found nor set, it is `2.28`. An image with musl gets wheels for musl.
    """)


class FlyteBaseImage(FileNamingTarget):
    alias = "flyte_base_image"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteBaseDependenciesField,
        FlyteBaseImageField,
        FlyteBaseSourceField,
        FlyteBaseLockfileField,
        FlyteBasePlatformsField,
        FlyteBasePythonField,
        FlyteBasePythonVersionField,
        FlyteBaseRefField,
        FlyteBaseGlibcField,
        InterpreterConstraintsField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        What a `flyte_image` is built on: an image in a registry, pinned by a lock file, or one at
        hand.

            flyte_base_image(name="base", image="docker.io/library/python:3.12-slim")

        `{bin_name()} run path/to:base -- lock` looks the image up and writes the lock file beside
        the BUILD file: commit it. From then on nothing needs the registry until an image is pushed
        or run. `{bin_name()} run path/to:base -- check` says whether the tag has moved since.

        For a registry with plain HTTP, other than on this machine, see
        `[flyte].insecure_registries`.
    """)


# --- flyte_image ---------------------------------------------------------------------------------


class FlyteImageBaseField(OneAddressField):
    alias = "base"
    required = True
    help = 'The address of a `flyte_base_image`: `base="//images:base"`.'


class FlyteImageDependenciesField(Dependencies):
    supports_transitive_excludes = True
    help = help_text("""
        What the image is for: addresses of tasks or of code, such as `[":train",
        "./workflows.py"]`. Their third-party requirements go into the image. Their own code does if
        `code=True`.
    """)


class FlyteImageCodeField(TriBoolField):
    alias = "code"
    help = help_text("""
        Whether the image holds the first-party code that its `dependencies` reach, at `workdir`.

        Leave it unset, and the image holds none, as code comes in bundles; for a task with
        `copy_style="none"` another image is then made, which is this one and the code. (With
        `source_folders`, they are taken to bring the code, and nothing is added.)
    """)


class FlyteImagePlatformsField(StringSequenceField):
    alias = "platforms"
    help = help_text("""
        The platforms of the image, such as `["linux/amd64", "linux/arm64"]`; two or more make an
        index. If unset, they are those of the base.
    """)


class _CopyField(AsyncFieldMixin, Field, NamesFiles):
    """A list of dictionaries with `src`, `dst` and, for folders, `copy_contents_only`."""

    default = ()
    keys: Tuple[Tuple[str, type], ...] = (("src", str), ("dst", str))
    value: Tuple[FrozenDict[str, Any], ...]

    @classmethod
    def compute_value(
        cls, raw_value: Optional[Iterable[Mapping[str, Any]]], address: Address
    ) -> Tuple[FrozenDict[str, Any], ...]:
        rows = super().compute_value(raw_value, address) or ()
        keys = dict(cls.keys)
        if not isinstance(rows, (list, tuple)) or not all(
            isinstance(row, Mapping)  # later versions freeze what a BUILD file says
            and "src" in row
            and all(isinstance(value, keys.get(key, ())) for key, value in row.items())
            for row in rows
        ):
            raise InvalidFieldTypeException(
                address,
                cls.alias,
                raw_value,
                expected_type=f"a list of dictionaries with {', '.join(map(repr, keys))}",
            )
        return tuple(FrozenDict(sorted(row.items())) for row in rows)

    @property
    def named_paths(self) -> Tuple[str, ...]:
        paths = (path_from_root(self.address, row["src"]) for row in self.value)
        return tuple(path for path in paths if path is not None)


class FlyteImageSourceFilesField(_CopyField):
    alias = "source_files"
    help = help_text("""
        Files to copy into the image, as Flyte's `with_source_file` does: `[{"src": "settings.json",
        "dst": "."}]`. `src` is relative to the BUILD file (`//` before it means the build root),
        `dst` to `workdir`. A `dst` that is `.` or ends in `/` is a directory.
    """)


class FlyteImageSourceFoldersField(_CopyField):
    alias = "source_folders"
    keys = (("src", str), ("dst", str), ("copy_contents_only", bool))
    help = help_text("""
        Folders to copy into the image, as Flyte's `with_source_folder` does: `[{"src": "assets",
        "dst": ".", "copy_contents_only": True}]`. With `dst="."` (which is the default) the folder
        itself is copied, or its contents with `copy_contents_only`; any other `dst` receives the
        contents.

        `src` is relative to the BUILD file (`//` before it means the build root), `dst` to
        `workdir`. What a `.dockerignore` in the folder names is left out, and what
        `[flyte].all_excludes` names.
    """)


class FlyteImageEnvField(DictStringToStringField):
    alias = "env"
    help = """Environment variables: `env={"OMP_NUM_THREADS": "1"}`, on top of the base's."""


class FlyteImageWorkdirField(StringField):
    alias = "workdir"
    default = "/home/flyte/task"
    help = help_text("""
        The working directory, an absolute path; made for the image's user to write in. It is the
        top of the code, and where a bundle is unpacked.
    """)


class FlyteImageUserField(StringField):
    alias = "user"
    default = "1000:1000"
    help = help_text("""
        The user that the image runs as, by number: `"1000:1000"` (user and group). Root is `"0:0"`.
    """)


class FlyteImageLabelsField(DictStringToStringField):
    alias = "labels"
    help = help_text("""
        Labels of the image and annotations of its manifest, in which `{git_commit}` (the commit
        that is checked out), `{version}` (`[flyte].version`) and `{env.NAME}` may stand:
        `labels={"org.opencontainers.image.revision": "{git_commit}"}`. What differs from build to
        build makes another image of the same content, so nothing of that kind is set unasked.
    """)


class FlyteImageBytecodeField(TriBoolField):
    alias = "bytecode"
    help = help_text("""
        Whether modules are compiled when the image is built rather than at each start of a
        container: containers start faster, the image takes longer to build and is larger.

        That needs a CPython of the base's very release (such as 3.12.4) on this machine, since each
        release compiles a little differently. Left unset, an image is compiled if there is one, and
        a line of `package` says if not. So machines may make two images, with bytecode and
        without. With `True` the lack is an error, and all machines make the same one. With `False`
        they do, too: without bytecode. See also `[flyte].image_bytecode`.
    """)


class FlyteImageLockExtrasField(StringSequenceField):
    alias = "lock_extras"
    help = help_text("""
        The extras that the resolve's lock file, a `uv.lock` or `pylock.toml`, is read for:
        `["cpu"]`. Only needed where it has several versions of a package, for extras that conflict
        (`[tool.uv] conflicts`). What goes into the image is what its code needs.
    """)


class FlyteImageLockGroupsField(StringSequenceField):
    alias = "lock_groups"
    help = help_text("""
        The dependency groups that the resolve's lock file is read for, as with `lock_extras`. In
        a `pylock.toml` they take the place of its default groups.
    """)


class FlyteImageAptPackagesField(StringSequenceField):
    alias = "apt_packages"
    default = ()
    value: Tuple[str, ...]
    help = help_text(f"""
        Debian packages to add to the base, as Flyte's `with_apt_packages` does: `["ffmpeg",
        "libgl1"]`, or with a version, `"git=1:2.39.5-0+deb12u2"`. What they depend on comes along.

        They come from a lock file, which `{bin_name()} run path/to:image -- lock-apt` writes. It
        asks apt, for which this machine must be a Debian or Ubuntu; packaging needs neither that
        nor a container engine. The base must have apt's own files (`/var/lib/dpkg/status`,
        `/etc/apt`). Packages whose maintainer scripts would have to run are refused when they are
        locked.
    """)

    @classmethod
    def compute_value(cls, raw_value: Optional[Iterable[str]], address: Address) -> Tuple[str, ...]:
        return _sorted_words(cls, super().compute_value(raw_value, address), REQUEST, address)


class FlyteImageAptSkipScriptsField(StringSequenceField):
    alias = "apt_skip_scripts"
    default = ()
    value: Tuple[str, ...]
    help = help_text("""
        Of the packages that `apt_packages` bring, those whose maintainer scripts the image does
        well without: `["x11-common"]`. They are put in as they are.
    """)

    @classmethod
    def compute_value(cls, raw_value: Optional[Iterable[str]], address: Address) -> Tuple[str, ...]:
        return _sorted_words(cls, super().compute_value(raw_value, address), PACKAGE, address)


def _sorted_words(
    field: Type[StringSequenceField],
    words: Optional[Tuple[str, ...]],
    pattern: str,
    address: Address,
) -> Tuple[str, ...]:
    for word in words or ():
        if not re.fullmatch(pattern, word):
            raise InvalidFieldException(
                f"The `{field.alias}` field in target {address} has {word!r}, which cannot be the "
                "name of a Debian package."
            )
    return tuple(sorted(set(words or ())))


class FlyteImageAptLockfileField(PathField):
    alias = "apt_lockfile"
    help = help_text("""
        The lock file of `apt_packages`, relative to the BUILD file (`//` before it means the build
        root); to be committed. If unset, it is the target's name with the ending `.apt.lock.json`.
    """)

    @property
    def path(self) -> str:
        return super().path or os.path.join(
            self.address.spec_path, f"{self.address.target_name}.apt.lock.json"
        )


class FlyteImageRegistriesField(StringSequenceField):
    alias = "registries"
    help = help_text("""
        Where the image is pushed, each a host, perhaps with a path: `["ghcr.io/org"]`; or a name of
        `[flyte].named_registries`: `["@prod"]`. If unset, `[flyte].registries` holds.
    """)


class FlyteImageRepositoryField(StringField):
    alias = "repository"
    help = help_text("""
        The repository's name below each registry, in which may stand `{name}` (the target's),
        `{directory}` (the BUILD file's, its last part), `{parent_directory}`, `{full_directory}`
        (also `{path}`) and `{default_repository}` (`[flyte].repository`, which holds if this is
        unset).
    """)


class FlyteImageTagsField(StringSequenceField):
    alias = "image_tags"
    help = help_text("""
        The tags that a push sets, in which may stand `{content_hash}` (the first 16 digits of the
        image's digest), `{git_commit}` (the commit that is checked out), `{version}`
        (`[flyte].version` or that of a deployment) and `{env.NAME}`. If unset, `[flyte].image_tags`
        holds.
    """)


class FlyteImageRefNameField(StringField):
    alias = "ref_name"
    help = "The name by which code asks for the image in `flyte.Image.from_ref_name`."


class FlyteImageSkipPushField(BoolField):
    alias = "skip_push"
    default = False
    help = f"Whether `{bin_name()} publish` leaves this image out."


class FlyteImageSmokeTestField(BoolField):
    alias = "smoke_test"
    default = False
    help = help_text(f"""
        Whether `{bin_name()} test` imports, inside the image, each first-party module that the
        `dependencies` reach, and looks for the command that starts tasks (`a0`).
    """)


class FlyteImageOutputPathField(OutputPathField):
    help = help_text(f"""
        The directory of the OCI image layout, below `--distdir`.

        If undefined, it is the path to the BUILD file with dots, then the target's name:
        `src/app:image` is `src.app/image` (as with `{bin_name()} package` of other targets).
    """)


class FlyteImageMaxSizeField(FlyteMaxSizeField):
    help = help_text("""
        The most that a machine may have to pull of the image, on each platform: `"2 GB"` (or `B`,
        `kB`, `MB`, in powers of ten). It counts all layers as registries have them, compressed, the
        base's too: whoever starts a container waits for all of it. A larger image is an error that
        names what makes it so; one of more than 90 % is a warning.

        If unset, `[flyte].image_max_size` holds.
    """)


class FlyteImageSbomField(FlyteSbomField):
    help = help_text("""
        Whether `package` writes a software bill of materials (SBOM) beside the image, with the
        ending `.cdx.json`: CycloneDX 1.6, with the base by its digest, each distribution with its
        version, licence and the hashes that the lock file allows, Debian packages, and first-party
        files by target. `publish` and deployments push it as a referrer of the image, which `oras
        discover` and others find.

        If unset, `[flyte].sbom` holds.
    """)


class FlyteImage(FileNamingTarget):
    alias = "flyte_image"
    core_fields = (
        *COMMON_TARGET_FIELDS,
        NamedFilesField,
        FlyteImageBaseField,
        FlyteImageDependenciesField,
        FlyteImageCodeField,
        FlyteImagePlatformsField,
        FlyteImageSourceFilesField,
        FlyteImageSourceFoldersField,
        FlyteImageEnvField,
        FlyteImageWorkdirField,
        FlyteImageUserField,
        FlyteImageLabelsField,
        FlyteAllowSecretsField,
        FlyteImageBytecodeField,
        FlyteImageLockExtrasField,
        FlyteImageLockGroupsField,
        FlyteImageAptPackagesField,
        FlyteImageAptSkipScriptsField,
        FlyteImageAptLockfileField,
        FlyteImageRegistriesField,
        FlyteImageRepositoryField,
        FlyteImageTagsField,
        FlyteImageRefNameField,
        FlyteImageSkipPushField,
        FlyteImageSmokeTestField,
        FlyteImageMaxSizeField,
        FlyteImageSbomField,
        FlyteImageOutputPathField,
        FlyteRootDirField,
        FlyteMissingField,
        FlyteProvidedModulesField,
        PythonResolveField,
        engine.EnvironmentField,
    )
    help = help_text(f"""
        A container image for tasks, made without a container engine: a base, the third-party
        packages that the `dependencies` need (from the lock file of the resolve, for the image's
        platform), the shim that fetches bundles, and, if asked for, the code itself.

            flyte_base_image(name="base", image="docker.io/library/python:3.12-slim")
            flyte_image(name="image", base=":base", dependencies=[":train"])
            flyte_task(name="train", entry_point="workflows.py:train", image=":image")

        `{bin_name()} package path/to:image` writes an OCI image layout, `dist/path.to/image`: for
        `skopeo`, say, `oci:dist/path.to/image`. Of a base in a registry it holds no layers: they go
        from registry to registry.

        `{bin_name()} publish path/to:image` pushes it, `{bin_name()} run path/to:image -- a0
        --help` runs a command in it, `{bin_name()} run path/to:image -- --archive image.tar` writes
        what `docker load` takes. `-- --help` tells more.
    """)
