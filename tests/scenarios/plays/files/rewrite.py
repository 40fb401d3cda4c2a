"""Rewrites the old sites' configuration in place and through a rename."""

import glob
import os

for number, path in enumerate(sorted(glob.glob("/etc/app/sites/*.conf"))):
    with open(path, encoding="utf-8") as f:
        text = f.read().replace("port 80", "port 8443")
    if number % 2:
        with open(path, "r+", encoding="utf-8") as f:
            f.write(text)
            f.truncate()
    else:
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path + ".new", 0o600)
        os.replace(path + ".new", path)
