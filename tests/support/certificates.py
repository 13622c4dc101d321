"""A certificate authority of a test's own, and a certificate for 127.0.0.1 that it signed."""

import subprocess
from pathlib import Path

from tests.support.collector import ServerTls
from tests.support.tools import find

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_EXTENSIONS = (
    "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    "basicConstraints=critical,CA:FALSE\n"
    "extendedKeyUsage=serverAuth\n"
    "subjectKeyIdentifier=hash\n"
    "authorityKeyIdentifier=keyid\n"
)


def require_server_tls(directory: Path) -> ServerTls:
    """Fresh files in the directory; where there is no ``openssl`` the calling test is skipped."""
    if not find("openssl"):
        import pytest  # noqa: PLC0415 - for the skip only

        pytest.skip("makes its certificates with the openssl command, which is not here")
    made = ServerTls(
        certificate=directory / "server.pem",
        key=directory / "server.key",
        authority=directory / "authority.pem",
    )
    authority_key, request = directory / "authority.key", directory / "server.csr"
    extensions = directory / "server.ext"
    extensions.write_text(_EXTENSIONS, "utf-8")
    _openssl("req", "-x509", *_KEY, "-keyout", authority_key, "-out", made.authority,
             "-days", "2", "-subj", "/CN=authority of a test",
             "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    _openssl("req", *_KEY, "-keyout", made.key, "-out", request, "-subj", "/CN=127.0.0.1")
    _openssl("x509", "-req", "-in", request, "-out", made.certificate, "-days", "2",
             "-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial",
             "-extfile", extensions)  # fmt: skip
    return made


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        raise OSError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
