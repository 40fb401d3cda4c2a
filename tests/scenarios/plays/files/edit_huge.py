"""Changes a record every 64 MiB, through a mapping and by writes, and cuts the end."""

import mmap
import os

with open("/srv/huge.bin", "r+b") as f:
    for block in range(0, 2048, 64):
        f.seek(block << 20)
        f.write(b"changed record")
    with mmap.mmap(f.fileno(), 1 << 20, offset=512 << 20) as view:
        view[1000:1010] = b"through me"
    f.truncate((2048 << 20) - 12345)
    os.fsync(f.fileno())
