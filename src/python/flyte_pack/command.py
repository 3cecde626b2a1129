"""Runs a command: reads its options, does the work, tells a failure once, gives the exit code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

from flyte_pack.errors import UsageError, UserError
from flyte_pack.progress import Say, write
from flyte_shim import shown
from flyte_shim.stopping import Stopped, Stopping

if TYPE_CHECKING:
    from argparse import ArgumentParser, HelpFormatter, Namespace

DONE, FAILED, USAGE, CHANGED, INTERRUPTED = 0, 1, 2, 3, 130
Work = Callable[[], Optional[int]]  # gives the exit code; None: 0


def say(line: str) -> None:
    """Tell the person who waits; standard output is for the result."""
    _tell(shown.message(line))


WARNING = "warning: "


def warn(line: str) -> None:
    """Tell of something that may not be as it was meant; the rules hand it on as a warning."""
    say(WARNING + line)


def _tell(message: str) -> None:
    write(sys.stderr, f"{message}\n")


def guarded(
    about: str | Callable[[], str],
    work: Work,
    failed: int = FAILED,
    hint: str = "",
    interrupted: str = "interrupted",
    tell: Say = _tell,
) -> int:
    """Do the work; returns its exit code, or that of a failure, which is told as `about: message`.

    hint: how to get help after a wrong command line; `{}` in it stands for `about`.
    """
    try:
        with Stopping():
            return work() or DONE
    except UsageError as error:
        code, message, more = USAGE, str(error), hint
    except UserError as error:
        code, message, more = failed, str(error), ""
    except OSError as error:
        code, message, more = failed, reason(error), ""
    except Stopped as error:
        code, more = error.code, ""
        message = interrupted
        if code != INTERRUPTED:
            message = interrupted.replace("interrupted", str(error), 1)
    except KeyboardInterrupt:
        code, message, more = INTERRUPTED, interrupted, ""
    except SystemExit as error:  # argparse has printed the help
        return error.code if isinstance(error.code, int) else USAGE
    name = about if isinstance(about, str) else about()
    if name:
        message = f"{name}: {message}"
    if more:
        message += f"\n({more.replace('{}', name)} tells what can be typed)"
    tell(shown.message(message))
    return code


def reason(error: OSError) -> str:
    """`file: reason`, as the message of an operating system's error."""
    text = error.strerror or str(error)
    return text if error.filename is None else f"{error.filename}: {text}"


def run(
    parser: ArgumentParser,
    argv: Sequence[str],
    work: Callable[[Namespace], int | None],
    failed: int = FAILED,
    hint: str | None = None,
) -> int:
    """Parse the command line and do the work, guarded.

    What follows a `--` is in the field `typed`. A failure is told of the target in the field
    `address`, where there is one, or else of the command.
    """
    about = parser.prog.replace("python -m ", "")

    def parsed() -> int | None:
        nonlocal about
        ours, typed = cut(argv)
        given = parser.parse_args(ours)
        given.typed = typed
        about = getattr(given, "address", "") or about
        return work(given)

    return guarded(lambda: about, parsed, failed, f"{parser.prog} --help" if hint is None else hint)


def cut(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(our part of the command line, what the user typed, which follows a `--`)."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def parser(prog: str, description: str = "", **more: Any) -> ArgumentParser:
    """An argument parser that raises `UsageError` where argparse would exit."""
    import argparse  # here, for it would be a tenth of the time that packing a bundle takes

    more.setdefault("formatter_class", _as_wide_as_the_terminal)
    made = argparse.ArgumentParser(prog, description=description, allow_abbrev=False, **more)
    made.error = _wrong  # type: ignore[method-assign]
    return made


def _as_wide_as_the_terminal(prog: str) -> HelpFormatter:
    """What argparse makes whenever an argument is added.

    By itself it asks for the width of the terminal, which in a rule raises what `get_terminal_size`
    does not expect: while Pants draws its progress, nobody may ask about standard output.
    """
    import argparse
    import shutil

    try:
        columns = shutil.get_terminal_size().columns
    except Exception:  # Pants raises no kind of its own
        columns = 80
    return argparse.HelpFormatter(prog, width=columns - 2)


def _wrong(message: str) -> NoReturn:
    # argparse repeats what was typed, which may be a password in the wrong place.
    import re

    _, unknown, typed = message.partition("unrecognized arguments: ")
    if unknown:
        option = typed.split(" ")[0].partition("=")[0]
        raise UsageError(f"unknown option or argument {shown.word(option)}")
    raise UsageError(re.sub(r"(?s)(invalid choice): .* (\(choose from)", r"\1 \2", message))


def add_insecure(parser: ArgumentParser) -> None:
    """Add the option `--insecure HOST`."""
    parser.add_argument(
        "--insecure",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a registry that may be spoken to over plain HTTP; those on this machine may anyway",
    )


@contextmanager
def no_garbage() -> Iterator[None]:
    """Do not look for garbage meanwhile: work that makes a record per file makes none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
