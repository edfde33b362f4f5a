"""Runs esp-secure-cert-tool over many jobs in one process: one JSON object per line in, one per line out."""
import json
import os
import sys
import tempfile

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from esp_secure_cert import tlv_format_construct, tlv_parser


def build(job):
    builder = tlv_format_construct.TlvPartitionBuilder()
    for record_type, index, value, flags in job["records"]:
        builder.add_tlv_entry(record_type, index, bytes.fromhex(value), flags)
    builder.add_integrity_tlv(0)
    return {"image": bytes(builder.partition_data).hex(), "octets": builder.current_offset}


def parse(job, path):
    image = bytes.fromhex(job["parse"])
    with open(path, "wb") as file:
        file.write(image)
    records = []
    for entry in tlv_format_construct.EspSecureCert._parse_tlv_entries_from_bin(path):
        header = entry["header"]
        octets = image[entry["offset"]:]
        footer = {"crc": int.from_bytes(octets[tlv_parser.get_tlv_total_length(header) - 4:][:4], "little")}
        valid, _ = tlv_parser.verify_tlv_integrity(header, octets, footer)
        records.append([header["type"], header["subtype"], entry["data"].hex(), header["flags"], valid])
    return {"records": records}


def append(job, path):
    with open(path, "wb") as file:
        file.write(bytes.fromhex(job["append"]))
    tlv_format_construct.EspSecureCert.append_integrity_tlv(path)
    with open(path, "rb") as file:
        return {"image": file.read().hex()}


def open_record(job):
    """What the firmware does: key and IV are HMACs under the eFuse key, the tag comes last."""
    def mac(message):
        state = hmac.HMAC(bytes.fromhex(job["efuse_key"]), hashes.SHA256())
        state.update(message)
        return state.finalize()
    key, iv = mac(b"\xff" * 32), mac(bytes.fromhex("cdabcdab") * 8)[:16]
    return {"value": AESGCM(key).decrypt(iv, bytes.fromhex(job["record"]), None).hex()}


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # What the tool prints is not an answer.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image.bin")
        for line in sys.stdin:
            job = json.loads(line)
            if "records" in job:
                answer = build(job)
            elif "parse" in job:
                answer = parse(job, path)
            elif "append" in job:
                answer = append(job, path)
            else:
                answer = open_record(job)
            answers.write(json.dumps(answer) + "\n")


main()
