use std::collections::BTreeSet;

use kf_key::SecretBytes;
use proptest::prelude::*;

use super::*;
use crate::split::values_at;

const CEREMONY: CeremonyId = CeremonyId([0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8]);

/// The shares of the key 00 01 .. 1f with the coefficients 7 i + 3, 3 of 5, computed by a program in another language.
const WRITTEN_DOWN: [&str; 5] = [
    "010301a1a2a3a4a5a6a7a850517273745556b7b8d9dafbfcfddedfa0a142434465664748a9aacbcccdeeef8e8f25c22989608fe3104e081cae52e21e0f8326",
    "010302a1a2a3a4a5a6a7a85166bf889d8ab34964f3ca1d083f2611d7e062554097aeb9946e57c0d5e23b0c4f7873a25b96455c12d7b3eee86c6aecfd25413e",
    "010303a1a2a3a4a5a6a7a80136cff8eddae3f9d4231aedf8cff6c16750320510e7dee9c4dee7100532cbfc9fa8c312ebc6152c6287e35e58dcba3c95525055",
    "010304a1a2a3a4a5a6a7a84bfe0cb9d2bc234f8cf966bed560249143f69f2a41990668abc7582d46f301b4e2570053d4d6a3b515a96ba0d8de1e1af95ccbba",
    "010305a1a2a3a4a5a6a7a81bae7cc9a2ec73ff3c29b64e2590f441f346cf7a11e97638fb77e8fd9623f1443287b0e36486f3c565f93b10686ececac8e70bee",
];

fn secret(octets: &[u8]) -> SecretBytes {
    SecretBytes::from_vec(octets.to_vec())
}

fn key() -> Vec<u8> {
    (0..32).collect()
}

fn random(octets: &mut [u8]) -> Result<(), kf_crypto::CryptoError> {
    kf_crypto::fill_random(octets)
}

fn shares_of(octets: &[u8], threshold: u8, shares: u8) -> Vec<Share> {
    let quorum = Quorum::new(threshold, shares).expect("a quorum");
    split(&secret(octets), quorum, CEREMONY, random).expect("randomness")
}

fn copies(shares: &[&Share]) -> Vec<Share> {
    shares.iter().map(|share| Share::decode(share.encode().expose()).expect("its own octets")).collect()
}

fn refused(shares: &[Share]) -> CombineError {
    combine(shares).map(|_key| ()).expect_err("no key comes back")
}

#[test]
fn the_format_is_the_one_that_was_written_down() {
    let quorum = Quorum::new(3, 5).expect("a quorum");
    let counting = |octets: &mut [u8]| {
        octets.iter_mut().zip(0_u16..).for_each(|(octet, place)| *octet = (7 * place + 3).to_le_bytes()[0]);
        Ok::<(), ()>(())
    };
    let shares = split(&secret(&key()), quorum, CEREMONY, counting).expect("no failure");
    let written: Vec<String> = shares.iter().map(|share| hex(share.encode().expose())).collect();
    assert_eq!(written, WRITTEN_DOWN);
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn every_set_of_enough_shares_brings_the_key_back_and_every_smaller_one_does_not() {
    for (threshold, count) in [(2, 2), (2, 5), (3, 5), (5, 5), (4, 7)] {
        let shares = shares_of(&key(), threshold, count);
        for chosen in 1_u32..1 << count {
            let set: Vec<&Share> = shares.iter().filter(|share| chosen >> (share.index() - 1) & 1 == 1).collect();
            let set = copies(&set);
            if set.len() >= usize::from(threshold) {
                assert!(combine(&set).expect("enough").equals(&key()), "{threshold} of {count}: {chosen:b}");
            } else {
                assert_eq!(refused(&set), CombineError::TooFew { needed: threshold, given: set.len() });
            }
        }
    }
}

/// With one octet and two of n: for every share that somebody may hold, each secret explains it by exactly one coefficient.
#[test]
fn one_share_of_two_leaves_every_secret_equally_likely() {
    for index in [1, 2, 16] {
        for octet in 0..=255_u8 {
            let value = |coefficient: u8| values_at(index, &secret(&[octet]), &secret(&[coefficient])).expose()[0];
            let values: BTreeSet<u8> = (0..=255).map(value).collect();
            assert_eq!(values.len(), 256, "share {index} of the secret {octet}: a value has two explanations or none");
        }
    }
}

/// With three of n: two shares take every pair of values exactly once as the coefficients go through all of theirs.
#[test]
fn two_shares_of_three_take_every_pair_of_values_whatever_the_secret() {
    for octet in [0, 1, 0x53, 0xff] {
        let mut seen = vec![false; 65_536];
        for coefficients in 0..=u16::MAX {
            let coefficients = secret(&coefficients.to_be_bytes());
            let value = |index| usize::from(values_at(index, &secret(&[octet]), &coefficients).expose()[0]);
            let pair = value(1) * 256 + value(7);
            assert!(!std::mem::replace(&mut seen[pair], true), "secret {octet}: a pair comes twice");
        }
    }
}

#[test]
fn a_wrong_share_is_noticed_and_named_when_there_is_one_more_than_needed() {
    let shares = shares_of(&key(), 3, 5);
    let mut octets = shares[1].encode().expose().to_vec();
    octets[20] ^= 1;
    let body = octets.len() - 4;
    let sum = kf_crypto::sha256(&octets[..body]);
    octets[body..].copy_from_slice(&sum[..4]);
    let forged = || Share::decode(&octets).expect("well formed");
    let three = [copies(&[&shares[0], &shares[4]]), vec![forged()]].concat_shares();
    assert_eq!(refused(&three), CombineError::Inconsistent);
    let four = [copies(&[&shares[0], &shares[2], &shares[4]]), vec![forged()]].concat_shares();
    assert_eq!(refused(&four), CombineError::Wrong(2));
}

/// Shares are not `Clone`, so that slices of them cannot be concatenated by copying.
trait ConcatShares {
    fn concat_shares(self) -> Vec<Share>;
}

impl<const N: usize> ConcatShares for [Vec<Share>; N] {
    fn concat_shares(self) -> Vec<Share> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn shares_that_are_the_same_or_from_another_ceremony_are_named() {
    let shares = shares_of(&key(), 2, 3);
    let twice = copies(&[&shares[0], &shares[0]]);
    assert_eq!(refused(&twice), CombineError::Duplicate(1));
    let quorum = Quorum::new(2, 3).expect("a quorum");
    let other = split(&secret(&key()), quorum, CeremonyId([9; 8]), random).expect("randomness");
    let mixed = [copies(&[&shares[0]]), copies(&[&other[1]])].concat_shares();
    assert_eq!(refused(&mixed), CombineError::OtherCeremony(2));
    assert_eq!(refused(&[]), CombineError::TooFew { needed: 2, given: 0 });
    // The same ceremony run again with fresh coefficients: well formed, and no key.
    let again = shares_of(&key(), 2, 3);
    let mixed = [copies(&[&shares[0]]), copies(&[&again[1]])].concat_shares();
    assert_eq!(refused(&mixed), CombineError::Inconsistent);
}

#[test]
fn quorums_and_keys_out_of_range_are_refused() {
    assert_eq!(Quorum::new(1, 3), Err(QuorumError::Threshold));
    assert_eq!(Quorum::new(4, 3), Err(QuorumError::TooFewShares { threshold: 4, shares: 3 }));
    assert_eq!(Quorum::new(2, 17), Err(QuorumError::TooManyShares));
    let quorum = Quorum::new(2, 2).expect("a quorum");
    for length in [0, 15, 65] {
        let outcome = split(&secret(&vec![1; length]), quorum, CEREMONY, random);
        assert!(matches!(outcome, Err(SplitError::Length(found)) if found == length));
    }
    let failing = split(&secret(&key()), quorum, CEREMONY, |_octets| Err("no noise"));
    assert!(matches!(failing, Err(SplitError::Random("no noise"))));
}

#[test]
fn every_slip_of_one_octet_and_every_cut_is_noticed() {
    let octets = shares_of(&key(), 2, 2)[0].encode().expose().to_vec();
    for place in 0..octets.len() {
        for bit in 0..8 {
            let mut slipped = octets.clone();
            slipped[place] ^= 1 << bit;
            assert!(Share::decode(&slipped).is_err(), "octet {place}, bit {bit}");
        }
        assert!(Share::decode(&octets[..place]).is_err());
    }
}

#[test]
fn every_wrong_word_is_noticed_and_an_unknown_one_is_numbered() {
    let share = &shares_of(&key(), 2, 2)[0];
    let words = String::from_utf8(share.words().expose().to_vec()).expect("words");
    let words: Vec<&str> = words.split(' ').collect();
    assert_eq!(words.len(), 46);
    for place in 0..words.len() {
        let other = if words[place] == "zoo" { "able" } else { "zoo" };
        let slipped: Vec<&str> =
            words.iter().enumerate().map(|(at, word)| if at == place { other } else { word }).collect();
        let refused = Share::from_words(&slipped.join(" ")).map(|_share| ());
        assert!(matches!(refused, Err(WordError::Share(ShareError::Sum | ShareError::Version(_)))), "word {place}");
    }
    let unknown = [&words[..7], &["keyfleet"], &words[8..]].concat().join(" ");
    assert_eq!(Share::from_words(&unknown).map(|_share| ()), Err(WordError::Unknown(8)));
    for count in [0, 1, 20, 100_000] {
        let many = vec!["abandon"; count].join(" ");
        assert!(Share::from_words(&many).is_err(), "{count} words");
    }
}

#[test]
fn a_share_shows_its_number_and_nothing_else() {
    let shown = format!("{:?}", shares_of(&key(), 2, 2)[1]);
    assert_eq!(shown, "Share 2 of ceremony a1a2a3a4a5a6a7a8");
}

#[test]
fn another_implementation_brings_our_keys_back_from_our_shares() {
    let shares = shares_of(&key(), 3, 5);
    let theirs: Vec<Vec<u8>> = shares
        .iter()
        .skip(2)
        .map(|share| std::iter::once(share.index()).chain(share.values.expose().iter().copied()).collect())
        .collect();
    let combined = vsss_rs::Gf256::combine_bytes(theirs).expect("combines");
    assert_eq!(combined[..32], key());
    let check = share::check_of(CEREMONY, 3, &key());
    assert_eq!(combined[32..], check[..]);
}

#[test]
fn we_bring_keys_back_from_the_shares_of_another_implementation() {
    let check = share::check_of(CEREMONY, 3, &key());
    let shared = [key().as_slice(), check.as_slice()].concat();
    let theirs = vsss_rs::Gf256::split_bytes(3, 5, shared, Noise).expect("splits");
    let shares: Vec<Share> = theirs
        .iter()
        .take(3)
        .map(|octets| Share { ceremony: CEREMONY, threshold: 3, index: octets[0], values: secret(&octets[1..]) })
        .collect();
    assert!(combine(&shares).expect("combines").equals(&key()));
    let indices: BTreeSet<u8> = shares.iter().map(Share::index).collect();
    assert_eq!(indices.len(), 3);
}

/// Our randomness, as the other implementation asks for it.
struct Noise;

impl rand_core::TryRng for Noise {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut octets = [0; 4];
        self.try_fill_bytes(&mut octets)?;
        Ok(u32::from_le_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut octets = [0; 8];
        self.try_fill_bytes(&mut octets)?;
        Ok(u64::from_le_bytes(octets))
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Self::Error> {
        kf_crypto::fill_random(octets).expect("randomness");
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Noise {}

proptest! {
    #[test]
    fn octets_and_words_are_read_back_for_keys_of_every_length(length in 16..=64_usize, octet in any::<u8>()) {
        let share = &shares_of(&vec![octet; length], 2, 2)[1];
        let octets = share.encode();
        let from_octets = Share::decode(octets.expose()).expect("octets");
        let text = String::from_utf8(share.words().expose().to_vec()).expect("words");
        let from_words = Share::from_words(&text.to_uppercase().replace(' ', "\n ")).expect("words");
        for read in [&from_octets, &from_words] {
            prop_assert!(read.encode().equals(octets.expose()));
            prop_assert_eq!(read.secret_octets(), length);
        }
    }

    #[test]
    fn no_octets_and_no_text_panic(octets in proptest::collection::vec(any::<u8>(), 0..120), text in "[a-z ]{0,300}") {
        drop(Share::decode(&octets));
        drop(Share::from_words(&text));
    }
}
