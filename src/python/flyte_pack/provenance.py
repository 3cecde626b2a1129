"""Says what something was made from: in-toto statements with SLSA's provenance.

in-toto attestation framework 1.0, "Statement"; SLSA 1.0, "Provenance".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flyte_pack.checkout import NoCheckout, Unknown, commit_of, is_dirty
from flyte_pack.json_fields import Sha256, dump
from flyte_shim import __version__

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:pants-flyte:builder"  # docs/inventory.md says what it stands for


class Material(NamedTuple):
    """Something with a name: a lock file by its path, an image by its repository."""

    name: str
    sha256: Sha256


@dataclass(frozen=True)
class Origin:
    """commit: of the git checkout, None where there is none; dirty: whether files differed from it.

    unknown: why there is no answer although there is a checkout.
    """

    commit: str | None
    dirty: bool | None
    unknown: str | None = None

    @property
    def is_clean(self) -> bool:
        """Whether the commit alone says what the files were."""
        return self.commit is not None and self.dirty is False


def origin_of(build_root: str, without: Sequence[str] = ()) -> Origin:
    """Of the checkout that `build_root` is in, for files below it. Ignored files do not count.

    without: absolute paths below which none counts.
    """
    commit = None
    try:
        commit = commit_of(build_root)
        return Origin(commit, is_dirty(build_root, commit, without))
    except NoCheckout:
        return Origin(None, None)
    except Unknown as why:
        return Origin(commit, None, str(why))


def statement(
    build_type: str,
    parameters: Mapping[str, Any],
    subjects: Iterable[Material],
    origin: Origin,
    made_of: Iterable[Material],
    byproducts: Iterable[Material],
) -> bytes:
    """made_of: what was built from, beside the checkout."""
    document = {
        "_type": STATEMENT,
        "subject": _resources(subjects),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": parameters,
                "resolvedDependencies": [*_commit(origin), *_resources(made_of)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"pants-flyte": __version__}},
                "byproducts": _resources(byproducts),
            },
        },
    }
    return dump(document)


def _commit(origin: Origin) -> list[dict[str, Any]]:
    if origin.commit is None:
        return []
    known = {} if origin.dirty is None else {"annotations": {"dirty": origin.dirty}}
    return [{"name": "the checkout", "digest": {"gitCommit": origin.commit}, **known}]


def _resources(named: Iterable[Material]) -> list[dict[str, Any]]:
    return [
        {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(set(named))
    ]  # fmt: skip
