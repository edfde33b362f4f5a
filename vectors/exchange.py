"""Checks exchange.json with implementations that are not ours: cryptography for P-256, ECDSA and AES-GCM, hmac and hashlib
for the key schedule, cbor2 for the messages. `python exchange.py [exchange.json]`; exit status 0 only if all holds."""

import hashlib
import hmac
import json
import pathlib
import sys

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PROTOCOL = b"keyfleet exchange v1"
VERSION, SUITE = 1, 1
HKDF_SHA256, HMAC_SHA256, SESSION, APPLICATION = 1, 3, 4, 5
MIX, MIXED_SESSION = 10, 11


def label(text):
    return text.encode().ljust(16, b".")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def then(transcript, message):
    return sha256(transcript, len(message).to_bytes(4, "big"), message)


def mac(key, message):
    return hmac.digest(key, message, "sha256")


def private(octets):
    return ec.derive_private_key(int.from_bytes(octets, "big"), ec.SECP256R1())


def point(key):
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def spki_sha256(key):
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def verify(key, signature, message):
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))


def items(message):
    """The items, of a message in its one encoding, and the octets in front of signature and MAC."""
    decoded = cbor2.loads(message)
    assert cbor2.dumps(decoded) == message, "encoding"
    return decoded, message[: -(2 + 64) - (2 + 32)]


class Schedule:
    def __init__(self, shared, agreed):
        self.prk = mac(agreed, shared)

    def expand(self, text, transcript):
        return mac(self.prk, PROTOCOL + label(text) + transcript + b"\x01")

    def tag(self, text, transcript, *parts):
        said = transcript
        for part in parts:
            said = then(said, part)
        return mac(self.expand(text, transcript), said)


def expand_tree(parent, level, algorithm, purpose, context):
    """HKDF-Expand of one block, 32 octets, epoch 0: see derive.json."""
    info = bytes([1, level, algorithm]) + (32).to_bytes(2, "big")
    info += bytes([len(purpose)]) + purpose + bytes([len(context)]) + context + bytes(4)
    return mac(parent, info + b"\x01")


def check_proofs(given, sent):
    """Hello, challenge and proof; returns the key schedule and the transcript after the proof."""
    device, server = (private(given[name]) for name in ("device ephemeral private", "server ephemeral private"))
    identity = private(given["device identity private"]).public_key()
    delivery = private(given["server delivery private"]).public_key()

    hello, _ = items(sent["hello"])
    purpose = hello[3]
    assert hello == [VERSION, 1, SUITE, purpose, given["device nonce"], point(device.public_key())], "hello"
    transcript = then(sha256(PROTOCOL), sent["hello"])

    challenge, signed = items(sent["challenge"])
    name = spki_sha256(delivery)
    assert challenge[:5] == [VERSION, 2, given["session"], point(server.public_key()), name[:16]], "challenge"
    agreed = then(transcript, signed)
    schedule = Schedule(device.exchange(ec.ECDH(), server.public_key()), agreed)
    verify(delivery, challenge[5], PROTOCOL + label("server signs") + agreed)
    assert challenge[6] == schedule.tag("server mac", agreed, name, challenge[5]), "MAC of the challenge"
    transcript = then(transcript, sent["challenge"])

    proof, signed = items(sent["proof"])
    name = spki_sha256(identity)
    assert proof[:5] == [VERSION, 3, given["session"], given["device"], name], "proof"
    proved = then(transcript, signed)
    verify(identity, proof[5], PROTOCOL + label("device signs") + proved)
    assert proof[6] == schedule.tag("device mac", proved, given["device"], name, proof[5]), "MAC of the proof"
    return schedule, then(proved, sent["proof"])


def open_delivery(schedule, transcript, session, message):
    delivery, _ = items(message)
    assert delivery[:3] == [VERSION, 4, session], "delivery"
    key = schedule.expand("delivery", transcript)[:16]
    return cbor2.loads(AESGCM(key).decrypt(bytes(12), delivery[3], transcript))


def check_ends(given, sent, authentication):
    place = given["facility"] + given["facility epoch"].to_bytes(4, "big") + given["device epoch"].to_bytes(4, "big")
    said = lambda text: mac(authentication, PROTOCOL + label(text) + given["session"] + given["device"] + place)
    acknowledgement, _ = items(sent["acknowledgement"])
    expected = [VERSION, 5, given["session"], given["device"], given["facility"], given["facility epoch"],
                given["device epoch"], said("acknowledge")]
    assert acknowledgement == expected, "acknowledgement"
    assert items(sent["done"])[0] == [VERSION, 6, given["session"], said("done")], "done"


def check_delivery(given, sent):
    schedule, transcript = check_proofs(given, sent)
    opened = open_delivery(schedule, transcript, given["session"], sent["delivery"])
    place = [given["facility"], given["facility epoch"], given["device epoch"]]
    assert opened == [*place, given["device key"]], "delivered"
    check_ends(given, sent, expand_tree(given["device key"], SESSION, HMAC_SHA256, b"authenticate", b"exchange"))


def check_session(given, sent, application):
    schedule, transcript = check_proofs(given, sent)
    opened = open_delivery(schedule, transcript, given["session"], sent["delivery"])
    assert opened == [given["facility"], given["facility epoch"], given["device epoch"]], "place of the session"
    salt = expand_tree(given["device key"], MIX, HKDF_SHA256, b"derive", b"")
    mixed = mac(salt, schedule.expand("mixed session", transcript))
    session = expand_tree(mixed, MIXED_SESSION, HKDF_SHA256, b"derive", transcript)
    assert expand_tree(session, APPLICATION, HKDF_SHA256, b"derive", b"telemetry") == application, "application key"
    check_ends(given, sent, expand_tree(session, APPLICATION, HMAC_SHA256, b"authenticate", b"exchange"))


def check_signed(message, private_key, kind, payload):
    key = private(private_key).public_key()
    item = cbor2.loads(message)
    assert item.tag == 18 and cbor2.dumps(item) == message, "COSE_Sign1"
    protected, unprotected, said, signature = item.value
    assert cbor2.loads(protected) == {1: -7, 4: spki_sha256(key)[:16]} and unprotected == {}, "headers"
    verify(key, signature, cbor2.dumps(["Signature1", protected, kind, said]))
    assert cbor2.loads(said) == payload, "payload"


def octets(values):
    return {name: bytes.fromhex(value) if isinstance(value, str) else value for name, value in values.items()}


def main():
    here = pathlib.Path(__file__).with_name("exchange.json")
    document = json.loads(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else here).read_text())
    given = octets(document["input"])
    check_delivery(given, octets(document["delivery"]))
    session = octets(document["session"])
    check_session(given, session, session["application key of `telemetry`, epoch 0"])
    order, outcome = octets(document["order"]), octets(document["outcome"])
    payload = [1, order["act"], given["device"], order["counter"], order["expires"]]
    check_signed(order["message"], given["server order private"], b"keyfleet order v1", payload)
    payload = [1, outcome["act"], given["device"], outcome["counter"], outcome["outcome"], outcome["at"]]
    check_signed(outcome["message"], given["device identity private"], b"keyfleet outcome v1", payload)
    print("the delivery, the session, the order and the outcome hold")


main()
