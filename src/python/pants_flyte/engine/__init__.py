"""The only place that awaits Pants' engine: one set of functions, one half per generation.

Pants knew only `Get`/`MultiGet` before 2.22 and knows only call-by-name since 2.32. Both engines
find what a rule awaits by following plain `async def` helpers across modules, by name, so the rules
of this backend call the functions below and are the same for both. `by_get` serves Pants before
2.30, which is the first whose rules all have the names and signatures of today; `by_name` serves
the others. A test holds the two equal.

A helper that fans out takes the whole list and does so in here: `MultiGet` takes `Get`s, not
coroutines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pants.version import PANTS_SEMVER

from pants_flyte.engine.tried import explained, warn_if_untried

warn_if_untried()

if TYPE_CHECKING or PANTS_SEMVER.release < (2, 30):
    from pants_flyte.engine.by_get import *  # noqa: F403
else:
    with explained():
        from pants_flyte.engine.by_name import *  # noqa: F403
