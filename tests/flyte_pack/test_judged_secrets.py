"""Our table of secrets, against the detectors of detect-secrets, and its baselines in our hands."""

from __future__ import annotations

import json
import subprocess
from hashlib import sha1
from pathlib import Path

import pytest

from flyte_pack.secret_rules import find_secrets
from tests.support.fake_secrets import FAKES
from tests.support.flyte_env import environment

LOCK = Path(__file__).parents[2] / "build-support/locks/detect-secrets.lock"
# Those of its detectors that know a form. The others guess, by randomness or by `password =`.
DETECTORS = (
    *("AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "GitHubTokenDetector"),
    *("GitLabTokenDetector", "JwtTokenDetector", "NpmDetector", "OpenAIDetector"),
    *("PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector"),
    *("SquareOAuthDetector", "StripeDetector", "TwilioKeyDetector"),
)
PROGRAM = """
import json, sys
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings
files, detectors = sys.argv[1:-1], sys.argv[-1].split()
secrets = SecretsCollection()
with transient_settings({"plugins_used": [{"name": name} for name in detectors]}):
    for file in files:
        secrets.scan_file(file)
print(json.dumps({"results": secrets.json()}))
"""
# What it finds and we do not, and why.
THEIRS_ALONE = {
    "https://joe:hunter2@example.com/": "a host that is nowhere",
    "postgresql://admin:s3cr3t-value@localhost:5432/prod": "a login of a developer's own machine",
    'if line.startswith("-----BEGIN RSA '
    + 'PRIVATE KEY-----"):': "code that only names the first line",
}


@pytest.fixture(scope="module")
def judge() -> list[str]:
    return [str(environment(LOCK)), "-I", "-c", PROGRAM]


def judged(judge: list[str], directory: Path, texts: list[str]) -> list[list[dict[str, object]]]:
    """What detect-secrets finds in each of the texts."""
    files = [directory / f"{number}.txt" for number in range(len(texts))]
    for file, text in zip(files, texts):
        file.write_text(text + "\n")
    done = subprocess.run(
        [*judge, *map(str, files), " ".join(DETECTORS)], capture_output=True, text=True, check=True
    )
    results = json.loads(done.stdout)["results"]
    return [results.get(str(file), []) for file in files]


def test_what_its_detectors_find_we_find_and_their_hashes_are_ours(judge, tmp_path: Path):
    texts = [text for texts in FAKES.values() for text in texts]
    agreed = 0
    for text, theirs in zip(texts, judged(judge, tmp_path, texts)):
        ours = find_secrets(f"{text}\n".encode())
        assert ours, text
        hashes = {one for found in ours for one in found.hashes}
        if theirs:
            assert hashes & {str(row["hashed_secret"]) for row in theirs}, (text, theirs)
            agreed += 1
    assert agreed >= 35


def test_what_they_find_and_we_do_not_is_explained(judge, tmp_path: Path):
    for text, theirs in zip(THEIRS_ALONE, judged(judge, tmp_path, list(THEIRS_ALONE))):
        assert theirs
        assert not find_secrets(text.encode())


def test_a_hash_is_that_of_the_secret():
    (text,) = FAKES["hugging-face-token"]
    (found,) = find_secrets(text.encode())
    assert sha1(text.partition("=")[2].encode()).hexdigest() in found.hashes
