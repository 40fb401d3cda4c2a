# SPDX-License-Identifier: GPL-3.0-or-later
set -e
python3 - <<'PY'
import mmap, os
for name in ("1.txt", "3.txt"):
    with open("/srv/w/mapped/" + name, "r+b") as f:
        view = mmap.mmap(f.fileno(), 0)
        view[0:3] = b"map"
        view.flush()
with open("/srv/w/mapped/big", "r+b") as f:
    f.truncate(500000)
    view = mmap.mmap(f.fileno(), 0)
    f.close()                       # the mapping lives on
    view[299990:300010] = b"x" * 20
    if os.fork() == 0:
        view[400000:400003] = b"kid"
        os._exit(0)
    os.wait()
os.unlink("/srv/w/mapped/2.txt")
PY
