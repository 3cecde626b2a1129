"""No secret gets out: into nothing that is printed, stored, registered, pushed, handed over, logged, left or seen in `ps`.

Secrets of all kinds are planted where users have them, each with one word in it; what was sent to sign in (tokens,
signatures) is taken from the wire. All of them are then looked for in all of that.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import ssl
import time
from pathlib import Path
from textwrap import dedent
from threading import Event, Thread

import pytest
import trustme

from tests.support.control_plane import SECRET as CLIENT_SECRET
from tests.support.object_stores import (
    ACCOUNT_KEY,
    READER,
    Answer,
    Proxy,
    azurite,
    clean_environment,
    seaweedfs,
    unique,
)
from tests.support.real_deployments import RealDeployment, push_named, servers
from tests.support.registries import AUTH, PASSWORD, docker_config
from tests.support.shim import run_shim
from tests.support.shim_stores import signed_url

WORD = "planted-"
# What is wrong here is never used; it is there to be found by whoever prints an environment.
AROUND = {
    "AZURE_STORAGE_SAS_TOKEN": "sv=2024-01-01&sig=planted-sas-0a1b",
    "AZURE_CLIENT_SECRET": "planted-azure-client-41fe",
    "GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "planted-google-key-c0de"}',
    "HTTPS_PROXY": "http://someone:planted-proxy-6e6e@127.0.0.1:1",
    "NO_PROXY": "127.0.0.1,localhost",
    "PIP_INDEX_URL": "https://someone:planted-index-7f7f@index.example/simple",
    "A_TOKEN": "planted-token-of-somebody-8a8a",
}


class Wire(Proxy):
    """Keeps what servers were told, and how those who asked signed in."""

    def __init__(self, upstream):
        super().__init__(upstream)
        self.told, self.signed = [], set()

    def _ask(self, handler, headers, body):
        self.told.append(handler.path.encode() + b"\n" + body)
        self.signed |= signatures(dict(headers))
        return super()._ask(handler, headers, body)


class SecureWire(Wire):
    """The same with TLS, without which Flyte sends no secret."""

    def __init__(self, upstream, authority):
        super().__init__(upstream)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def _ask(self, handler, headers, body):
        # The server behind it says by which scheme it is reached.
        return super()._ask(handler, [*headers, ("X-Forwarded-Proto", "https")], body)


def signatures(headers):
    given = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
    return set(re.findall(r"(?:Signature=|Bearer |Basic )(\S+)", given))


class Signed(RealDeployment):
    """One whose servers all want to know who it is, with secrets wherever one may be."""

    def __init__(self, root, servers):
        super().__init__(root, servers)
        docker_config(self.home / "docker", servers.registry_host)
        (self.home / "client-secret").write_text(CLIENT_SECRET)
        self.config = self.home / "flyte.yaml"
        self.config.write_text(
            dedent(
                f"""\
                admin:
                  endpoint: dns:///localhost:{servers.endpoint.partition(":")[2]}
                  caCertFilePath: {servers.plane.directory / "ca.pem"}
                  disableKeyring: true
                  authType: ClientSecret
                  clientId: ci
                  clientSecretLocation: {self.home / "client-secret"}
                """
            )
        )
        self.said = ""

    def plan(self, **changes):
        return super().plan(
            **{"endpoint": None, "insecure": None, "flyte_config": str(self.config), **changes}
        )

    @property
    def environment(self):
        authority = str(self.servers.plane.directory / "ca.pem")
        return {**super().environment, **AROUND, "SSL_CERT_FILE": authority}

    def begin(self, *typed, command="deploy", env=None, plan=None, first=lambda: None):
        program = super().begin(*typed, env=env, plan=plan, first=first)
        end = program.end

        def ended():
            done = end()
            self.look_through("what it printed", (done.out + done.err).encode())
            return done

        program.end = ended
        return program

    def secrets(self):
        """What may be nowhere."""
        sent = {one for proxy in self.servers.proxies.values() for one in proxy.signed}
        return {WORD, ACCOUNT_KEY, AUTH, *sent}

    def look_through(self, where, data):
        found = [one for one in self.secrets() if one.encode() in data]
        assert not found, f"{found} in {where}:\n{data[-3000:]!r}"
        if data.startswith(b"\x1f\x8b"):
            self.look_through(f"{where}, unpacked", gzip.decompress(data))

    def look_through_files(self, top):
        count = 0
        for path in top.rglob("*"):
            self.look_through("the name of a file", str(path).encode())
            if path.is_file():
                self.look_through(path, path.read_bytes())
                count += 1
        return count


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("servers")
    authority = trustme.CA()
    with pytest.MonkeyPatch.context() as patch:
        clean_environment(patch)
        with servers(
            directory,
            *("--auth", "secret"),
            registry_auth="basic",
            proxy=Wire,
            flyte_proxy=lambda at: SecureWire(at, authority),
        ) as running:
            authority.cert_pem.write_to_path(str(running.plane.directory / "ca.pem"))
            keychain = docker_config(directory / "docker", running.registry.host)
            push_named(running, directory / "named", keychain)
            yield running


@pytest.fixture
def root(tmp_path, running, monkeypatch):
    clean_environment(monkeypatch)
    root = Signed(tmp_path / "build", running)
    root.package_all()
    planted = files(root.home)
    yield root
    # Neither in temporary files, nor in the user's home, is anything left of it.
    assert root.scratch_left() == []
    # `flyte_pack.remembered` keeps digests, as names of empty files; `bytecode` is of the modules.
    cache = root.home / ".cache" / "pants-flyte"
    digests = {one for one in files(cache / "checked") if not one.stat().st_size}
    root.look_through_files(cache)
    left = files(root.home) - digests - files(cache / "bytecode")
    assert left <= planted | {root.home / "google.json"}
    running.clear()


def files(top):
    return {path for path in top.rglob("*") if path.is_file()}


class Arguments:
    """Watches the arguments of all that this process starts for the time of a `with` block; `seen` are those."""

    def __enter__(self):
        self.seen, self._end = set(), Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()

    def _watch(self):
        while not self._end.is_set():
            parents, arguments = {}, {}
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    state = (process / "stat").read_text().rpartition(")")[2].split()
                    arguments[process.name] = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                parents[process.name] = state[1]
            for process, said in arguments.items():
                above = process
                while above in parents and above != str(os.getpid()):
                    above = parents[above]
                if above != process and above == str(os.getpid()):
                    self.seen.add(said)
            time.sleep(0.005)


def test_all_that_a_deployment_does_gives_no_secret_away(root, running, tmp_path):
    folder = tmp_path / "usb"
    with Arguments() as arguments:
        first = root.deploy("--output", "json").ok().json["version"]
        assert "Nothing to do" in root.deploy().ok().out
        root.package_all(library=2)
        root.deploy("--dry-run").ok()
        root.deploy("--dry-run", "--output", "json").ok()
        root.deploy().ok()
        for command in ("list", "show", "verify", "prune"):
            root.deploy(command).ok()
            root.deploy(command, "--output", "json").ok()
        root.deploy("rollback", first).ok()
        root.deploy("export", str(folder)).ok()
        root.deploy("prune", "--keep", "1", "--older-than", "0", "--yes").ok()
        site = Signed(tmp_path / "site", running)
        site.package_all()
        site.deploy("import", str(folder), "--registry", f"{running.registry_host}/site").ok()
        run = remote_run(root, "--x", "3")
        assert "succeeded" in run.out, run.err

    # Everybody did sign in, with secrets that would have been found.
    assert all(proxy.signed for proxy in running.proxies.values())
    assert any(b"flyte_side" in one for one in arguments.seen)
    for one in arguments.seen:
        root.look_through("the arguments of a process", one)
    for deployment in (root, site):
        objects = deployment.objects()
        assert objects
        for key, content in objects.items():
            root.look_through(key, key.encode() + content.encode("latin-1"))
        assert deployment.scratch_left() == []
        root.look_through_files(deployment.dist)
    assert root.look_through_files(folder) > 5
    assert root.look_through_files(running.registry.directory / "data") > 5
    assert root.look_through_files(running.plane.directory) > 0
    for name, proxy in running.proxies.items():
        for told in proxy.told:
            root.look_through(f"what {name} was told", told)


def test_uploads_by_signed_urls_leave_no_signature(root, running):
    uploads = running.plane.directory / "uploads"
    uploads.write_text("Where directories can't be made, uploads fail.")
    done = [root.deploy("--upload", "flyte").failed(1, "upload")]
    uploads.unlink()
    done.append(root.deploy("--upload", "flyte").ok())
    names = [path.relative_to(uploads) for path in uploads.rglob("*") if path.is_file()]
    assert len(names) == 2
    # As build-support/services/control_plane_services.py signs them.
    signed = [hashlib.sha256(f"planted-signature {name}".encode()).hexdigest() for name in names]
    everywhere = [*root.objects().items(), json.dumps(running.plane.state()), *done]
    assert not [one for one in ("signature=", *signed) if one in str(everywhere)]


def remote_run(root, *typed):
    """`./pants run services/ml:train -- --remote ...`."""
    plan = root.plan(tasks=["train.json"])
    task = ("--plan", str(plan), "--dir", str(root.dist), "--task", "services/ml:train")
    done = root.run("run-remote", *task, "--", "--remote", *typed, env=root.environment)
    root.look_through("what it printed", (done.out + done.err).encode())
    return done


# --- what goes wrong -----------------------------------------------------------------------------


def echo(server, status, code="internal"):
    """A server that says all that it knows of who asks, once they have signed in."""
    bodies = {
        "flyte": '{"code": "%s", "message": "%s"}',
        "store": "<Error><Code>%s</Code><Message>%s</Message></Error>",
        "registry": '{"errors": [{"code": "%s", "message": "%s"}]}',
    }
    knows = {"flyte": CLIENT_SECRET, "store": "", "registry": f"{PASSWORD} {AUTH}"}

    def answer(request):
        signed = request.headers.get("authorization", "")
        if not signed:
            return None
        url = "https://store.example/a?X-Amz-Signature=planted-signature"
        said = f"{knows[server]} {url} {signed} {' '.join(signatures(request.headers))}"
        headers = [("Content-Type", "application/json"), ("X-Said", said)]
        if 300 <= status < 400:
            headers.append(("Location", url))
        return Answer(status, (bodies[server] % (code, said)).encode(), tuple(headers))

    return answer


@pytest.mark.parametrize(
    ("server", "status", "code"),
    [
        *(("store", status, "Planted") for status in (400, 401, 403, 307, 404)),
        *(("registry", status, "DENIED") for status in (400, 401, 403, 307, 404)),
        ("flyte", 500, "internal"),
        ("flyte", 401, "unauthenticated"),
        ("flyte", 403, "permission_denied"),
        ("flyte", 400, "invalid_argument"),
    ],
)
def test_a_server_that_repeats_secrets_is_not_quoted(root, running, server, status, code):
    running.proxies[server].fault = echo(server, status, code)
    # Importing Flyte takes a while, and only what it is asked for needs it.
    typed = ("--no-image-check",) if server == "flyte" else ("--no-register",)
    done = root.deploy(*typed, "--output", "json").failed(1)
    assert len(done.json["error"]) > 40


@pytest.mark.parametrize("server", ["store", "registry"])
def test_what_is_tried_again_is_told_without_secrets(root, running, server):
    root.deploy().ok()
    running.proxies[server].times(2, echo(server, 500)(running.proxies[server].requests[-1]))
    assert "trying again" in root.deploy().ok().err


WRONG = {
    "a wrong key": (
        {"AWS_SECRET_ACCESS_KEY": "planted-wrong-1111"},
        "the secret key does not belong",
    ),
    "a session that is none": ({"AWS_SESSION_TOKEN": "planted-session-3f0a"}, "access key"),
    "nothing there": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "nothing listens there"),
    "a proxy that is down": (
        {
            "NO_PROXY": "",
            "HTTP_PROXY": AROUND["HTTPS_PROXY"],
            "AWS_ENDPOINT_URL": "http://s3.example",
        },
        "s3://",
    ),
    "an endpoint with a password": (
        {"AWS_ENDPOINT_URL": "http://someone:planted-endpoint-77@127.0.0.1:1"},
        "s3://",
    ),
    "who may only read": (
        dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), READER)),
        "s3:PutObject",
    ),
    "a key of Flyte's that is none": ({"FLYTE_API_KEY": "planted-api-key-0000"}, "API key"),
    "a key of Flyte's for nobody": (
        {"FLYTE_API_KEY": base64.b64encode(b"localhost:ci:planted-key-2222:None").decode()},
        "",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_told_without_secrets(root, name):
    env, said = WRONG[name]
    done = root.deploy(env=env).failed(1, said)
    for value in env.values():
        assert "planted" not in value or value not in done.err


def test_a_wrong_secret_of_flytes_is_not_told(root):
    (root.home / "client-secret").write_text("planted-wrong-client-3333")
    root.deploy().failed(1, "does not let you in")


def test_settings_of_flytes_that_can_not_be_read_are_not_quoted(root):
    for text in (
        "admin: {clientSecret: planted-4444",
        "admin:\n  - planted-5555\n",
        "planted-6666",
    ):
        root.config.write_text(text)
        root.deploy().failed(1)


def test_a_wrong_password_of_the_registry_is_not_told(root, running):
    docker_config(root.home / "docker", running.registry_host, password="planted-wrong-7777")
    root.deploy().failed(1, running.registry_host)


def test_another_stores_secrets_are_not_told_either(root):
    azure = azurite()
    uri = f"{azure.uri}/{unique()}"
    no_token = {"AZURE_STORAGE_SAS_TOKEN": "", "AZURE_CLIENT_SECRET": ""}
    typed = ("--store", uri, "--no-register")
    root.deploy(*typed, env={**azure.env, **no_token}).ok()
    wrong = {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"planted-8888").decode()}
    done = root.deploy(*typed, env={**azure.env, **no_token, **wrong}).failed(1, uri)
    assert wrong["AZURE_STORAGE_ACCOUNT_KEY"] not in done.err
    # A key file of Google's that is none.
    key = root.home / "google.json"
    key.write_text('{"type": "service_account", "private_key": "planted-9999"}')
    google = {"GOOGLE_SERVICE_ACCOUNT_KEY": "", "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    root.deploy("--store", "gs://bikes/a", "--no-register", env=google).failed(1, "gs://bikes/a")


BROKEN = (
    "import os\nraise RuntimeError(dict(os.environ))\n",
    'import os\nraise RuntimeError(open(f"/proc/{os.getppid()}/cmdline").read())\n',
    "import os\nprint(dict(os.environ))\nraise SystemExit(str(dict(os.environ)))\n",
)


@pytest.mark.parametrize("body", BROKEN)
def test_a_module_that_breaks_has_no_secret_to_tell(root, body):
    root.package("score", body, image="scorer")
    root.deploy().failed(1, "services/ml/score.py")


# --- the shim ------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", ["json", "text"])
def test_the_shim_gives_no_signature_away(root, tmp_path, log):
    root.deploy("--no-register").ok()
    prefix = root.uri.rpartition("/")[2]
    key = next(one for one in root.objects() if one.startswith("archives/"))
    url = sign(root, f"{prefix}/{key}")
    signature = re.search(r"X-Amz-Signature=(\w+)", url)[1]
    command = ("sh", "-c", "tr '\\0' ' ' </proc/$PPID/cmdline; env; ls -laR $HOME")
    variables = {"FLYTE_SHIM_LOG": log}

    def run(address, *arguments):
        home = tmp_path / unique()
        home.mkdir()
        done = run_shim("--archive", address, *arguments, home=home, cwd=home, variables=variables)
        assert signature not in done.stdout + done.stderr
        assert WORD not in done.stdout + done.stderr
        assert not any(signature in str(path) for path in home.rglob("*"))
        return done.returncode

    digest = key.partition("/")[2].partition(".")[0]
    assert run(url, "--sha256", digest, "--", *command) == 0
    assert run(url, "--sha256", "0" * 64, "--", *command) != 0
    assert run(url.replace(key, f"archives/{'1' * 64}.tar.gz"), "--", *command) != 0
    assert (
        run(
            f"http://127.0.0.1:1/a.tar.gz?{url.partition('?')[2]}", "--sha256", digest, "--", "true"
        )
        != 0
    )


def sign(root, key):
    """In a child, as every client of a store."""

    def look(_):
        return signed_url(seaweedfs(), key, 600)

    return root.in_store(look)
