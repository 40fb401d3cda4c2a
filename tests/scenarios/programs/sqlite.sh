# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w
sqlite3 base.db 'update t set b = upper(b) || a where a % 3 = 0; delete from t where a > 1500; vacuum;'
sqlite3 base.db 'begin; insert into t(b) values(1); insert into t(b) values(2); commit;'
sqlite3 wal.db 'insert into t values(3, 4); create index i on t(a); pragma wal_checkpoint(truncate);'
