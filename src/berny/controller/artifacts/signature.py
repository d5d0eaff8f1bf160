"""Detached OpenPGP signatures, verified by GnuPG with a separate keyring that holds what the vendor publishes.

The pinned fingerprint is the primary key's. Vendors sign with subkeys that expire and are replaced, so an archive of last
year has the signature of an expired subkey, which is valid if it was made before the subkey expired.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from berny.controller.artifacts.errors import ToolMissing, WrongSignature

STATUS = "[GNUPG:] "
UNTRUSTED = {
    "EXPKEYSIG": "was signed after the key had expired",
    "REVKEYSIG": "was signed by a key that is revoked",
    "EXPSIG": "has a signature that has expired",
}


class Keyring:
    """A vendor's key; any key but the pinned one is refused."""

    def __init__(self, home: Path, key: Path, url: str, fingerprint: str) -> None:
        """Import the key from the file ``key``, downloaded from ``url``; ``home`` is a folder to create.

        Raises:
            ToolMissing: gpg is not installed.
            WrongSignature: it is not a key, or another one.
        """
        if not shutil.which("gpg"):
            raise ToolMissing("gpg", "gpg")
        self.home, self.fingerprint = home, fingerprint
        home.mkdir(mode=0o700)
        self._gpg("--import", str(key))
        self.expires = self._expiries()
        """Expiry of each primary key and subkey by fingerprint (seconds since the epoch), or None."""
        if fingerprint not in self.expires:
            found = f"holds the key {next(iter(self.expires))}" if self.expires else "holds no key"
            raise WrongSignature(url, fingerprint, found)

    def verify(self, archive: Path, signature: Path, url: str) -> None:
        """Verify the signature of an archive, downloaded from ``url``.

        Raises:
            WrongSignature: it is not signed by the key, or was changed or truncated since.
        """
        reasons = []
        for words in self._signatures(archive, signature):
            if "BADSIG" in words:
                reasons.append("is not what was signed: it was changed, or cut short on its way")
            elif "NO_PUBKEY" in words:
                reasons.append(f"is signed by another key ({words['NO_PUBKEY'][0]})")
            elif "VALIDSIG" in words:
                signer, made, primary = (words["VALIDSIG"][number] for number in (0, 2, 9))
                if primary != self.fingerprint:
                    reasons.append(f"is signed by another key ({primary})")
                elif "GOODSIG" in words or ("EXPKEYSIG" in words and self._made_in_time(signer, int(made))):
                    return
                else:
                    reasons += [told for word, told in UNTRUSTED.items() if word in words]
        raise WrongSignature(url, self.fingerprint, ", ".join(reasons) or "has no signature that can be read")

    def _made_in_time(self, signer: str, made: int) -> bool:
        return all(made <= (self.expires[key] or made) for key in (signer, self.fingerprint))

    def _expiries(self) -> dict[str, int | None]:
        expires: dict[str, int | None] = {}
        moment = ""
        # The format is doc/DETAILS of GnuPG: `pub` and `sub` have the expiry in field 7, the `fpr` after them the name in 10.
        for line in self._gpg("--list-keys", "--with-colons", "--with-subkey-fingerprint"):
            fields = line.split(":")
            if fields[0] in ("pub", "sub"):
                moment = fields[6]
            elif fields[0] == "fpr":
                expires[fields[9]] = int(moment) if moment else None
        return expires

    def _signatures(self, archive: Path, signature: Path) -> list[dict[str, list[str]]]:
        """Return gpg's status of each signature of the file: keywords and their arguments."""
        found: list[dict[str, list[str]]] = []
        for line in self._gpg("--verify", str(signature), str(archive)):
            if line.startswith(STATUS):
                word, *arguments = line.removeprefix(STATUS).split(" ")
                found += [{}] if word == "NEWSIG" else []
                if found:
                    found[-1][word] = arguments
        return found

    def _gpg(self, *words: str) -> list[str]:
        command = [
            "gpg",
            "--homedir",
            str(self.home),
            "--batch",
            "--no-tty",
            "--no-autostart",
            "--no-auto-key-retrieve",
        ]
        command += ["--trust-model", "always", "--status-fd", "1", *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        return done.stdout.splitlines()
