"""Exchanges two paths in one step, and changes a file in each afterwards."""

import ctypes
import os
import sys

one, other = (os.fsencode(argument) for argument in sys.argv[1:3])
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, one, -100, other, 2):
    sys.exit(os.strerror(ctypes.get_errno()))
for path in (one, other):
    with open(os.path.join(path, b"exchanged"), "w", encoding="ascii") as f:
        f.write("yes\n")
    name = sorted(os.listdir(path))[0]
    os.truncate(os.path.join(path, name), 3)
