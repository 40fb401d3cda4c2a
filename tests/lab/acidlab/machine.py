# SPDX-License-Identifier: GPL-3.0-or-later
"""The outer machine: its apt configuration (copied at build time, never written down), missing tools, kernel limits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .errors import LabError
from .recipe import OUTER
from .run import run, text

FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
APT_OPTIONS = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv")


def codename(os_release: str) -> str:
    for line in os_release.splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip().strip('"')
    raise LabError("/etc/os-release has no VERSION_CODENAME: the lab builds its images from the machine's own Debian or Ubuntu archive")


def this_codename() -> str:
    return codename(Path("/etc/os-release").read_text(encoding="utf-8"))


def source_lines(targets: str, suite: str) -> list[str]:
    """One-line sources for this release's suites, from `apt-get indextargets` in FORMAT."""
    components: dict[tuple[str, str], list[str]] = {}
    for line in targets.splitlines():
        uri, release, component = line.split("|")
        if release == suite or release.startswith(suite + "-"):
            known = components.setdefault((uri, release), [])
            if component not in known:
                known.append(component)
    if not any(release == suite for _uri, release in components):
        raise LabError(f"apt knows no archive of {suite}: run `apt-get update` and look at /etc/apt/sources.list.d")
    return [f"deb {uri} {release} {' '.join(names)}" for (uri, release), names in components.items()]


def apt_options(dump: str) -> list[str]:
    """The settings that decide how an archive is reached, from `apt-config dump`."""
    return [line for line in dump.splitlines() if line.startswith(APT_OPTIONS) and not line.endswith('"";')]


def sources() -> list[str]:
    return source_lines(text(["apt-get", "indextargets", "--format", FORMAT, "Created-By: Packages"]), this_codename())


def options() -> list[str]:
    return apt_options(text(["apt-config", "dump"]))


def install_missing() -> list[str]:
    """Install the packages whose commands are not there; returns their names."""
    missing = sorted(
        {package for command, package in OUTER.items() if not shutil.which(command, path=os.environ["PATH"] + ":/usr/sbin:/sbin")}
    )
    if missing:
        run(["apt-get", "update", "-q"])
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env={"DEBIAN_FRONTEND": "noninteractive"})
    return missing


def raise_limits() -> None:
    """Every host's systemd takes inotify instances; the default of 128 is used up by about six of them."""
    if int(INOTIFY.read_text(encoding="ascii")) < 2048:
        INOTIFY.write_text("2048", encoding="ascii")
