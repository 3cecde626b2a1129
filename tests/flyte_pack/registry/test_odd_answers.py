"""Whatever a registry answers, a pull, a push and a lock end soon: with the right bytes, or with one error of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.base_lock import fetch
from flyte_pack.oci.model import blob_path, digest_of
from flyte_pack.registry.pull import complete
from flyte_pack.registry.push import push_image
from flyte_shim import shown
from tests.support.faulty_registry import (
    Fault,
    answer_lost,
    changed,
    cut_short,
    faulty_registry,
    reset,
    status,
)
from tests.support.fuzzing import FACTOR, fuzz
from tests.support.registries import (
    AMD64,
    AUTH,
    PASSWORD,
    Clock,
    docker_config,
    make_image,
    real_registry,
    session,
)

TOKEN = "planted-token-c3d9"
SIGNED = "planted-signature-77aa"
MOST = 1500  # characters of a message
SECONDS = 20.0  # for one round; most take some hundredths
ALWAYS = 1000

NUMBERS = (
    *("0", "-1", "5", "1e9", "9" * 20, "9" * 400, "9" * 5000, "1" * 60_000, "0x10", "1_0", "+5"),
    *("NaN", "Infinity", "", " ", "\xb2"),
)
ODD = (
    *("", "x" * 60_000, "\x1b[2J", "\xff\xfe", "[" * 5000, "null", "sha256:" + "0" * 64, ", ,="),
    *(f"https://someone:{PASSWORD}@r.example/", f"https://r.example/a?X-Amz-Signature={SIGNED}"),
    *(f"htps:/someone:{PASSWORD}@r.example", f"sig={SIGNED}", f"Basic {AUTH}", f"Bearer {TOKEN}"),
)
PLACES = (
    *("/v2/", "//", "?", "..", "http://[", "http://127.0.0.1:1/", "http://r.example/", "ftp://a/"),
    *("http://127.0.0.1:99999/", f"http://127.0.0.1:{'0' * 5000}1/", f"http://{'a' * 5000}/"),
    *("http://localhost\\@127.0.0.1/", "http://127.0.0.1:1\\@r.example/", "http://\xe9.example/"),
    *("/v2/team/app/blobs/uploads/planted", "{other}", "{other}/v2/", "{here}", "{here}/v2/team/"),
)
RANGES = ("0-0", "0-5", "bytes=0-9", "5-9", "0-", "bytes 0-5/6", "bytes 5-9/10", "bytes */0")
DATES = (
    *("Thu, 01 Jan 2026 00:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "Thu", ",", "1 1 1 1 1"),
    *("Thu, 01 Jan 0001 00:00:00 +9999", "Thu, 99 Foo 2026 99:99:99 -99999999999", "Jan Jan"),
)
CHALLENGES = (
    *('Bearer realm="{here}/token",service="s",scope="a b"', 'Bearer realm="{other}/token"'),
    *(
        "Basic",
        'Basic realm="x"',
        "Bearer",
        'Bearer realm="',
        "Digest a=b",
        'Bearer realm="/token"',
    ),
    *(f'Bearer realm="{place}"' for place in PLACES),
    'Bearer realm="{here}/token", ' + 'a="b",' * 10_000,
    'Bearer realm="{here}/token", scope="' + "a " * 3000 + '"',
)
HEADERS = {
    "Location": (*PLACES, *ODD),
    "Docker-Content-Digest": (*ODD, "sha512:" + "0" * 128),
    "Content-Type": (
        *ODD,
        "text/html",
        "application/json",
        "application/vnd.oci.image.index.v1+json",
    ),
    "Range": (*RANGES, *(f"0-{one}" for one in NUMBERS)),
    "Content-Range": (*RANGES, *(f"bytes {one}-{one}/{one}" for one in NUMBERS)),
    "Content-Length": NUMBERS,
    "Content-Encoding": ("gzip", "br", "x" * 60_000),
    "Transfer-Encoding": ("chunked", "identity", "gzip, chunked"),
    "Retry-After": (*NUMBERS, *DATES),
    "WWW-Authenticate": (*CHALLENGES, *ODD),
    "OCI-Chunk-Min-Length": NUMBERS,
    "Link": ('</v2/_catalog>; rel="next"', *ODD),
    "Connection": ("close", "upgrade"),
}
STATUSES = (
    *(200, 200, 201, 202, 204, 206, 301, 302, 303, 307, 308, 400, 401, 401, 403, 404, 405, 409),
    *(413, 416, 429, 500, 503, 101, 103, 999),
)
ERRORS = (
    {"errors": [{"code": "DENIED", "message": f"{AUTH} {PASSWORD} {TOKEN} \x1b[2J" + "x" * 9000}]},
    {"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": "sha256:" + "1" * 64}}]},
    {"errors": [{"code": ["a"], "message": {"b": 1}, "detail": [[]]}, None, 1]},
    {"errors": {"code": "x"}},
)
TOKENS = tuple(
    f'{{"token": {token}, "expires_in": {life}}}'
    for token in (json.dumps(TOKEN), '"\\ud800"', '"a\\nb"', "1", "[]", '""')
    for life in ("300", "9" * 400, "9" * 5000, "NaN", "-1", "1e999", '"300"', "null", "true")
)
JSONS = (
    "[" * 100_000,
    '{"a":' * 50_000,
    '{"a": 1, "a": 2}',
    "[]",
    "null",
    "1" * 5000,
    "NaN",
    '"\\ud800"',
)


def changed_json(rng, body):
    """A document with a value in it replaced."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    if not isinstance(document, dict):
        return body
    inside = document
    while True:
        key = rng.choice(sorted(inside) if isinstance(inside, dict) else range(len(inside)))
        if not isinstance(inside[key], (dict, list)) or not inside[key] or rng.random() < 0.2:
            break
        inside = inside[key]
    inside[key] = "@@"
    values = (*map(json.dumps, ODD), *NUMBERS[:10], "null", "[]", "{}", "NaN", "1.5", '"\\ud800"')
    return json.dumps(document).replace('"@@"', rng.choice(values), 1).encode("latin-1", "replace")


def damaged(rng, body):
    at = rng.randrange(len(body) + 1)
    junk = rng.choice((b"", b"\0", b"\xff" * 20, b"[" * 9000, body))
    return body[:at] + junk + body[at + rng.choice((0, 1, 40)) :]


def raw(exchange, data):
    """These bytes, in place of an answer that http.server would write."""
    _ = exchange.body
    exchange.handler.wfile.write(data)
    exchange.handler.wfile.flush()
    exchange.handler.close_connection = True


def storm(exchange):
    with_end = b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" * 60_000
    raw(exchange, with_end)


def trailers(exchange):
    raw(exchange, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    for _ in range(3000):
        exchange.handler.wfile.write(b"A: %s\r\n" % (b"b" * 60_000))


def chunks(rng):
    size = rng.choice((b"-5", b"+5", b"0x5", b"f" * 3000, b"1;" + b"e" * 60_000, b"zz", b""))

    def act(exchange):
        raw(
            exchange, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\nabcde\r\n" % size
        )

    return act


def one_byte(exchange):
    """A byte of what was asked for, and the end."""
    code, found, body = exchange.forward()
    exchange.begin(code, {**found, "Content-Length": str(len(body))})
    exchange.handler.wfile.write(body[:1])
    exchange.handler.wfile.flush()
    exchange.reset()


def odd_answer(rng, places):
    """What a registry does with one request."""

    def act(exchange):
        code, found, body = exchange.forward()
        kind = rng.random()
        if kind < 0.25:
            code = rng.choice(STATUSES)
        if kind > 0.75:
            body = rng.choice(
                (
                    changed_json(rng, body),
                    damaged(rng, body),
                    json.dumps(rng.choice(ERRORS)).encode(),
                    rng.choice(TOKENS).encode(),
                    rng.choice(JSONS).encode(),
                    b"",
                )
            )
        for _ in range(rng.choice((0, 1, 1, 2))):
            name = rng.choice(list(HEADERS))
            found[name] = rng.choice(HEADERS[name])
        if code == 401:
            found["WWW-Authenticate"] = rng.choice(HEADERS["WWW-Authenticate"])
        # A line break would be another header.
        found = {n: placed(v, places).replace("\n", " ") for n, v in found.items()}
        exchange.reply(code, found, body)

    if rng.random() < 0.85:
        return act
    return rng.choice((cut_short, reset, answer_lost, storm, trailers, one_byte, chunks(rng)))


def placed(text, places):
    for name, place in places.items():
        text = text.replace(f"{{{name}}}", place)
    return text


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    top = tmp_path_factory.mktemp("fuzzed")
    with real_registry(top / "plain") as plain:
        image = make_image(top / "image", 90_000, 3000, platforms=(AMD64,))
        push_image(image.plan(f"{plain.host}/team/base:1"), str(top), [].append, session=session())
        with faulty_registry(plain.host) as front, faulty_registry(plain.host) as other:
            yield top, plain, image, front, other


def pulling(front, image, top, directory, ours, said):
    complete(f"{front.host}/team/base:1", image.layers, str(directory), said.append, session=ours)
    for layer in image.layers:
        assert digest_of((directory / blob_path(layer.digest)).read_bytes()) == layer.digest


def locking(front, image, top, directory, ours, said):
    found = fetch(f"{front.host}/team/base:1", [AMD64], session=ours)
    # By a tag, the registry says what the image is; all that it names is consistent.
    assert all(digest_of(one.manifest) == one.digest for one in found.platforms)


def pushing(front, image, top, directory, ours, said):
    plan = image.plan(f"{front.host}/team/app{directory.name}:v1")
    push_image(plan, str(top), said.append, session=ours, chunk=1 << 15)


USES = {"pull": pulling, "lock": locking, "push": pushing}


def assert_fit_to_show(said, round_):
    assert len(said) < MOST, (round_, len(said), said[:300])
    assert said.isprintable(), (round_, said[:300])
    for secret in (PASSWORD, AUTH, TOKEN, SIGNED):
        assert secret not in said, (round_, said)


@pytest.mark.parametrize("use", USES)
def test_odd_answers_of_a_registry(use, registries, tmp_path):
    top, plain, image, front, other = registries
    ends = {"right": 0, "refused": 0}
    for number, rng in enumerate(fuzz(30)):
        directory = tmp_path / str(number)
        directory.mkdir()
        places = {"here": f"http://{front.host}", "other": f"http://{other.host}"}
        front.faults, other.faults = [], []
        if rng.random() < 0.4:  # it wants to know who asks
            asked = f'Bearer realm="http://{front.host}/token",service="s"'
            front.faults.append(challenge(asked, rng.choice((1, 2, ALWAYS))))
            front.faults.append(Fault("/token", token(rng), ALWAYS))
        for _ in range(rng.randint(1, 4)):
            where = rng.choice(
                ("^", "^GET", "^HEAD", "^POST", "^PUT", "^PATCH", "manifests", "blobs")
            )
            act = odd_answer(rng, places)
            front.faults.append(
                Fault(where, act, rng.choice((1, 2, ALWAYS)), rng.choice((0, 0, 1, 3)))
            )
        keychain = docker_config(directory / "docker", front.host)
        ours, said = session(keychain, Clock(), slowest_seconds=0.5, read_seconds=0.3), []
        began, round_ = time.monotonic(), (use, number)
        try:
            USES[use](front, image, top, directory, ours, said)
            ends["right"] += 1
        except UserError as error:
            ends["refused"] += 1
            assert_fit_to_show(shown.message(str(error)), round_)
            assert_fit_to_show(str(error).replace("\n", " "), round_)
        else:
            if use == "push":
                assert plain.holds(f"team/app{number}", image.digest), round_
        assert time.monotonic() - began < SECONDS, round_
        for line in said:
            assert_fit_to_show(line, round_)
        left = [one for one in directory.rglob("*") if one.name.endswith(".partial")]
        assert not left, round_
        # The realm of a challenge is for the registry to name; nothing else is told who we are.
        asked = {re.sub(r"\?.*", "", one) for one in other.requests}
        assert not other.secrets or any("token" in one for one in asked), round_
        other.requests.clear()
        other.secrets.clear()
        front.secrets.clear()
        shutil.rmtree(directory)
    print(f"{use}: {30 * FACTOR} rounds, {ends['right']} right, {ends['refused']} refused")
    assert min(ends.values()) > 2 * FACTOR
    assert os.listdir(top / "image")


def challenge(header, times):
    def act(exchange):
        if "Authorization" in exchange.headers:
            exchange.reply(*exchange.forward())
        else:
            exchange.reply(401, {"WWW-Authenticate": header})

    return Fault("/v2/", act, times)


def token(rng):
    good = json.dumps({"token": TOKEN, "expires_in": 300})
    body = good if rng.random() < 0.6 else rng.choice((*TOKENS, *JSONS))

    def act(exchange):
        exchange.reply(rng.choice((200,) * 8 + STATUSES), {"Retry-After": "1"}, body.encode())

    return act


# --- what was found in this way, or is of the same kind ------------------------------------------


def then(first, second):
    """The first answer breaks off, so that there is a request for the rest."""
    return [Fault("^GET /v2/.*/blobs/", first), Fault("^GET /v2/.*/blobs/", second, ALWAYS)]


def with_header(where, **headers):
    return [Fault(where, changed(**headers), ALWAYS)]


FOUND = {
    "a length of many digits": ("pull", with_header("blobs", content_length="9" * 5000)),
    "a range of many digits": (
        "pull",
        then(cut_short, changed(content_range="bytes " + "9" * 5000 + "-")),
    ),
    "a byte at a time": ("pull", [Fault("blobs", one_byte, 1 << 30)]),
    "trailers without end": ("pull", [Fault("blobs", trailers, ALWAYS)]),
    "answers before the answer without end": ("pull", [Fault("blobs", storm, ALWAYS)]),
    "a digest that is a text": (
        "lock",
        with_header("manifests", docker_content_digest="\x1b[2J" + "x" * 9000),
    ),
    "a digest that is a secret": ("lock", with_header("manifests", docker_content_digest=PASSWORD)),
    "a least chunk of many digits": ("push", with_header("^POST", oci_chunk_min_length="9" * 5000)),
    "an upload that gets no further": ("push", with_header("^PATCH", range="0-0")),
    "an upload that goes back": ("push", with_header("^PATCH", range="0-5")),
    "an upload that is further than its end": ("push", with_header("^PATCH", range="0-99999999")),
    "an upload whose place is long": (
        "push",
        with_header("^POST", location="http://" + "a." * 9000 + "b/"),
    ),
    "a redirect with a long host": (
        "pull",
        [Fault("blobs", status(307, location="http://127.0.0.1:" + "0" * 9000 + "1/"), ALWAYS)],
    ),
    "a realm with a long host": (
        "pull",
        [challenge(f'Bearer realm="https://{"0" * 5000}1/token"', ALWAYS)],
    ),
    "redirects in a circle": ("pull", [Fault("", status(302, location="?again"), ALWAYS)]),
    "a wait of many digits": (
        "pull",
        [Fault("blobs", status(429, retry_after="9" * 5000), ALWAYS)],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_an_answer_that_once_was_too_much(name, registries, tmp_path):
    top, _, image, front, _ = registries
    use, faults = FOUND[name]
    front.faults = [replace(fault) for fault in faults]
    front.requests.clear()
    keychain, said = docker_config(tmp_path / "docker", front.host), []
    ours = session(keychain, Clock(), slowest_seconds=0.5, read_seconds=0.3)
    with suppress(UserError):
        try:
            USES[use](front, image, top, tmp_path / f"of-{use}", ours, said)
        except UserError as error:
            assert_fit_to_show(str(error), name)
            raise
    for line in said:
        assert_fit_to_show(line, name)
    assert len(front.requests) < 300
