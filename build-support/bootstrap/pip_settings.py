"""What the user told pip about mirrors, proxies and certificates, for programs that do not ask pip.

Pants and PEX read neither pip's configuration files nor its environment variables. Only the
settings that say where packages come from are read here, in the order of precedence that pip's
documentation gives under "Configuration".
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Mapping, Optional
from urllib.parse import quote

# Sections of a pip.conf that speak of installing, the weaker first.
_SECTIONS = ("global", "install")
_APPLICATION = os.path.join("Library", "Application Support", "pip")
_TRUE = ("y", "yes", "t", "true", "on", "1")


@dataclass(frozen=True)
class PipSettings:
    """Where packages come from; None and () mean that the user has not said."""

    index_url: Optional[str] = None
    extra_index_urls: tuple[str, ...] = ()
    no_index: bool = False
    find_links: tuple[str, ...] = ()
    cert: Optional[str] = None
    proxy: Optional[str] = None
    trusted_hosts: tuple[str, ...] = ()

    def places(self, default: str) -> tuple[str, ...]:
        """Every place that packages may come from, with `default` for pip's own index."""
        main = () if self.no_index else (self.index_url or default, *self.extra_index_urls)
        return (*main, *self.find_links)


def read(env: Mapping[str, str], prefix: str = sys.prefix) -> PipSettings:
    """The settings that pip, started with `env` by the Python at `prefix`, would use."""
    values = _values(env, prefix)
    return PipSettings(
        index_url=values.get("index-url") or values.get("pypi-url"),
        extra_index_urls=tuple(values.get("extra-index-url", "").split()),
        no_index=values.get("no-index", "").lower() in _TRUE,
        find_links=tuple(
            link for text in values.get("find-links", "").split() for link in _location(text, env)
        ),
        cert=_certificates(values.get("cert"), env),
        proxy=values.get("proxy"),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
    )


def followed(env: Mapping[str, str], prefix: str) -> tuple[list[str], list[str]]:
    """What `read` depends on beside `env`: files by their bytes, paths by what they are."""
    values = _values(env, prefix)
    bundles = [path for path in _bundles(values.get("cert"), env) if path]
    links = [text for text in values.get("find-links", "").split() if "://" not in text]
    probed = [_absolute(path, env) for path in (*bundles, *links)]
    own = env.get("PIP_CONFIG_FILE")
    application = os.path.join(os.path.expanduser("~"), _APPLICATION)
    return _files(env, prefix), [*probed, application, *([own] if own else [])]


def as_variables(settings: PipSettings) -> dict[str, str]:
    """The environment variables that tell pip, whatever its command, what `settings` say."""
    values = {
        "PIP_INDEX_URL": settings.index_url,
        "PIP_EXTRA_INDEX_URL": " ".join(settings.extra_index_urls),
        "PIP_FIND_LINKS": " ".join(settings.find_links),
        "PIP_TRUSTED_HOST": " ".join(settings.trusted_hosts),
        "PIP_CERT": settings.cert,
        "PIP_PROXY": settings.proxy,
        "PIP_NO_INDEX": "1" if settings.no_index else None,
    }
    return {name: value for name, value in values.items() if value}


def _values(env: Mapping[str, str], prefix: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for section in _parsed(_files(env, prefix)):
        values.update(section)
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            values[name[len("PIP_") :].lower().replace("_", "-")] = value
    return values


def _files(env: Mapping[str, str], prefix: str) -> list[str]:
    """pip's configuration files, the weaker first, whether or not they exist."""
    own = env.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return []
    home = env.get("HOME") or os.path.expanduser("~")
    config = env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    if sys.platform == "darwin":
        shared = [os.path.join("/", _APPLICATION, "pip.conf")]
        if os.path.isdir(os.path.join(home, _APPLICATION)):
            config = os.path.join(home, "Library", "Application Support")
    else:
        directories = (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
        shared = [os.path.join(d, "pip", "pip.conf") for d in reversed(directories) if d]
        shared.append("/etc/pip.conf")
    user = [os.path.join(home, ".pip", "pip.conf"), os.path.join(config, "pip", "pip.conf")]
    site = [os.path.join(prefix, "pip.conf")]
    if own and os.path.exists(own):
        return [*shared, *site, own]
    return [*shared, *user, *site]


def _parsed(files: list[str]) -> list[dict[str, str]]:
    """Sections of the files that exist, the weaker first: a section outweighs any file's order."""
    existing = [path for path in files if os.path.isfile(path)]
    if not existing:
        return []
    import configparser  # 4 ms that most starts need not spend

    parsers = []
    for path in existing:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip itself says what is wrong with it
        parsers.append(parser)
    return [
        {name.replace("_", "-"): value for name, value in parser.items(section) if value}
        for section in _SECTIONS
        for parser in parsers
        if parser.has_section(section)
    ]


def _location(text: str, env: Mapping[str, str]) -> tuple[str, ...]:
    """A find-links entry as a URL; none for a folder or page that is not there or empty.

    pip passes over those in silence. Here they would also be part of Pants' cache keys.
    """
    if "://" in text:
        return (text,)
    path = _absolute(text, env)
    useful = bool(os.listdir(path)) if os.path.isdir(path) else os.path.isfile(path)
    return ("file://" + quote(path),) if useful else ()


def _certificates(own: Optional[str], env: Mapping[str, str]) -> Optional[str]:
    """The CA bundle that pip would use in place of its own, if that is a file."""
    for path in _bundles(own, env):
        if path and os.path.isfile(_absolute(path, env)):
            return _absolute(path, env)
    return None


def _bundles(own: Optional[str], env: Mapping[str, str]) -> tuple[Optional[str], ...]:
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    return (own, *map(env.get, names))


def _absolute(path: str, env: Mapping[str, str]) -> str:
    home = env.get("HOME")
    if home and path.startswith("~/"):
        path = home + path[1:]
    return os.path.abspath(os.path.expanduser(path))
