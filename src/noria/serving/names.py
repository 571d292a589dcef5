"""Names that images and clusters take: DNS labels made of whatever things are called here."""

from __future__ import annotations

import hashlib
import re

LONGEST_LABEL = 63
_DIGEST_CHARACTERS = 8


def dns_label(name: str, *, longest: int = LONGEST_LABEL) -> str:
    """``name`` where it is a DNS label (RFC 1035) of at most ``longest`` characters, else one that only it gets.

    What is changed or cut off is stood for by a hash of the whole name, so that two names never share a label: one
    that looks like such a label itself gets a hash, too.

    >>> dns_label("churn"), dns_label("Churn model")
    ('churn', 'churn-model-3ca7b3fb')
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"n-{plain}".rstrip("-")
    if plain == name and len(name) <= longest and not _looks_hashed(name):
        return name
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_CHARACTERS // 2).hexdigest()
    return f"{plain[: longest - _DIGEST_CHARACTERS - 1].rstrip('-')}-{digest}"


def _looks_hashed(label: str) -> bool:
    return re.search(rf"-[0-9a-f]{{{_DIGEST_CHARACTERS}}}$", label) is not None
