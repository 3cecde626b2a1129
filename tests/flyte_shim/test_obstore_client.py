"""What obstore may see and do while a client is made."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace

import pytest

from flyte_shim.obstore_client import Panic, Plan, call
from flyte_shim.stores import locate


def test_a_panic_of_rusts_is_an_exception_that_repeats_nothing():
    kind = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def panics():
        raise kind("called `Result::unwrap()` on an `Err` value: planted")

    with pytest.raises(Panic) as error:
        call(panics)
    assert "planted" not in str(error.value)
    assert error.value.__suppress_context__


def test_what_is_none_passes():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(interrupted)
    assert call(int, "7") == 7


def test_nothing_of_the_environment_speaks_to_obstore(monkeypatch):
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    names = (
        *("AWS_ENDPOINT_URL_S3", "AWS_TIMEOUT", "AZURE_ENDPOINT", "GOOGLE_BUCKET", "HTTPS_PROXY"),
        *("all_proxy", "SERVICE_ACCOUNT", "IDENTITY_ENDPOINT", "SSL_CERT_FILE"),
    )
    for name in names:
        monkeypatch.setenv(name, "http://planted")
    seen = {}

    def client(bucket, **_):
        seen.update({name: getenv(name.encode()) for name in (*names, "PATH")})
        raise ValueError(bucket)

    before = dict(os.environ)
    plan = Plan(locate("s3://bucket/k"), {"AWS_ENDPOINT_URL": "http://e"})
    with pytest.raises(ValueError, match="bucket"):
        plan.make(SimpleNamespace(S3Store=client), {})
    assert seen.pop("PATH") == os.environ["PATH"].encode()
    assert set(seen.values()) == {None}
    assert dict(os.environ) == before
    assert {name: getenv(name.encode()) for name in names} == dict.fromkeys(
        names, b"http://planted"
    )
