# SPDX-License-Identifier: GPL-3.0-or-later
"""Which temporary directory is left out of the transaction: one that is Ansible's alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import lifecycle


def excluded(folder: str) -> list[str]:
    action = SimpleNamespace(
        get_shell_option=lambda _name, default: folder or default,
        get_become_option=lambda _name: "shop",
        _connection=SimpleNamespace(transport="ssh"),
        _get_remote_user=lambda: "deploy",
    )
    return lifecycle.remote_tmp(action)


def test_that_of_each_user_is_left_out():
    assert excluded("") == ["~deploy/.ansible/tmp", "~shop/.ansible/tmp", "~root/.ansible/tmp"]


@pytest.mark.parametrize("folder", ["/tmp/.ansible", "/var/tmp/.ansible-deploy/tmp", "/opt/ansible/tmp", "/home/deploy/.ansible/tmp"])
def test_a_directory_of_ansibles_own_is_left_out(folder):
    assert excluded(folder) == [folder]
    assert excluded(f"{folder}/") == [folder]


@pytest.mark.parametrize(
    "folder",
    ["/tmp", "/tmp/", "//tmp", "/var/tmp", "/var/../tmp", "/dev/shm", "/home", "/home/deploy", "/root", "/srv", "/opt", "/var", "/var/lib"]
    + ["/", "//", "~", "~/", "~deploy", "tmp", "."],
)
def test_what_others_use_too_is_not(folder):
    """All that tasks do there would be left as it is, and nobody would say so."""
    assert excluded(folder) == []
