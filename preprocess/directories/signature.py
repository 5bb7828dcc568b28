"""Detached signatures over a manifest, made and checked by OpenSSH.

    ssh-keygen -Y sign -n sft-shards -f ~/.ssh/id_ed25519 DIR/manifest.json      writes DIR/manifest.json.sig
    sft-preprocess verify DIR --allowed-signers FILE

The manifest holds the hash of every other file, so a signature over it, together with `verify`, says that every byte of
the directory is as the owner of a key made it. Keys are SSH keys, which people have and exchange already; who may sign
stands in a file of the receiver's, a line for each: `alice@example.org namespaces="sft-shards" ssh-ed25519 AAAA…`
(ssh-keygen(1), ALLOWED SIGNERS). No key of ours exists, and nothing is signed by itself.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from sft_shards.formats.errors import DataError, UsageError
from sft_shards.formats.shards.contents import read_inside
from sft_shards.formats.shards.manifest import NAME, SIGNATURE

NAMESPACE = "sft-shards"
"""What a signature is for; one made for something else is refused."""
SECONDS = 60
"""A call of ssh-keygen that takes longer is taken for hung."""


def signer(directory: Path, allowed: Path, signature: Path | None = None) -> str:
    """Check the signature over a manifest, and return who made it, with the fingerprint of the key.

    Args:
        allowed: file with the keys that may sign, in OpenSSH's format "allowed signers".
        signature: the signature (default: `manifest.json.sig` in the directory).

    Raises:
        UsageError: a file is not there, or ssh-keygen is not.
        DataError: the manifest is not what was signed, or no key in `allowed` signed it.
    """
    if not allowed.is_file():
        raise UsageError(
            f"--allowed-signers {allowed}: no such file; it holds a line 'NAME ssh-ed25519 AAAA…' per signer"
        )
    where = signature or directory / SIGNATURE
    try:
        text = signature.read_bytes() if signature else read_inside(directory, SIGNATURE)
    except OSError as error:
        raise UsageError(
            f"{where}: no signature there ({error.strerror or error}); the maker of the directory writes one with "
            f"'ssh-keygen -Y sign -n {NAMESPACE} -f KEY {directory / NAME}'"
        ) from None
    try:
        manifest = read_inside(directory, NAME)
    except FileNotFoundError:
        raise DataError(f"{directory}: no {NAME}, so this is not a complete shard directory") from None
    with tempfile.NamedTemporaryFile(suffix=".sig") as copy:
        copy.write(text)
        copy.flush()
        files = "-f", str(allowed.absolute()), "-s", copy.name
        found = _ssh_keygen("find-principals", *files)
        names = found.stdout.decode("utf-8", "replace").splitlines()
        if found.returncode != 0 or not names:
            raise DataError(f"{where}: not signed by a key in {allowed} ({_reason(found)}); do not use this directory")
        done = _ssh_keygen("verify", "-n", NAMESPACE, "-I", names[0], *files, stdin=manifest)
    if done.returncode != 0:
        raise DataError(f"{where}: not a signature over this {NAME} ({_reason(done)}); do not use this directory")
    # Good "sft-shards" signature for alice@example.org with ED25519 key SHA256:…
    said = " ".join(done.stdout.decode("utf-8", "replace").split())
    return said.partition(" signature for ")[2] or names[0]


def _ssh_keygen(action: str, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", action, *words], input=stdin, capture_output=True, timeout=SECONDS, check=False
        )
    except FileNotFoundError:
        raise UsageError("ssh-keygen: not on this machine; install OpenSSH's client, 8.2 or later") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"ssh-keygen -Y {action}: no answer within {SECONDS} seconds") from None


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what ssh-keygen said, on one line."""
    return " ".join((done.stderr + done.stdout).decode("utf-8", "replace").split())[:160] or f"status {done.returncode}"
