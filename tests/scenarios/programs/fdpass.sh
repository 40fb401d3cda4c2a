# SPDX-License-Identifier: GPL-3.0-or-later
set -e
python3 - <<'PY'
import array, os, socket
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
if os.fork() == 0:
    data, extra, flags, address = one.recvmsg(10, socket.CMSG_SPACE(24))
    fds = array.array("i"); fds.frombytes(extra[0][2])
    os.ftruncate(fds[0], 10); os.pwrite(fds[0], b"passed", 0); os.fchmod(fds[1], 0o600)
    os.rename("29.txt", "passed", src_dir_fd=fds[2], dst_dir_fd=fds[2]); os.unlink("30.txt", dir_fd=fds[2])
    os._exit(0)
fds = [os.open("/srv/w/data/18.txt", os.O_RDWR), os.open("/srv/w/data/19.txt", os.O_RDONLY), os.open("/srv/w/data", os.O_PATH)]
other.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())])
assert os.wait()[1] == 0
PY
