"""Signatures over a manifest, made with a throw-away key by the command that the documents name."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from preprocess_jobs import INPUTS, config, error_line

from sft_shards.formats.errors import UsageError
from sft_shards.preprocess.directories import signature
from sft_shards.preprocess.job import run

pytestmark = pytest.mark.process


def keygen(*words):
    subprocess.run(["ssh-keygen", *map(str, words)], check=True, capture_output=True)


def sign(directory, key, namespace="sft-shards"):
    (directory / "manifest.json.sig").unlink(missing_ok=True)
    keygen("-Y", "sign", "-n", namespace, "-f", key, directory / "manifest.json")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Keys of alice and mallory, and a file that allows alice's."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory"):
        keygen("-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name)
    public = (folder / "alice.pub").read_text().split()[:2]
    (folder / "allowed").write_text(f'alice@example.org namespaces="sft-shards" {" ".join(public)}\n')
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, keys):
    output = tmp_path_factory.mktemp("made") / "out"
    run(config(INPUTS[:1], max_length=600), output, workers=1)
    sign(output, keys / "alice")
    return output


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


def test_a_signed_directory_says_by_whom(preprocess, made, keys, tmp_path):
    words = ["verify", made, "--allowed-signers", keys / "allowed"]
    status, out, _ = preprocess(*words)
    assert status == 0
    assert f"{made}: nothing wrong; signed by alice@example.org with ED25519 key SHA256:" in out
    shutil.copy(made / "manifest.json.sig", tmp_path / "apart.sig")
    assert preprocess(*words, "--signature", tmp_path / "apart.sig", "--quick", "--json")[:2] == (0, "[]\n")
    assert preprocess("verify", made)[:2] == (0, f"{made}: nothing wrong\n"), "a signature is part of the directory"


def refused(preprocess, words, match):
    status, out, _ = preprocess("verify", *words, "--json")
    findings = json.loads(out)
    assert status == 1
    assert match in findings[0]
    assert findings[0].endswith("do not use this directory")
    assert "\n" not in findings[0]


def test_another_key_is_refused(preprocess, copy, keys):
    sign(copy, keys / "mallory")
    refused(preprocess, [copy, "--allowed-signers", keys / "allowed"], "not signed by a key in")


def test_a_manifest_that_was_signed_by_nobody_is_refused(preprocess, copy, keys):
    """Shards of somebody else below a manifest whose own hash fits, with the old signature."""
    from sft_shards.formats.shards import Manifest

    Manifest.read(copy)
    raw = json.loads((copy / "manifest.json").read_text("utf-8"))
    raw["tokenizer"]["name"] = "other"
    (copy / "manifest.json").write_text(json.dumps(raw))
    status, _, err = preprocess("verify", copy, "--allowed-signers", keys / "allowed")
    assert status == 1
    assert "not as it was written" in error_line(err)
    import hashlib

    from sft_shards.formats.shards.files import json_bytes

    del raw["sha256"]
    raw["sha256"] = hashlib.sha256(json_bytes(raw)).hexdigest()
    (copy / "manifest.json").write_bytes(json_bytes(raw))
    refused(preprocess, [copy, "--allowed-signers", keys / "allowed"], "not a signature over this manifest.json")
    assert preprocess("verify", copy)[0] == 0, "nothing but the signature tells"


def test_a_signature_for_something_else_is_refused(preprocess, copy, keys):
    sign(copy, keys / "alice", namespace="git")
    refused(preprocess, [copy, "--allowed-signers", keys / "allowed"], "signature")


@pytest.mark.parametrize(
    "text", [b"", b"x" * 5000, b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_what_is_no_signature_is_refused(preprocess, copy, keys, text):
    (copy / "manifest.json.sig").write_bytes(text)
    refused(preprocess, [copy, "--allowed-signers", keys / "allowed"], "not signed by a key in")


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_signature_is_a_regular_file(preprocess, copy, keys, tmp_path, kind):
    path = copy / "manifest.json.sig"
    os.rename(path, tmp_path / "moved")
    path.symlink_to(tmp_path / "moved") if kind == "link" else os.mkfifo(path)
    status, out, _ = preprocess("verify", copy, "--allowed-signers", keys / "allowed", "--json")
    assert status == 1
    assert any(f"is a {'link' if kind == 'link' else 'FIFO'}" in finding for finding in json.loads(out))


def test_what_is_missing_is_named(preprocess, copy, keys, tmp_path):
    (copy / "manifest.json.sig").unlink()
    for words, match in (
        (["--allowed-signers", keys / "allowed"], "ssh-keygen -Y sign -n sft-shards -f KEY"),
        (["--allowed-signers", tmp_path / "none"], "no such file"),
        (["--signature", keys / "allowed"], "name those that may sign with --allowed-signers"),
    ):
        status, _, err = preprocess("verify", copy, *words)
        assert (status, match in error_line(err)) == (2, True)


def test_without_openssh(monkeypatch, made, keys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ssh-keygen: not on this machine"):
        signature.signer(made, keys / "allowed")
