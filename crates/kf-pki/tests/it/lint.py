"""Lints every *.cer, *.crl and *.ocsp file of a directory in one process: pkilint takes seconds to start.

Prints one line per finding: file, severity, code, path, message, separated by tabs; and last the number of files linted.
"""

import pathlib
import sys

from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp

DECODERS = [
    pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
    pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
]


def certificate_validator():
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def crl_validator():
    return crl.create_pkix_crl_validator_container(
        DECODERS,
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def ocsp_validator():
    return ocsp.create_pkix_ocsp_response_validator_container(
        [ocsp.create_response_decoder(), *DECODERS], []
    )


def main(directory):
    kinds = {
        ".cer": (loader.RFC5280CertificateDocumentLoader(), certificate_validator()),
        ".crl": (loader.RFC5280CertificateListDocumentLoader(), crl_validator()),
        ".ocsp": (loader.RFC6960OCSPResponseDocumentLoader(), ocsp_validator()),
    }
    linted = 0
    for path in sorted(pathlib.Path(directory).iterdir()):
        if path.suffix not in kinds:
            continue
        document_loader, validator = kinds[path.suffix]
        document = document_loader.load_der_document(path.read_bytes(), path.name)
        linted += 1
        for result in validator.validate(document.root):
            for finding in result.finding_descriptions:
                fields = [
                    path.name,
                    finding.finding.severity.name,
                    finding.finding.code,
                    str(result.node.path),
                    str(finding.message or ""),
                ]
                print("\t".join(fields))
    print(f"linted\t{linted}")


main(sys.argv[1])
