# SPDX-License-Identifier: Apache-2.0
"""TLS for sinks. The only module that imports ssl, which is 5 MB: whoever needs it imports it."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a call of a socket raises that would have to wait."""


def context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Who is trusted, and who we are; files are read each time, as certificates are renewed.

    :param options: of a sink: ``ca``, ``certificate``, ``key``.
    :raises OSError: a file cannot be read, or is not what it should be.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies chain and name
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # An end that the peer did not sign is an error, for anybody on the way can make one. Python
    # has OpenSSL 3 take it for a signed one, as the versions before did.
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    ca, certificate, key = (options[name] for name in ("ca", "certificate", "key"))
    if not ca:
        made.load_default_certs()
    try:
        reading = ca
        if ca:
            made.load_verify_locations(ca)
        reading = f"{certificate} with its key {key}" if key else certificate
        if certificate:
            # A key with a passphrase: nobody is there to type it.
            made.load_cert_chain(certificate, key or None, password="")
    except OSError as error:
        raise OSError(error.errno, f"cannot read {reading}: {error.strerror}") from error
    return made


def wrap(made: ssl.SSLContext, plain: Any, name: str) -> ssl.SSLSocket:
    """:param name: that the certificate of the other side must have."""
    return made.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
