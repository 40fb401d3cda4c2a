# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an ext4 file system does at a commit of its journal."""

from __future__ import annotations

import os
import re
import struct

# struct ext4_super_block (fs/ext4/ext4.h), at byte 1024 of the device: s_magic, s_feature_compat
_MAGIC, _HAS_JOURNAL, _FAST_COMMIT = 0xEF53, 0x4, 0x400


def journals_in_order(dev: int) -> bool:
    """Whether changes of metadata reach the disk in the order in which they were made: it has a journal, and no fast commits, which are
    per inode. `dev` is (major << 32) | minor."""
    number = "%d:%d" % (dev >> 32, dev & 0xFFFFFFFF)
    try:
        with open("/dev/block/" + number, "rb", buffering=0) as f:
            f.seek(1024)
            return superblock_says(f.read(1024))
    except OSError:  # a container has no device nodes
        return _kernel_says(number)


def superblock_says(block: bytes) -> bool:
    (magic,), (compat,) = struct.unpack_from("<H", block, 0x38), struct.unpack_from("<I", block, 0x5C)
    return bool(magic == _MAGIC and compat & _HAS_JOURNAL and not compat & _FAST_COMMIT)


def _kernel_says(number: str) -> bool:
    """A journal is running, and it has done no fast commit since it was mounted, though each fsync does one where they are enabled."""
    try:
        name = os.path.basename(os.readlink("/sys/dev/block/" + number))
        journals = os.listdir("/proc/fs/jbd2")
        with open("/proc/fs/ext4/%s/fc_info" % name, encoding="ascii") as f:
            commits = re.search(r"^(\d+) commits", f.read(), re.MULTILINE)
    except OSError:
        return False
    return any(journal.rpartition("-")[0] == name for journal in journals) and (commits is None or commits[1] == "0")
