# SPDX-License-Identifier: GPL-3.0-or-later
set -e
export UV_USE_IO_URING=1
node - <<'JS'
const fs = require("fs/promises");
(async () => {
  const d = "/srv/w/data/";
  await Promise.all([...Array(10).keys()].map(i => fs.writeFile(d + "node" + i, "node " + i)));
  await Promise.all([22, 23, 24].map(i => fs.rename(d + i + ".txt", d + "moved-" + i)));
  await fs.unlink(d + "25.txt");
  await fs.appendFile(d + "26.txt", "more\n");
  await fs.truncate(d + "27.txt", 5);
  await fs.mkdir(d + "deep/er", { recursive: true });
  await fs.chmod(d + "28.txt", 0o600);
  await fs.rm(d + "node9");
})().catch(e => { console.error(e); process.exit(1); });
JS
