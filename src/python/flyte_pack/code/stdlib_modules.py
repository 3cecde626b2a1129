"""Which modules the standard library of each Python has, by their first names.

From `sys.stdlib_module_names` of CPython 3.10 to 3.13, and from the release notes of 3.9 and 3.14.
The Python that asks is seldom the one that will run the code.
"""

from __future__ import annotations

from typing import Iterable

_ALWAYS = frozenset(
    """
    __future__ _abc _aix_support _ast _asyncio _bisect _blake2 _bz2 _codecs _codecs_cn
    _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _collections _collections_abc
    _compat_pickle _compression _contextvars _csv _ctypes _curses _curses_panel _datetime _dbm
    _decimal _elementtree _frozen_importlib _frozen_importlib_external _functools _gdbm
    _hashlib _heapq _imp _io _json _locale _lsprof _lzma _markupbase _md5 _multibytecodec
    _multiprocessing _opcode _operator _osx_support _overlapped _pickle _posixshmem
    _posixsubprocess _py_abc _pydecimal _pyio _queue _random _scproxy _sha1 _sha3 _signal
    _sitebuiltins _socket _sqlite3 _sre _ssl _stat _statistics _string _strptime _struct
    _symtable _testcapi _testinternalcapi _thread _threading_local _tkinter _tracemalloc _uuid
    _warnings _weakref _weakrefset _winapi _xxsubinterpreters _zoneinfo abc antigravity
    argparse array ast asyncio atexit base64 bdb binascii bisect builtins bz2 cProfile
    calendar cmath cmd code codecs codeop collections colorsys compileall concurrent
    configparser contextlib contextvars copy copyreg csv ctypes curses dataclasses datetime
    dbm decimal difflib dis doctest email encodings ensurepip enum errno faulthandler fcntl
    filecmp fileinput fnmatch fractions ftplib functools gc genericpath getopt getpass gettext
    glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib importlib inspect io
    ipaddress itertools json keyword linecache locale logging lzma mailbox marshal math
    mimetypes mmap modulefinder msvcrt multiprocessing netrc nt ntpath nturl2path numbers
    opcode operator optparse os pathlib pdb pickle pickletools pkgutil platform plistlib
    poplib posix posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data
    pyexpat queue quopri random re readline reprlib resource rlcompleter runpy sched secrets
    select selectors shelve shlex shutil signal site smtplib socket socketserver sqlite3
    sre_compile sre_constants sre_parse ssl stat statistics string stringprep struct
    subprocess symtable sys sysconfig syslog tabnanny tarfile tempfile termios test textwrap
    this threading time timeit tkinter token tokenize trace traceback tracemalloc tty turtle
    turtledemo types typing unicodedata unittest urllib uuid venv warnings wave weakref
    webbrowser winreg winsound wsgiref xml xmlrpc zipapp zipfile zipimport zlib zoneinfo
    """.split()  # noqa: SIM905
)
# First name -> the minor version of Python 3 that brought it.
_SINCE = {
    name: minor
    for minor, names in (
        (
            11,
            """
    _tokenize _typing tomllib
        """,
        ),
        (
            12,
            """
    _pydatetime _pylong _sha2
        """,
        ),
        (
            13,
            """
    _android_support _colorize _interpchannels _interpqueues _interpreters _ios_support
    _opcode_metadata _pyrepl _suggestions _sysconfig _wmi
        """,
        ),
        (
            14,
            """
    _ast_unparse _hmac _py_warnings _remote_debugging _types _zstd annotationlib compression
        """,
        ),
    )
    for name in names.split()
}
# First name -> the minor version that has it no more.
_UNTIL = {
    name: minor
    for minor, names in (
        (
            10,
            """
    _bootlocale _peg_parser formatter parser symbol
        """,
        ),
        (
            11,
            """
    binhex
        """,
        ),
        (
            12,
            """
    _bootsubprocess _sha256 _sha512 asynchat asyncore distutils imp smtpd
        """,
        ),
        (
            13,
            """
    _crypt _msi aifc audioop cgi cgitb chunk crypt imghdr lib2to3 mailcap msilib nis nntplib
    ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib
        """,
        ),
    )
    for name in names.split()
}


def in_standard_library(first: str, minor: int) -> bool:
    """Whether Python 3.`minor` has it. first: the first name of a module."""
    if first in _SINCE:
        return minor >= _SINCE[first]
    return minor < _UNTIL.get(first, 10_000) and (first in _ALWAYS or first in _UNTIL)


def versions_with(first: str) -> str:
    """Which Pythons have it, in words; "" for no part of any standard library."""
    if first in _SINCE:
        return f"Python 3.{_SINCE[first]} and later"
    if first in _UNTIL:
        return f"Python before 3.{_UNTIL[first]}"
    return "every Python" if first in _ALWAYS else ""


def standard_library(minors: Iterable[int]) -> set[str]:
    """What each of these Pythons has, by first names, without private ones."""
    names = {name for name in (*_ALWAYS, *_SINCE, *_UNTIL) if not name.startswith("_")}
    return {name for name in names if all(in_standard_library(name, one) for one in minors)}
