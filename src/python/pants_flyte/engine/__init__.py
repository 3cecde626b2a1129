"""The only place that awaits Pants' engine: one set of functions, one implementation per generation.

Pants knew only `Get`/`MultiGet` before 2.22 and knows only call-by-name since 2.32. Both engines
find what a rule awaits by following plain `async def` helpers across modules, by name, so the rules
of this backend call the functions below and are the same for both. `by_get` serves Pants before
2.30, which is the first whose rules all have the names and signatures of today; `by_name` serves
the others.

A helper that fans out takes the whole list and does so in here: `MultiGet` takes `Get`s, not
coroutines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pants.version import PANTS_SEMVER

from pants_flyte.engine.tried import explained, warn_if_untried

warn_if_untried()

if TYPE_CHECKING or PANTS_SEMVER.release < (2, 30):
    from pants_flyte.engine.by_get import (
        EnvironmentField,
        all_targets,
        build_images,
        build_tasks,
        configured_constraints,
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
        rules,
        run_process,
        run_venv_pex,
        run_venv_pexes,
        snapshot,
        source_roots,
        subprocess_environment,
        subset,
        suspects_in_each,
        targets_at,
        test_result,
        tool_environment,
        transitive_targets,
        under_prefix,
        venv_pex,
        without_prefix,
    )
else:
    with explained():
        from pants_flyte.engine.by_name import (
            EnvironmentField,
            all_targets,
            build_images,
            build_tasks,
            configured_constraints,
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
            rules,
            run_process,
            run_venv_pex,
            run_venv_pexes,
            snapshot,
            source_roots,
            subprocess_environment,
            subset,
            suspects_in_each,
            targets_at,
            test_result,
            tool_environment,
            transitive_targets,
            under_prefix,
            venv_pex,
            without_prefix,
        )

__all__ = (
    "EnvironmentField",
    "all_targets",
    "build_images",
    "build_tasks",
    "configured_constraints",
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
    "rules",
    "run_process",
    "run_venv_pex",
    "run_venv_pexes",
    "snapshot",
    "source_roots",
    "subprocess_environment",
    "subset",
    "suspects_in_each",
    "targets_at",
    "test_result",
    "tool_environment",
    "transitive_targets",
    "under_prefix",
    "venv_pex",
    "without_prefix",
)
