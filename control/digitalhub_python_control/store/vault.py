"""Encrypts secrets at rest with the key in `secret.key` (AES-256-GCM)."""

from __future__ import annotations

import base64
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from digitalhub_runtime_python.errors import PlatformFault

_NONCE = 12
_KEY = 32


class Vault:
    """One key; `seal` and `open` values with it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._signing = hmac.digest(key, b"signatures", "sha256")

    def sign(self, text: str) -> str:
        """What only who has the key can make of `text`: letters, digits, `-` and `_`."""
        made = hmac.digest(self._signing, text.encode(), "sha256")
        return base64.urlsafe_b64encode(made).decode().rstrip("=")

    def seal(self, place: str, value: str) -> bytes:
        """Encrypt `value`; it opens only under the same `place` (`project/name`)."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value.encode(), place.encode())

    def open(self, place: str, sealed: bytes) -> str:
        """Decrypt what `seal` made.

        Raises:
            PlatformFault: it was made with another key, for another place, or is damaged.
        """
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place.encode())
        except (InvalidTag, ValueError):
            raise PlatformFault(
                "control/secret-key",
                f"The secret {place} cannot be decrypted with secret.key.",
                "Restore the key file that belongs to this database, or set the secret again.",
            ) from None
        return plain.decode()


def open_vault(path: Path) -> Vault:
    """The vault whose key is in the file `path`, which is made (mode 0600) where there is none.

    Raises:
        PlatformFault: the file holds no key, or others may read it.
    """
    if not path.exists():
        # Its final mode from the first moment, and complete when it gets its name. Only one server
        # works in a home, so nobody else makes one meanwhile.
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(AESGCM.generate_key(_KEY * 8))
        fresh.replace(path)
    if path.stat().st_mode & 0o077:
        raise PlatformFault(
            "control/secret-key", f"Others may read {path}.", f"Run: chmod 600 {path}"
        )
    key = path.read_bytes()
    if len(key) != _KEY:
        raise PlatformFault(
            "control/secret-key",
            f"{path} holds no key of {_KEY} bytes.",
            "Restore it from a copy; or move it away, and set the secrets again.",
        )
    return Vault(key)
