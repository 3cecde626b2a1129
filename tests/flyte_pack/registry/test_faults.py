"""After any fault: no wrong tag, nothing lost, a helpful message, and a later push completes.

Each case is a real docker-registry behind a server that makes one fault and passes on the rest.
"""

from __future__ import annotations

import email.utils
import json
import re
from dataclasses import dataclass, replace

import pytest

from flyte_pack.registry import RegistryError
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import (
    Fault,
    HalfTaken,
    answer_lost,
    changed,
    passed_on,
    reset,
    reset_in_the_request,
    rewritten,
    status,
)
from tests.support.registries import (
    AUTH,
    PASSWORD,
    Clock,
    docker_config,
    make_image,
    real_registry,
    session,
)

CHUNK = 1 << 16
SIGNED = "planted-signature-90cc"
SECRETS = (PASSWORD, AUTH, SIGNED)
NOW = 1_700_000_000  # the clock of the tests
ALWAYS = 1000

HTML = b"<html>Sign in to the guest network</html>"


def error(code, message="planted", detail=None):
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


def at(seconds):
    return email.utils.formatdate(NOW + seconds, usegmt=True)


@dataclass(frozen=True)
class Case:
    """fails: a part of the message; None: the push succeeds all the same. slept: the pauses."""

    name: str
    faults: tuple[Fault, ...]
    fails: str | None = None
    slept: tuple[float, ...] | None = None


def case(name, *faults, fails=None, slept=None):
    return Case(name, faults, fails, slept)


CASES = [
    # Statuses that pass, and those that don't.
    case("429 with seconds", Fault("PATCH", status(429, retry_after="7")), slept=(7,)),
    case("429 with a date", Fault("PATCH", status(429, retry_after=at(11))), slept=(11,)),
    case("429 asks for a week", Fault("HEAD", status(429, retry_after="604800")), slept=(120,)),
    case("429 and nonsense", Fault("HEAD", status(429, retry_after="soon")), slept=(0.5,)),
    case("429 for ever", Fault(".", status(429), ALWAYS), fails="429 for HEAD"),
    case("408 once", Fault("POST", status(408)), slept=(0.5,)),
    case("500 twice", Fault("PUT .*manifests", status(500), 2), slept=(0.5, 1)),
    case("500 for ever", Fault("PUT .*manifests", status(500), ALWAYS), fails="500 for PUT"),
    case("500 on a tag", Fault("PUT .*manifests/v1$", status(500), ALWAYS), fails="500 for PUT"),
    case("502 in an upload", Fault("PATCH", status(502, HTML), 1, 1), slept=(0.5,)),
    case("503 for ever", Fault("PATCH", status(503), ALWAYS), fails="503 for PATCH"),
    case("504 at an upload's end", Fault("PUT .*uploads", status(504), 1), slept=(0.5,)),
    case(
        "403", Fault("POST", status(403, error("DENIED")), ALWAYS), fails="403 .*DENIED.*permission"
    ),
    case(
        "405", Fault("PUT .*manifests", status(405, error("UNSUPPORTED")), 1), fails="UNSUPPORTED"
    ),
    case(
        "a repository that must be made",
        Fault("POST", status(404, error("NAME_UNKNOWN")), ALWAYS),
        fails="NAME_UNKNOWN.*create the repository first",
    ),
    case("418", Fault("PATCH", status(418), 1), fails="418 for PATCH"),
    # Connections that break.
    case("reset at first", Fault("HEAD", reset), slept=(0.5,)),
    case("reset before a chunk is written", Fault("PATCH", reset), slept=(0.5,)),
    case("reset in a chunk", Fault("PATCH", reset_in_the_request, 1, 1), slept=(0.5,)),
    case("reset in each of three chunks", Fault("PATCH", reset_in_the_request, 3)),
    case("reset in a small blob", Fault("PUT .*uploads.*digest", reset_in_the_request, 1)),
    case("answer to a chunk lost", Fault("PATCH", answer_lost, 1, 1), slept=(0.5,)),
    case("answer to the last step lost", Fault("PUT .*uploads", answer_lost, 1), slept=(0.5,)),
    case("answer to a manifest lost", Fault("PUT .*manifests", answer_lost), slept=(0.5,)),
    case("answer to a tag lost", Fault("PUT .*manifests/v1$", answer_lost), slept=(0.5,)),
    case("answer to the start lost", Fault("POST", answer_lost), slept=(0.5,)),
    case("reset for ever", Fault("PATCH", reset, ALWAYS), fails="closed|reset"),
    # Uploads that lose their way.
    case(
        "session lost",
        Fault("PATCH", status(404, error("BLOB_UPLOAD_UNKNOWN")), 1, 2),
    ),
    case(
        "session lost for ever",
        Fault("PATCH", status(404, error("BLOB_UPLOAD_UNKNOWN")), ALWAYS),
        fails="BLOB_UPLOAD_UNKNOWN",
    ),
    case(
        "range not as expected",
        Fault("PATCH", status(416, error("RANGE_INVALID"), range="0-9"), 1, 1),
    ),
    case(
        "less than a chunk taken",
        Fault("PATCH", reset_in_the_request),
        Fault("GET .*uploads", reset),
    ),
    case(
        "too large for a proxy",
        Fault("PATCH", status(413, HTML), ALWAYS),
        fails="413 .*raise the size limit",
    ),
    case(
        "relative location",
        Fault("POST", rewritten("Location", lambda u: "/v2" + u.partition("/v2")[2])),
    ),
    case(
        "location with a query", Fault("POST", rewritten("Location", lambda u: f"{u}&sig={SIGNED}"))
    ),
    case("no location", Fault("POST", changed(location=None)), fails="without a Location"),
    case(
        "location on a foreign host over http",
        Fault("POST", changed(location=f"http://registry.example/upload?sig={SIGNED}"), ALWAYS),
        fails="http://registry.example/upload. Set .*https",
    ),
    case(
        "location with a password",
        Fault("POST", changed(location=f"https://{SIGNED}@registry.example/"), ALWAYS),
        fails="invalid URL: https://registry.example/",
    ),
    case(
        "location of another kind",
        Fault("POST", changed(location="file:///etc"), 1),
        fails="invalid URL",
    ),
    case(
        "location that is none",
        Fault("POST", changed(location="http://[/"), 1),
        fails="invalid URL",
    ),
    # Answers that are none.
    case(
        "a page for a manifest",
        Fault("HEAD .*manifests", status(200, HTML, content_type="text/html")),
        fails="text/html.*is it a registry",
    ),
    case(
        "a page for a blob",
        Fault("HEAD .*blobs", status(200, HTML, content_type="text/html"), 9),
        fails="text/html.*is it a registry",
    ),
    case("200 for a start", Fault("POST", status(200, HTML), 9), fails="an unexpected status"),
    case(
        "a digest that is none",
        Fault("HEAD .*/v1$", changed(docker_content_digest="x")),
        fails="not sha256",
    ),
    case(
        "a manifest under a wrong digest",
        Fault("PUT .*manifests/sha", changed(docker_content_digest="sha256:0"), 1),
        fails="a wrong digest",
    ),
    case(
        "an endless answer",
        Fault("POST", status(401, b"x" * (5 << 20)), 1),
        fails="more than 4,194,304 bytes",
    ),
    case(
        "redirects without end",
        Fault("HEAD", status(307, location="/v2/x/manifests/y"), ALWAYS),
        fails="redirects more",
    ),
    case(
        "redirect to plain HTTP",
        Fault("HEAD", status(307, location=f"http://mirror.example/?s={SIGNED}")),
        fails="without TLS: http://mirror.example/",
    ),
    # Blobs that go missing between two requests.
    case("said to be there, and not", Fault("HEAD .*blobs", status(200), ALWAYS)),
    case(
        "unknown at the manifest, unnamed",
        Fault("PUT .*manifests", status(400, error("MANIFEST_BLOB_UNKNOWN")), ALWAYS),
        fails="MANIFEST_BLOB_UNKNOWN",
    ),
    case(
        "bytes changed on the way",
        Fault("PATCH|PUT .*uploads", lambda e: damage(e), 1),
        fails="something on the way changes them",
    ),
    # Mounts.
    case("mount refused", Fault("mount=", status(403, error("DENIED")), ALWAYS)),
    case("mount unsupported", Fault("mount=", status(405, error("UNSUPPORTED")), ALWAYS)),
    # Access.
    case(
        "credentials lost on the way",
        Fault("PATCH", passed_on(authorization=""), 1, 1),
        fails="401 for PATCH.*someone.*docker login",
    ),
    case(
        "credentials refused in mid-upload",
        Fault("PATCH", passed_on(authorization="Basic eDp5"), ALWAYS),
        fails="401 for PATCH.*docker login",
    ),
    case("no challenge", Fault("HEAD", status(401)), fails="neither basic nor bearer"),
    case(
        "an unknown challenge",
        Fault("HEAD", changed(www_authenticate="Negotiate")),
        fails="neither basic nor bearer",
    ),
    case(
        "a secret repeated to us",
        Fault("POST", status(400, error("X", f"you said {SECRETS[1]}")), ALWAYS),
        fails=r"you said \.\.\.",
    ),
    case(
        "control characters in an error",
        Fault("POST", status(400, error("X", "\x1b[31mred")), ALWAYS),
        fails=r"\\x1b\[31mred",
    ),
]


def damage(exchange):
    exchange._body = bytes([exchange.body[0] ^ 1]) + exchange.body[1:]
    exchange.reply(*exchange.forward())


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry"), "basic") as registry:
        yield registry


@pytest.mark.parametrize("case", CASES, ids=lambda one: one.name)
def test_a_fault_in_a_push(tmp_path, registry, front, case):
    repository = "faults/" + re.sub("[^a-z0-9]+", "-", case.name.lower())
    keychain = docker_config(tmp_path / "docker", front.host)
    clock, said = Clock(), []
    destination = f"{front.host}/{repository}:v1"

    def push(image, clock=None):
        plan = image.plan(destination, siblings=(f"{front.host}/faults/nothing-there",))
        push_image(plan, str(tmp_path), said.append, session=session(keychain, clock), chunk=CHUNK)

    old = make_image(tmp_path / "old", 10)
    new = make_image(tmp_path / "new", 300_000, 20)
    push(old)

    front.faults = [replace(fault) for fault in case.faults]
    if case.fails is None:
        push(new, clock)
    else:
        with pytest.raises(RegistryError, match=case.fails) as caught:
            push(new, clock)
        assert str(caught.value).startswith("services/ml:image: ")
        said.append(str(caught.value))
        assert registry.tag(repository, "v1") == old.digest
        assert registry.holds(repository, old.digest)
        front.faults = []
        push(new)
    if case.slept is not None:
        assert tuple(clock.slept) == case.slept
    assert registry.tag(repository, "v1") == new.digest
    assert registry.holds(repository, new.digest)
    assert registry.holds(repository, old.digest)
    shown = "\n".join(said)
    assert not [secret for secret in SECRETS if secret in shown]
    assert all(line.isprintable() for line in said)


@pytest.mark.parametrize(
    "faults",
    [
        (Fault("^PATCH", reset, 1, after=2),),
        (Fault("^PATCH", status(503), 4, after=2),),
        HalfTaken().faults(1),
        HalfTaken().faults(12),  # more often than anything is tried again that gets nowhere
    ],
)
def test_an_upload_goes_on_where_the_registry_has_come_to(tmp_path, registry, front, faults):
    image = make_image(tmp_path / "image", 500_000)
    ours = session(docker_config(tmp_path / "docker", front.host))
    front.faults = [replace(fault) for fault in faults]
    repository = f"goes-on/{len(front.faults)}-{faults[0].times}"
    plan = image.plan(f"{front.host}/{repository}:v1")
    [pushed] = push_image(plan, str(tmp_path), [].append, session=ours, chunk=CHUNK)
    assert registry.holds(repository, image.digest)
    assert front.count("^POST") == 2  # one for the layer, one for the config
    assert pushed.bytes <= image.layers[0].size + image.documents_size
