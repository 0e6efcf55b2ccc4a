"""A TLS handshake in memory, for tests of certificates."""

import ssl
from pathlib import Path

from deploy.certificates import Certificates


def handshake(certificates: Certificates, host: str, authority: Path | None = None) -> None:
    """Shake hands as a device that expects ``host``; ssl.SSLCertVerificationError if it may not."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.certificate, certificates.key)
    client = ssl.create_default_context(cafile=authority or certificates.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=host)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (near, far):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
