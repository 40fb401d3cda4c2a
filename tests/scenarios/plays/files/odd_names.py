"""Renames, edits and replaces files whose names are no text."""

import os

os.chdir(b"/srv/nasty")
names = sorted(name for name in os.listdir(b".") if os.path.isfile(name) and not os.path.islink(name))
odd = [name for name in names if not name.replace(b"-", b"").replace(b".", b"").isalnum()]
for number, name in enumerate(odd):
    try:
        if number % 3 == 0:
            with open(name, "ab") as f:
                f.write(b"appended\n")
        elif number % 3 == 1:
            os.rename(name, b"renamed \xfe%d" % number)
        else:
            os.unlink(name)
            os.symlink(b"/nowhere/\xff\n", name)
    except PermissionError:
        pass
open(b"caf\xe9-\xff\xfe.txt", "wb").close()
