"""Names that become parts of keys are safe everywhere, and no two addresses share one."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_image,
    check_project,
    check_ref_name,
    check_version,
    escape_address,
)

# Addresses as Pants writes them, and anything else.
ADDRESSES = st.one_of(
    st.text(min_size=1),
    st.text("aA/:.~@=-_#%2", min_size=1),
    st.text("ab/:.~", min_size=150, max_size=400),
)
SHA256 = "0123456789abcdef" * 4


@given(ADDRESSES, ADDRESSES)
@example("a/b", "a~-b")
@example("a:b", "a~.b")
@example("A", "a")
@example("é", "é")
@example("x" * 200, "x" * 201)
def test_no_two_addresses_share_a_segment_even_where_case_is_ignored(one, other):
    same = escape_address(one).lower() == escape_address(other).lower()
    assert same == (one == other)


@given(ADDRESSES)
@example(".")
@example("..")
@example("../../etc")
@example("a.")
@example("\0")
def test_a_segment_is_one_name_on_any_file_system(address):
    segment = escape_address(address)
    assert re.fullmatch(r"[a-z0-9._~-]{1,160}", segment)
    assert segment[0] != "."
    assert not segment.endswith((".", "/")) or segment.endswith("~.")


@pytest.mark.parametrize(
    ("address", "segment"),
    [
        ("services:deploy", "services~.deploy"),
        ("services/ml:train_model", "services~-ml~.train_model"),
        ("//:deploy", "~-~-~.deploy"),
        ("a:b@domain=staging", "a~.b~40domain~3dstaging"),
        ("v1.2:b", "v1.2~.b"),
        ("Lib:b", "~4cib~.b"),
    ],
)
def test_common_addresses_stay_readable(address, segment):
    assert escape_address(address) == segment


def test_an_empty_address_is_refused():
    with pytest.raises(InvalidName):
        escape_address("")


@pytest.mark.parametrize("check", [check_project, check_domain, check_version])
@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a/b", "../x", "a\\b", "a b", "a\n", "-v", ".hidden", "a.", "é"),
        *("a:b", "%41", "\0", "x" * 129),
    ],
)
def test_what_is_no_path_segment_is_refused(check, text):
    with pytest.raises(InvalidName, match="cannot be a"):
        check(text)


@pytest.mark.parametrize("text", ["v1", "1.2.3", "a..b", "2024-01-31_x", "_", "A", "x" * 63])
def test_usual_names_are_taken(text):
    assert {check_project(text), check_domain(text), check_version(text)} == {text}


@pytest.mark.parametrize(
    "image",
    [
        "python:3.12",
        "library/python",
        "registry.example/team/trainer:v1",
        "registry.example:5000/trainer",
        "localhost:5000/a/b_c/d__e/f-g.h:T.a-g",
        f"registry.example/trainer@sha256:{SHA256}",
        f"registry.example/trainer:1@sha256:{SHA256}",
        "[::1]:5000/trainer:1",
    ],
)
def test_image_references_are_taken(image):
    assert check_image(image) == image


@pytest.mark.parametrize(
    "image",
    [
        *(
            "",
            "trainer",
            "a b:1",
            "reg.example/Trainer:1",
            "reg.example/a:",
            "reg.example//a",
            "/a",
        ),
        *("a/b:1:2", ":1", "reg.example/a@sha256:12", "reg.example/a:" + "t" * 129),
        *("a/" + "b" * 600, "reg.example/a:1\n", "../a:1"),
    ],
)
def test_what_is_no_image_reference_is_refused(image):
    with pytest.raises(InvalidName, match=r"image|digest"):
        check_image(image)


@pytest.mark.parametrize(
    "image",
    [
        "user:hunter2@reg.example/a:1",
        "https://user:hunter2@reg.example/a",
        f"hunter2@reg/a@sha256:{SHA256}",
    ],
)
def test_a_password_in_an_image_is_refused_and_not_repeated(image):
    with pytest.raises(InvalidName) as error:
        check_image(image)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "user:hunter2@x", "a\n"])
def test_what_is_no_ref_name_is_refused(name):
    with pytest.raises(InvalidName) as error:
        check_ref_name(name)
    assert "hunter2" not in str(error.value)
