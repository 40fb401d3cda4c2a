# SPDX-License-Identifier: GPL-3.0-or-later
set -e
unshare -m sh -c '
    set -e
    mount --bind /srv/w/unshare/real /srv/w/unshare/view
    mount -t tmpfs tmpfs /mnt
    cd /srv/w/unshare/view
    echo changed > 1; rm 2; mv 3 three; echo new > new; mkdir -p d/d; ln 4 linked
    echo gone > /mnt/gone
    chroot / sh -c "cd /srv/w/unshare/view && echo in chroot > 5"
'
