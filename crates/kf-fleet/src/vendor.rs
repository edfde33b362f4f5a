//! Devices made elsewhere: their manufacturers' CAs, lists of the devices that are expected, and first use.

use std::collections::BTreeSet;

use kf_access::{Action, Principal, Target, authorize};
use kf_api::device::{Device, ImportReport, NewDevice, RowError};
use kf_api::operator::Credential;
use kf_api::vendor::{NewVendor, Vendor, VendorDevice, VendorImport, VendorRow};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, ProductLineId, VendorId};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::chain::{Currency, verify_client};
use kf_pki::request::RequestedKey;
use kf_store::device::Registration;
use kf_store::vendor::{BoundCertificate, NewVendorDevice};

use crate::device::import::{BadRow, bad_row};
use crate::device::{check_new_device, name_in_use, registration_entry};
use crate::enrolment::{Claim, device_principal};
use crate::entry::Entry;
use crate::naming::{check_name, check_text};
use crate::{ClientCertificate, Fleet, FleetError};

/// Rows of one call.
const MAX_ROWS: usize = 10_000;
/// Refused rows that a report names; all are counted.
const MAX_ERRORS: usize = 1_000;
/// The most manufacturers: the handshake of an unknown device tries each.
const MAX_VENDORS: u32 = 64;
const MAX_SOURCE: usize = 200;

impl Fleet {
    /// Trusts a manufacturer's CA for the devices that are imported under it, and for no other.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for what is no CA certificate, [`FleetError::Conflict`] for a name in use or too many,
    /// [`FleetError::Denied`].
    pub async fn vendor_create(&self, who: &Principal, new: NewVendor) -> Result<Vendor, FleetError> {
        authorize(who, Action::VendorManage, Target::Fleet)?;
        check_name("name", &new.name)?;
        let der = anchor_of(&new.anchor_pem)?;
        let anchor = PresentedCertificate::from_der(&der).ok_or_else(not_an_anchor)?;
        let now = self.now();
        if anchor.not_after < now {
            return Err(FleetError::invalid("anchor_pem", "the CA certificate has expired", "give the one in force"));
        }
        let page = PageRequest { after: None, limit: Some(MAX_VENDORS) };
        if self.store.vendors(&page)?.items.len() >= usize::try_from(MAX_VENDORS).unwrap_or(usize::MAX) {
            return Err(FleetError::conflict(
                "vendor",
                format!("there are {MAX_VENDORS} manufacturers"),
                "import the certificates of the devices under one CA where they share it",
            ));
        }
        let vendor = Vendor {
            id: VendorId::from_parts(now, kf_crypto::random_array()?),
            name: new.name,
            subject: kf_pki::name::to_rfc4514(&anchor.subject).ok_or_else(not_an_anchor)?,
            anchor_pem: kf_pki::pem::certificate(&der),
            not_after: anchor.not_after,
            created: now,
            withdrawn: None,
        };
        let entry = Entry::done(who, "vendor.create", now)
            .about(vendor.id)
            .with("name", &vendor.name)
            .with("anchor", hex::encode(kf_crypto::sha256(&der)))
            .build();
        self.store.insert_vendor(vendor.clone(), entry).await?;
        Ok(vendor)
    }

    /// The manufacturers that are or were trusted.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn vendor_list(&self, who: &Principal, page: PageRequest) -> Result<Page<Vendor>, FleetError> {
        authorize(who, Action::VendorRead, Target::Visible)?;
        Ok(self.store.vendors(&page)?)
    }

    /// A manufacturer by name or id.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn vendor_show(&self, who: &Principal, vendor: &str) -> Result<Vendor, FleetError> {
        authorize(who, Action::VendorRead, Target::Visible)?;
        self.find_vendor(vendor)
    }

    /// The devices that may bootstrap by IDevIDs of a manufacturer, as far as the caller may see them.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn vendor_devices(
        &self,
        who: &Principal,
        vendor: &str,
        page: PageRequest,
    ) -> Result<Page<VendorDevice>, FleetError> {
        let permit = authorize(who, Action::DeviceRead, Target::Visible)?;
        let vendor = self.find_vendor(vendor)?;
        Ok(self.store.vendor_devices(vendor.id, permit.visibility(), &page)?)
    }

    /// Withdraws the trust: no IDevID of the manufacturer's bootstraps a device from now on. Devices that enrolled keep their
    /// LDevIDs.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] when it was withdrawn before, [`FleetError::Denied`].
    pub async fn vendor_withdraw(&self, who: &Principal, vendor: &str, why: &str) -> Result<Vendor, FleetError> {
        authorize(who, Action::VendorManage, Target::Fleet)?;
        check_text("why", why, 500)?;
        let vendor = self.find_vendor(vendor)?;
        let now = self.now();
        let entry = Entry::done(who, "vendor.withdraw", now).about(vendor.id).because(why).build();
        self.store.withdraw_vendor(vendor.id, now, entry).await?;
        Ok(Vendor { withdrawn: Some(now), ..vendor })
    }

    /// Registers devices with the IDevIDs that they may use, each with its log entry. Sending the same rows again changes
    /// nothing. A dry run checks the same and writes nothing.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for the call as a whole; single rows are in the report. [`FleetError::NotFound`],
    /// [`FleetError::Denied`], [`FleetError::Conflict`] for a manufacturer that is no longer trusted.
    pub async fn vendor_import(
        &self,
        who: &Principal,
        vendor: &str,
        import: VendorImport,
    ) -> Result<ImportReport, FleetError> {
        authorize(who, Action::DeviceRegister, Target::Visible)?;
        check_text("source", &import.source, MAX_SOURCE)?;
        if import.rows.len() > MAX_ROWS {
            let problem = format!("{} rows", import.rows.len());
            return Err(FleetError::invalid("rows", problem, format!("send at most {MAX_ROWS} in one call")));
        }
        let vendor = self.find_vendor(vendor)?;
        if vendor.withdrawn.is_some() {
            return Err(FleetError::conflict(
                "vendor",
                format!("the trust in {} was withdrawn", vendor.name),
                "create it again under another name if it is to be trusted again",
            ));
        }
        let facility = self.find_facility(&import.facility, &who.visibility())?.id;
        authorize(who, Action::DeviceRegister, Target::Facility(facility))?;
        let line = self.find_product_line(&import.product_line)?.id;
        let anchor = anchor_of(&vendor.anchor_pem)?;
        let mut report = ImportReport { dry_run: import.dry_run, ..ImportReport::default() };
        let place = Place { vendor: &vendor, anchor: &anchor, facility, line, source: &import.source };
        let (mut numbers, mut rows, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for row in &import.rows {
            report.rows += 1;
            let taken = self.vendor_row(who, &place, row).and_then(|new| {
                if seen.insert(new.identifier.clone()) && seen.insert(format!("\0{}", new.device.name)) {
                    return Ok(new);
                }
                Err(FleetError::invalid("identifier", "a row before has the same identifier or name", "leave one out"))
            });
            match taken {
                Ok(new) => {
                    numbers.push(report.rows);
                    rows.push(new);
                }
                Err(error) => refuse(&mut report, bad_row(error)?),
            }
        }
        let outcomes = if import.dry_run {
            rows.iter().map(|new| self.vendor_row_compared(new)).collect::<Result<Vec<_>, _>>()?
        } else {
            self.store.register_vendor_devices(rows).await?
        };
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            match outcome {
                Registration::Registered { .. } => report.registered += 1,
                Registration::AlreadyThere { same_facts: true, .. } => report.already_there += 1,
                Registration::AlreadyThere { same_facts: false, .. } => {
                    refuse_at(&mut report, number, bad_row(name_in_use())?);
                }
                Registration::Refused(error) => refuse_at(&mut report, number, bad_row(error.into())?),
            }
        }
        report.errors.sort_by_key(|error| error.row);
        Ok(report)
    }

    /// A row as it would be registered.
    fn vendor_row(&self, who: &Principal, place: &Place<'_>, row: &VendorRow) -> Result<NewVendorDevice, FleetError> {
        let (identifier, pin) = match &row.chain_pem {
            None => (row.identifier.clone().ok_or_else(nothing_to_go_by)?, None),
            Some(pem) => {
                let (said, pin) = self.vendor_certificate(place.anchor, pem)?;
                let identifier = row.identifier.clone().or(said).ok_or_else(nothing_to_go_by)?;
                (identifier, Some(pin))
            }
        };
        check_text("identifier", &identifier, 200)?;
        let new = NewDevice {
            name: row.name.clone().unwrap_or_else(|| identifier.clone()),
            facility: place.facility.to_string(),
            product_line: place.line.to_string(),
            batch: None,
            attributes: std::collections::BTreeMap::new(),
        };
        check_new_device(&new)?;
        let device = self.device_of(new, place.facility, place.line)?;
        let mut entry = registration_entry(who, &device, device.created)
            .about(place.vendor.id)
            .with("vendor", &place.vendor.name)
            .with("identifier", &identifier);
        if !place.source.is_empty() {
            entry = entry.with("source", place.source);
        }
        if let Some(pin) = pin {
            entry = entry
                .about(format!("spki:{}", hex::encode(pin.spki)))
                .with("certificate", hex::encode(pin.certificate));
        }
        Ok(NewVendorDevice { device, vendor: place.vendor.id, identifier, pin, entry: entry.build() })
    }

    /// What a certificate says the device is, if anything, and what to bind the device to.
    fn vendor_certificate(&self, anchor: &[u8], pem: &str) -> Result<(Option<String>, BoundCertificate), FleetError> {
        let malformed = || {
            FleetError::invalid("chain_pem", "this is no certificate chain", "give PEM, the IDevID first, then its CAs")
        };
        let chain = kf_pki::pem::decode_all("CERTIFICATE", pem).ok_or_else(malformed)?;
        let (leaf, above) = chain.split_first().ok_or_else(malformed)?;
        let presented = PresentedCertificate::from_der(leaf).ok_or_else(malformed)?;
        let above: Vec<&[u8]> = above.iter().map(Vec::as_slice).collect();
        verify_client(leaf, &above, &[anchor], self.now()).map_err(|error| {
            FleetError::invalid(
                "chain_pem",
                error.to_string(),
                "give the CA certificates between the IDevID and the vendor's anchor, or the vendor whose it is",
            )
        })?;
        let key = RequestedKey::from_spki(&presented.spki).map_err(crate::enrolment::of_request)?;
        self.check_requested_key(&key, None)?;
        let pin = BoundCertificate { certificate: kf_crypto::sha256(leaf), spki: presented.spki_sha256 };
        Ok((kf_pki::name::device_identifier(&presented.subject), pin))
    }

    /// What registering a row would come to.
    fn vendor_row_compared(&self, new: &NewVendorDevice) -> Result<Registration, FleetError> {
        let named = self.store.device_by_name(&new.device.name, &kf_access::Visibility::Fleet)?;
        let listed = self.store.vendor_device(new.vendor, &new.identifier)?;
        let pinned = new.pin.map(|pin| hex::encode(pin.certificate));
        let holder = match new.pin {
            Some(pin) => self.store.vendor_device_by_certificate(&pin.certificate)?,
            None => None,
        };
        Ok(match (named, listed) {
            (None, None) if holder.is_some() => {
                Registration::Refused(kf_store::StoreError::Conflict { field: "certificate" })
            }
            (None, None) => Registration::Registered { index: 0 },
            (Some(device), Some(listed)) if device.id == listed.device => {
                let same_facts = device.facility == new.device.facility
                    && device.product_line == new.device.product_line
                    && (pinned.is_none() || pinned == listed.certificate_sha256);
                Registration::AlreadyThere { id: device.id, same_facts }
            }
            (Some(device), _) => Registration::AlreadyThere { id: device.id, same_facts: false },
            (None, Some(listed)) => Registration::AlreadyThere { id: listed.device, same_facts: false },
        })
    }

    fn find_vendor(&self, reference: &str) -> Result<Vendor, FleetError> {
        let found = match reference.parse::<VendorId>() {
            Ok(id) => self.store.vendor(id)?,
            Err(_not_an_id) => self.store.vendor_by_name(reference)?,
        };
        found.ok_or(FleetError::NotFound("vendor"))
    }

    /// Validates a manufacturer's IDevID in the handshake. One that was imported is known octet by octet, and its path was
    /// validated then; any other must lead to the CA of a manufacturer that is trusted, with the intermediates that
    /// the client sends, and be called as a device that is expected.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`].
    pub(crate) fn verify_vendor_path(
        &self,
        leaf: &[u8],
        intermediates: &[&[u8]],
    ) -> Result<ClientCertificate, FleetError> {
        let accepted = |vendor, currency| ClientCertificate {
            der: leaf.into(),
            // Not ours: it must never be looked up among those that we issued.
            serial: None,
            currency,
            vendor: Some(vendor),
        };
        if let Some(known) = self.store.vendor_device_by_certificate(&kf_crypto::sha256(leaf))? {
            return Ok(accepted(known.vendor, Currency::Current));
        }
        let presented = PresentedCertificate::from_der(leaf).ok_or(FleetError::Unauthenticated)?;
        let identifier = kf_pki::name::device_identifier(&presented.subject).ok_or(FleetError::Unauthenticated)?;
        let page = PageRequest { after: None, limit: Some(MAX_VENDORS) };
        for vendor in self.store.vendors(&page)?.items {
            if vendor.withdrawn.is_some() || self.store.vendor_device(vendor.id, &identifier)?.is_none() {
                continue;
            }
            let anchor = anchor_of(&vendor.anchor_pem)?;
            if let Ok(currency) = verify_client(leaf, intermediates, &[&anchor], self.now()) {
                return Ok(accepted(vendor.id, currency));
            }
        }
        Err(FleetError::Unauthenticated)
    }

    /// The device that a certificate of a manufacturer's is for.
    pub(crate) fn vendor_device_of(
        &self,
        vendor: &Vendor,
        certificate: &[u8; 32],
        presented: &PresentedCertificate,
    ) -> Result<Option<VendorDevice>, FleetError> {
        if let Some(known) = self.store.vendor_device_by_certificate(certificate)? {
            return Ok(Some(known));
        }
        let Some(identifier) = kf_pki::name::device_identifier(&presented.subject) else { return Ok(None) };
        Ok(self.store.vendor_device(vendor.id, &identifier)?)
    }

    /// Notes that a device used its IDevID for the first time: from then on it is the only one for this device.
    pub(crate) async fn note_first_use(&self, claim: &Claim, pin: BoundCertificate) -> Result<(), FleetError> {
        let device: &Device = &claim.device;
        let now = self.now();
        let entry = Entry::done(&device_principal(device, Credential::Certificate), "vendor.first-use", now)
            .about(device.id)
            .about(format!("spki:{}", hex::encode(pin.spki)))
            .at_facility(Some(device.facility))
            .with("certificate", hex::encode(pin.certificate));
        self.store.bind_vendor_device(device.id, pin, now, entry.build()).await?;
        Ok(())
    }
}

/// Where the devices of an import belong.
struct Place<'a> {
    vendor: &'a Vendor,
    anchor: &'a [u8],
    facility: FacilityId,
    line: ProductLineId,
    source: &'a str,
}

fn refuse(report: &mut ImportReport, bad: BadRow) {
    let row = report.rows;
    refuse_at(report, row, bad);
}

fn refuse_at(report: &mut ImportReport, row: u64, bad: BadRow) {
    report.refused += 1;
    if report.errors.len() < MAX_ERRORS {
        let BadRow { field, problem, remedy } = bad;
        report.errors.push(RowError { row, field, problem, remedy });
    }
}

/// The one certificate in a text, if it may be an anchor.
fn anchor_of(pem: &str) -> Result<Vec<u8>, FleetError> {
    let der = match kf_pki::pem::decode_all("CERTIFICATE", pem).ok_or_else(not_an_anchor)?.as_slice() {
        [only] => only.clone(),
        _ => return Err(not_an_anchor()),
    };
    if kf_pki::chain::is_anchor(&der) { Ok(der) } else { Err(not_an_anchor()) }
}

fn not_an_anchor() -> FleetError {
    FleetError::invalid(
        "anchor_pem",
        "this is not one CA certificate",
        "give the PEM of the vendor's root, or of the CA that issues its IDevIDs",
    )
}

fn nothing_to_go_by() -> FleetError {
    FleetError::invalid(
        "identifier",
        "there is neither a certificate that names the device nor an identifier",
        "give the certificate, or the serialNumber (else the common name) of its subject",
    )
}
