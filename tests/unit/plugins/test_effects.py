# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared table of what cannot be undone: its schema, its rows against the modules that are installed, and tasks looked up in it."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import ansible.modules
import pytest
import yaml
from ansible_collections.acid.host.plugins.plugin_utils import connections, effects
from ansible_collections.acid.host.plugins.plugin_utils.effects import NONE, UNKNOWN, Doing, TableError, load, parse

TOP = Path(__file__).resolve().parents[3]
COLLECTIONS = TOP / ".build" / "collections" / "ansible_collections"


def of(module, connection="ssh", **arguments):
    found = load().of(Doing(module, arguments, connection))
    return None if found is None else (found.effect, found.depends)


@pytest.mark.parametrize(
    ("module", "arguments", "effect"),
    [
        ("ansible.builtin.copy", {"dest": "/x"}, None),
        ("ansible.builtin.uri", {"method": "POST"}, ("remote", ())),
        ("ansible.builtin.uri", {"method": "post"}, ("remote", ())),
        ("ansible.builtin.uri", {"method": "DELETE", "dest": "/x"}, ("remote", ())),
        ("ansible.builtin.uri", {}, (NONE, ())),
        ("ansible.builtin.uri", {"method": "get"}, (NONE, ())),
        ("ansible.builtin.uri", {"method": "GET", "dest": "/x"}, None),
        ("ansible.builtin.uri", {"method": UNKNOWN}, ("remote", ("method",))),
        ("ansible.builtin.uri", {"method": UNKNOWN, "dest": "/x"}, ("remote", ("method",))),
        ("ansible.builtin.uri", {"method": "POST", "dest": UNKNOWN}, ("remote", ())),
        ("ansible.builtin.reboot", {}, ("boot", ())),
        ("community.docker.docker_container", {}, ("daemon", ())),
        ("community.docker.docker_container_info", {}, (NONE, ())),
        ("containers.podman.podman_image", {}, ("daemon", ())),
        ("kubernetes.core.k8s", {}, ("remote", ())),
        ("kubernetes.core.k8s_info", {}, (NONE, ())),
        ("amazon.aws.ec2_instance", {}, ("remote", ())),
        ("azure.azcollection.azure_rm_resource", {}, ("remote", ())),
        ("community.general.mail", {}, ("message", ())),
        ("community.postgresql.postgresql_db", {}, ("database", ())),
        ("community.postgresql.postgresql_privs", {}, ("database", ())),
        ("community.postgresql.postgresql_pg_hba", {}, None),
        ("community.mysql.mysql_user", {}, ("database", ())),
        ("community.general.parted", {}, ("device", ())),
        ("ansible.builtin.setup", {}, (NONE, ())),
    ],
)
def test_a_task_looked_up(module, arguments, effect):
    assert of(module, **arguments) == effect


@pytest.mark.parametrize("connection", [name for name in connections.REFUSED if name.startswith("ansible.netcommon.")])
def test_whatever_goes_to_a_network_device(connection):
    assert of("cisco.ios.ios_config", connection=connection) == ("device", ())
    assert of("cisco.ios.ios_facts", connection=connection) == (NONE, ())


def test_the_rows_of_the_user_come_first(tmp_path):
    own = tmp_path / "own.yml"
    rows = ("{modules: [acme.lb.*], effect: remote, why: it moves traffic}", "{modules: [community.docker.docker_image], effect: none}")
    own.write_text(f"irreversible: [{', '.join(rows)}]")
    table = load((str(own),))
    assert table.of(Doing("acme.lb.drain", {}, "ssh")).why == "it moves traffic"
    assert table.of(Doing("community.docker.docker_image", {}, "ssh")).effect == NONE
    assert table.of(Doing("community.docker.docker_network", {}, "ssh")).effect == "daemon"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "not YAML"),
        ("- x", "give a mapping with the lists irreversible and probed"),
        ("reversible: []", "give a mapping with the lists"),
        ("irreversible: {}", ""),
        ("irreversible: x", "'irreversible' is a str; give a list"),
        ("irreversible: [x]", "irreversible, row 1 is a str"),
        ("irreversible: [{modules: [x], effect: remote, why: y}, {module: [x]}]", "row 2: unknown key 'module'; there are: modules"),
        ("irreversible: [{modules: x}]", "'modules' is a str; give a list"),
        ("irreversible: [{modules: [1]}]", "something that is no text"),
        ("irreversible: [{effect: remote, why: y}]", "names no modules and no connections"),
        ("irreversible: [{modules: [x], effect: sad, why: y}]", "effect is 'sad'; give one of: none, remote"),
        ("irreversible: [{modules: [x], effect: remote}]", "'why' is missing"),
        ("irreversible: [{modules: [x], effect: none, when: {method: GET}}]", "maps each argument to a list"),
        ("probed: [{probes: [systemd]}]", "probed, row 1 names no modules"),
    ],
)
def test_a_mistake_in_a_file_is_a_sentence(text, sentence):
    if not sentence:
        assert parse(text, where="own.yml").rows == ()
        return
    with pytest.raises(TableError) as caught:
        parse(text, where="own.yml")
    assert str(caught.value).startswith("own.yml: ") and sentence in str(caught.value)


def test_a_file_that_is_not_there_is_a_sentence():
    with pytest.raises(TableError, match=r"irreversible_table: /nowhere\.yml: No such file"):
        load(("/nowhere.yml",))


def test_every_module_of_the_table_that_could_be_here_is_here():
    """A misspelt name protects nothing."""
    have = {f"ansible.builtin.{path.stem}" for folder in ansible.modules.__path__ for path in Path(folder).glob("*.py")}
    for name in ("ansible.posix", "community.crypto", "community.general", "community.postgresql"):
        folder = COLLECTIONS.joinpath(*name.split("."), "plugins")
        have |= {f"{name}.{path.stem}" for kind in ("modules", "action") for path in (folder / kind).glob("*.py")}
    assert len(have) > 500
    data = yaml.safe_load(effects.BUILT_IN.read_text())
    named = {module for rows in data.values() for row in rows for module in row.get("modules", ())}
    ours = ("ansible.builtin.", "ansible.posix.", "community.crypto.", "community.general.", "community.postgresql.")
    known = [module for module in named if module.startswith(ours)]
    assert [module for module in sorted(known) if not fnmatch.filter(have, module)] == []


def test_every_probe_of_the_table_is_one():
    from ansible_collections.acid.host.plugins.module_utils.engine.probes import registry

    assert {probe for _modules, probes in load().probed for probe in probes} <= set(registry.NAMES)
