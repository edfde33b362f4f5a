//! The extensions of each profile (RFC 5280 section 4.2, IEEE 802.1AR section 8, RFC 4108, RFC 6960).

use core::net::IpAddr;

use const_oid::ObjectIdentifier;
use kf_key::{CertificateProfile, DeviceId};

use super::Subject;
use crate::asn1::{Writer, oid, tag};
use crate::issuer::Issuer;

/// GeneralName choices.
const DNS_NAME: u8 = tag::context(2);
const URI: u8 = tag::context(6);
const IP_ADDRESS: u8 = tag::context(7);

/// KeyUsage as a DER BIT STRING: digitalSignature (0).
const DIGITAL_SIGNATURE: [u8; 4] = [tag::BIT_STRING, 2, 7, 0b1000_0000];
/// KeyUsage as a DER BIT STRING: keyCertSign (5) and cRLSign (6).
const SIGNS_CERTIFICATES_AND_CRLS: [u8; 4] = [tag::BIT_STRING, 2, 1, 0b0000_0110];

/// What the extensions of one certificate are made of.
#[derive(Debug)]
pub(super) struct Extensions<'a> {
    pub(super) profile: CertificateProfile,
    pub(super) subject: &'a Subject,
    /// Whether the subject Name is empty, which makes the subjectAltName critical (RFC 5280 section 4.2.1.6).
    pub(super) subject_is_empty: bool,
    pub(super) subject_key_identifier: &'a [u8; 20],
    pub(super) authority_key_identifier: &'a [u8; 20],
    /// `None` for a self-signed root.
    pub(super) issuer: Option<&'a Issuer>,
    /// The CRL shard of the serial number.
    pub(super) shard: u16,
}

/// Writes one Extension.
pub(crate) fn write(w: &mut Writer, oid: &ObjectIdentifier, is_critical: bool, value: impl FnOnce(&mut Writer)) {
    w.sequence(|w| {
        w.oid(oid);
        if is_critical {
            w.boolean_true();
        }
        w.nested(tag::OCTET_STRING, value);
    });
}

/// Writes an AuthorityKeyIdentifier with a keyIdentifier.
pub(crate) fn write_authority_key_identifier(w: &mut Writer, key_identifier: &[u8; 20]) {
    write(w, &oid::AUTHORITY_KEY_IDENTIFIER, false, |w| {
        w.sequence(|w| w.primitive(tag::context(0), key_identifier));
    });
}

/// Writes a DistributionPointName with one URI, `[0]` in a DistributionPoint as in an IssuingDistributionPoint.
pub(crate) fn write_distribution_point_name(w: &mut Writer, uri: &str) {
    w.nested(tag::context_constructed(0), |w| {
        w.nested(tag::context_constructed(0), |w| w.primitive(URI, uri.as_bytes()));
    });
}

impl Extensions<'_> {
    /// Writes them all, as the SEQUENCE OF Extension.
    pub(super) fn write(&self, w: &mut Writer) {
        w.sequence(|w| {
            write(w, &oid::SUBJECT_KEY_IDENTIFIER, false, |w| w.octet_string(self.subject_key_identifier));
            write_authority_key_identifier(w, self.authority_key_identifier);
            self.write_usage(w);
            self.write_alt_names(w);
            if let Some(issuer) = self.issuer {
                self.write_addresses(w, issuer);
            }
            if self.profile == CertificateProfile::OcspSigner {
                // RFC 6960 section 4.2.2.2.1: clients do not ask about the responder itself, which lives for days only.
                write(w, &oid::OCSP_NO_CHECK, false, Writer::null);
            }
        });
    }

    fn write_usage(&self, w: &mut Writer) {
        if self.profile.is_authority() {
            write(w, &oid::BASIC_CONSTRAINTS, true, |w| {
                w.sequence(|w| {
                    w.boolean_true();
                    if self.profile == CertificateProfile::IssuingCa {
                        w.unsigned(0);
                    }
                });
            });
            return write(w, &oid::KEY_USAGE, true, |w| w.raw(&SIGNS_CERTIFICATES_AND_CRLS));
        }
        write(w, &oid::KEY_USAGE, true, |w| w.raw(&DIGITAL_SIGNATURE));
        let purpose = match self.profile {
            CertificateProfile::TlsServer => &oid::SERVER_AUTH,
            CertificateProfile::OcspSigner => &oid::OCSP_SIGNING,
            // Devices and operators are TLS clients and nothing else, so that none can pose as a server.
            CertificateProfile::Root
            | CertificateProfile::IssuingCa
            | CertificateProfile::LinkCa
            | CertificateProfile::IDevId
            | CertificateProfile::LDevId
            | CertificateProfile::Operator => &oid::CLIENT_AUTH,
        };
        write(w, &oid::EXTENDED_KEY_USAGE, false, |w| w.sequence(|w| w.oid(purpose)));
    }

    fn write_alt_names(&self, w: &mut Writer) {
        match self.subject {
            // IEEE 802.1AR asks it of IDevIDs. LDevIDs do without: strongSwan reads no request that repeats it.
            Subject::Device { device, organization, product_line, name: _ }
                if self.profile == CertificateProfile::IDevId =>
            {
                write(w, &oid::SUBJECT_ALT_NAME, false, |w| {
                    w.sequence(|w| write_hardware_module_name(w, organization, product_line, device));
                });
            }
            Subject::Server { dns_names } => {
                write(w, &oid::SUBJECT_ALT_NAME, self.subject_is_empty, |w| {
                    w.sequence(|w| dns_names.iter().for_each(|name| write_server_name(w, name)));
                });
            }
            Subject::Device { .. }
            | Subject::Authority { .. }
            | Subject::Operator { .. }
            | Subject::OcspSigner { .. } => {}
        }
    }

    fn write_addresses(&self, w: &mut Writer, issuer: &Issuer) {
        let has_status = self.profile != CertificateProfile::OcspSigner && issuer.shard_count > 0;
        if has_status {
            let crl = if self.profile.is_authority() { issuer.full_crl_url() } else { issuer.shard_url(self.shard) };
            write(w, &oid::CRL_DISTRIBUTION_POINTS, false, |w| {
                w.sequence(|w| w.sequence(|w| write_distribution_point_name(w, &crl)));
            });
        }
        write(w, &oid::AUTHORITY_INFO_ACCESS, false, |w| {
            w.sequence(|w| {
                if has_status {
                    write_access(w, &oid::ACCESS_OCSP, &issuer.ocsp_url());
                }
                write_access(w, &oid::ACCESS_CA_ISSUERS, &issuer.certificate_url());
            });
        });
    }
}

fn write_access(w: &mut Writer, method: &ObjectIdentifier, uri: &str) {
    w.sequence(|w| {
        w.oid(method);
        w.primitive(URI, uri.as_bytes());
    });
}

fn write_server_name(w: &mut Writer, name: &str) {
    match name.parse() {
        Ok(IpAddr::V4(address)) => w.primitive(IP_ADDRESS, &address.octets()),
        Ok(IpAddr::V6(address)) => w.primitive(IP_ADDRESS, &address.octets()),
        Err(_a_name) => w.primitive(DNS_NAME, name.to_ascii_lowercase().as_bytes()),
    }
}

/// HardwareModuleName (RFC 4108 section 5): hwType names the product line, hwSerialNum is the device's identifier.
fn write_hardware_module_name(w: &mut Writer, organization: &str, product_line: &str, device: &DeviceId) {
    w.nested(tag::context_constructed(0), |w| {
        w.oid(&oid::HARDWARE_MODULE_NAME);
        w.nested(tag::context_constructed(0), |w| {
            w.sequence(|w| {
                w.primitive(tag::OID, &hardware_type(organization, product_line));
                w.octet_string(device.as_bytes());
            });
        });
    });
}

/// The contents of an OID below 2.25, the arc of UUIDs (ITU-T X.667): a UUIDv8 made of a hash of the names, so that
/// no arc needs to be registered and the same product line always has the same type.
fn hardware_type(organization: &str, product_line: &str) -> Vec<u8> {
    let mut hash = kf_crypto::Sha256::new();
    for part in ["keyfleet hardware type", organization, product_line] {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    let digest = hash.finish();
    let (octets, _) = digest.split_at(16);
    let number = octets.iter().fold(0u128, |number, octet| (number << 8) | u128::from(*octet));
    const VERSION_MASK: u128 = 0xf000 << 64;
    const VARIANT_MASK: u128 = 0b11 << 62;
    let uuid = (number & !VERSION_MASK & !VARIANT_MASK) | (0x8000 << 64) | (0b10 << 62);
    // X.690 section 8.19: 2.25 is the subidentifier 105; base 128, high bit on all but the last octet.
    let groups = (0..19u32).rev().map(|group| uuid >> (7 * group));
    let mut contents = vec![105];
    for group in groups.skip_while(|rest| *rest == 0) {
        let low = u8::try_from(group & 0x7f).unwrap_or(0);
        contents.push(low | 0x80);
    }
    if let Some(last) = contents.last_mut() {
        *last &= 0x7f;
    }
    contents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_type_is_a_uuid_below_2_25_and_differs_by_product_line() {
        let first = hardware_type("Acme", "pump");
        let (arc, rest) = first.split_first().unwrap();
        assert_eq!((*arc, rest.len()), (2 * 40 + 25, 19));
        assert!(rest[..18].iter().all(|octet| octet & 0x80 != 0) && rest[18] & 0x80 == 0);
        let number = rest.iter().fold(0u128, |number, octet| (number << 7) | u128::from(octet & 0x7f));
        assert_eq!((number >> 76) & 0xf, 8);
        assert_eq!((number >> 62) & 0b11, 0b10);
        assert_ne!(first, hardware_type("Acme", "valve"));
        assert_eq!(first, hardware_type("Acme", "pump"));
    }
}
