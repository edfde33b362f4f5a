//! The CMS subset of EST: certs-only SignedData (RFC 7030 section 4.1.3, RFC 5652), and CSR attributes (RFC 9908).

use kf_key::KeyAlgorithm;

use crate::asn1::{Writer, oid, only, tag};
use crate::certificate::write_extension;

/// The most certificates that are read from one SignedData.
const MAX_CERTIFICATES: usize = 16;
/// The most octets of each.
const MAX_CERTIFICATE_OCTETS: usize = 16 * 1024;

/// A degenerate SignedData that carries certificates, DER ContentInfo.
#[must_use]
pub fn certs_only(certificates: &[&[u8]]) -> Vec<u8> {
    // CertificateSet is a SET OF, which DER sorts (X.690 section 11.6).
    let mut sorted = certificates.to_vec();
    sorted.sort_unstable();
    let octets: usize = sorted.iter().map(|certificate| certificate.len()).sum();
    Writer::build(octets + 64, |w| {
        w.sequence(|w| {
            w.oid(&oid::CMS_SIGNED_DATA);
            w.nested(tag::context_constructed(0), |w| {
                w.sequence(|w| {
                    w.unsigned(1);
                    w.nested(tag::SET, |_no_digest_algorithms| {});
                    w.sequence(|w| w.oid(&oid::CMS_DATA));
                    w.nested(tag::context_constructed(0), |w| sorted.iter().for_each(|certificate| w.raw(certificate)));
                    w.nested(tag::SET, |_no_signer_infos| {});
                });
            });
        });
    })
}

/// The certificates of a certs-only SignedData, at most 16 of at most 16 KiB each.
///
/// # Errors
/// `None` when it is not one.
#[must_use]
pub fn certificates_of(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    if der.len() > MAX_CERTIFICATES * MAX_CERTIFICATE_OCTETS {
        return None;
    }
    let mut content_info = only(der, tag::SEQUENCE)?.elements();
    content_info.expect(tag::OID).filter(|kind| kind.value == oid::CMS_SIGNED_DATA.as_bytes())?;
    let wrapper = content_info.expect(tag::context_constructed(0))?;
    content_info.end()?;
    let mut signed_data = only(wrapper.value, tag::SEQUENCE)?.elements();
    let _version = signed_data.expect(tag::INTEGER)?;
    let _digest_algorithms = signed_data.expect(tag::SET)?;
    let _content = signed_data.expect(tag::SEQUENCE)?;
    let mut certificates = signed_data.expect(tag::context_constructed(0))?.elements();
    let _crls = signed_data.optional(tag::context_constructed(1));
    // Certs-only: nobody signed (RFC 5652 section 5.1).
    signed_data.expect(tag::SET).filter(|signer_infos| signer_infos.value.is_empty())?;
    signed_data.end()?;
    let mut found = Vec::new();
    while !certificates.is_empty() {
        let certificate = certificates.expect(tag::SEQUENCE)?.der;
        if found.len() >= MAX_CERTIFICATES || certificate.len() > MAX_CERTIFICATE_OCTETS {
            return None;
        }
        found.push(certificate.to_vec());
    }
    Some(found)
}

/// CsrAttrs (RFC 8951 section 3.5, RFC 9908): the key algorithm a device should use (first of `algorithms`), the hash
/// of its request's signature, and an extension request with the extensions that the CA will set.
#[must_use]
pub fn csr_attributes(algorithms: &[KeyAlgorithm]) -> Vec<u8> {
    Writer::build(128, |w| {
        w.sequence(|w| {
            if let Some(algorithm) = algorithms.first() {
                write_key_attribute(w, *algorithm);
                w.oid(match algorithm {
                    KeyAlgorithm::P256 => &oid::ECDSA_WITH_SHA256,
                    KeyAlgorithm::P384 => &oid::ECDSA_WITH_SHA384,
                    KeyAlgorithm::Ed25519 => &oid::ED25519,
                    KeyAlgorithm::MlDsa44 => &oid::ML_DSA_44,
                    KeyAlgorithm::MlDsa65 => &oid::ML_DSA_65,
                    KeyAlgorithm::MlDsa87 => &oid::ML_DSA_87,
                    KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &oid::SHA256_WITH_RSA,
                });
            }
            write_extension_request(w);
        });
    })
}

/// RFC 8951 section 3.5: the key's type as an attribute, its curve or size as the value. An Ed25519 or ML-DSA key is named by
/// its type alone.
fn write_key_attribute(w: &mut Writer, algorithm: KeyAlgorithm) {
    let mut attribute = |kind, value: &dyn Fn(&mut Writer)| {
        w.sequence(|w| {
            w.oid(kind);
            w.nested(tag::SET, value);
        });
    };
    match algorithm {
        KeyAlgorithm::P256 => attribute(&oid::EC_PUBLIC_KEY, &|w| w.oid(&oid::SECP256R1)),
        KeyAlgorithm::P384 => attribute(&oid::EC_PUBLIC_KEY, &|w| w.oid(&oid::SECP384R1)),
        KeyAlgorithm::Ed25519 | KeyAlgorithm::MlDsa44 | KeyAlgorithm::MlDsa65 | KeyAlgorithm::MlDsa87 => {}
        KeyAlgorithm::Rsa2048 => attribute(&oid::RSA_ENCRYPTION, &|w| w.unsigned(2048)),
        KeyAlgorithm::Rsa3072 => attribute(&oid::RSA_ENCRYPTION, &|w| w.unsigned(3072)),
        KeyAlgorithm::Rsa4096 => attribute(&oid::RSA_ENCRYPTION, &|w| w.unsigned(4096)),
    }
}

/// RFC 9908 section 3.2: the extension values that the certificate will have; names are never taken from the request.
fn write_extension_request(w: &mut Writer) {
    w.sequence(|w| {
        w.oid(&oid::EXTENSION_REQUEST);
        w.nested(tag::SET, |w| {
            w.sequence(|w| {
                // digitalSignature (0).
                write_extension(w, &oid::KEY_USAGE, true, |w| w.primitive(tag::BIT_STRING, &[7, 0b1000_0000]));
                write_extension(w, &oid::EXTENDED_KEY_USAGE, false, |w| w.sequence(|w| w.oid(&oid::CLIENT_AUTH)));
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_sorted() {
        let (small, large) = ([0x30, 2, 5, 0], [0x30, 3, 1, 1, 0xff]);
        let packed = certs_only(&[&large, &small]);
        assert!(crate::asn1::is_canonical(&packed));
        assert_eq!(certificates_of(&packed), Some(vec![small.to_vec(), large.to_vec()]));
        assert_eq!(certificates_of(&packed[1..]), None);
    }

    #[test]
    fn an_empty_set_and_too_many_certificates() {
        assert_eq!(certificates_of(&certs_only(&[])), Some(vec![]));
        let one: &[u8] = &[0x30, 0];
        assert_eq!(certificates_of(&certs_only(&[one; 17])), None);
    }
}
