"""What the shim can fail with: one class for each exit code, so that a log tells the cases apart.

The codes are those of BSD's sysexits.h. A message says what is wrong and what to do about it.
"""

from __future__ import annotations


class UserError(Exception):
    """A failure that a person can mend; the message says what is wrong and what to change.

    The root of every error that this project raises on purpose: whoever catches it forgets none.
    """


class ShimError(UserError):
    """A failure of the shim, with its exit code; never raised as such."""

    code = 70


class UsageError(ShimError):
    """The command line or the environment asks for something that cannot be done (EX_USAGE)."""

    code = 64


class ArchiveError(ShimError):
    """The archive is not what it should be (EX_DATAERR); the subclasses say in which way."""

    code = 65


class HashMismatch(ArchiveError):
    """The archive's SHA-256 is another than the expected one."""


class DamagedArchive(ArchiveError):
    """The bytes are no gzip'd tar, or not all of one, or more than one."""


class UnsupportedMember(ArchiveError):
    """A member is something other than a regular file, or uses an extension that bundles do not."""


class UnsafePath(ArchiveError):
    """A member's path could lead out of the bundle, or no file system would take it."""


class DuplicatePath(ArchiveError):
    """Two members claim one path, or one of them is a file where the other needs a directory."""


class TooLarge(ArchiveError):
    """The archive, or what it unpacks to, is larger than the limits allow."""


class SourceMissing(ShimError):
    """There is no readable archive at the address (EX_NOINPUT)."""

    code = 66


class SourceUnavailable(ShimError):
    """The archive could not be read now, it may be later (EX_UNAVAILABLE); these are retried.

    `wait` is how many seconds the store asks to wait for, if it does.
    """

    code = 69

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class SourceChanged(SourceUnavailable):
    """The archive was replaced while it was read: what was read of it is of no use."""


class UntrustedSource(ShimError):
    """What answers is not to be believed: its certificate, its redirect, its HTTP (EX_PROTOCOL)."""

    code = 76


class SourceDenied(ShimError):
    """The store knows who asks, or does not, and refuses: credentials, rights, clock (EX_NOPERM)."""

    code = 77


class StorageError(ShimError):
    """The cache or the working directory cannot be used (EX_CANTCREAT)."""

    code = 73


class CommandNotExecutable(ShimError):
    """The command exists and cannot be run; the code is the one that shells use."""

    code = 126


class CommandNotFound(ShimError):
    """There is no such command; the code is the one that shells use."""

    code = 127
