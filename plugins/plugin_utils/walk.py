# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All tasks of a play before it runs, as `ansible-playbook --list-tasks` sees them: roles, imports and blocks, with --tags applied.

Unlike that, `everything` opens includes too (include_tasks, include_role) whose names are known already, and has the handlers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.playbook.helpers import load_list_of_blocks
from ansible.template import Templar

TASK, RESCUE, HANDLER = "task", "rescue", "handler"
DEEPEST = 20


class Found(NamedTuple):
    """`closed`: an include that cannot be looked into before it runs, and why."""

    task: Any
    kind: str
    closed: str = ""


def tasks_of(play: Any, variables: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Without handlers, and includes closed. Without `variables` tags do not count."""
    return (found.task for found in closed(play, variables))


def closed(play: Any, variables: Mapping[str, Any] | None = None) -> Iterator[Found]:
    """The same with what kind of task each is."""
    for block in play.compile():
        yield from _in_block(_chosen(block, variables))


def everything(play: Any, variables: Mapping[str, Any], *, host: Any) -> Iterator[Found]:
    """`host`: one of the play's, whose variables say what includes lead to. Where hosts differ, others may include something else."""
    play.handlers = play.compile_roles_handlers() + play.handlers
    walk = _Walk(play, variables, host)
    for block in play.compile():
        yield from walk.opened(_in_block(_chosen(block, variables)), 0)
    told: set[int] = set()
    while len(told) < len(play.handlers):  # an included role brings its own
        for block in list(play.handlers):
            if id(block) not in told:
                told.add(id(block))
                yield from walk.opened(_in_block(block, HANDLER), 0)


def _chosen(block: Any, variables: Mapping[str, Any] | None) -> Any:
    return block if variables is None else block.filter_tagged_tasks(variables)


def _in_block(block: Any, kind: str = TASK) -> Iterator[Found]:
    for part, its_kind in ((block.block, kind), (block.rescue, RESCUE), (block.always, kind)):
        for item in part:
            if hasattr(item, "block"):
                yield from _in_block(item, its_kind)
            elif not item.implicit:
                yield Found(item, its_kind)


class _Walk:
    def __init__(self, play: Any, variables: Mapping[str, Any], host: Any) -> None:
        self._play, self._variables, self._host = play, variables, host
        self._manager, self._loader = play._variable_manager, play._loader

    def opened(self, found: Iterator[Found], depth: int) -> Iterator[Found]:
        for one in found:
            if one.task.action not in C._ACTION_ALL_INCLUDES:
                yield one
                continue
            try:
                blocks = self._blocks(one.task, depth)
            except (AnsibleError, OSError) as error:
                yield one._replace(closed=f"known when it runs ({str(error).splitlines()[0][:120]})")
                continue
            for block in blocks:
                yield from self.opened(_in_block(_chosen(block, self._variables), one.kind), depth + 1)

    def _blocks(self, task: Any, depth: int) -> list[Any]:
        if depth >= DEEPEST:
            raise AnsibleError(f"more than {DEEPEST} includes in one another")
        if task.loop or task.loop_with:
            raise AnsibleError("in a loop")
        variables = self._manager.get_vars(play=self._play, host=self._host, task=task)
        arguments = dict(Templar(loader=self._loader, variables=variables).template(dict(task.args)))
        if task.action in C._ACTION_INCLUDE_ROLE:
            copy = task.copy()
            copy._role_name = arguments.get("name", arguments.get("role"))
            copy._from_files = {key.removesuffix("_from"): arguments[key] for key in copy.FROM_ARGS if key in arguments}
            blocks, _handlers = copy.get_block_list(play=self._play, variable_manager=self._manager, loader=self._loader)
            return list(blocks)
        path = self._file(task, str(arguments.get("_raw_params") or arguments.get("file") or ""))
        data = self._loader.load_from_file(path, trusted_as_template=True) or []
        copy = task.copy(exclude_parent=True)
        copy._parent = task._parent
        return list(
            load_list_of_blocks(
                data,
                play=self._play,
                parent_block=copy.build_parent_block(),
                role=task._role,
                use_handlers=False,
                loader=self._loader,
                variable_manager=self._manager,
            )
        )

    def _file(self, task: Any, name: str) -> str:
        """Beside the file that includes it, in the role, or beside the playbook. Raises AnsibleError."""
        places = [os.path.join(os.path.dirname((task.get_path() or "").rpartition(":")[0]), name), self._loader.path_dwim(name)]
        if task._role:
            role = task._role._role_path
            places += [self._loader.path_dwim_relative(role, folder, name, is_role=True) for folder in ("tasks", "handlers")]
        for path in places:
            if name and os.path.isfile(path):
                return str(path)
        raise AnsibleError(f"there is no {name}")
