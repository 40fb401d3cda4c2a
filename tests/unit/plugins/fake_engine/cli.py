# SPDX-License-Identifier: GPL-3.0-or-later
"""A FAKE host command for tests of the controller side. It undoes nothing: it records how it was called and answers as told.

Next to the installed engines lies the folder `fake`: `calls` gets a line of JSON per call; `answers` maps a verb to what it has to answer
({"rc", "out", "sleep"}), and the key "refuse" makes `exec` refuse to run.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pwd
import sys
import time

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "fake")


def main(argv):
    verb, options, rest = argv[0], {}, []
    words = iter(argv[1:])
    for word in words:
        if word == "--":
            rest = list(words)
        elif word == "--json":
            options["json"] = True
        else:
            options[word.lstrip("-")] = next(words)
    if options.get("request") == "-":
        options["request"] = sys.stdin.readline()
    for name in ("request", "step"):
        if name in options:
            options[name] = json.loads(base64.b64decode(options[name]))
    record({"verb": verb, **options, "argv": rest, "uid": os.getuid(), "cwd": os.getcwd()})
    answers = read("answers", {})
    if verb == "exec":
        return execute(options, rest, answers)
    if "sleep" in answers.get(verb, {}):
        time.sleep(answers[verb]["sleep"])
    if "out" in answers.get(verb, {}):
        print(json.dumps(answers[verb]["out"]))
        return answers[verb].get("rc", 0)
    print(json.dumps(default(verb, options.get("request", {}))))
    return 0


def execute(options, argv, answers):
    if "refuse" in answers:
        sys.stderr.write("acid: %s\n" % answers["refuse"])
        return 97
    if "user" in options:
        entry = pwd.getpwnam(options["user"])
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    return os.execvp(argv[0], argv)


def default(verb, request):
    if verb == "begin":
        with locked("number") as file:
            number = int(file.read() or 0) + 1
            file.seek(0)
            file.write(str(number))
        return {"tx": "tx-%d" % number, "token": number, "state": "ACTIVE", "engine": "", "seconds": 0.1}
    if verb == "compensated":
        return {"tx": request["tx"], "state": "FAILED" if request["problem"] else "PAID", "wait": 0}
    if verb == "rollback" and "session" in request:
        handed = next_compensation()
        if handed:
            return {"tx": request["tx"], "state": "ABORTING", "compensate": handed}
    if verb in ("commit", "rollback"):
        steps = [call["step"] for call in calls() if call["verb"] == "exec" and call["tx"] == request.get("tx")]
        ids = list(dict.fromkeys(step["id"] for step in steps))
        common = {"task": "", "module": "", "position": "", "state": "SEALED", "paths": 1}
        listed = [{"n": n, "id": step, **common} for n, step in enumerate(ids, 1)]
        state = "COMMITTED" if verb == "commit" else "ABORTED"
        return {
            "tx": request.get("tx", "tx-0"),
            "name": "",
            "state": state,
            "steps": listed,
            "paths": len(listed),
            "units": [],
            "irreversible": [],
            "survivors": [],
            "differs": [],
            "seconds": 0.1,
        }
    if verb == "savepoint":
        return {"savepoint": request["name"], "epoch": 3}
    return {"open": None, "tx": request.get("tx"), "state": "DOOMED" if verb == "doom" else ""}


def next_compensation():
    """Newest first, each once."""
    said = [call["request"] for call in calls() if call["verb"] in ("compensate", "compensated")]
    told = {one["id"] for one in said if "problem" in one}
    results = {one["id"]: one["result"] for one in said if "result" in one}
    for one in reversed(said):
        if "body" in one and one["id"] not in told:
            return {**one, "result": results.get(one["id"]), "claim": "c", "attempts": 1}
    return None


def record(call):
    os.makedirs(FOLDER, exist_ok=True)
    with open(os.path.join(FOLDER, "calls"), "a") as file:
        file.write(json.dumps(call) + "\n")


def calls():
    with open(os.path.join(FOLDER, "calls")) as file:
        return [json.loads(line) for line in file]


def read(name, otherwise):
    try:
        with open(os.path.join(FOLDER, name)) as file:
            return json.load(file)
    except FileNotFoundError:
        return otherwise


def locked(name):
    file = open(os.path.join(FOLDER, name), "a+")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    return Rewriting(file)


class Rewriting:
    def __init__(self, file):
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def read(self):
        return self._file.read()

    def seek(self, position):
        self._file.truncate(0)

    def write(self, text):
        self._file.write(text)
