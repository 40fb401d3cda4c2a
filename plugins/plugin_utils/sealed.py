# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values that a host keeps for the controller, and that nobody can change there unseen.

A compensation comes back from the host as tasks with templates, which may run on the controller itself: whoever owned the host would own
the controller. So what is stored carries a MAC under a key that only the controller's user has (~/.ansible/acid/key), over the text, the
transaction and the place that it is for.

Vault values stay as they are in the playbook: encrypted. That a text is a template is kept with it, and is not given to others.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.parsing.vault import EncryptedString, VaultHelper
from ansible.template import is_trusted_as_template, trust_as_template

TEMPLATE, VAULT, MAPPING = "t", "v", "d"


class Unstorable(ValueError):
    """Not made of what JSON knows."""


class Forged(ValueError):
    """The MAC is not this controller's."""


def pack(value: Any) -> Any:
    """For JSON. Raises Unstorable."""
    ciphertext = VaultHelper.get_ciphertext(value, with_tags=False)
    if ciphertext is not None:
        return {VAULT: str(ciphertext)}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {TEMPLATE: plain(value)} if is_trusted_as_template(value) else plain(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {MAPPING: {plain(str(key)): pack(item) for key, item in value.items()}}
    if isinstance(value, (list, tuple)):
        return [pack(item) for item in value]
    raise Unstorable(type(value).__name__)


def plain(text: str) -> str:
    """Without ansible-core's tags."""
    return str.__str__(text)


def unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == TEMPLATE:
        return trust_as_template(content)
    if kind == VAULT:
        return EncryptedString(ciphertext=content)
    return {key: unpack(item) for key, item in content.items()}


def seal(value: Any, *, place: str) -> str:
    """`place` says what it is for: the same text elsewhere is not valid."""
    text = json.dumps(value, separators=(",", ":"))
    return f"{_mac(text, place)}:{text}"


def unseal(text: str, *, place: str, any_controller: bool = False) -> Any:
    """Raises Forged, unless `any_controller`."""
    mac, _dummy, content = text.partition(":")
    if not any_controller and not hmac.compare_digest(mac, _mac(content, place)):
        raise Forged(place)
    return json.loads(content)


def _mac(text: str, place: str) -> str:
    return hmac.new(_key(), f"{place}\n{text}".encode(), hashlib.sha256).hexdigest()


def _key() -> bytes:
    """Made when it is first needed; of two that make it at once, one is kept."""
    path = Path(os.path.expanduser(str(C.config.get_config_value("ANSIBLE_HOME")))) / "acid" / "key"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f"key.{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        fresh.unlink()
    return path.read_bytes()
