# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json
import shlex
import subprocess

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import shim
from ansible_collections.acid.host.plugins.plugin_utils.ledger import OpenTransaction
from ansible_collections.acid.host.plugins.plugin_utils.shim import Identity, Place

TRANSACTION = OpenTransaction("h", "tx-1", 7, "0" * 16, "", "play", "ops", False, "ssh", "h", 300, "warn")
STEP = shim.StepInfo("a" * 32, "name; with $(odd) 'things'", "ansible.builtin.command", "site.yml:1", False, False)


@pytest.mark.parametrize(
    ("identity", "place"),
    [
        (Identity(True, None), Place.INSIDE),
        (Identity(True, "root"), Place.INSIDE),
        (Identity(False, "root"), Place.INSIDE),
        (Identity(True, "shop"), Place.AROUND_BECOME),
        (Identity(False, "shop"), Place.BEHIND_OWN_BECOME),
        (Identity(False, None), Place.BEHIND_OWN_BECOME),
    ],
)
def test_where_the_shim_goes(identity, place):
    assert shim.place(identity) is place


def test_the_words_need_no_quoting_and_hold_the_step():
    words = shim.shim(TRANSACTION, STEP, user="ops")
    assert words == shlex.split(" ".join(words))
    assert words[:6] == [f"/usr/local/lib/acid/{'0' * 16}/acidctl", "exec", "--tx", "tx-1", "--token", "7"]
    assert json.loads(base64.b64decode(words[7])) == STEP._asdict()
    assert words[-3:] == ["--user", "ops", "--"]


@pytest.mark.parametrize("shell", ["/bin/sh", None])
@pytest.mark.parametrize(
    "command", ["echo one", "A='x y' sh -c 'echo \"$A\"; echo \"$0\" >/dev/null'", "printf '%s\\n' 'a\nb' | cat -A", "exit 3"]
)
def test_a_wrapped_command_does_what_it_would_do(command, shell):
    plain = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    wrapped = subprocess.run(["/bin/sh", "-c", shim.wrap(["env"], command, shell=shell)], capture_output=True, check=False)
    assert (wrapped.returncode, wrapped.stdout) == (plain.returncode, plain.stdout)


def test_the_login_shell_reads_what_it_would_have_read():
    wrapped = shim.wrap(["env", "SHELL=/bin/bash"], "echo ${BASH_VERSION:+bash}", shell=None)
    assert subprocess.run(["/bin/sh", "-c", wrapped], capture_output=True, check=True).stdout == b"bash\n"


@pytest.mark.parametrize(
    ("rc", "stderr", "stdout", "sentence"),
    [
        (97, "noise\nacid: doomed: The agent died.\n", "", "doomed: The agent died."),
        (97, "", "acid: stale-token: x\r\n", "stale-token: x"),
        (97, "somebody else's 97", "", None),
        (0, "acid: not an error", "", None),
    ],
)
def test_a_refusal_is_told_from_a_programs_own_97(rc, stderr, stdout, sentence):
    assert shim.refusal(rc, stderr, stdout) == sentence
