//! What each algorithm weighs: objects as this fleet issues them, made with keys that are thrown away, and measured.

use kf_api::campaign::AlgorithmSizes;
use kf_crypto::PrivateKey;
use kf_key::{AuthorityId, CertificateProfile, DeviceId, KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::certificate::{CheckedTbs, IssuanceRequest, IssueRefusal, Subject, check_issuance, check_root};
use kf_pki::crl::{CrlEntry, CrlScope, check_crl};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, OcspRequest, Responder, make_request as make_ocsp_request, respond};
use kf_pki::request::make_request;

use crate::issuance::BACKDATE;
use crate::tls::requested_key;
use crate::{Fleet, FleetError};

/// Names of an ordinary length.
const DEVICE_NAME: &str = "thermo-0001";
const LINE_NAME: &str = "thermostats";

/// A throwaway CA.
struct Scale {
    key: PrivateKey,
    issuer: Issuer,
}

impl Fleet {
    /// What every algorithm weighs that devices may have, for a fleet of so many.
    pub(super) fn algorithm_sizes(&self, devices: u64) -> Result<Vec<AlgorithmSizes>, FleetError> {
        let algorithms = KeyAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.may_sign_certificates());
        algorithms.map(|algorithm| self.sizes_of(algorithm, devices)).collect()
    }

    fn sizes_of(&self, algorithm: KeyAlgorithm, devices: u64) -> Result<AlgorithmSizes, FleetError> {
        let authorities = self.authorities();
        let today = authorities.default_issuing().ok_or(FleetError::Bug("no default issuing CA"))?;
        let key = PrivateKey::generate(algorithm)?;
        let request = octets(&make_request(&key, "").map_err(|_refused| FleetError::Bug("a request"))?);
        let as_today = PrivateKey::generate(today.issuer.algorithm)?;
        let leaf = self.weighed_leaf(&today.issuer, &as_today, &key)?;
        let above: Vec<Vec<u8>> = authorities.chain_without_root(today.record.id);
        let chain = [vec![leaf.clone()], above].concat();
        let (root, issuing) = self.scales(algorithm)?;
        let leaf_throughout = self.weighed_leaf(&issuing.issuer, &issuing.key, &key)?;
        let chain_throughout = [leaf_throughout.clone(), issuing.issuer.certificate.to_vec()];
        let signature = octets(&key.sign(b"weighed")?);
        let tls_client = tls_client(&chain, signature);
        let (crl, one) = (self.weighed_crl(&issuing, false)?, self.weighed_crl(&issuing, true)?);
        drop(root);
        Ok(AlgorithmSizes {
            algorithm,
            request,
            certificate: octets(&leaf),
            chain: chain.iter().map(|der| octets(der)).sum(),
            tls_client,
            certificate_throughout: octets(&leaf_throughout),
            chain_throughout: chain_throughout.iter().map(|der| octets(der)).sum(),
            tls_client_throughout: self::tls_client(&chain_throughout, signature),
            crl,
            crl_entry: one.saturating_sub(crl),
            ocsp_answer: self.weighed_answer(&issuing)?,
            fleet_renewal: devices.saturating_mul(request + octets(&leaf) + tls_client),
        })
    }

    fn weighed_request(
        &self,
        profile: CertificateProfile,
        subject: Subject,
        key: &PrivateKey,
    ) -> Result<IssuanceRequest, FleetError> {
        let now = self.now();
        Ok(IssuanceRequest {
            profile,
            subject,
            key: requested_key(key)?,
            serial: SerialNumber::from_parts(now, kf_crypto::random_array()?),
            not_before: now.minus(BACKDATE),
            not_after: Some(now.plus(UnixMillis::DAY)),
        })
    }

    fn weighed_leaf(&self, issuer: &Issuer, signs: &PrivateKey, key: &PrivateKey) -> Result<Vec<u8>, FleetError> {
        let subject = Subject::Device {
            organization: self.config.fleet.clone(),
            device: DeviceId::from_parts(self.now(), kf_crypto::random_array()?),
            name: DEVICE_NAME.into(),
            product_line: LINE_NAME.into(),
        };
        signed(check_issuance(issuer, self.weighed_request(CertificateProfile::LDevId, subject, key)?), signs)
    }

    /// A root and an issuing CA of one algorithm.
    fn scales(&self, algorithm: KeyAlgorithm) -> Result<(Scale, Scale), FleetError> {
        let authority = |name: &str| Subject::Authority {
            common_name: format!("{} {name} CA", self.config.fleet),
            organization: self.config.fleet.clone(),
        };
        let scale = |key: PrivateKey, der: &[u8]| -> Result<Scale, FleetError> {
            let id = AuthorityId::from_parts(self.now(), kf_crypto::random_array()?);
            let issuer = Issuer::from_certificate(id, der, 8, &self.config.listen.public_http)
                .map_err(|_not_an_issuer| FleetError::Bug("a CA that was made to be weighed"))?;
            Ok(Scale { key, issuer })
        };
        let key = PrivateKey::generate(algorithm)?;
        let root = self.weighed_request(CertificateProfile::Root, authority("root"), &key)?;
        let der = signed(check_root(root), &key)?;
        let root = scale(key, &der)?;
        let key = PrivateKey::generate(algorithm)?;
        let issuing = self.weighed_request(CertificateProfile::IssuingCa, authority("issuing"), &key)?;
        let der = signed(check_issuance(&root.issuer, issuing), &root.key)?;
        Ok((root, scale(key, &der)?))
    }

    fn weighed_crl(&self, by: &Scale, with_entry: bool) -> Result<u64, FleetError> {
        let now = self.now();
        let serial = SerialNumber::from_parts(now, kf_crypto::random_array()?);
        let entry = CrlEntry { serial, revoked: now, reason: RevocationReason::KeyCompromise }.encode();
        let entries = [entry];
        let entries = entries.iter().take(usize::from(with_entry));
        let checked = check_crl(&by.issuer, CrlScope::Full, 1, now, now.plus(UnixMillis::DAY), entries)
            .map_err(|_refused| FleetError::Bug("a CRL that was made to be weighed"))?;
        let signature = by.key.sign(checked.tbs())?;
        Ok(octets(&checked.complete(&signature)))
    }

    fn weighed_answer(&self, by: &Scale) -> Result<u64, FleetError> {
        let bug = || FleetError::Bug("an OCSP answer that was made to be weighed");
        let key = PrivateKey::generate(crate::ocsp::responder_algorithm(by.issuer.algorithm))?;
        let subject = Subject::OcspSigner { common_name: "issuing OCSP".into() };
        let request = self.weighed_request(CertificateProfile::OcspSigner, subject, &key)?;
        let certificate = signed(check_issuance(&by.issuer, request), &by.key)?;
        let now = UnixMillis::from_seconds(self.now().seconds());
        let serial = SerialNumber::from_parts(now, kf_crypto::random_array()?);
        let asked = OcspRequest::from_der(&make_ocsp_request(&by.issuer, serial, None)).map_err(|_failure| bug())?;
        let answers: Vec<_> = asked.cert_ids.iter().map(|id| (id, CertStatus::Good)).collect();
        let answer = respond(&Responder { certificate, key }, &answers, None, now, now.plus(UnixMillis::HOUR));
        answer.map(|der| octets(&der)).map_err(|_failure| bug())
    }
}

fn signed(checked: Result<CheckedTbs, IssueRefusal>, key: &PrivateKey) -> Result<Vec<u8>, FleetError> {
    let bug = |_refusal: IssueRefusal| FleetError::Bug("a certificate that was made to be weighed");
    let checked = checked.map_err(bug)?;
    let signature = key.sign(checked.tbs())?;
    Ok(checked.complete(&signature).map_err(bug)?.der)
}

fn octets(der: &[u8]) -> u64 {
    u64::try_from(der.len()).unwrap_or(u64::MAX)
}

/// Certificate and CertificateVerify of RFC 8446 sections 4.4.2 and 4.4.3: heads of 4 octets, a context and a length of 4,
/// per certificate a length of 3 and no extensions (2); then scheme and length of the signature.
fn tls_client(chain: &[Vec<u8>], signature: u64) -> u64 {
    let certificates: u64 = chain.iter().map(|der| octets(der) + 5).sum();
    4 + 4 + certificates + 4 + 4 + signature
}
