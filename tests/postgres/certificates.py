"""Certificates of one test's own: an authority, a server's and a client's, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc.demo.postgres import PASSWORD

NAMES = "subjectAltName=DNS:localhost"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.own = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", self.own.key, "-out", self.own.cert,
        )  # fmt: skip

    @property
    def cert(self) -> Path:
        """What trusts whomever it has signed."""
        return self.own.cert

    def sign(self, common_name: str, extension: str = "", password: str = "") -> Pair:
        """A new pair; with a ``password`` its key is encrypted."""
        made = Pair(self._folder / f"{common_name}.crt", self._folder / f"{common_name}.key")
        request, extensions = self._folder / "request.csr", self._folder / "extensions"
        extensions.write_text(extension)
        secret = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        _openssl(
            "req", "-new", "-newkey", "rsa:2048", *secret, "-subj", f"/CN={common_name}",
            "-keyout", made.key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-days", "2", "-in", request, "-CA", self.own.cert,
            "-CAkey", self.own.key, "-CAcreateserial", "-extfile", extensions, "-out", made.cert,
        )  # fmt: skip
        made.key.chmod(0o600)
        return made


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def serve_tls(server: Any, authority: Authority, access: str) -> None:
    """Restart a server with TLS; ``access`` are the lines of its pg_hba.conf for TCP.

    Its certificate is of ``localhost``.
    """
    pair = authority.sign("localhost", NAMES)
    owner = server.data_dir.stat()
    for source, name in ((pair.cert, "s.crt"), (pair.key, "s.key"), (authority.cert, "ca.crt")):
        target = server.data_dir / name
        shutil.copy(source, target)
        shutil.chown(target, owner.st_uid, owner.st_gid)
        target.chmod(0o600)
    (server.data_dir / "pg_hba.conf").write_text(f"local all all trust\n{access}\n")
    server.settings = {
        **server.settings, "ssl": True, "ssl_cert_file": "s.crt", "ssl_key_file": "s.key",
        "ssl_ca_file": "ca.crt", "log_connections": True,
    }  # fmt: skip
    server.restart()


def dsn_of(server: Any, host: str, **parameters: object) -> str:
    """A URL of the server under ``host``, with libpq's parameters."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"postgresql://postgres:{PASSWORD}@{host}:{server.port}/postgres?{query}"
