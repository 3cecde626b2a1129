"""Checks words of unknown origin before they become arguments, variables, paths or lines.

A word is checked where it comes in, by `check_word`, and again where words are joined, by `joined`.
"""

from __future__ import annotations

from collections.abc import Iterable

from flyte_shim.errors import UserError

LONGEST = (128 << 10) - 1  # bytes; Linux takes no longer argument or variable (execve(2))
_LINES = "\t\n\r"
_DIGITS = 18


def word_problem(text: str, *, lines: bool = False, longest: int = LONGEST) -> str | None:
    """Why `text` cannot be a word, as what follows its name in a message, or None if it can.

    lines: whether it may have line ends and tabs, as values of variables, arguments and labels do.
    longest: in bytes of UTF-8.
    """
    if len(text) > longest:
        return _too_long(longest)
    if not text.isprintable():
        for character in text:
            if character == "\0":
                return "holds a NUL"
            if "\ud800" <= character <= "\udfff":
                return f"holds U+{ord(character):04X}, which is not a character"
            if _is_control(character) and not (lines and character in _LINES):
                return f"holds a control character, U+{ord(character):04X}"
    if not text.isascii() and len(text.encode()) > longest:
        return _too_long(longest)
    return None


def number(text: str) -> int | None:
    """The number that a server wrote in digits; None if it is none.

    Python refuses integers of thousands of digits, or takes long for them.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def check_word(
    text: str,
    what: str,
    *,
    lines: bool = False,
    longest: int = LONGEST,
    error: type[UserError] = UserError,
) -> str:
    """`text`, if it can be a word (`word_problem`).

    Raises `error` with `what`, the word's name, and never the word itself.
    """
    problem = word_problem(text, lines=lines, longest=longest)
    if problem:
        raise error(f"{what} {problem}")
    return text


def joined(words: Iterable[str], separator: str, what: str) -> str:
    """The words with the separator after each, so that an empty one counts, the last too.

    Raises `UserError` where a word holds the separator or a NUL, either of which would end it.
    """
    words = list(words)
    for word in words:
        if separator in word or "\0" in word:
            held = "a NUL" if "\0" in word else ascii(separator)
            raise UserError(f"{what}: one holds {held}, which would end it")
    return "".join(f"{word}{separator}" for word in words)


def _is_control(character: str) -> bool:
    """Whether it is a control character, or ends a line (Unicode: Cc, Zl, Zp)."""
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def _too_long(longest: int) -> str:
    return f"is longer than {longest:,} bytes"
