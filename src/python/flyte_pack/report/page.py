"""The HTML file: the document, our style and scripts, and the libraries, all inline.

File names are hostile: the document stands in the page as JSON without any character that HTML
knows, and the scripts of the page write texts only as texts. A Content-Security-Policy allows what
this module puts in, by its hash, and nothing from anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flyte_pack.explain import Graph
from flyte_pack.report.compact import compact
from flyte_shim import shown

# In this order: each uses those before it.
_SCRIPTS = ("data", "views", "treemap", "graph", "table", "details", "layers", "changes", "main")
_MOST_TITLE = 3  # addresses in the title


def page(document: Mapping[str, Any], graphs: Sequence[Graph]) -> str:
    """document: of `explain_json.content`, with all artifacts. graphs: theirs, in that order."""
    style = _resource("page.css")
    libraries = _resource("vendor/libraries.js")
    script = "\n".join(['(() => {\n"use strict";', *map(_script, _SCRIPTS), "})();"])
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashed(libraries)} {_hashed(script)}",
            f"style-src {_hashed(style)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    parts = {
        "policy": html.escape(policy),
        "title": _escaped(_title(document)),
        "style": style,
        "data": _inert(compact(document, graphs)),
        "licenses": _escaped(_resource("vendor/LICENSES.txt")),
        "libraries": libraries,
        "script": script,
    }
    pieces = _resource("page.html").split("@@")  # text, name, text, name, ..., text
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    return "".join(pieces)


def _title(document: Mapping[str, Any]) -> str:
    named = [one["address"] for one in document["deployments"] or document["artifacts"]]
    more = f" and {len(named) - _MOST_TITLE} more" if len(named) > _MOST_TITLE else ""
    return shown.printable(
        f"{', '.join(named[:_MOST_TITLE]) or 'nothing'}{more}: what ships, and why"
    )


def _inert(document: Mapping[str, Any]) -> str:
    """JSON in which no `</script>` or `<!--` can be, in ASCII."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _escaped(text: str) -> str:
    """In ASCII, as all of the page is: whoever writes it down may use any encoding."""
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode()


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _script(name: str) -> str:
    return _resource(f"scripts/{name}.js")


def _resource(name: str) -> str:
    return importlib.resources.files("flyte_pack.report").joinpath(name).read_text("utf-8")
