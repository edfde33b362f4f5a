"""Reads and verifies what kf-pki made with ML-DSA, and makes a request of its own, with PyPI's `cryptography`.

Arguments: a directory with root.cer, ca.cer, leaf.cer, crl.crl, request.csr; the algorithm; the serial number that the
list holds, hexadecimal. Writes theirs.csr.
"""

import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa

PUBLIC = {"ml-dsa-44": mldsa.MLDSA44PublicKey, "ml-dsa-65": mldsa.MLDSA65PublicKey, "ml-dsa-87": mldsa.MLDSA87PublicKey}
PRIVATE = {
    "ml-dsa-44": mldsa.MLDSA44PrivateKey,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey,
}

directory, algorithm, revoked = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3], 16)
read = lambda name: (directory / name).read_bytes()
root, ca, leaf = (x509.load_der_x509_certificate(read(name)) for name in ("root.cer", "ca.cer", "leaf.cer"))
for certificate in (root, ca, leaf):
    assert isinstance(certificate.public_key(), PUBLIC[algorithm]), certificate.public_key()
root.verify_directly_issued_by(root)
ca.verify_directly_issued_by(root)
leaf.verify_directly_issued_by(ca)
try:
    leaf.verify_directly_issued_by(root)
    raise SystemExit("a certificate verified under a key that did not sign it")
except Exception as refused:
    assert not isinstance(refused, SystemExit)
crl = x509.load_der_x509_crl(read("crl.crl"))
assert crl.is_signature_valid(ca.public_key()) and not crl.is_signature_valid(root.public_key())
assert crl.get_revoked_certificate_by_serial_number(revoked) is not None
request = x509.load_der_x509_csr(read("request.csr"))
assert request.is_signature_valid and isinstance(request.public_key(), PUBLIC[algorithm])
key = PRIVATE[algorithm].generate()
theirs = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None)
(directory / "theirs.csr").write_bytes(theirs.public_bytes(serialization.Encoding.DER))
# A key that it wrote, seed alone, as we write ours.
pkcs8 = key.private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
(directory / "theirs.key").write_bytes(pkcs8)
ours = serialization.load_der_private_key(read("ours.key"), None)
assert isinstance(ours, PRIVATE[algorithm])
print("ok", algorithm, len(leaf.public_bytes(serialization.Encoding.DER)))
