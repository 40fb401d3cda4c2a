# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.acid.host.plugins.plugin_utils.options import CHOICES, NAMES, NOT_YET, OptionError, Options, override, parse


@pytest.mark.parametrize("value", [None, True, "yes", "On", "1", {}, "{}"])
def test_on(value):
    assert parse(value, defaults=Options()) == Options()


@pytest.mark.parametrize("value", [False, "no", "OFF", "0", "false"])
def test_off(value):
    assert parse(value, defaults=Options()) is None


def test_strings_are_coerced_and_defaults_stay():
    given = {"confirm_timeout": " 60 ", "rehearse": "no", "exclude": "/a, /b", "on_drift": "FORCE", "name": 7}
    options = parse(given, defaults=Options(irreversible="allow"))
    assert options == Options(irreversible="allow", confirm_timeout=60, exclude=("/a", "/b"), on_drift="force", name="7")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("perhaps", "'perhaps'; give true, false, or a mapping"),
        (3, "is a int; give"),
        ("{broken", "looks like JSON and is not"),
        ({"nmae": "x"}, "unknown option 'nmae'; did you mean 'name'?"),
        ({"zzz": "x"}, "there are: name, scope"),
        ({"confirm_timeout": 5}, "at least 10"),
        ({"confirm_timeout": True}, "give a whole number"),
        ({"observe": "-1"}, "at least 0"),
        ({"rehearse": "maybe"}, "give true or false"),
        ({"irreversible": "never"}, "give one of: allow, warn, deny"),
        ({"retention": "a week"}, "such as 7d or 12h, and 10%"),
    ],
)
def test_a_mistake_is_a_sentence(value, sentence):
    with pytest.raises(OptionError) as caught:
        parse(value, defaults=Options())
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_not_there_yet_is_refused(name):
    value = {"scope": "play", "delegates": "trace", "observe": "5", "rehearse": "true", "durability": "power"}.get(name, "something")
    with pytest.raises(OptionError, match="cannot be used yet"):
        parse({name: value}, defaults=Options())


def test_every_choice_and_every_later_option_is_an_option():
    assert set(CHOICES) | set(NOT_YET) <= set(NAMES)


def test_the_host_gets_limits_as_numbers_and_probes_only_when_named():
    assert Options().for_host()["retention"] == {"days": 7.0, "percent": 10.0}
    assert "probes" not in Options().for_host()
    named = override(Options(), {"probes": "systemd", "retention": ["12h"]}, where="x").for_host()
    assert (named["probes"], named["retention"]) == (["systemd"], {"days": 0.5})


OWN = {"name": "app", "capture": ["appctl", "export"], "restore": "appctl import"}
TREES = {"name": "etc", "trees": ["/opt/app/conf"]}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("all", ["all"]),
        ("systemd, mounts", ["systemd", "mounts"]),
        (["all", OWN, TREES], ["all", OWN, TREES]),
        (OWN, [OWN]),
        (json.dumps(OWN), [OWN]),
        (json.dumps(["all", TREES]), ["all", TREES]),
        (["all", json.dumps(TREES)], ["all", TREES]),
    ],
)
def test_probes_are_names_and_mappings(value, found):
    options = override(Options(), {"probes": value}, where="x")
    assert list(options.probes) == found
    assert options.for_host().get("probes", ["all"]) == found
    assert json.loads(json.dumps(options.to_json()))["probes"] == found


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([3], "entry 0: 3 is not of type"),
        ([{"capture": "x", "restore": "x"}], "'name' is a required property"),
        ([{**OWN, "name": "My App"}], "entry 0.name: 'My App' does not match"),
        ([{**OWN, "restroe": "x"}], "'restroe' was unexpected"),
        ([{**OWN, "timeout": 0}], "entry 0.timeout: 0 is less"),
        (["all", {**OWN, "capture": []}], "entry 1.capture"),
        ([{"name": "app", "capture": "x"}], "'restore' is a required property"),
        ([{"name": "etc", "trees": ["relative"]}], "entry 0.trees.0: 'relative' does not match"),
        ([{"name": "etc", "trees": ["/x"], "capture": "x"}], "'capture' was unexpected"),
        ('[{"name": ', "Expecting value"),
        (7, "give a list of names and of mappings"),
    ],
)
def test_a_probe_that_is_none_is_said(value, sentence):
    pytest.importorskip("jsonschema", reason="ansible-core does not need it; the host's own check is tested with the engine")
    with pytest.raises(OptionError, match="option 'probes': ") as caught:
        override(Options(), {"probes": value}, where="x")
    assert sentence in str(caught.value)
