//! How values are stored in columns: identifiers as their octets, times as milliseconds, enumerations as codes that are
//! written down here and never change.

use kf_api::authority::AuthorityKind;
use kf_api::backup::BackupState;
use kf_api::batch::{BatchState, ConflictKind, MadeState, Outcome};
use kf_api::campaign::CampaignKind;
use kf_api::destruction::DestructionResult;
use kf_api::enrolment::EnrolmentState;
use kf_api::epoch::{DeviceKeyState, EpochState};
use kf_api::incident::IncidentState;
use kf_api::operator::Role;
use kf_api::order::{OrderAct, OrderState};
use kf_api::proposal::ProposalState;
use kf_key::{
    AuthorityId, BackupId, BatchId, CampaignId, CampaignState, CertificateProfile, CertificateStatus, CodeId,
    DestructionId, DeviceId, DeviceState, EncryptionKeyId, EnrolmentId, FacilityId, IncidentId, IntentId, KeyAlgorithm,
    KeyId, KeyProtection, KeyState, KeyType, MemberState, OperatorId, OrderId, ProductLineId, ProposalId,
    RevocationReason, SerialNumber, SuccessionState, TokenId, UnixMillis, VendorId,
};
use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type};

use crate::StoreError;

/// A value that is stored as a code.
pub(crate) trait Coded: Copy + PartialEq + 'static {
    /// Every value with its code; 0 is never used.
    const CODES: &'static [(u8, Self)];

    /// The code.
    fn code(self) -> u8 {
        Self::CODES.iter().find(|(_, value)| *value == self).map_or(0, |(code, _)| *code)
    }
}

macro_rules! coded {
    ($($name:ident: $($code:literal $variant:ident)+;)+) => {$(
        impl Coded for $name {
            const CODES: &'static [(u8, Self)] = &[$(($code, Self::$variant)),+];
        }
    )+};
}

coded! {
    DeviceState: 1 Registered 2 Active 3 Suspended 4 Quarantined 5 Decommissioned;
    KeyProtection: 1 Unknown 2 Plain 3 Wrapped 4 Tpm 5 SecureElement 6 Token;
    KeyState: 1 PreActivation 2 Active 3 Suspended 4 Deactivated 5 Compromised 6 Destroyed;
    KeyAlgorithm: 1 P256 2 P384 3 Ed25519 4 Rsa2048 5 Rsa3072 6 Rsa4096 7 MlDsa44 8 MlDsa65 9 MlDsa87;
    KeyType: 1 PrivateSignature 2 PublicSignatureVerification 3 SymmetricAuthentication 4 PrivateAuthentication
        5 PublicAuthentication 6 SymmetricDataEncryption 7 SymmetricKeyWrapping 8 SymmetricRandomBitGeneration
        9 SymmetricMaster 10 PrivateKeyTransport 11 PublicKeyTransport 12 SymmetricKeyAgreement
        13 PrivateStaticKeyAgreement 14 PublicStaticKeyAgreement 15 PrivateEphemeralKeyAgreement
        16 PublicEphemeralKeyAgreement 17 SymmetricAuthorization 18 PrivateAuthorization 19 PublicAuthorization;
    CertificateProfile: 1 Root 2 IssuingCa 3 IDevId 4 LDevId 5 TlsServer 6 OcspSigner 7 Operator 8 LinkCa;
    CertificateStatus: 1 Good 2 Held 3 Revoked;
    // The codes of RFC 5280 section 5.3.1, plus one.
    RevocationReason: 1 Unspecified 2 KeyCompromise 3 CaCompromise 4 AffiliationChanged 5 Superseded
        6 CessationOfOperation 7 CertificateHold 9 RemoveFromCrl 10 PrivilegeWithdrawn 11 AaCompromise;
    AuthorityKind: 1 Root 2 Issuing 3 Factory;
    Role: 1 Owner 2 FleetOperator 3 FacilityOperator 4 Auditor 5 Station 6 Device 7 Relay 8 Application;
    EnrolmentState: 1 Waiting 2 Approved 3 Refused 4 Issued;
    EpochState: 1 Pending 2 Current 3 Retired;
    OrderAct: 1 Rotate 2 Wipe 3 FactoryReset;
    OrderState: 1 Open 2 Done 3 Failed 4 Declined 5 Cancelled;
    DeviceKeyState: 1 Offered 2 Held 3 Superseded;
    CampaignKind: 1 DeviceKey 2 Certificate 3 TrustAnchor 4 Storage;
    SuccessionState: 1 Prepared 2 Switched 3 Retired 4 Closed 5 Withdrawn;
    CampaignState: 1 Draft 2 Running 3 Paused 4 Stopped 5 Aborted 6 Completed 7 RolledBack;
    MemberState: 1 Waiting 2 Offered 3 Done 4 Failed 5 Skipped 6 TakenBack;
    BatchState: 1 Open 2 Cancelled 3 Compromised;
    IncidentState: 1 Open 2 Closed;
    Outcome: 1 Passed 2 Scrapped 3 Rework;
    MadeState: 1 Missing 2 Rework 3 Passed 4 Scrapped;
    ConflictKind: 1 OutsideQuota 2 MadeTwice 3 SameKey 4 SameAddress 5 SameSerial 6 ClonedStation 7 OtherQuota
        8 BeforeQuota 9 AfterExpiry 10 ClockWentBack 11 BatchCancelled 12 UnknownRecipe 13 AfterScrap 14 Certificate
        15 BadKey 16 UnsafeNotAllowed 17 Salt;
    DestructionResult: 1 Destroyed 2 Barred 3 Stated;
    BackupState: 1 Openable 2 Retired;
    ProposalState: 1 Waiting 2 Done 3 Cancelled 4 Expired 5 Failed;
}

/// An identifier of 16 octets.
pub(crate) trait Id: Sized {
    /// From the stored octets.
    fn from_octets(octets: [u8; 16]) -> Self;
}

macro_rules! identifiers {
    ($($name:ident)+) => {$(
        impl Id for $name {
            fn from_octets(octets: [u8; 16]) -> Self {
                Self::from_bytes(octets)
            }
        }
    )+};
}

identifiers! {
    AuthorityId BackupId BatchId CampaignId CodeId DestructionId DeviceId EncryptionKeyId EnrolmentId FacilityId IncidentId IntentId KeyId OperatorId OrderId ProductLineId ProposalId TokenId
    VendorId
}

fn unreadable(column: usize, kind: Type, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(FromSqlError::Other(what.into())))
}

pub(crate) fn id<T: Id>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get(column).map(T::from_octets)
}

pub(crate) fn optional_id<T: Id>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(T::from_octets))
}

pub(crate) fn serial(row: &Row<'_>, column: usize) -> rusqlite::Result<SerialNumber> {
    let octets: [u8; 20] = row.get(column)?;
    SerialNumber::from_der_contents(&octets).ok_or_else(|| unreadable(column, Type::Blob, "not a serial number"))
}

pub(crate) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_negative| unreadable(column, Type::Integer, "a count is negative"))
}

pub(crate) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixMillis> {
    count(row, column).map(UnixMillis)
}

pub(crate) fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<UnixMillis>> {
    match row.get::<_, Option<i64>>(column)? {
        None => Ok(None),
        Some(_) => time(row, column).map(Some),
    }
}

pub(crate) fn coded<T: Coded>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let code: u8 = row.get(column)?;
    T::CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, value)| *value)
        .ok_or_else(|| unreadable(column, Type::Integer, "a code is not known"))
}

pub(crate) fn optional_coded<T: Coded>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    match row.get::<_, Option<u8>>(column)? {
        None => Ok(None),
        Some(_) => coded(row, column).map(Some),
    }
}

/// A value kept as JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A time as stored.
pub(crate) fn millis(at: UnixMillis) -> i64 {
    integer(at.0)
}

/// A count as stored; beyond 2^63 it stays there.
pub(crate) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The 32 octets of a SHA-256 in hexadecimal.
pub(crate) fn sha256_of_hex(field: &'static str, text: &str) -> Result<[u8; 32], StoreError> {
    let mut octets = [0; 32];
    hex::decode_to_slice(text, &mut octets)
        .map_err(|_detail| StoreError::Invalid { field, problem: "expected 64 hexadecimal digits" })?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Coded + std::fmt::Debug>(all: &[T]) {
        let mut codes: Vec<_> = all.iter().map(|value| value.code()).collect();
        assert!(!codes.contains(&0), "{all:?}");
        assert_eq!(T::CODES.len(), all.len(), "{all:?}");
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len(), "{all:?}");
    }

    #[test]
    fn every_value_has_a_code_of_its_own() {
        check(&DeviceState::ALL);
        check(&KeyState::ALL);
        check(&KeyType::ALL);
        check(&KeyAlgorithm::ALL);
        check(&CertificateProfile::ALL);
        check(&RevocationReason::ALL);
        check(&Role::ALL);
        check(Outcome::ALL);
        check(MadeState::ALL);
        check(ConflictKind::ALL);
        check(&[BatchState::Open, BatchState::Cancelled, BatchState::Compromised]);
        check(&[IncidentState::Open, IncidentState::Closed]);
        check(&[OrderAct::Rotate, OrderAct::Wipe, OrderAct::FactoryReset]);
        check(&CampaignKind::ALL);
        check(&SuccessionState::ALL);
        check(&CampaignState::ALL);
        check(&MemberState::ALL);
        let ended = [OrderState::Done, OrderState::Failed, OrderState::Declined, OrderState::Cancelled];
        check(&[[OrderState::Open].as_slice(), &ended].concat());
        check(&[EpochState::Pending, EpochState::Current, EpochState::Retired]);
        check(&[DeviceKeyState::Offered, DeviceKeyState::Held, DeviceKeyState::Superseded]);
        for reason in RevocationReason::ALL {
            assert_eq!(Coded::code(reason), RevocationReason::code(reason) + 1);
        }
    }
}
