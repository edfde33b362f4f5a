//! Keys whose private halves stand in published documents, by SHA-256 of the SubjectPublicKeyInfo.

/// One row a key, with the document that prints its private half.
const PUBLISHED: [&str; 12] = [
    // RFC 9500 section 2.3: testECCP256.
    "b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e",
    // RFC 9500 section 2.3: testECCP384.
    "c4c10105a0be0ed4dd3354428dc38a9bfee64da141ce16e75c94eda272f9dd3a",
    // RFC 9500 section 2.1: testRSA2048.
    "8fb6bad671cfe698393c453357da61b56d757ab8c0f3fb9c87f2849e63131878",
    // RFC 9500 section 2.1: testRSA4096.
    "96465ea5dc9bb2da7b351d808a7196e5761f2412a5040131c68d719aaba28fb9",
    // RFC 8410 section 10.3: the Ed25519 private key of the examples.
    "a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f",
    // RFC 6979 appendix A.2.5: P-256.
    "5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4",
    // RFC 6979 appendix A.2.6: P-384.
    "2f95601fa82060b909bfc6b979dbd303d34d34e0afb27ea496beac362f242a4b",
    // RFC 8032 section 7.1: test 1.
    "06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9",
    // RFC 8032 section 7.1: test 2.
    "deb2ded39dc26fce0e6085b6fc34bf6b5941913bbfe2ea614113cff9e004c170",
    // RFC 8032 section 7.1: test 3.
    "8d39ba50abe50f77b6bb8ae7b6927aff7ffbeba35ad2837c0e51e82bcbcc60d5",
    // The base point of P-256: private key 1.
    "5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3",
    // The base point of P-384: private key 1.
    "29f8fe74f38c49d49810cec736a26732a30bff2e64827b709a1c63340d4f7181",
];

/// Whether this is one of them.
pub(super) fn is_published(spki_sha256: &[u8; 32]) -> bool {
    PUBLISHED.iter().any(|row| is_hex_of(row, spki_sha256))
}

fn is_hex_of(digits: &str, octets: &[u8; 32]) -> bool {
    let digits = digits.as_bytes().chunks_exact(2);
    digits.len() == octets.len()
        && digits.zip(octets).all(|(pair, octet)| {
            core::str::from_utf8(pair).is_ok_and(|pair| u8::from_str_radix(pair, 16) == Ok(*octet))
        })
}
