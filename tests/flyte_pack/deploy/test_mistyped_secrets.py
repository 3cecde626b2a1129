"""A password or a signature that is typed or configured by mistake is refused, and not repeated."""

from __future__ import annotations

from functools import partial

import pytest

from flyte_pack import names
from flyte_pack.deploy import options
from flyte_pack.deploy.config import TEXTS, Settings
from flyte_pack.errors import UserError
from flyte_pack.image.run import parse_mount
from flyte_pack.oci.reference import Reference
from flyte_pack.registry.plan import check_host, check_tag, parse_name
from flyte_pack.store.uris import check_store_uri
from flyte_shim import shown
from tests.support.deploying import BuildRoot
from tests.support.mistyped import MISTYPED, SECRET

WORD = "planted-"
URI = "://someone:planted-typed-9d2e@host.example/a?X-Amz-Signature=planted-b"


@pytest.mark.parametrize(
    "typed",
    [
        ("--store", f"s3{URI}"),
        ("--store", f"https{URI}"),
        ("--store", "abfss://c:planted-typed@account.dfs.core.windows.net/a"),
        (f"--stroe=s3{URI}",),
        ("--endpoint", f"https{URI}"),
        ("--registry", f"https{URI}"),
        ("--registry", "someone:planted-typed@host.example/a"),
        ("--image", f"scorer=https{URI}"),
        ("--image", "scorer=someone:planted-typed@host.example/a:1"),
        ("--image", f"https{URI}"),
        ("--org", f"https{URI}"),
        ("--project", f"https{URI}"),
        ("--version", f"https{URI}"),
        ("--config", f"https{URI}"),
        ("--flyte-config", f"https{URI}"),
        ("--keep", f"https{URI}"),
        ("--output", f"https{URI}"),
        ("--copy-style", f"https{URI}"),
        ("--upload", f"https{URI}"),
        ("--root-dir", f"https{URI}"),
        ("rollback", f"https{URI}"),
        ("show", "a", f"https{URI}"),
        (f"https{URI}",),
    ],
    ids=" ".join,
)
def test_a_password_that_is_typed_is_refused_and_not_repeated(tmp_path, typed):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    done = root.deploy(*typed)
    assert done.code in (1, 2), done.out
    assert WORD not in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "field",
    ["store", "endpoint", "flyte_config", "org", "project", "domain", "version", "copy_style"],
)
def test_a_password_in_a_field_is_refused_and_not_repeated(tmp_path, field):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    done = root.deploy(plan={field: f"s3{URI}"}).failed(1)
    assert WORD not in done.out + done.err


@pytest.mark.parametrize(
    "text",
    [
        f"store: s3{URI}",
        f"endpoint: https{URI}",
        f"registry: https{URI}",
        f"images: {{scorer: 'https{URI}'}}",
        f"images: {{'https{URI}': a}}",
        f"org: https{URI}",
        "password: planted-in-yaml",
        "planted-in-yaml: 1",
        "store: [planted-in-yaml",
        "store: {planted-in-yaml: 1}",
        "insecure: planted-in-yaml",
        "domains: {'planted-in-yaml@': {}}",
        "store: &planted-in-yaml a",
        "store: !planted-in-yaml a",
        "store: 'planted-in-yaml\n",
        "- planted-in-yaml",
    ],
)
def test_a_password_in_settings_is_refused_and_not_repeated(tmp_path, text):
    root = BuildRoot(tmp_path / "build")
    (root.root / "deploy.yaml").write_text(text)
    done = root.run("deploy-config", "--file", "deploy.yaml", "--output", "out.json")
    assert done.code, done.out
    assert "planted-in-yaml" not in done.out + done.err.replace(
        "unknown setting 'planted-in-yaml'", ""
    )
    assert "planted-typed" not in done.out + done.err
    assert not (root.root / "out.json").exists()


READERS = {
    **{f"the setting {name}": partial(Settings.read, name, what=name) for name in TEXTS},
    "an image": names.check_image,
    "a reference": Reference.parse,
    "a repository": parse_name,
    "a tag": check_tag,
    "a host": check_host,
    "a store": check_store_uri,
    "a mount": parse_mount,
    "an option": lambda typed: options.parse([f"--stroe={typed}"]),
    "a command": lambda typed: options.parse([typed]),
    "a number": lambda typed: options.parse(["prune", "--keep", typed]),
    "a choice": lambda typed: options.parse(["--copy-style", typed]),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_of_what_is_typed_repeats_a_mistyped_address(reader):
    told = []
    for typed in MISTYPED:
        try:
            READERS[reader](typed)
        except UserError as error:
            told.append(shown.message(str(error)))
    assert told or reader in ("the setting flyte_config", "the setting root_dir")
    assert not [message for message in told if SECRET in message]
