#!/usr/bin/env python3
"""Recomputes every output of derive.json from its inputs, with nothing but the standard library's HMAC.

Usage: python3 vectors/derive.py [FILE]. Exits 0 only if all agree.
"""
import hashlib
import hmac
import json
import pathlib
import sys

ORDER = ["facility_id", "device_id", "device_salt", "sender", "boot_random", "transcript_hash", "label"]


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def info_of(vector, codes):
    inputs = vector.get("inputs", {})
    assert set(inputs) <= set(ORDER), "unknown input"
    context = b"".join(bytes.fromhex(inputs[name]) for name in ORDER if name in inputs)
    purpose = vector["purpose"].encode()
    octets = codes["key_octets"][vector["algorithm"]]
    info = bytes([1, codes["level"][vector["level"]], codes["algorithm"][vector["algorithm"]]])
    info += octets.to_bytes(2, "big") + bytes([len(purpose)]) + purpose + bytes([len(context)]) + context
    return info + vector["epoch"].to_bytes(4, "big"), octets


def recompute(vector, outputs, codes):
    octets = {name: bytes.fromhex(vector[name]) for name in ("key", "salt", "input", "info") if name in vector}
    if "parent" in vector:
        assert octets.get("key", octets.get("salt")) == outputs[vector["parent"]], "not the key of its parent"
    operation = vector["operation"]
    if operation == "given":
        return bytes.fromhex(vector["output"])
    if operation == "extract":
        return mac(octets["salt"], octets["input"])
    if operation == "rfc-5869":
        prk = mac(octets["salt"], octets["input"])
        assert prk.hex() == vector["prk"], "another PRK"
        return mac(prk, octets["info"] + b"\x01")
    info, length = info_of(vector, codes)
    assert info == octets["info"], "another info"
    if operation == "counter-step":
        fixed = b"keyfleet-v1\x00" + info + (length * 8).to_bytes(4, "big")
        return mac(octets["key"], b"\x00\x00\x00\x01" + fixed)[:length]
    assert operation == "step", "unknown operation"
    return mac(octets["key"], info + b"\x01")[:length]


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("derive.json")
    document = json.loads(pathlib.Path(path).read_text())
    outputs = {}
    for vector in document["vectors"]:
        try:
            output = recompute(vector, outputs, document["codes"])
            assert output.hex() == vector["output"], "another output: " + output.hex()
        except (AssertionError, KeyError, ValueError) as problem:
            sys.exit(f"{vector['name']}: {problem}")
        outputs[vector["name"]] = output
    print(f"{len(outputs)} vectors agree")


main()
