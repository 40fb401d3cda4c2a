#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A FUSE file system that passes everything through to a directory: fusepass DIRECTORY MOUNTPOINT. In the foreground."""

from __future__ import annotations

import os
import sys

try:
    from fuse import FUSE, FuseOSError, Operations
except ImportError:  # Debian's name for it
    from fusepy import FUSE, FuseOSError, Operations


class Through(Operations):
    def __init__(self, root):
        self.root = root

    def __call__(self, op, path, *args):
        try:
            return super().__call__(op, self.root + path, *args)
        except OSError as error:
            raise FuseOSError(error.errno) from error

    chmod, chown, mkdir, rmdir, unlink = os.chmod, os.chown, os.mkdir, os.rmdir, os.unlink

    def getattr(self, path, fh=None):
        found = os.lstat(path)
        return {
            key: getattr(found, key) for key in ("st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")
        }

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(path)]

    def open(self, path, flags):
        return os.open(path, flags)

    def create(self, path, mode, fi=None):
        return os.open(path, os.O_WRONLY | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(path, length)

    def release(self, path, fh):
        return os.close(fh)

    def rename(self, old, new):
        return os.rename(old, self.root + new)

    def utimens(self, path, times=None):
        return os.utime(path, times)


FUSE(Through(sys.argv[1]), sys.argv[2], foreground=True, nothreads=False)
