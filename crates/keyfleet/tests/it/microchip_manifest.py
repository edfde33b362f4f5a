"""Writes a manifest of pre-provisioned elements as Microchip documents it, with nothing of ours.

Arguments: key and certificate of the signer, the manifest to write, then for each element its identifier and chain.
"""
import base64
import json
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def b64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


key_file, certificate_file, manifest_file, *elements = sys.argv[1:]
signer = serialization.load_pem_private_key(open(key_file, "rb").read(), None)
certificate = x509.load_pem_x509_certificate(open(certificate_file, "rb").read())
thumbprint = b64url(certificate.fingerprint(hashes.SHA256()))
entries = []
for identifier, chain_file in zip(elements[::2], elements[1::2]):
    chain = x509.load_pem_x509_certificates(open(chain_file, "rb").read())
    numbers = chain[0].public_key().public_numbers()
    payload = {
        "version": 1,
        "model": "ATECC608B",
        "partNumber": "ATECC608B-TNGTLSU-B",
        "manufacturer": {"organizationName": "Microchip Technology Inc", "organizationalUnitName": "Secure Products Group"},
        "provisioningTimestamp": "2026-10-01T12:00:00.000Z",
        "uniqueId": identifier,
        "publicKeySet": {
            "keys": [
                {
                    "kid": "0",
                    "kty": "EC",
                    "crv": "P-256",
                    "x": b64url(numbers.x.to_bytes(32, "big")),
                    "y": b64url(numbers.y.to_bytes(32, "big")),
                    "x5c": [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in chain],
                },
                {"kid": "1", "kty": "EC", "crv": "P-256", "x": b64url(bytes(32)), "y": b64url(bytes(32))},
            ]
        },
    }
    protected = b64url(json.dumps({"typ": "JWT", "alg": "ES256", "kid": "1", "x5t#S256": thumbprint}).encode())
    body = b64url(json.dumps(payload).encode())
    r, s = decode_dss_signature(signer.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    entries.append(
        {
            "payload": body,
            "protected": protected,
            "header": {"uniqueId": identifier},
            "signature": b64url(r.to_bytes(32, "big") + s.to_bytes(32, "big")),
        }
    )
json.dump(entries, open(manifest_file, "w"))
