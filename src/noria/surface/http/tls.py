"""The certificate a server shows: checked when it starts, and followed when its files are renewed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from noria.errors import InvalidConfig

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate chain and private key a server shows, as PEM files."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raises InvalidConfig, which names the file, unless they can be read and belong together."""
        for file in (self.certificate, self.key):
            try:
                file.read_bytes()
            except OSError as error:
                raise InvalidConfig(
                    f"the TLS file {file} cannot be read: {error.strerror}",
                    remedy="Set gateway.tls_certificate and gateway.tls_key to PEM files.",
                ) from error
        try:
            self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except OSError as error:  # ssl.SSLError is one
            raise InvalidConfig(
                f"the TLS certificate {self.certificate} and key {self.key} cannot be used: {error}",
                remedy="Give PEM files that belong together, its own certificate first, the key without a passphrase.",
            ) from error

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have ``context`` show it from the next handshake on. Raises OSError."""
        # without a word from us, OpenSSL would ask the terminal for a passphrase, and wait
        context.load_cert_chain(self.certificate, self.key, password=lambda: "")

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Another one when a file is written anew, or replaced. Raises OSError while one is missing."""
        return tuple((found.st_mtime_ns, found.st_ino) for found in (self.certificate.stat(), self.key.stat()))


class Renewal:
    """Notices that the files of a certificate were renewed; what cannot be used is said once, and the old one kept."""

    def __init__(self, tls: Tls) -> None:
        self.tls = tls
        self._stamp = self._refused = tls.stamp

    def is_due(self) -> bool:
        """Whether there is another certificate than before, which can be used."""
        try:
            stamp = self.tls.stamp
        except OSError:  # in the middle of being replaced
            return False
        if stamp == self._stamp:
            return False
        try:
            self.tls.check()
        except InvalidConfig as error:
            if stamp != self._refused:
                _log.error("tls_certificate_refused", reason=error.message)
            self._refused = stamp
            return False
        self._stamp = stamp
        _log.info("tls_certificate_renewed", certificate=str(self.tls.certificate))
        return True
