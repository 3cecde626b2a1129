"""Settings in YAML are read strictly: what is meant is taken, anything else is an error with its line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flyte_pack.__main__ import main
from flyte_pack.deploy.config import DeployConfig, Settings
from flyte_pack.deploy.config_file import read_config
from flyte_pack.json_fields import InvalidData
from tests.support.deploying import SOURCE_ROOT

EXAMPLE = b"""\
endpoint: localhost:8090
insecure: true            # no TLS
org: acme
project: bikes
flyte_config: ~/.flyte/config.yaml
store: file:///srv/bikes
registry: localhost:5000/bikes/
images: {trainer: ghcr.io/org/trainer:2026.1, server: ghcr.io/org/server:1}
domains:
  production: {images: {trainer: ghcr.io/org/trainer:2026.1.3}, store: file:///srv/prod, insecure: no}
  staging:
    org: acme-staging
"""


def test_a_domains_section_comes_before_the_top_setting_by_setting_and_image_by_image():
    config = read_config(EXAMPLE, "deploy.yaml")
    top = Settings(
        endpoint="localhost:8090",
        insecure=True,
        org="acme",
        flyte_config="~/.flyte/config.yaml",
        store="file:///srv/bikes",
        registry="localhost:5000/bikes",
        project="bikes",
        images=(("server", "ghcr.io/org/server:1"), ("trainer", "ghcr.io/org/trainer:2026.1")),
    )
    assert config.for_domain("development") == config.for_domain(None) == top
    production = config.for_domain("production")
    assert (production.insecure, production.store) == (False, "file:///srv/prod")
    assert dict(production.images) == {
        "server": "ghcr.io/org/server:1",
        "trainer": "ghcr.io/org/trainer:2026.1.3",
    }
    assert (production.endpoint, production.org) == ("localhost:8090", "acme")
    assert config.for_domain("staging").org == "acme-staging"


@pytest.mark.parametrize("text", [b"", b"# nothing yet\n", b"{}"])
def test_a_file_without_settings_sets_nothing(text):
    assert read_config(text, "x") == DeployConfig()


def test_rules_get_the_same_by_json():
    config = read_config(EXAMPLE, "deploy.yaml")
    assert DeployConfig.from_json(config.to_json(), "x") == config
    assert hash(config) == hash(DeployConfig.from_json(config.to_json(), "x"))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("endpont: h", 1, "unknown setting 'endpont'; did you mean endpoint?"),
        ("org: a\nregistries: x/y", 2, "did you mean registry?"),
        ("org: a\npassword: x", 2, "unknown setting 'password' (there are endpoint, org,"),
        ("domains:\n  staging:\n    domains: {}", 3, "unknown setting 'domains'"),
        ("org: a\norg: b", 2, "'org' is there twice; the first is in line 1"),
        ("images:\n  a: r.example/a:1\n  a: r.example/a:2", 3, "'a' is there twice"),
        ("domains:\n  d: {}\n  d: {}", 3, "'d' is there twice"),
        ("- endpoint", 1, "the file: expected `name: value` pairs"),
        ("endpoint", 1, "the file: expected `name: value` pairs"),
        ("domains: [a]", 1, "domains: expected `name: value` pairs"),
        ("domains: {staging: }", 1, "the section of staging: expected"),
        ("images: r.example/a:1", 1, "images: expected `name: value` pairs"),
        ("org: 12", 1, "org: YAML reads this as a int"),
        ("org: no", 1, "org: YAML reads this as a bool"),
        ("org:", 1, "org: YAML reads this as a null"),
        ("project: 1.10", 1, "project: YAML reads this as a float"),
        ("1: a", 1, "a name in the file: YAML reads this as a int"),
        ("insecure: 'true'", 1, "insecure: expected true or false"),
        ("insecure: 1", 1, "insecure: expected true or false"),
        ("insecure: [true]", 1, "insecure: expected true or false"),
        ("store: [a]", 1, "store: expected a text"),
        ("store: dist/flyte", 1, "store: a store is given as a URI"),
        ("store: ftp://x/y", 1, "store: ftp://"),
        ("endpoint: h.example/path", 1, "endpoint: an endpoint is a host"),
        ("registry: https://h", 1, "registry: a registry is a host"),
        ("org: a/b", 1, "cannot be an org"),
        ("project: ..", 1, "cannot be a project"),
        ("domains: {.a: {}}", 1, "cannot be a domain"),
        ("domains: {a/b: {}}", 1, "a name in domains holds"),
        ("images: {.a: r.example/a:1}", 1, "the name of an image"),
        ("images: {a: trainer}", 1, "images[a]: 'trainer' is not an image"),
        ("flyte_config: ''", 1, "flyte_config: expected a path"),
        ('flyte_config: "a\\nb"', 1, "holds a line break"),
        ("org: &a x\nproject: *a", 1, "anchors and aliases"),
        ("<<: {org: x}", 1, "a name in the file: YAML reads this as a merge"),
        ("org: !!python/object/apply:os.system [x]", 1, "tags (!)"),
        ("!!map {}", 1, "tags (!)"),
        ("org: !!str x", 1, "tags (!)"),
        ("org: a\n---\norg: b", 2, "a second document"),
        ("org: [a\nx: b", 2, "not YAML"),
        ("org: a\n\tx: b", 2, "not YAML"),
        ("org: 'a", 1, "not YAML"),
        pytest.param("k: a\n" * 20_000, 2000, "too many", id="many names"),
        pytest.param("x: [" + "a," * 20_000 + "]", 1, "too many", id="a long list"),
        pytest.param("x: " + "[" * 5000, 1, "nested too deeply", id="many lists"),
        pytest.param("x: " + "{a: " * 5000, 1, "nested too deeply", id="many mappings"),
    ],
)
def test_anything_else_is_an_error_with_its_line(text, line, said):
    with pytest.raises(InvalidData) as error:
        read_config(text.encode(), "ops/deploy.yaml")
    assert str(error.value).startswith(f"ops/deploy.yaml:{line}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("text", [b"\xff\xfe\xff", b"org: \x00", b"\xc3", b"x: \x1b[31m"])
def test_what_is_no_text_is_refused_and_not_repeated(text):
    with pytest.raises(InvalidData) as error:
        read_config(text, "deploy.yaml")
    assert str(error.value).startswith("deploy.yaml")
    assert str(error.value).isprintable()


def test_a_file_too_long_for_settings_is_refused_before_it_is_parsed():
    with pytest.raises(InvalidData, match="too long"):
        read_config(b"#" * (1 << 19), "deploy.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "store: s3://key:hunter2@bucket/x",
        "endpoint: https://user:hunter2@h.example",
        "registry: user:hunter2@h.example",
        "images: {a: 'user:hunter2@h.example/a:1'}",
        "images: {'user:hunter2@h/a': r.example/a:1}",
        "'s3://user:hunter2@h': x",
        "'s3://user:hunter2@h': x\n's3://user:hunter2@h': x",
        "store: s3://user:hunter2@h: x",
        "store: 's3://user:hunter2@h",
        "domains: {'u:hunter2@h': {}}",
        "store: &hunter2 x",
        "store: !hunter2 x",
    ],
)
def test_a_password_is_refused_and_not_repeated(text):
    with pytest.raises(InvalidData) as error:
        read_config(text.encode(), "deploy.yaml")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.replace(b'"acme"', b'"a/b"'),
        lambda document: document.replace(b'"production"', b'"../x"'),
        lambda document: document.replace(b"ghcr.io/org/server:1", b"server"),
        lambda document: document.replace(b'"org"', b'"orgs"', 1),
        lambda document: document.replace(b"file:///srv/bikes", b"s3://u:p@b"),
        lambda document: document.replace(b'"insecure": true', b'"insecure": 1'),
        lambda document: document.replace(b'"domains": {', b'"domains": {"x": [],'),
    ],
)
def test_json_that_was_changed_is_checked_again(change):
    document = read_config(EXAMPLE, "deploy.yaml").to_json()
    assert change(document) != document
    with pytest.raises(InvalidData, match=r"^Y\.json"):
        DeployConfig.from_json(change(document), "Y.json")


def test_the_command_writes_json_for_the_rules(tmp_path):
    (tmp_path / "deploy.yaml").write_bytes(EXAMPLE)
    output = tmp_path / "Y.json"
    code = main(["deploy-config", "--file", str(tmp_path / "deploy.yaml"), "--output", str(output)])
    assert code == 0
    assert DeployConfig.from_json(output.read_bytes(), "x") == read_config(EXAMPLE, "x")


@pytest.mark.parametrize(("content", "said"), [(b"org: [", "deploy.yaml:"), (None, "No such file")])
def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path, capsys, content, said):
    if content is not None:
        (tmp_path / "deploy.yaml").write_bytes(content)
    output = tmp_path / "Y.json"
    arguments = ["--file", str(tmp_path / "deploy.yaml"), "--output", str(output)]
    assert main(["deploy-config", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_the_json_is_read_without_a_yaml_reader():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['yaml'] = None;"
        "from flyte_pack.deploy.config import DeployConfig;"
        "print(DeployConfig.from_json(DeployConfig().to_json(), 'x') == DeployConfig())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, SOURCE_ROOT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
