"""Certificates that callers send: parsed where they come in, since a wrong one would fail every delivery later."""

from __future__ import annotations

import re
from typing import Annotated

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from pydantic import AfterValidator, Field

_BLOCK = re.compile(r"-----BEGIN ([^-]*)-----")


def certificates(pem: str) -> str:
    """The certificates in PEM text, and nothing of what stood around them, for it is stored and shown as it is; ValueError otherwise."""
    labels = set(_BLOCK.findall(pem))
    if any("KEY" in label for label in labels):
        raise ValueError("it holds a private key, which nobody must have but its server; send the certificates alone")
    if labels != {"CERTIFICATE"}:
        raise ValueError("it must be certificates in PEM text (-----BEGIN CERTIFICATE-----) and nothing else")
    try:
        found = load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise ValueError(
            "it looks like PEM text, but what is in it is no certificate; was it cut or changed?"
        ) from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


Certificates = Annotated[str, Field(max_length=100_000), AfterValidator(certificates)]
