"""Runs esp-idf-nvs-partition-gen over many jobs in one process: one JSON object per line in, one per line out."""
import io
import json
import os
import sys
import tempfile
from types import SimpleNamespace

from esp_idf_nvs_partition_gen import nvs_partition_gen as nvs


def generate(job):
    size, read_only = nvs.check_size(str(job["size"]))
    out = io.BytesIO()
    with nvs.nvs_open(out, size, nvs.Page.VERSION2, is_encrypt=False, key=None, read_only=read_only) as image:
        nvs.write_entry(image, "keyfleet", "namespace", "", "")
        for key, encoding, value in job["items"]:
            nvs.write_entry(image, key, "data", encoding, value)
    return {"image": out.getvalue().hex()}


def decrypt(job, folder):
    paths = [os.path.join(folder, name) for name in ("in.bin", "keys.bin", "out.bin")]
    for path, octets in zip(paths, (job["encrypted"], job["keys"])):
        with open(path, "wb") as file:
            file.write(bytes.fromhex(octets))
    nvs.decrypt(SimpleNamespace(input=paths[0], key=paths[1], output=paths[2], outdir=folder))
    with open(paths[2], "rb") as file:
        return {"image": file.read().hex()}


def keys_from_hmac(job, folder):
    path = os.path.join(folder, "hmac.bin")
    with open(path, "wb") as file:
        file.write(bytes.fromhex(job["hmac_key"]))
    nvs.generate_key(SimpleNamespace(outdir=folder, keyfile="keys.bin", key_protect_hmac=True, kp_hmac_keygen=False,
                                     kp_hmac_keyfile=None, kp_hmac_inputkey=path))
    with open(os.path.join(folder, "keys", "keys.bin"), "rb") as file:
        return {"keys_partition": file.read().hex()}


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # What the tool prints is not an answer.
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            job = json.loads(line)
            if "encrypted" in job:
                answer = decrypt(job, folder)
            elif "hmac_key" in job:
                answer = keys_from_hmac(job, folder)
            else:
                answer = generate(job)
            answers.write(json.dumps(answer) + "\n")


main()
