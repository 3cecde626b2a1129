"""Files that a target's fields name: an edit of one selects the target under `--changed-since`.

Pants asks each target whether its `SourcesField` matches a changed file. Ours have such a field,
hidden from users, which only answers that question. It has no globs of its own, so its files are
not shipped, linted, counted or taken for owned by `tailor`, and need not exist yet. It matches what
the other fields name, and learns that in `Target.validate`, the one hook in which a target has all
its fields.

Pants asks only targets whose BUILD file is above the changed file; for the others see `changed.py`.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Iterable, Iterator, Mapping, Optional, Tuple

from pants.build_graph.address import Address
from pants.engine.target import (
    DescriptionField,
    DictStringToStringField,
    InvalidFieldException,
    MultipleSourcesField,
    Target,
)
from pants.source.filespec import Filespec, FilespecMatcher

from flyte_shim.words import word_problem
from pants_flyte.globs import literal_glob


def path_from_root(address: Address, text: str) -> Optional[str]:
    """A path in a BUILD file, from the build root, normalised; None where that is outside of it.

    text: relative to the BUILD file; `//` before it means the build root.
    """
    rooted = text.startswith("//")
    path = os.path.normpath(os.path.join("" if rooted else address.spec_path, text[2 * rooted :]))
    return None if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir else path


def globs_of(path: str) -> Tuple[str, ...]:
    """Globs for a file, or for all in a directory; "." is the build root."""
    if path == ".":
        return ("**",)
    glob = literal_glob(path)
    return (glob, os.path.join(glob, "**"))


class NamesFiles:
    """A field that names files or directories."""

    @property
    def named_paths(self) -> Tuple[str, ...]:
        """From the build root, normalised."""
        raise NotImplementedError


class NamedFilesField(MultipleSourcesField):
    alias = "_named_files"
    uses_source_roots = False
    help = "Not to be set: the files that the other fields name, for `--changed-since`."
    named: Tuple[str, ...] = ()

    def learn(self, paths: Iterable[str]) -> None:
        """What it matches from now on. Of use before anyone has asked."""
        object.__setattr__(self, "named", tuple(paths))

    @cached_property
    def filespec(self) -> Filespec:
        return {"includes": [glob for path in self.named for glob in globs_of(path)]}

    @cached_property
    def filespec_matcher(self) -> FilespecMatcher:
        return FilespecMatcher(self.filespec["includes"], [])


class FileNamingTarget(Target):
    """A target that files in its fields select. It has a `NamedFilesField`."""

    def named_paths(self) -> Tuple[str, ...]:
        """What its fields name, from the build root."""
        fields = self.field_values.values()
        return tuple(
            p for field in fields if isinstance(field, NamesFiles) for p in field.named_paths
        )

    def ignore_files_above(self) -> Tuple[str, ...]:
        """Ignore files in directories above its own that hold for what it takes, there or not."""
        return ()

    def validate(self) -> None:
        super().validate()
        spec = self.address.spec
        problem = word_problem(spec)
        if spec.startswith("-"):
            problem = "begins with `-`, as an option does"
        if problem:
            raise InvalidFieldException(f"The address {spec!a:.200} {problem}.")
        for field in self.field_values.values():
            lines = isinstance(field, (DescriptionField, DictStringToStringField))
            for text in _texts(field.value):
                if problem := word_problem(text, lines=lines):
                    raise InvalidFieldException(
                        f"The `{field.alias}` field in target {self.address} {problem}."
                    )
        self[NamedFilesField].learn(self.named_paths())


def _texts(value: object) -> Iterator[str]:
    """All texts in a field's value, which become arguments, variables, paths and labels."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts((*value, *value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
