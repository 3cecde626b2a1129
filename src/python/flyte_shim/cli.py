"""The command line: `flyte-shim [OPTION]... [--] COMMAND [ARGUMENT]...`."""

from __future__ import annotations

import errno
import os
import sys

from flyte_shim import __version__, shown
from flyte_shim.cache import Cache
from flyte_shim.command import become, option
from flyte_shim.errors import ShimError, StorageError, UsageError
from flyte_shim.log import Log
from flyte_shim.paths import bare_uri, is_sha256, sha256_in_name
from flyte_shim.safe import UnsafeDirectory, safe_directory
from flyte_shim.stopping import Stopped, Stopping
from flyte_shim.workdir import MODES, place

# Importing typing takes longer than a whole warm start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

USAGE = """\
usage: flyte-shim [OPTION]... [--] COMMAND [ARGUMENT]...

Verifies, unpacks and caches a code bundle, makes its files appear in the working directory, and
becomes COMMAND. Without --archive the bundle is the one that COMMAND's own --tgz names, as in
_F_EXEC_WRAPPER="flyte-shim"; without either, COMMAND is just run.

  --archive URI    the bundle: a path, or a URI: file, s3, gs, abfs[s], https (signed ones, too)
  --sha256 HEX     its SHA-256; not needed if its name is <SHA-256>.tar.gz (FLYTE_SHIM_SHA256)
  --workdir DIR    where its files appear, and where COMMAND runs
                   (default: COMMAND's own --dest, else the current directory)
  --mode MODE      link: symbolic links into the cache; copy: files of the task's own
                   (FLYTE_SHIM_MODE, default: link)
  --cache DIR      the cache (FLYTE_SHIM_CACHE, default: ~/.cache/flyte-shim)
  --help, --version

Further variables: FLYTE_SHIM_LOG=text|json|off; FLYTE_SHIM_CACHE_MAX_BYTES; FLYTE_SHIM_DEADLINE and
FLYTE_SHIM_TIMEOUT, in seconds; FLYTE_SHIM_MAX_ARCHIVE_BYTES, FLYTE_SHIM_MAX_FILES,
FLYTE_SHIM_MAX_BYTES; FLYTE_SHIM_ALLOW_HTTP=1; FLYTE_SHIM_UNVERIFIED=1 leaves a bundle without a
SHA-256 to COMMAND; FLYTE_SHIM_TRUSTED_KEYS names a file of public keys, one of which must have
signed the bundle. Stores are reached by the variables that Flyte and the clouds' own tools read.
Exit codes: 64 usage, 65 bad archive, 66 no archive, 69 archive unavailable, 70 error in flyte-shim,
73 cache or working directory, 76 untrusted server, 77 not allowed to read, 126, 127 as in shells.
"""
_OPTIONS = ("--archive", "--cache", "--mode", "--sha256", "--workdir")


def main(argv: list[str] | None = None, become: Callable[[list[str]], None] = become) -> int:
    """Prepare the bundle and become the command; returns an exit code if that fails.

    become: does the second, in the working directory; returns only by an exception.
    """
    log = Log()
    try:
        with Stopping() as stopping:
            log.configure(os.environ)
            return _main(sys.argv[1:] if argv is None else argv, log, stopping, become)
    except ShimError as error:
        code, message = error.code, str(error)
    except OSError as error:
        code, message = StorageError.code, _storage_message(error)
    except Stopped as error:
        code, message = error.code, f"{error} before the command began"
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # The exception's own text may hold anything, even a signed URL.
        kind, code = type(error).__name__, ShimError.code
        message = f"{kind} {_where(error)}. This is an error in flyte-shim; report it"
    log.error(message, code)
    return code


def _main(
    argv: list[str], log: Log, stopping: Stopping, become: Callable[[list[str]], None]
) -> int:
    options, command = _parse(argv)
    if "--help" in options:
        print(USAGE, end="")
        return 0
    if "--version" in options:
        print(__version__)
        return 0
    if not command:
        raise UsageError("no command to run; see flyte-shim --help")
    tgz = option(command, "--tgz")
    archive, sha256 = options.get("--archive") or tgz, None
    if archive:
        sha256 = _sha256(options, archive, tgz)
        if not sha256:
            _check_unverified(shown.uri(archive), log)
    elif option(command, "--pkl"):
        _check_unverified("a pickled bundle", log)
    workdir = options.get("--workdir")
    if archive and sha256:
        # The files by which a0 knows that it has the bundle; Flyte before 2.5.18 uses the second.
        names = [_name(uri) for uri in (archive, tgz or archive)]
        markers = [marker for name in names for marker in (f".{name}.extracted", name)]
        target = workdir or "."
        destination = (option(command, "--dest") if tgz else None) or "."
        if destination != ".":
            target = os.path.join(target, destination)
        _prepare(archive, sha256, target, options, markers, log, stopping)
    _enter(workdir)
    if tgz and sha256 and bare_uri(tgz) != tgz:
        # a0 has the bundle already, and would use the signature as a file name.
        command = [argument.replace(tgz, bare_uri(tgz)) for argument in command]
    become(command)
    raise AssertionError("unreachable")


def _enter(workdir: str | None) -> None:
    """Change into the working directory; set a0's own mark so that it does not start us again."""
    if workdir:
        try:
            os.chdir(workdir)
        except OSError as error:
            raise StorageError(
                f"no working directory {shown.uri(workdir)}: {error.strerror}"
            ) from None
    wrapper = os.environ.get("_F_EXEC_WRAPPER", "").split()
    if wrapper and os.path.basename(wrapper[0]) == "flyte-shim":
        os.environ["_F_EXEC_WRAPPED"] = "1"


def _safe_workdir(workdir: str, named: bool, log: Log) -> str:
    """The working directory without links; one that is not safe is an error only if it is named."""
    try:
        return safe_directory(workdir, "choose another working directory", 0o755)
    except UnsafeDirectory as error:
        if named:
            raise StorageError(f"the working directory {workdir} cannot be used: {error}") from None
        log.warning("unsafe", f"the working directory is not safe: {error}")
    except OSError as error:
        if named:
            raise StorageError(
                f"cannot put the bundle into the working directory {workdir}: {error.strerror} "
                f"({error.filename or workdir})"
            ) from None
    return workdir


def _prepare(
    archive: str,
    sha256: str,
    workdir: str,
    options: dict[str, str],
    markers: list[str],
    log: Log,
    stopping: Stopping,
) -> None:
    """Make the bundle appear in `workdir`; its entry stays locked as long as this process lives."""
    mode = options.get("--mode") or os.environ.get("FLYTE_SHIM_MODE") or MODES[0]
    if mode not in MODES:
        raise UsageError(f"the mode is {shown.word(mode)}; it is one of: {', '.join(MODES)}")
    log.common["archive"] = sha256
    facts: dict[str, str | int] = {}
    workdir = _safe_workdir(workdir, "--workdir" in options, log)
    named = options.get("--cache") or os.environ.get("FLYTE_SHIM_CACHE")
    cache = Cache.open(named, lambda message: log.warning("unsafe", message))

    def fill(directory: str) -> int:
        # Only a start without a cache entry imports these.
        from flyte_shim.fetch import cache_bytes_from, fetch
        from flyte_shim.source import scheme_of

        stopping.watch()
        facts["scheme"] = log.common["scheme"] = scheme_of(archive) or "file"
        facts["bound"] = cache_bytes_from(os.environ, cache.root)
        size, attempts, disk_bytes = fetch(archive, sha256, directory, os.environ, retrying)
        facts.update(bytes=size, attempts=attempts)
        return disk_bytes

    def retrying(error: Exception, attempt: int) -> None:
        log.warning("retry", f"{error}; trying again", attempt=attempt)

    signed = None
    if os.environ.get("FLYTE_SHIM_TRUSTED_KEYS"):
        # Only a start that asks for signatures imports this.
        from flyte_shim.signatures import check_signed

        stopping.watch()
        kept = f"{cache.root}/entries/{sha256}"
        signed = check_signed(archive, sha256, kept, os.environ, retrying)
    entry = cache.entry(sha256, fill)
    if signed is not None:
        signed.keep(os.path.dirname(entry.files))
    place(entry.files, workdir, mode, markers)
    if not entry.is_new:
        log.info("ready", cache="hit")
        return
    bound = facts.pop("bound")
    log.info("ready", cache="miss", **facts)
    if bound:
        _trim(cache, int(bound), log)


def _trim(cache: Cache, bound: int, log: Log) -> None:
    try:
        for archive_hash, size in cache.trim(bound).items():
            log.info("evicted", evicted=archive_hash, bytes=size)
    except OSError as error:
        # A cache that is too large must not stop a task.
        log.warning("evict", f"cannot make the cache smaller: {error.strerror}")


def _parse(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our own options by name, and the command."""
    options: dict[str, str] = {}
    arguments = list(reversed(argv))
    while arguments and arguments[-1].startswith("-"):
        name, equals, value = arguments.pop().partition("=")
        if name == "--":
            break
        if name in ("--help", "-h", "--version") and not equals:
            return {"--help" if name == "-h" else name: ""}, []
        if name not in _OPTIONS:
            raise UsageError(f"there is no option {shown.word(name)}; see flyte-shim --help")
        if not equals and arguments:
            value = arguments.pop()
        if not value:
            raise UsageError(f"{name} needs a value; see flyte-shim --help")
        options[name] = value
    return options, arguments[::-1]


def _sha256(options: dict[str, str], archive: str, tgz: str | None) -> str | None:
    """The archive hash from the options, the environment or the archive's name.

    None if the archive is the command's own --tgz and nothing gives its hash.
    """
    named = sha256_in_name(archive)
    given = options.get("--sha256") or os.environ.get("FLYTE_SHIM_SHA256")
    if given:
        given = given.lower()
        if not is_sha256(given):
            raise UsageError(
                f"{shown.word(given)} is not a SHA-256, which has 64 hexadecimal digits"
            )
        if named not in (None, given):
            raise UsageError(
                f"the expected SHA-256 is {given}, but the name of {shown.uri(archive)} says "
                "another. Correct or omit --sha256 or FLYTE_SHIM_SHA256"
            )
    sha256 = given or named
    if not sha256:
        if "--archive" in options:
            raise UsageError(f"no SHA-256 for {shown.uri(archive)}: give it by --sha256")
        return None
    if tgz and sha256_in_name(tgz) != sha256 and _name(tgz) != _name(archive):
        raise UsageError(
            f"the command's --tgz {shown.uri(tgz)} is another bundle than --archive "
            f"{shown.uri(archive)}"
        )
    return sha256


def _check_unverified(archive: str, log: Log) -> None:
    """Refuse a bundle without a hash, unless the environment allows it."""
    if os.environ.get("FLYTE_SHIM_TRUSTED_KEYS"):
        raise UsageError(
            f"FLYTE_SHIM_TRUSTED_KEYS asks for a signature, and no SHA-256 is known of {archive} "
            "that could be signed: its name is not <SHA-256>.tar.gz"
        )
    if os.environ.get("FLYTE_SHIM_UNVERIFIED") != "1":
        raise UsageError(
            f"no SHA-256 for {archive}: its name is not <SHA-256>.tar.gz. Set FLYTE_SHIM_SHA256, "
            "or FLYTE_SHIM_UNVERIFIED=1 to let the command download it unverified"
        )
    log.warning("unverified", f"the command downloads {archive} itself, unverified")


def _name(uri: str) -> str:
    name = bare_uri(uri).rpartition("/")[2]
    if name in ("", ".", ".."):
        raise UsageError(f"{shown.uri(uri)} does not name a file")
    return name


def _storage_message(error: OSError) -> str:
    where = shown.uri(os.fsdecode(error.filename or "in the cache"))
    advice = "Set FLYTE_SHIM_CACHE to a directory that can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "Free some space, or set FLYTE_SHIM_CACHE to a directory that has more"
    return f"{error.strerror} ({where}). {advice}"


def _where(error: BaseException) -> str:
    """The module and line of an exception."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if not trace:
        return "somewhere"
    return f"in {os.path.basename(trace.tb_frame.f_code.co_filename)}, line {trace.tb_lineno}"
