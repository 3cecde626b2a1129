"""The only place that awaits Pants' engine: one set of functions, one implementation per generation.

Pants knew only `Get`/`MultiGet` before 2.22 and knows only call-by-name since 2.32. Both engines
find what a rule awaits by following plain `async def` helpers across modules, by name, so the rules
of this backend call the functions below and are the same for both. `by_get` serves the Pants
versions that still have `Get`.

A helper that fans out takes the whole list and does so in here: `MultiGet` takes `Get`s, not
coroutines.
"""

from __future__ import annotations

from pants.version import PANTS_SEMVER

if PANTS_SEMVER.release < (2, 32):
    from pants_flyte.engine.by_get import (
        EnvironmentField,
        all_targets,
        build_images,
        build_tasks,
        contents,
        contents_matching,
        create_digest,
        direct_dependencies,
        environment_variables,
        explicit_dependencies,
        files_matching,
        find_binary,
        find_python,
        hydrated_sources,
        interpreter_constraints,
        merge_digests,
        owners_of_each,
        owners_of_imports,
        parsed_imports,
        requirements_pex,
        resolve_addresses,
        run_process,
        run_venv_pex,
        run_venv_pexes,
        snapshot,
        source_roots,
        subprocess_environment,
        subset,
        targets_at,
        test_result,
        tool_environment,
        transitive_targets,
        under_prefix,
        venv_pex,
        without_prefix,
    )
else:
    raise ImportError(
        f"pants-flyte does not yet run on Pants {PANTS_SEMVER}: it needs a version before 2.32."
    )

__all__ = (
    "EnvironmentField",
    "all_targets",
    "build_images",
    "build_tasks",
    "contents",
    "contents_matching",
    "create_digest",
    "direct_dependencies",
    "environment_variables",
    "explicit_dependencies",
    "files_matching",
    "find_binary",
    "find_python",
    "hydrated_sources",
    "interpreter_constraints",
    "merge_digests",
    "owners_of_each",
    "owners_of_imports",
    "parsed_imports",
    "requirements_pex",
    "resolve_addresses",
    "run_process",
    "run_venv_pex",
    "run_venv_pexes",
    "snapshot",
    "source_roots",
    "subprocess_environment",
    "subset",
    "targets_at",
    "test_result",
    "tool_environment",
    "transitive_targets",
    "under_prefix",
    "venv_pex",
    "without_prefix",
)
