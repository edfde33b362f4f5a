"""Reads esp_secure_cert partitions with esp-secure-cert-tool, and opens the private key as the firmware does: one JSON object per
line in, one per line out."""
import json
import os
import sys
import tempfile

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from esp_secure_cert import tlv_format_construct, tlv_parser

PRIVATE_KEY = 2


def parse(image, path):
    with open(path, "wb") as file:
        file.write(image)
    records = []
    for entry in tlv_format_construct.EspSecureCert._parse_tlv_entries_from_bin(path):
        header = entry["header"]
        octets = image[entry["offset"]:]
        footer = {"crc": int.from_bytes(octets[tlv_parser.get_tlv_total_length(header) - 4:][:4], "little")}
        valid, _ = tlv_parser.verify_tlv_integrity(header, octets, footer)
        records.append({"type": header["type"], "value": entry["data"].hex(), "valid": bool(valid)})
    return records


def private_key(records, efuse_key):
    """Key and IV are HMACs under the eFuse key, the tag comes last."""
    def mac(message):
        state = hmac.HMAC(efuse_key, hashes.SHA256())
        state.update(message)
        return state.finalize()
    key, iv = mac(b"\xff" * 32), mac(bytes.fromhex("cdabcdab") * 8)[:16]
    [record] = [record for record in records if record["type"] == PRIVATE_KEY]
    return AESGCM(key).decrypt(iv, bytes.fromhex(record["value"]), None).hex()


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # What the tool prints is not an answer.
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            job = json.loads(line)
            records = parse(bytes.fromhex(job["parse"]), os.path.join(folder, "image.bin"))
            key = private_key(records, bytes.fromhex(job["efuse_key"]))
            answers.write(json.dumps({"records": records, "private_key": key}) + "\n")


main()
