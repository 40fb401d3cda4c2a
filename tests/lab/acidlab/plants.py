# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of one attribute each, by which the oracle proves itself: what is done, what undoes it, and what exactly must be found."""

from __future__ import annotations

from dataclasses import dataclass

TOP = "/opt/plant"

# keep DIR COMMAND...: the command, and the directory's mtime as before. again DIR: the directory's tree as it was when saved.
SHELL = r"""
set -eu
cd /opt/plant 2>/dev/null || true
keep() { kept=$1; shift; when=$(stat -c %y "$kept"); "$@"; touch -h -d "$when" "$kept"; }
same() { same=$1; shift; at=$(stat -c %y "$same"); "$@"; touch -h -d "$at" "$same"; }
again() { rsync -aHAX --checksum --delete "/opt/saved$1/" "$1/"; }
"""

PREPARE = r"""
mkdir -p /opt/plant /opt/saved/var/lib
cd /opt/plant
printf 'some content\n' > file
printf 'more content\n' > owned
for name in one two three; do [ -e linked-one ] && ln linked-one linked-$name || echo linked > linked-$name; done
ln -s file symlink
mknod device c 1 3
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
truncate -s 4M sparse
printf end >> sparse
echo x > with-xattr; setfattr -n user.colour -v blue with-xattr
echo x > with-acl; setfacl -m u:plain:r,m::rw with-acl
mkdir with-default-acl; setfacl -d -m u:plain:r with-default-acl
cp /usr/bin/true with-capability; setcap cap_net_raw=ep with-capability
echo x > flagged
mkdir directory; echo x > directory/inner
python3 -c 'open(b"odd-\xff\n", "w").close()'
mkdir bound
: > /var/log/pacman.log
sync
cp -a /etc /opt/saved/etc
cp -a /var/lib/dpkg /var/lib/apt /var/lib/pacman /var/lib/systemd /opt/saved/var/lib/
cp -a /usr/lib/systemd/system/cron.service /opt/saved/
"""


@dataclass(frozen=True)
class Plant:
    """expect: 'kind name: field, field' for a change, 'kind name: added' or 'kind name: removed'. also: regular expression of paths that
    cannot help changing with it."""

    name: str
    do: str
    undo: str
    expect: tuple[str, ...]
    also: str = "(?!)"


def _path(name: str, fields: str) -> str:
    return f"path {TOP}/{name}: {fields}"


FILES = (
    Plant(
        "content, same size and mtime",
        "same file sh -c \"printf 'SOME content\\n' > file\"",
        "same file sh -c \"printf 'some content\\n' > file\"",
        (_path("file", "sha256"),),
    ),
    Plant(
        "one nanosecond",
        "touch -d '2020-01-01 00:00:00.000000001' owned",
        "touch -d '2020-01-01 00:00:00.000000000' owned",
        (_path("owned", "mtime"),),
    ),
    Plant("mode bit", "chmod g+w file", "chmod g-w file", (_path("file", "mode"),)),
    Plant("set-user-id bit", "chmod u+s file", "chmod u-s file", (_path("file", "mode"),)),
    Plant("sticky directory", "chmod +t directory", "chmod -t directory", (_path("directory", "mode"),)),
    Plant("uid", "chown plain owned", "chown root owned", (_path("owned", "uid"),)),
    Plant("gid", "chgrp plain owned", "chgrp root owned", (_path("owned", "gid"),)),
    Plant("owner of a symlink", "chown -h plain symlink", "chown -h root symlink", (_path("symlink", "uid"),)),
    Plant(
        "mtime of a symlink",
        "touch -h -d '2020-01-01 00:00:00.5' symlink",
        "touch -h -d '2020-01-01' symlink",
        (_path("symlink", "mtime"),),
    ),
    Plant(
        "xattr value",
        "setfattr -n user.colour -v grey with-xattr",
        "setfattr -n user.colour -v blue with-xattr",
        (_path("with-xattr", "xattrs"),),
    ),
    Plant("xattr added", "setfattr -n user.shape -v round file", "setfattr -x user.shape file", (_path("file", "xattrs"),)),
    Plant(
        "trusted xattr", "setfattr -n trusted.seal -v 1 directory", "setfattr -x trusted.seal directory", (_path("directory", "xattrs"),)
    ),
    Plant("ACL", "setfacl -m u:plain:w,m::rw with-acl", "setfacl -m u:plain:r,m::rw with-acl", (_path("with-acl", "xattrs"),)),
    Plant(
        "default ACL",
        "setfacl -d -m u:plain:rw with-default-acl",
        "setfacl -d -m u:plain:r with-default-acl",
        (_path("with-default-acl", "xattrs"),),
    ),
    Plant(
        "capability",
        "setcap cap_net_raw=eip with-capability",
        "setcap cap_net_raw=ep with-capability",
        (_path("with-capability", "xattrs"),),
    ),
    Plant("immutable", "chattr +i flagged", "chattr -i flagged", (_path("flagged", "flags"),)),
    Plant("append only", "chattr +a flagged", "chattr -a flagged", (_path("flagged", "flags"),)),
    Plant("flag of a directory", "chattr +d directory", "chattr -d directory", (_path("directory", "flags"),)),
    Plant(
        "hard link broken",
        "keep . sh -c 'cp -p linked-two .copy; mv .copy linked-two'",
        "keep . ln -f linked-one linked-two",
        (_path("linked-one", "links, nlink"), _path("linked-three", "links, nlink"), _path("linked-two", "links, nlink")),
    ),
    Plant(
        "symlink target",
        "keep . sh -c 'ln -sfn owned symlink'; touch -h -d '2020-01-01' symlink",
        "keep . sh -c 'ln -sfn file symlink'; touch -h -d '2020-01-01' symlink",
        (_path("symlink", "target"),),
    ),
    Plant(
        "device number",
        "keep . sh -c 'rm device; mknod device c 1 5; touch -d 2020-01-01 device'",
        "keep . sh -c 'rm device; mknod device c 1 3; touch -d 2020-01-01 device'",
        (_path("device", "device"),),
    ),
    Plant("empty file added", "keep . touch empty", "keep . rm empty", (_path("empty", "added"),)),
    Plant(
        "file removed",
        "keep directory rm directory/inner",
        "keep directory sh -c 'echo x > directory/inner'; touch -d 2020-01-01 directory/inner",
        (_path("directory/inner", "removed"),),
    ),
    Plant(
        "fifo becomes file",
        "keep . sh -c 'rm fifo; touch -d 2020-01-01 fifo'",
        "keep . sh -c 'rm fifo; mkfifo fifo; touch -d 2020-01-01 fifo'",
        (_path("fifo", "blocks, sha256, size, type"),),
    ),
    Plant(
        "socket removed",
        "keep . rm socket",
        "keep . python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; touch -d 2020-01-01 socket",
        (_path("socket", "removed"),),
    ),
    Plant(
        "hole filled with zeros",
        "same sparse dd if=/dev/zero of=sparse bs=64k count=1 seek=8 conv=notrunc status=none; sync sparse",
        "same sparse fallocate -p -o 524288 -l 65536 sparse; sync sparse",
        (_path("sparse", "blocks"),),
    ),
    Plant(
        "mtime of a directory",
        "touch -d '2020-01-01 00:00:00.25' directory",
        "touch -d 2020-01-01 directory",
        (_path("directory", "mtime"),),
    ),
    Plant(
        "odd name removed",
        "keep . sh -c 'rm odd-*'",
        'keep . python3 -c \'open(b"odd-\\xff\\n", "w").close()\'; touch -d 2020-01-01 odd-*',
        (_path("odd-\udcff\n", "removed"),),
    ),
)
