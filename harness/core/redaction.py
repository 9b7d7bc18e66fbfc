"""Secrets are taken out of whatever is printed or kept: one rule for errors, logs, tracebacks, tags.

A secret is the value of a variable of the environment that is called like one, the password in a URL, a token
of a known form, and what is assigned to a name that is called like one.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from functools import partial

HIDDEN = "[secret]"
# What is shorter is as likely a word of the text.
SHORTEST = 6
# Of a key of several lines each is a secret, but such as `-----`.
SHORTEST_LINE = 16
_CALLED_SECRET = (
    r"(?:token|passw(?:or)?d|passphrase|secret|credentials?|api_?key|access_?key(?:_?id)?|private_?key)"
)
_NAME = re.compile(rf"{_CALLED_SECRET}$|_key$|_pass$", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""((?:\b|_|(?<=[a-z])){_CALLED_SECRET}["']?\s*[=:]\s*["']?)(?!\[secret\])([^\s"'&,;{{}}]{{{SHORTEST},}})""",
    re.IGNORECASE,
)
# The user `git` of ssh is everybody's.
_IN_URL = re.compile(r"(?<=://)(?!git@)[^/\s@\"'<>]+@")
_PERCENT = re.compile("%[0-9A-F]{2}")
_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-(?=[\w-]*\d)[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|A(?:KI|SI)A[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|(?<=\b[Bb]earer )[\w.~+/=-]{6,}|(?<=\b[Bb]asic )[A-Za-z0-9+/=]{12,}"
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with every secret in it replaced by `HIDDEN`.

    Parameters
    ----------
    environment : whose variables hold secrets; None is this process's own
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    text = _IN_URL.sub(f"{HIDDEN}@", text)
    text = _FORMS.sub(HIDDEN, text)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def holds_secret(text: str, environment: Mapping[str, str] | None = None, *, prose: bool = False) -> bool:
    """Whether a text that a person wrote holds a secret, so that it can be refused instead of altered.

    What the environment hides counts where it is no word, and in `prose` what has a secret's form or place where it
    has a digit: "count each token: speaker" has none.
    """
    hidden = _secrets(os.environ if environment is None else environment)
    if any(secret in text for secret in hidden if not _is_word(secret)):
        return True
    if _IN_URL.search(text):
        return True
    found = [one[0] for one in _FORMS.finditer(text)] + [one[2] for one in _ASSIGNED.finditer(text)]
    return any(not prose or any(map(str.isdigit, one)) for one in found)


def _is_word(secret: str) -> bool:
    """Whether a secret is so weak that it stands in ordinary text."""
    return len(secret) < 8 or (secret.isalpha() and len(secret) < 16)


def is_called_secret(name: str) -> bool:
    """Whether a variable or key is called like one that holds a secret: `DB_PASSWORD`, `api_key`, `hf_token`."""
    return bool(_NAME.search(name))


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets of an environment, as they are and as they stand in URLs, longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if is_called_secret(name):
            found.add(value)
        if "://" in value and "@" in value:
            found.add(_password(value))
    if not found:
        return []
    from urllib.parse import quote, quote_plus, unquote  # a sixth of what `harness --help` takes

    found |= {line for one in found for line in one.splitlines() if len(line) >= SHORTEST_LINE}
    quoted = {how(one) for one in found for how in (quote, partial(quote, safe=""), quote_plus)}
    lower = {_PERCENT.sub(lambda code: code[0].lower(), one) for one in quoted}
    spelled = found | quoted | lower | {unquote(one) for one in found}
    return sorted((one for one in spelled if len(one) >= SHORTEST), key=lambda one: (-len(one), one))


def _password(url: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


class _Redacting(io.TextIOWrapper):
    def write(self, text: str) -> int:
        super().write(redact(text))
        return len(text)


def redact_output() -> None:
    """From here on nothing that this process prints to stdout or stderr holds a secret; a second call does nothing.

    A stream that is no `io.TextIOWrapper` stays as it is.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Redacting):
            stream.flush()
            encoding, errors, by_line = stream.encoding, stream.errors, stream.line_buffering
            setattr(sys, name, _Redacting(stream.buffer, encoding, errors, line_buffering=by_line))
