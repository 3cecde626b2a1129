"""What must not ship is refused when it is packed, with what to change, and is never repeated."""

from __future__ import annotations

import json
import logging
from hashlib import sha1
from pathlib import Path

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.fake_secrets import FAKES, PRIVATE_KEY
from tests.support.flyte_images import TASK, app, image, image_options
from tests.support.flyte_rules import RuleRoot

AWS = FAKES["aws-access-key"][0]
KEY = AWS[7:-1]
APP = {
    "app/BUILD": 'python_sources(name="lib")\nflyte_task(name="t", entry_point="w.py:train")\n',
    "app/w.py": f"import lib.read\n{TASK}",
    "lib/BUILD": "python_sources()\n",
    "lib/read.py": f"import os\n{AWS}\n",
}


def with_fields(fields: str) -> dict[str, str]:
    return {**APP, "app/BUILD": APP["app/BUILD"].replace('train")', f'train", {fields})')}


def told(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_key_is_refused_with_target_file_line_and_rule(root: RuleRoot):
    root.write(APP)
    said = root.refusal("app:t")
    assert said.startswith("app:t: the bundle would ship what looks like secrets:")
    assert "\n  * lib/read.py:2: aws-access-key (owner: lib/read.py)\n" in said
    assert "allow_secrets" in said
    assert "pragma: allowlist secret" in said
    assert KEY[:8] not in said


def test_the_page_shows_what_it_says(root: RuleRoot):
    page = Path(__file__).parents[2] / "docs/guards.md"
    shown = page.read_text().partition("```\n")[2].partition("```")[0]
    root.write(
        {
            "services/ml/BUILD": """
                python_sources(name="lib", dependencies=[":settings"])
                file(name="settings", source=".env")
                flyte_task(name="train", entry_point="w.py:train")
                """,
            "services/ml/w.py": f"import libs.features.client\n{TASK}",
            "services/ml/.env": "",
            "libs/features/BUILD": "python_sources()",
            "libs/features/client.py": "#\n" * 11 + AWS,
        }
    )
    assert root.refusal("services/ml:train").startswith(f"{shown.strip()}\n")


def test_each_is_named_once_and_in_order(root: RuleRoot):
    more = "".join(f"x{n} = {texts[0]!r}\n" for n, (_, texts) in enumerate(sorted(FAKES.items())))
    root.write({**APP, "app/w.py": f"import lib.read\n{TASK}{more}"})
    said = root.refusal("app:t")
    assert "app/w.py:5: 1password-token" in said
    assert " more\n" in said
    for _, (text, *_) in FAKES.items():
        assert text not in said


@pytest.mark.parametrize(
    "edit",
    [
        {"lib/read.py": f"import os\n{AWS}  # pragma: allowlist secret\n"},
        with_fields("allow_secrets=['//lib/read.py']"),
        with_fields("allow_secrets=['//lib/*.py']"),
        with_fields("allow_secrets=['../lib/read.py']"),
        with_fields("allow_secrets=['//**']"),
    ],
)
def test_what_is_allowed_ships(root: RuleRoot, caplog, edit):
    root.write({**APP, **edit})
    assert "lib/read.py" in root.bundle("app:t").paths
    assert told(caplog) == []


def test_another_file_is_not_allowed(root: RuleRoot):
    root.write(with_fields("allow_secrets=['*.py', '//lib/other.py']"))
    assert "lib/read.py:2" in root.refusal("app:t")


@pytest.mark.parametrize("glob", ["w.py", "//w.py", "./w.py", "*.py"])
def test_a_target_at_the_build_root_allows_its_files(root: RuleRoot, glob):
    root.write(
        {
            "BUILD": f"""
        python_sources(name="lib")
        flyte_task(name="t", entry_point="w.py:train", allow_secrets=[{glob!r}])
        """,
            "w.py": f"{TASK}{AWS}\n",
        }
    )
    assert root.bundle("//:t").paths == {"w.py"}


@pytest.mark.parametrize(
    ("glob", "said"),
    [
        ("../../x.py", "app:t: `allow_secrets`: '../../x.py' leaves the build root"),
        ("///x.py", "app:t: `allow_secrets`: '///x.py' leaves the build root"),
        ("a[", "app:t: `allow_secrets` has 'app/a[', which is no glob from the build root"),
    ],
)
def test_a_glob_that_is_none_is_refused(root: RuleRoot, glob, said):
    root.write(with_fields(f"allow_secrets=['x.py', {glob!r}]"))
    assert said in root.refusal("app:t")


@pytest.mark.parametrize("option", ["allow_secrets", "all_excludes"])
@pytest.mark.parametrize("glob", ["//lib/read.py", "a["])
def test_a_glob_of_an_option_that_is_none_is_refused(root: RuleRoot, option, glob):
    root.write(with_fields("copy_style='all'"))
    root.options(f"--flyte-{option.replace('_', '-')}=+['x', {glob!r}]")
    with pytest.raises(ExecutionError) as caught:
        root.package("app:t")
    assert f"`[flyte].{option}` has {glob!r}, which is no glob" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "ships", "warns"),
    [
        ("--flyte-secrets=error", False, False),
        ("--flyte-secrets=warn", True, True),
        ("--flyte-secrets=ignore", True, False),
        ("--flyte-allow-secrets=['lib/*']", True, False),
    ],
)
def test_options_decide(root: RuleRoot, caplog, option, ships, warns):
    root.write(APP)
    root.options(option)
    if ships:
        assert "lib/read.py" in root.bundle("app:t").paths
    else:
        root.refusal("app:t")
    assert ["lib/read.py:2: aws-access-key" in line for line in told(caplog)] == [True] * warns


def baseline(*rows: dict[str, object]) -> str:
    return json.dumps({"version": "1.5.0", "results": {"lib/read.py": rows}})


def test_a_baseline_allows_what_it_lists(root: RuleRoot):
    row = {"hashed_secret": sha1(KEY.encode()).hexdigest(), "line_number": 99}
    root.write({**APP, "known.json": baseline(row)})
    root.options("--flyte-secrets-baseline=known.json")
    assert "lib/read.py" in root.bundle("app:t").paths
    for rows in ([{**row, "is_secret": True}], [{**row, "hashed_secret": "0" * 40}], []):
        root.write({"known.json": baseline(*rows)})
        assert "lib/read.py:2" in root.refusal("app:t")


def test_a_baseline_of_what_is_gone_is_told_of(root: RuleRoot, caplog):
    row = {"hashed_secret": sha1(KEY.encode()).hexdigest()}
    paths = ("lib/read.py", "lib/gone.py", ".github/unseen.yml")
    root.write({**APP, "old.json": json.dumps({"results": {path: [row] for path in paths}})})
    root.options("--flyte-secrets-baseline=old.json")
    root.package("app:t")
    (said,) = [line for line in told(caplog) if "old.json" in line]
    assert "has what is not in the repository: \n  * lib/gone.py\n" in said


def test_what_allows_nothing_is_told_of(root: RuleRoot, caplog):
    root.write(with_fields("allow_secrets=['//lib/read.py', '//lib/red.py', 'w.py', 'env:X']"))
    root.package("app:t")
    assert [line for line in told(caplog) if "allow_secrets" in line] == [
        f"app:t: `allow_secrets` has {entry!r}, which allows nothing: no file of the bundle that it "
        "matches holds what looks like a secret. Take it out, so that it hides none that comes."
        for entry in ("//lib/red.py", "w.py")
    ]


def test_variables_that_a_task_allows_are_in_its_link(root: RuleRoot):
    root.write(with_fields("allow_secrets=['//lib/*', 'env:A', 'env:B']"))
    assert root.package("app:t").link.allowed_variables == ("A", "B")
    root.write(with_fields("allow_secrets=['//lib/*']"))
    assert root.package("app:t").link.allowed_variables is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"results": [1]}', '{"results": {"a": [1]}}'])
def test_a_broken_baseline_is_refused_with_how_to_write_one(root: RuleRoot, content):
    root.write({**APP, "known.json": content})
    root.options("--flyte-secrets-baseline=known.json")
    assert "`detect-secrets scan path/to/code > known.json` writes one" in root.refusal("app:t")
    root.options("--flyte-secrets-baseline=other.json")
    assert "'other.json', and there is no such file" in root.refusal("app:t")


ALL = {
    **APP,
    "lib/read.py": "",
    "app/BUILD": 'python_sources(name="lib")\n'
    'flyte_task(name="t", entry_point="w.py:train", copy_style="all")\n',
}


def test_files_of_credentials_are_refused_by_their_names(root: RuleRoot):
    root.write({**ALL, "app/deep/credentials.json": "{}", "app/x.tfstate": "{}", "app/a.p12": "\0"})
    said = root.refusal("app:t")
    assert "\n  * app/a.p12: a key store\n" in said
    assert "\n  * app/deep/credentials.json: credentials of a cloud\n" in said
    assert "\n  * app/x.tfstate: state of Terraform\n" in said
    assert ".flyteignore" in said


def test_an_env_file_does_not_ship(root: RuleRoot):
    root.write({**ALL, "app/.env": "TOKEN=x\n"})
    assert "app/.env" not in root.bundle("app:t").paths
    root.options("--flyte-all-excludes=[]")
    assert "\n  * app/.env: a .env file\n" in root.refusal("app:t")
    root.write({"app/.flyteignore": ".env\n"})
    assert "app/.env" not in root.bundle("app:t").paths


def test_a_declared_env_file_is_refused(root: RuleRoot):
    root.write(
        {
            **APP,
            "lib/read.py": "",
            "app/BUILD": f'{APP["app/BUILD"]}files(name="env", sources=[".env"])\n'.replace(
                'train")', 'train", dependencies=[":env"])'
            ),
            "app/.env": "A=b\n",
        }
    )
    assert "app/.env: a .env file (owner: app/.env:env)" in root.refusal("app:t")


def test_a_certificate_ships_and_its_key_does_not(root: RuleRoot):
    certificate = PRIVATE_KEY.replace("RSA PRIVATE KEY", "CERTIFICATE")
    root.write({**ALL, "app/ca.pem": certificate})
    assert "app/ca.pem" in root.bundle("app:t").paths
    root.write({"app/ca.pem": f"{certificate}\n{PRIVATE_KEY}\n"})
    assert "app/ca.pem:5: private-key" in root.refusal("app:t")


def test_a_secret_in_the_name_of_a_file_is_refused_without_the_name(root: RuleRoot):
    token = FAKES["docker-token"][0]
    root.write({**ALL, f"app/{token}.txt": ""})
    said = root.refusal("app:t")
    assert "the name of a file in the bundle: docker-token" in said
    assert token[:14] not in said


def test_a_large_file_is_told_of(root: RuleRoot, caplog):
    root.write({**ALL, "app/model.bin": b"\0" * 2_500_000})
    root.package("app:t")
    assert told(caplog) == []
    root.options("--flyte-large-file=2 MB")
    root.package("app:t")
    (line,) = told(caplog)
    assert line.startswith("app:t: app/model.bin has 2.5 MB, which the bundle takes along")
    assert "[flyte].large_file" in line
    root.options("--flyte-large-file=much")
    assert "`[flyte].large_file` is 'much'; give a size such as `50 MB`" in root.refusal("app:t")


# --- images ---------------------------------------------------------------------------------------


@pytest.fixture
def images(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def test_a_copied_file_is_refused(images: RuleRoot):
    fields = "source_files=[{'src': 's.json'}], source_folders=[{'src': 'assets'}]"
    images.write({**image(fields), "app/s.json": f"x\n{AWS}", "app/assets/id_rsa": ""})
    said = images.refusal("app:image")
    assert said.startswith("app:image: the image would ship what looks like secrets:")
    assert "\n  * app/assets/id_rsa: a private key\n" in said
    assert "\n  * app/s.json:2: aws-access-key\n" in said
    assert KEY[:8] not in said
    images.write(image(f"{fields}, allow_secrets=['s.json', 'assets/**']"))
    images.package("app:image")


def test_code_in_an_image_is_refused(images: RuleRoot):
    images.write({**app("code=True"), "app/lib.py": f"value = 1\n{AWS}\n"})
    assert "\n  * app/lib.py:2: aws-access-key\n" in images.refusal("app:image")


@pytest.mark.parametrize("field", ["env", "labels"])
def test_a_variable_of_an_image_is_refused(images: RuleRoot, caplog, field):
    (login, *_) = FAKES["login-in-url"]
    fields = f"{field}={{'DB': {login!r}, 'OTHER': 'x'}}"
    images.write(image(fields))
    said = images.refusal("app:image")
    assert f"\n  * `{field}`: DB: login-in-url\n" in said
    assert login[:24] not in said
    images.write(image(f"{fields}, allow_secrets=['env:DB', 'env:OTHER', '*.py']"))
    images.package("app:image")
    (unused,) = [line for line in told(caplog) if "allow_secrets" in line]
    assert "has 'env:OTHER', which allows nothing: no variable or label of that name" in unused
    images.write(image(fields))
    images.options("--flyte-allow-secrets=+['env:DB']")
    images.package("app:image")
