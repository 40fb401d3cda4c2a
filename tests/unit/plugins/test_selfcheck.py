# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks fail closed under an ansible-core that they do not know."""

from __future__ import annotations

import ansible.executor.task_queue_manager as tqm
import pytest
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.plugins.action import ActionBase
from ansible_collections.acid.host.plugins.plugin_utils import hooks, selfcheck


def test_this_ansible_core_is_as_expected():
    assert selfcheck.complaints() == []


def changed(self, something_else):
    """What a later release might have instead."""


@pytest.mark.parametrize(("owner", "name"), [(TaskExecutor, "_get_action_handler_with_module_context"), (ActionBase, "_make_tmp_path")])
def test_a_method_that_is_gone_or_takes_something_else_is_noticed(monkeypatch, owner, name):
    monkeypatch.setattr(owner, name, lambda: None)
    assert [text for text in selfcheck.complaints() if f"{owner.__name__}.{name} takes () instead of (self" in text]
    monkeypatch.delattr(owner, name)
    assert f"{owner.__name__}.{name} is gone" in selfcheck.complaints()


def test_an_unknown_version_is_noticed(monkeypatch):
    monkeypatch.setattr(selfcheck, "__version__", "2.99.0")
    assert selfcheck.complaints() == ["ansible-core is 2.99.0, and only 2.19, 2.20, 2.21 were tried"]


def test_then_no_play_runs_at_all(monkeypatch):
    monkeypatch.setattr(selfcheck, "__version__", "2.99.0")
    monkeypatch.setattr(tqm.TaskQueueManager, "run", tqm.TaskQueueManager.run)
    monkeypatch.setattr(tqm.TaskQueueManager, "_acid_hooks", None, raising=False)
    hooks.Hooks(defaults=lambda: None, settings=lambda: None, show=lambda ended, rehearsed: None).install()
    with pytest.raises(AnsibleError, match=r"cannot hold a transaction under this ansible-core: ansible-core is 2\.99\.0.*No task was run"):
        tqm.TaskQueueManager.run(None, None)
