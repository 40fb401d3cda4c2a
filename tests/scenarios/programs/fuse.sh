# SPDX-License-Identifier: GPL-3.0-or-later
set -e
/opt/bin/fusepass /srv/w/fuse/back /srv/w/fuse/mnt &
server=$!
for i in $(seq 1 50); do mountpoint -q /srv/w/fuse/mnt && break; sleep 0.1; done
mountpoint -q /srv/w/fuse/mnt
cd /srv/w/fuse/mnt
echo through > 1; rm 2; mv 3 three; echo new > new; mkdir d; chmod 600 4; echo more >> 5
cd /
fusermount3 -u /srv/w/fuse/mnt || fusermount -u /srv/w/fuse/mnt
wait $server
