"""Words of unknown origin: what can be one, and how they are joined."""

from __future__ import annotations

import pytest

from flyte_shim.errors import UsageError, UserError
from flyte_shim.words import LONGEST, check_word, joined, word_problem

ANYWHERE = [
    "",
    " ",
    "-",
    "--bind",
    "a=b=c",
    "ü",
    "日本",
    "\u00a0",
    "e\u0301",
    "👩\u200d💻",
    "x" * LONGEST,
]
LINES = ["a\nb", "a\tb", "a\r\n", "\n"]
NOWHERE = [
    ("a\0b", "holds a NUL"),
    ("\0", "holds a NUL"),
    ("\ud800", "holds U+D800, which is not a character"),
    ("a\udcff", "holds U+DCFF, which is not a character"),
    ("\x1b[31m", "holds a control character, U+001B"),
    ("\x7f", "holds a control character, U+007F"),
    ("\x85", "holds a control character, U+0085"),
    ("a\u2028b", "holds a control character, U+2028"),
    ("x" * (LONGEST + 1), "is longer than 131,071 bytes"),
    ("ü" * (LONGEST // 2 + 1), "is longer than 131,071 bytes"),
]


@pytest.mark.parametrize("text", ANYWHERE)
def test_a_word(text):
    assert check_word(text, "it") == check_word(text, "it", lines=True) == text


@pytest.mark.parametrize("text", LINES)
def test_a_text_of_lines(text):
    assert word_problem(text).startswith("holds a control character, U+00")
    assert check_word(text, "it", lines=True) == text


@pytest.mark.parametrize(("text", "problem"), NOWHERE)
def test_what_is_no_word(text, problem):
    assert word_problem(text) == word_problem(text, lines=True) == problem


def test_a_message_names_the_word_and_does_not_repeat_it():
    with pytest.raises(UsageError) as failed:
        check_word("secret\0", "`Env`", error=UsageError)
    assert str(failed.value) == "`Env` holds a NUL"


def test_a_length_of_ones_own():
    assert word_problem("abc", longest=3) is None
    assert word_problem("äbc", longest=3) == "is longer than 3 bytes"


@pytest.mark.parametrize("words", [[], [""], ["", ""], ["a", ""], ["-", "a=b", "ü\udcff"]])
@pytest.mark.parametrize("separator", ["\0", "\n"])
def test_joined_words_come_apart_again(words, separator):
    assert joined(words, separator, "words").split(separator)[:-1] == words


@pytest.mark.parametrize(("word", "separator"), [("a\0b", "\0"), ("a\0b", "\n"), ("a\nb", "\n")])
def test_a_word_that_would_end_early_is_not_joined(word, separator):
    with pytest.raises(UserError, match=r"^words: one holds (a NUL|'\\n'), which would end it$"):
        joined(["a", word], separator, "words")
