"""Removes secrets from texts: known values in any encoding, and values whose name marks them as secret."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "[masked]"
SHORTEST = 4
"""A shorter value is not a secret, and masking it would make texts unreadable."""
STABLE = 6
"""Characters of an encoded value that must depend on it alone for it to be searched."""
NAME = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
SECRET_NAME = re.compile(NAME, re.I)
SECRET_FILE = re.compile(r"(?:^|/)(?:[^/]*\.token|stage\.env|[^/]*\.key|id_[a-z0-9]+)$")
RANDOM = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+_=-]{20,}(?:[A-Za-z0-9+/_=-]*)")
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?[\"']?(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*[=:]\s*(?P<value>.*?)\s*$")
KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
# What follows a revealing name is masked even if the value is unknown: name=VALUE, "name": "VALUE", --name VALUE.
TOLD = re.compile(
    rf"(?P<before>\b[\w.-]*{NAME}[\w.-]*[\"']?(?:\s*[=:]\s*|\s+(?=[\"']))[\"']?)(?P<value>[^\s\"',;}}&]{{4,}})", re.I
)
HEADER = re.compile(
    r"(?P<before>\b(?:Authorization|apikey)\b[\"']?\s*[=:]\s*[\"']?(?:(?:Token|Bearer|Basic)\s+)?)(?P<value>[^\s\"',;}]{4,})",
    re.I,
)
ADDRESS = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]+:)(?P<value>[^\s/@]+)(?=@)", re.I)


def secret_values(text: str) -> set[str]:
    """Return the secrets of a file: a token alone, or those among ``NAME=VALUE`` lines."""
    found = {text.strip()} if len(text.split()) == 1 else set()
    for line in KEY_BLOCK.sub("", text).splitlines():
        match = ASSIGNMENT.match(line)
        value = (match["value"] if match else line).strip().strip("\"'")
        if (match and SECRET_NAME.search(match["name"])) or RANDOM.fullmatch(value):
            found.add(value)
    for block in KEY_BLOCK.findall(text):
        found |= {line.strip() for line in block.splitlines() if "-----" not in line}
    return {value for value in found if len(value) >= SHORTEST}


def masked_file(text: str) -> str:
    """Return the text of a file that holds secrets, with only the names left."""
    names = [match["name"] for match in map(ASSIGNMENT.match, text.splitlines()) if match]
    return "".join(f"{name}={MASK}\n" for name in names) or f"{MASK}\n"


def forms(value: str) -> set[str]:
    """Return all forms of a secret to search for: as it is, escaped, in a URL, in base64 at any offset."""
    data = value.encode()
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    found |= {quote(value), quote(value, safe=""), quote_plus(value), data.hex(), data.hex().upper()}
    for before in range(3):
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + data).decode().rstrip("=")
            # The characters at both ends also depend on the neighbouring bytes.
            last = 8 * (before + len(data)) // 6
            own = encoded[(8 * before + 5) // 6 : last]
            if len(own) >= STABLE:
                found.add(own)
    return {form for form in found if len(form) >= SHORTEST}


class Masker:
    """Masks secrets in texts."""

    def __init__(self, values: Iterable[str]) -> None:
        known = {form for value in values if len(value) >= SHORTEST for form in forms(value)}
        # Longest first: one form may be a prefix of another.
        ordered = sorted(known, key=lambda form: (-len(form), form))
        self.known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def mask(self, text: str) -> str:
        """Return the text without secrets."""
        if self.known:
            text = self.known.sub(MASK, text)
        text = KEY_BLOCK.sub(MASK, text)
        for pattern in (HEADER, TOLD, ADDRESS):
            text = pattern.sub(lambda match: match["before"] + MASK, text)
        return text
