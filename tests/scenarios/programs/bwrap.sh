# SPDX-License-Identifier: GPL-3.0-or-later
set -e
bwrap --ro-bind / / --dev /dev --proc /proc --bind /srv/w/box /mnt --tmpfs /tmp --unshare-pid \
    sh -c 'cd /mnt && echo changed > 1 && rm 2 && mv 3 three && mkdir new && echo x > new/x && chmod 600 4 && echo t > /tmp/t'
