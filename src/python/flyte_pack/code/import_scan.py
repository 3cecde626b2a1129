"""Reads the imports of a Python source from its tokens, to find those that Pants' parser loses.

Tokens rather than a syntax tree: the source may be written for a newer Python than the one that
reads it, and import statements look the same in all of them. Nothing is imported or run.
"""

from __future__ import annotations

import io
import re
import tokenize
import unicodedata
from dataclasses import dataclass
from typing import Iterator

NO_INFER = "# pants: no-infer-dep"

# What Pants' parser gets wrong (docs/lost-imports.md has the table). Matching too much costs time,
# matching too little loses modules.
_SUSPECT = re.compile(
    rb"""
    (?: ^ (?: \xef\xbb\xbf )? | [;:\r] ) [ \t\f]* (?:
        import \b [^\n\r\#;:]* ,                  # `import a, b`: the parser keeps `a`
      | import [ \t\f]* \\                        # `import \` and the name on the next line
      | (?: import | from ) \b [^\n\r\#;:]* (?:
            [^\x00-\x7f]                          # a name that Python normalizes
          | [\w] [ \t\f\\]+ \.                    # `import a . b`
          | \. [ \t\f]* \\                        # `from a.\` and the rest on the next line
          | \. [ \t\f]+ (?! import\b | \.) [\w]   # `from . a import b`
        )
      | (?: async [ \t\f]+ )? (?: def | class | type ) [ \t\f]+ \w+ [ \t\f]* \[  # type parameters
      | except \*? [ \t\f]+ [\w.]+ [ \t\f]* ,     # `except A, B:`
    )
  | (?<! \w ) (?: [tT][rR]? | [rR][tT] ) ["']     # a template string
    """,
    re.VERBOSE | re.MULTILINE,
)

_BLANK = (tokenize.NL, tokenize.COMMENT)
_LINE_STARTS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)


@dataclass(frozen=True)
class StatedImport:
    """One imported name.

    module: absolute and dotted; `a.b` for `from a import b`, `a` for `from a import *`.
    first: the first name of its statement, in the same form.
    """

    module: str
    line: int
    first: str


def is_suspect(source: bytes) -> bool:
    """Whether Pants' parser could have lost an import. Fast, with many false positives."""
    return _SUSPECT.search(source) is not None


def stated_imports(source: bytes, package: str) -> list[StatedImport]:
    """The names of all import statements, in source order, without those that a pragma excludes.

    package: the dotted package of the source ("" for none). Relative imports start there; those
    that lead out of it are left out. A source with a syntax error is read as far as its tokens
    allow.
    """
    found: list[StatedImport] = []
    for statement in _statements(_text(source)):
        names = list(_names(statement, package))
        found += [StatedImport(name, line, names[0][0]) for name, line, kept in names if kept]
    return found


def _text(source: bytes) -> str:
    """The source as Python decodes it, composed: older tokenizers split decomposed names."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    except SyntaxError:  # an unknown encoding
        encoding = "utf-8-sig"
    return unicodedata.normalize("NFC", source.decode(encoding, "replace"))


def _statements(text: str) -> Iterator[list[tokenize.TokenInfo]]:
    """The tokens of each import statement, comments among them."""
    statement: list[tokenize.TokenInfo] = []
    at_start, inside, depth = True, False, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline=None).readline):
            if inside:
                if token.type == tokenize.NEWLINE or token.string == ";":
                    yield statement
                    statement, inside, at_start = [], False, True
                elif token.type != tokenize.NL:
                    statement.append(token)
                continue
            if token.type in _BLANK:
                continue
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
                at_start = depth <= 0 and token.string in (";", ":")
            elif token.type in _LINE_STARTS:
                at_start, depth = True, 0
            else:
                inside = at_start and token.string in ("import", "from")
                at_start = False
                if inside:
                    statement.append(token)
    except (tokenize.TokenError, SyntaxError):  # which of them depends on the version
        pass
    if statement:
        yield statement


def _names(statement: list[tokenize.TokenInfo], package: str) -> Iterator[tuple[str, int, bool]]:
    """Each name of a statement, its line, and whether no pragma is on that line or the last."""
    code = [token for token in statement if token.type != tokenize.COMMENT]
    ignored = {t.start[0] for t in statement if t.type == tokenize.COMMENT and NO_INFER in t.string}
    all_ignored = code[-1].end[0] in ignored
    base = ""
    names = code[1:]
    if code[0].string == "from":
        split = next((i for i, token in enumerate(code) if token.string == "import"), None)
        if split is None:
            return
        base = "".join(token.string for token in code[1:split])
        if base == "__future__":
            return
        names = code[split + 1 :]
        if base.startswith("."):
            inner = base.lstrip(".")
            above = package.split(".") if package else []
            level = len(base) - len(inner)
            if level > len(above):
                return
            base = ".".join([*above[: len(above) - level + 1], *([inner] if inner else [])])
    for part in _split(names):
        name = unicodedata.normalize("NFKC", ".".join(filter(None, (base, part[0]))))
        if not all(word.isidentifier() for word in name.split(".")):
            return
        yield name, part[1], not all_ignored and part[1] not in ignored


def _split(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[str, int]]:
    """The names of `a.b as c, (d, *)` without aliases ("" for the star), and their lines."""
    words: list[str] = []
    line, aliased = 0, False
    for token in [*tokens, None]:
        if token is None or token.string == ",":
            if words:
                yield "".join(words).replace("*", ""), line
            words, aliased = [], False
        elif token.string == "as":
            aliased = True
        elif token.string not in "()" and not aliased:
            words.append(token.string)
            line = token.start[0]
