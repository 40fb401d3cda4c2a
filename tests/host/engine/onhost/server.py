# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the host, at the other end of one ssh connection: a request a line, an answer a line (JSON), so that a test costs no
login a command.

{"run": [argv], "stdin": text, "seconds": n} -> {"code", "out", "err"}        {"look": root} -> {"tree"}
{"start": [argv]} -> {"pid"}: outside of any step, in a session of its own     {"write": path, "text": base64, "mode": n} -> {}
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tree


def _run(argv: list[str], stdin: str, seconds: float) -> dict[str, object]:
    """Output goes to files: a process that a step leaves behind keeps its output open, and nobody waits for that."""
    with tempfile.TemporaryFile(dir="/dev/shm") as out, tempfile.TemporaryFile(dir="/dev/shm") as err:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd="/")
        try:
            process.communicate(stdin.encode("utf-8", "surrogateescape"), timeout=seconds)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = 124
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
        return {"code": code, "out": texts[0], "err": texts[1]}


def answer(request: dict[str, object]) -> dict[str, object]:
    if "run" in request:
        return _run(request["run"], request.get("stdin", ""), request.get("seconds", 60))
    if "look" in request:
        return {"tree": tree.look(request["look"])}
    if "start" in request:
        null = subprocess.DEVNULL
        return {"pid": subprocess.Popen(request["start"], stdin=null, stdout=null, stderr=null, start_new_session=True).pid}
    path = request["write"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(base64.b64decode(request["text"]))
    os.chmod(path, request.get("mode", 0o644))
    return {}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
