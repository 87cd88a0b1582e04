"""A resolution of Python packages, and what of it is in a layer."""

from __future__ import annotations

from vibed.runtimes.layers.pins import missing, name_of, parse, without

RESOLUTION = """\
blinker==1.9.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
Flask_Login==0.6.3
# a comment
mine @ file:///app/libs/mine
-e file:///app
"""


def test_a_pin_is_its_line_with_the_hashes() -> None:
    pins = parse(RESOLUTION)
    assert [(pin.name, pin.version) for pin in pins] == [
        ("blinker", "1.9.0"),
        ("flask-login", "0.6.3"),
        ("mine", ""),
        ("", ""),
    ]
    assert pins[0].text == "blinker==1.9.0 --hash=sha256:aa --hash=sha256:bb"
    assert [pin.of_registry for pin in pins] == [True, True, False, False]


def test_only_what_a_template_has_not_or_has_in_another_version_is_in_a_layer() -> None:
    have = {"Blinker": "1.9", "flask-login": "0.6.2", "unused": "1"}
    assert [pin.name for pin in missing(parse(RESOLUTION), have)] == ["flask-login", "mine", ""]


def test_a_package_is_left_out_by_its_canonical_name() -> None:
    lines = ("Pillow==9.5.0", "flask[async]>=3; python_version < '4'", "zope.interface", "ruamel_yaml")
    assert without(lines, {"pillow", "zope-interface"}) == (lines[1], lines[3])
    assert [name_of(line) for line in (*lines, "-e .")] == ["pillow", "flask", "zope-interface", "ruamel-yaml", ""]
