"""Which maintainer scripts are understood; all others are refused, with the line that is not."""

from __future__ import annotations

import pytest

from flyte_pack.image.deb_scripts import Alternative, NotUnderstood, understand

SH = "#!/bin/sh\nset -e\n"
FOO = Alternative("/usr/bin/foo", "foo", "/usr/bin/foo.x", "foo", 20)
ADD = "update-alternatives --install /usr/bin/foo foo /usr/bin/foo.x 20"


def added(kind: str, *lines: str) -> str:
    text = "\n".join(lines)
    return f"# Automatically added by {kind}/13.11.4\n{text}\n# End automatically added section\n"


NOTHING = {
    "nothing": "exit 0\n",
    "older versions": added("dh_installdeb", 'dpkg-maintscript-helper rm_conffile /etc/x 1\\~ -- "$@"'),
    "a service": added("dh_installsystemd", "if [ -d /run/systemd/system ]; then", "systemctl x", "fi"),
    "bytecode": added("dh_python3", "py3compile -p x").replace("/13.11.4", ""),
    "an upgrade": 'if [ "$1" = upgrade ] && [ -e /etc/x ]; then\n  rm -rf /etc/x\nfi\n',
    "an upgrade, by version": 'if dpkg --compare-versions "$2" lt-nl 2; then\n  rm -rf /etc/x\nfi\n',
    "an upgrade, over lines": 'if test "$1" = upgrade &&\n\ttest -e /x\nthen\n\tif [ -x /y ]; then\n\trm /y\n\tfi\nfi\n',
    "a trigger": 'if [ "$1" = "triggered" ]; then\n  do-it\n  exit 0\nfi\n',
    "another call": 'case "$1" in\n  abort-upgrade|abort-remove)\n    do-it\n  ;;\nesac\n',
    "an alternative's end": "update-alternatives --remove x /usr/bin/x\n",
}  # fmt: skip


@pytest.mark.parametrize("what", NOTHING)
def test_what_does_nothing_in_a_new_image_is_understood(what):
    assert understand("postinst", (SH + NOTHING[what]).encode()).alternatives == ()


ALTERNATIVES = {
    "plain": ADD,
    "quiet, over lines": ADD.replace("--install", "--quiet \\\n --install"),
    "with a comment": f"{ADD} \\\n   #--slave /usr/share/man/x x /usr/share/man/y",
    "configured": f'if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ]; then\n  {ADD}\nfi',
    "not upgraded": f'if [ "$1" != upgrade ]; then\n  {ADD}\nfi',
    "of a case": f'case "$1" in\n  configure)\n    {ADD}\n  ;;\n  *)\n    do-it\n  ;;\nesac',
}


@pytest.mark.parametrize("what", ALTERNATIVES)
def test_alternatives_are_links(what):
    assert understand("postinst", f"{SH}{ALTERNATIVES[what]}\n".encode()).alternatives == (FOO,)


def test_a_slave_follows_its_main_one():
    found = understand("postinst", f"{SH}{ADD} --slave /usr/bin/bar bar /usr/bin/bar.x\n".encode())
    assert found.alternatives[1] == Alternative("/usr/bin/bar", "bar", "/usr/bin/bar.x", "foo", 20)


REFUSED = {
    "a command": ("adduser --system x", "adduser --system x"),
    "a user's section": (added("dh_sysuser", "adduser x"), "adduser x"),
    "a section without end": ("# Automatically added by dh_icons/1\nrm /x", "# Automatically"),
    "a condition": ("if [ -x /usr/bin/x ]; then\nx\nfi", "if [ -x /usr/bin/x ]; then"),
    "a negation": ('if ! [ "$1" = upgrade ]; then\nx\nfi', 'if ! [ "$1" = upgrade ]; then'),
    "an upgrade, or not": ('if [ "$1" = upgrade ] || [ -e /x ]; then\nx\nfi', "if ["),
    "an upgrade and more": ('if [ "$1" = upgrade ] && [ -e /x ] || true; then\nx\nfi', "if ["),
    "an else": ('if [ "$1" = upgrade ]; then\nx\nelse\ny\nfi', "else"),
    "a hidden end": ('if [ "$1" = upgrade ]; then\nx; fi; rm -rf /y\nfi', "x; fi; rm -rf /y"),
    "a text in a block": ('if [ "$1" = upgrade ]; then\ncat <<E\nfi\nE\nfi', "cat <<E"),
    "one line": ('if [ "$1" = upgrade ]; then x; fi\ny\n', "if ["),
    "no end": ('if [ "$1" = upgrade ]; then\nx\n', "if without fi"),
    "more than an alternative": (f"{ADD}; adduser x", "update-alternatives"),
    "an alternative by a variable": (ADD.replace("foo.x", "$x"), "update-alternatives"),
    "an alternative elsewhere": (ADD.replace("/usr/bin/foo ", "/usr/../x "), "update-alternatives"),
    "a helper and more": ('dpkg-maintscript-helper rm_conffile /x; adduser -- "$@"', "dpkg-"),
    "configuring": ('case "$1" in\nconfigure)\nadduser x\n;;\nesac', "adduser x"),
    "a case on one line": ('case "$1" in\nconfigure) adduser x;;\nesac', "configure) adduser x;;"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_all_else_is_refused_with_its_first_line(what):
    text, line = REFUSED[what]
    with pytest.raises(NotUnderstood) as refused:
        understand("postinst", f"{SH}{text}\n".encode())
    assert str(refused.value).startswith(line)


def test_a_program_in_another_language_is_refused():
    with pytest.raises(NotUnderstood, match=r"^#!/usr/bin/perl"):
        understand("postinst", b"#!/usr/bin/perl\nexit 0\n")


def test_a_script_that_is_known_says_what_the_image_lacks():
    unzip = (
        '#!/bin/sh\n# x\n\nset -e\nif [ "$1" = "configure" ] && '
        '[ -x "`which update-mime 2> /dev/null`" ]; then\n  update-mime\nfi\n'
    )
    assert understand("postinst", unzip.encode()).lacks == "an entry for mail readers"
    with pytest.raises(NotUnderstood):
        understand("postinst", unzip.replace("update-mime\nfi", "update-mime x\nfi").encode())
