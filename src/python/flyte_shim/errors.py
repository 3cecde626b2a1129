"""The errors of this project, and the shim's: one class for each exit code of BSD's sysexits.h.

A message says what is wrong and what to do about it.
"""

from __future__ import annotations


class UserError(Exception):
    """The base of every error that a user may see; the message says what to change."""


class ShimError(UserError):
    """A failure of the shim with its exit code; raised as a subclass."""

    code = 70


class UsageError(ShimError):
    code = 64  # EX_USAGE: the command line or the environment asks for something impossible


class ArchiveError(ShimError):
    code = 65  # EX_DATAERR: the archive is invalid; the subclasses say how


class HashMismatch(ArchiveError):
    """The archive has another SHA-256 than expected."""


class UnsignedArchive(ArchiveError):
    """The archive has no signature of a key that is trusted."""


class DamagedArchive(ArchiveError):
    """The bytes are not exactly one whole gzip'd tar."""


class UnsupportedMember(ArchiveError):
    """A member is not a regular file, or uses an extension that bundles do not."""


class UnsafePath(ArchiveError):
    """A member's path could leave the bundle, or fits no file system."""


class DuplicatePath(ArchiveError):
    """Two members claim one path, or one is a file where the other needs a directory."""


class TooLarge(ArchiveError):
    """The archive or its content exceeds the limits."""


class SourceMissing(ShimError):
    code = 66  # EX_NOINPUT: there is no readable archive at the URI


class SourceUnavailable(ShimError):
    """The archive cannot be read now (EX_UNAVAILABLE); a retry may help.

    wait: the seconds that the store asks to wait.
    """

    code = 69

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


class SourceChanged(SourceUnavailable):
    """The archive was replaced while it was read."""


class UntrustedSource(ShimError):
    code = 76  # EX_PROTOCOL: an untrusted response: its certificate, its redirect, its HTTP


class SourceDenied(ShimError):
    code = 77  # EX_NOPERM: the store refuses access: credentials, permissions, clock


class StorageError(ShimError):
    code = 73  # EX_CANTCREAT: the cache or the working directory cannot be used


class CommandNotExecutable(ShimError):
    code = 126  # the command exists, but cannot be run; shells use the same code


class CommandNotFound(ShimError):
    code = 127  # the command does not exist; shells use the same code
