#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the programs work on: runs as root on a host of the lab's big image, before the snapshot. The sources lie in /root/src.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8
w=/srv/w; mkdir -p $w /opt/bin; cd $w

numbered() { mkdir -p "$1"; for i in $(seq 1 "$2"); do seq 1 $((i * 7)) > "$1/$i.txt"; touch -d "2020-01-02 03:04:05.$i" "$1/$i.txt"; done; }

numbered rsync/from 20; numbered rsync/to 12; echo only-here > rsync/to/extra
for i in 3 4 5; do echo different > rsync/to/$i.txt; done
numbered patch/a 6; mkdir patch/b; cp patch/a/* patch/b/
sed -i 's/^3$/three/; /^5$/d; $a end' patch/b/1.txt patch/b/2.txt; rm patch/b/6.txt; echo new > patch/b/7.txt
(cd patch && diff -Naur a b > ../change.patch || true); rm -r patch/b; mv patch/a/* patch/; rmdir patch/a
numbered data 30
numbered mapped 4; truncate -s 300000 mapped/big
git -c init.defaultBranch=main init -q git
cd git; git config user.name Lab; git config user.email lab@example.org
for i in 1 2 3 4 5 6; do seq 1 $((i * 100)) > f$i; git add f$i; git commit -qm "$i"; done
git branch old HEAD~3; cd ..
sqlite3 base.db 'create table t(a integer primary key, b text); with recursive c(n) as (select 1 union all select n+1 from c where n<2000) insert into t select n, hex(randomblob(40)) from c;'
sqlite3 wal.db 'pragma journal_mode=wal; create table t(a, b); insert into t values(1, 2);' > /dev/null
mkdir log; for i in 1 2 3; do seq 1 3000 > log/app$i.log; done; seq 1 10 | gzip -n > log/app1.log.1.gz
cat > logrotate.conf <<'CONF'
/srv/w/log/app1.log { rotate 3
 compress
 create 0640 root root
 size 1k
}
/srv/w/log/app2.log { rotate 2
 copytruncate
 size 1k
}
/srv/w/log/app3.log { rotate 1
 size 1k
 dateext
 postrotate
  echo rotated >> /srv/w/log/post
 endscript
}
CONF
chmod 0755 log; chmod 0644 logrotate.conf
mkdir -p npm box fuse/back fuse/mnt unshare/real unshare/view go java project
for i in 1 2 3 4 5; do echo "box $i" > box/$i; echo "back $i" > fuse/back/$i; echo "real $i" > unshare/real/$i; done
echo '{"name": "site", "version": "1.0.0"}' > npm/package.json
cp /root/src/main.go go/; cp /root/src/Main.java java/
(cd go && printf 'module site\n\ngo 1.18\n' > go.mod)
for i in $(seq 1 12); do printf '#include "all.h"\nint f%s(int x) { return x + %s; }\n' "$i" "$i" > project/f$i.c; done
seq 1 12 | sed 's/.*/int f&(int);/' > project/all.h
{ echo '#include "all.h"'; echo 'int main(void) { int x = 0;'; seq 1 12 | sed 's/.*/x += f&(x);/'; echo 'return x == 0; }'; } > project/main.c
cat > project/Makefile <<'MAKE'
OBJS := $(patsubst %.c,%.o,$(wildcard *.c))
all: prog libf.a
prog: $(OBJS)
	gcc -o $@ $^
libf.a: $(OBJS)
	ar rcs $@ $^
%.o: %.c all.h
	gcc -O1 -g -c -o $@ $<
install: all
	install -D -m 0755 prog /usr/local/bin/prog
	install -D -m 0644 libf.a /usr/local/lib/libf.a
MAKE
sed -i 's/^        /\t/' project/Makefile
# An i386 program, a 64-bit program that makes 32-bit system calls, and one that speaks io_uring itself.
gcc -m32 -nostdlib -static -o /opt/bin/i386 /root/src/i386.S
gcc -nostdlib -static -no-pie -o /opt/bin/int80 /root/src/int80.S
gcc -O1 -o /opt/bin/uring /root/src/uring.c
gcc -O1 -pthread -o /opt/bin/race /root/src/race.c
install -m 0755 /root/src/fusepass.py /opt/bin/fusepass
install -m 0755 /root/src/calls.py /opt/bin/calls
install -m 0755 /root/src/view.py /opt/bin/view
mkdir -p i386 int80 uring race calls
for d in i386 int80 uring calls; do for n in one two three four; do echo "$d $n" > $d/$n; done; done
for i in 0 1 2 3 4; do echo "race $i" > race/name$i; done; mkdir race/name5
for u in root deploy pwuser plain; do
    home=$(getent passwd "$u" | cut -d: -f6); install -d -m 0700 -o "$u" -g "$u" "$home/.ansible" "$home/.ansible/tmp"
done
sync
