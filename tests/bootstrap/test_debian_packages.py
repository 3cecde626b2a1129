"""What installs Debian packages for tests starts none of their services, and leaves none enabled."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.support.bootstrapping import TOP

SERVICES = TOP / "build-support" / "services"
WANTS = "systemd/system/multi-user.target.wants"


@pytest.fixture(scope="module")
def module():
    sys.path.insert(0, str(SERVICES))
    spec = importlib.util.spec_from_file_location("debian", SERVICES / "debian_packages.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    sys.path.remove(str(SERVICES))
    return made


@pytest.fixture
def machine(module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its apt-get installs and enables `dockerd`, and says whether it might have started it."""
    etc, programs = tmp_path / "etc", tmp_path / "bin"
    for directory in (etc / WANTS, etc / "rc3.d", programs):
        directory.mkdir(parents=True)
    (etc / WANTS / "cron.service").touch()
    scripts = {
        "apt-get": f"{tmp_path}/policy >/dev/null; echo may start: $? >>{tmp_path}/said\n"
        f"touch {etc}/{WANTS}/docker.service {etc}/rc3.d/S01docker\n"
        f"printf '#!/bin/sh\\n' >{programs}/dockerd; chmod +x {programs}/dockerd",
        "systemctl": f'echo systemctl "$@" >>{tmp_path}/said; rm {etc}/{WANTS}/docker.service',
        "update-rc.d": f'echo update-rc.d "$@" >>{tmp_path}/said; rm {etc}/rc3.d/S01docker',
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(module, "ETC", etc)
    monkeypatch.setattr(module, "_PATH", f"{programs}:/bin")
    monkeypatch.setattr(module, "PROGRAMS", {"docker.io": "dockerd"})
    monkeypatch.setattr(module.shutil, "which", _which(programs))
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    return tmp_path


def _which(programs: Path):
    """This machine's own programs do not count."""
    return lambda name, path: str(programs / name) if (programs / name).exists() else None


def test_what_is_installed_is_neither_started_nor_enabled(module, machine: Path) -> None:
    module.ensure("docker.io")
    assert (machine / "said").read_text().splitlines() == [
        "may start: 101",
        "systemctl disable docker.service",
        "update-rc.d docker disable",
    ]
    assert module.enabled(machine / "etc") == {"cron.service"}
    assert not (machine / "policy").exists()


def test_a_policy_of_the_machine_stays(module, machine: Path) -> None:
    (machine / "policy").write_text("#!/bin/sh\nexit 104\n")
    (machine / "policy").chmod(0o755)
    module.ensure("docker.io")
    assert "may start: 104" in (machine / "said").read_text()
    assert (machine / "policy").exists()


def test_a_server_that_needs_a_package_says_how_to_get_it_and_installs_nothing(
    module, machine: Path
) -> None:
    with pytest.raises(module.ServiceError, match=r"debian_packages\.py docker\.io"):
        module.require("docker.io")
    assert not (machine / "said").exists()
