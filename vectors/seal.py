"""Checks seal.json with implementations that are not ours: pycose opens what its algorithms cover, cbor2 and cryptography
open everything, and hmac derives the keys. `python seal.py [seal.json]`; exit status 0 only if every vector holds."""

import hmac
import io
import json
import pathlib
import sys

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from pycose.algorithms import A128GCM, AESCCM16128128
from pycose.headers import IV, KID, Algorithm, KIDContext
from pycose.keys import SymmetricKey
from pycose.messages import CoseMessage, Enc0Message

SENDERS = {"device": 1, "server": 2}
# alg: (code in info, octets of the key, octets of the nonce, cipher, algorithm of pycose)
ALGORITHMS = {
    30: (4, 16, 13, AESCCM, AESCCM16128128),
    1: (5, 16, 12, AESGCM, A128GCM),
    24: (6, 32, 12, ChaCha20Poly1305, None),
}
HKDF_SHA256, SESSION, APPLICATION, BOOT = 1, 4, 5, 8


def expand(parent, level, algorithm, octets, purpose, context):
    """HKDF-Expand of one block, epoch 0: see derive.json."""
    info = bytes([1, level, algorithm]) + octets.to_bytes(2, "big")
    info += bytes([len(purpose)]) + purpose + bytes([len(context)]) + context + bytes(4)
    return hmac.digest(parent, info + b"\x01", "sha256")[:octets]


def open_plainly(envelope, key, alg, external_aad):
    """With a CBOR library and a cipher alone."""
    stream = io.BytesIO(envelope)
    item = cbor2.load(stream)
    if stream.read():
        raise ValueError("octets behind the end")
    if item.tag != 16 or cbor2.dumps(item, canonical=True) != envelope:
        raise ValueError("not a deterministic COSE_Encrypt0")
    protected, unprotected, ciphertext = item.value
    header = cbor2.loads(protected)
    if list(header) != [1, 4, 10] or cbor2.dumps(header, canonical=True) != protected or header[1] != alg:
        raise ValueError("not the protected header")
    if list(unprotected) != [5]:
        raise ValueError("not the unprotected header")
    cipher = ALGORITHMS[alg][3](key)
    additional = cbor2.dumps(["Encrypt0", protected, external_aad])
    return header, unprotected, cipher.decrypt(unprotected[5], ciphertext, additional)


def open_with_pycose(envelope, key, algorithm, external_aad):
    message = CoseMessage.decode(envelope)
    if not isinstance(message, Enc0Message) or message.get_attr(Algorithm) is not algorithm:
        raise ValueError("not a COSE_Encrypt0 of this algorithm")
    message.key = SymmetricKey(key)
    message.external_aad = external_aad
    return message, message.decrypt()


def check(vector):
    octets = {name: bytes.fromhex(vector[name]) for name in (
        "device_key", "device", "boot_random", "external_aad", "plaintext", "application_key", "sealing_key", "kid",
        "kid_context", "iv", "envelope")}
    code, key_octets, nonce_octets, _, pycose = ALGORITHMS[vector["alg"]]
    service, sender = vector["service"].encode(), bytes([SENDERS[vector["sender"]]])

    session = expand(octets["device_key"], SESSION, HKDF_SHA256, 32, b"derive", b"sealed")
    application = expand(session, APPLICATION, HKDF_SHA256, 32, b"derive", service)
    assert application == octets["application_key"], "application_key"
    key = expand(application, BOOT, code, key_octets, b"encrypt", sender + octets["boot_random"])
    assert key == octets["sealing_key"], "sealing_key"

    number = lambda name: vector[name].to_bytes(4, "big")
    kid = b"\x01" + octets["device"] + number("facility_epoch") + number("device_epoch") + sender + service
    context = number("boot_number") + octets["boot_random"]
    iv = octets["boot_random"][:nonce_octets - 4] + number("counter")
    assert kid == octets["kid"], "kid"
    assert context == octets["kid_context"], "kid_context"
    assert iv == octets["iv"], "iv"

    header, unprotected, plaintext = open_plainly(octets["envelope"], key, vector["alg"], octets["external_aad"])
    assert (header[4], header[10], unprotected[5]) == (kid, context, iv), "header"
    assert plaintext == octets["plaintext"], "plaintext"
    if pycose is None:
        return 0
    message, plaintext = open_with_pycose(octets["envelope"], key, pycose, octets["external_aad"])
    assert message.get_attr(KID) == kid and message.get_attr(KIDContext) == context and message.get_attr(IV) == iv
    assert plaintext == octets["plaintext"], "plaintext by pycose"
    # And the other way round: what pycose makes is the same envelope, octet by octet.
    made = Enc0Message(
        phdr={Algorithm: pycose, KID: kid, KIDContext: context}, uhdr={IV: iv}, payload=plaintext,
        external_aad=octets["external_aad"], key=SymmetricKey(key)).encode()
    assert made == octets["envelope"], "envelope by pycose"
    return 1


def must_not_open(refused, first):
    key = bytes.fromhex(first["sealing_key"])
    envelope, external_aad = bytes.fromhex(refused["envelope"]), bytes.fromhex(refused["external_aad"])
    try:
        open_plainly(envelope, key, first["alg"], external_aad)
    except Exception:  # Whatever a library calls it: it did not open.
        return
    raise AssertionError("opened")


def main():
    here = pathlib.Path(__file__).with_name("seal.json")
    document = json.loads(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else here).read_text())
    vectors, refused = document["vectors"], document["refused"]
    assert vectors and refused, "no vectors"
    by_pycose = 0
    for vector in vectors:
        try:
            by_pycose += check(vector)
        except Exception as error:
            sys.exit(f"{vector['name']} ({vector['algorithm']}): {error!r}")
    for case in refused:
        try:
            must_not_open(case, vectors[0])
        except AssertionError as error:
            sys.exit(f"{case['name']}: {error}")
    print(f"{len(vectors)} vectors hold, {by_pycose} of them with pycose too; {len(refused)} refused")


main()
