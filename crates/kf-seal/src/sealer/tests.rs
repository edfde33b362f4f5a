use super::*;
use crate::tests::{RANDOM, application, key_id, seal, sealer};
use crate::{MAX_OVERHEAD_OCTETS, Sealed};

#[test]
fn a_boot_refuses_past_its_last_message_and_goes_on_refusing() {
    let mut sealer = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm);
    sealer.counter = MESSAGES_PER_BOOT - 1;
    assert_eq!(sealer.remaining(), 1);
    let last = seal(&mut sealer, b"last", b"");
    assert_eq!(Sealed::parse(&last).unwrap().counter(), MESSAGES_PER_BOOT - 1);
    for _ in 0..2 {
        assert_eq!(sealer.remaining(), 0);
        let error = sealer.seal(b"one more", b"", &mut [0; 256]).unwrap_err();
        assert_eq!(error, SealError::BootExhausted);
    }
}

// RFC 9147 section 4.5.3 allows AES-CCM 2^23 records of 2^10 blocks, RFC 9001 section 6.6 AES-GCM as many.
const _: () = assert!(MESSAGES_PER_BOOT <= 1 << 23 && MAX_PLAINTEXT_OCTETS / 16 == 1 << 10);

#[test]
fn a_refused_call_uses_no_counter_and_leaves_no_plaintext() {
    let mut sealer = sealer(1, RANDOM, SealAlgorithm::Aes128Ccm);
    let needed = seal(&mut sealer, b"plaintext", b"").len();
    let mut small = std::vec![0; needed - 1];
    let error = sealer.seal(b"plaintext", b"", &mut small).unwrap_err();
    assert_eq!(error, SealError::BufferTooSmall { needed });
    assert!(!small.windows(9).any(|octets| octets == b"plaintext"));
    let needed = 9 + MAX_OVERHEAD_OCTETS;
    assert_eq!(sealer.seal(b"plaintext", b"", &mut []).unwrap_err(), SealError::BufferTooSmall { needed });
    let aad = [0; MAX_EXTERNAL_AAD_OCTETS + 1];
    let error = sealer.seal(b"plaintext", &aad, &mut [0; 256]).unwrap_err();
    assert_eq!(error, SealError::ExternalAadTooLarge { octets: aad.len() });
    assert_eq!(sealer.remaining(), MESSAGES_PER_BOOT - 1);
}

#[test]
fn a_key_for_another_algorithm_makes_no_cipher() {
    for algorithm in SealAlgorithm::ALL {
        for other in SealAlgorithm::ALL {
            let key = application("telemetry").boot(&RANDOM, key_id().sender, other.into()).unwrap();
            assert_eq!(Cipher::new(algorithm, &key).is_some(), algorithm == other);
        }
    }
}
