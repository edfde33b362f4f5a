//! Flash encryption against espsecure.

use std::fs;

use kf_flash::flash_encryption::{FlashCipher, FlashEncryptionError};
use kf_key::SecretArray;
use kf_testkit::Python;
use proptest::prelude::*;

fn key<const N: usize>() -> SecretArray<N> {
    SecretArray::fill(|key: &mut [u8; N]| {
        for (octet, number) in key.iter_mut().zip(3_u8..) {
            *octet = number.wrapping_mul(11);
        }
    })
}

/// `espsecure encrypt-flash-data` or `decrypt-flash-data` with `--aes-xts`.
fn espsecure(verb: &str, key: &[u8], address: u32, octets: &[u8]) -> Vec<u8> {
    let folder = kf_testkit::scratch();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("key.bin"), key).unwrap();
    fs::write(path("in.bin"), octets).unwrap();
    let address = address.to_string();
    let (key, input, output) = (path("key.bin"), path("in.bin"), path("out.bin"));
    let arguments =
        ["-m", "espsecure", verb, "--aes-xts", "--keyfile", &key, "--address", &address, "--output", &output, &input];
    drop(Python::with_esptool_module("espsecure").tool().run(&arguments).expect_success());
    fs::read(output).unwrap()
}

#[test]
fn flash_is_encrypted_as_espsecure_does_it_at_any_aligned_address() {
    let plain: Vec<u8> = (0..4096_u32).map(|number| u8::try_from(number * 7 % 251).unwrap()).collect();
    let check = |cipher: &FlashCipher, key: &[u8], address, octets: &[u8]| {
        let mut ours = octets.to_vec();
        cipher.encrypt(address, &mut ours).unwrap();
        assert_eq!(ours, espsecure("encrypt-flash-data", key, address, octets), "at {address:#x}");
    };
    let (short, long) = (key::<32>(), key::<64>());
    check(&FlashCipher::aes_128(&short), short.expose(), 0x1_0000, &plain);
    check(&FlashCipher::aes_256(&long), long.expose(), 0x1_0000, &plain);
    check(&FlashCipher::aes_256(&long), long.expose(), 0x9_0050, &plain[..1008]);
    check(&FlashCipher::aes_128(&short), short.expose(), 0x10, &plain[..16]);
    let mut ours = plain.clone();
    FlashCipher::aes_256(&long).encrypt(0xd000, &mut ours).unwrap();
    assert_eq!(espsecure("decrypt-flash-data", long.expose(), 0xd000, &ours), plain);
}

proptest! {
    #[test]
    fn decryption_undoes_encryption_and_pieces_are_the_whole(
        block in 0_u32..0x1000, blocks in 1_usize..40, cut in 0_usize..40, seed: u8,
    ) {
        let (address, plain) = (block * 16, vec![seed; blocks * 16]);
        let cipher = FlashCipher::aes_256(&key());
        let mut whole = plain.clone();
        cipher.encrypt(address, &mut whole).unwrap();
        let mut pieces = plain.clone();
        let (first, second) = pieces.split_at_mut(cut.min(blocks) * 16);
        cipher.encrypt(address, first).unwrap();
        cipher.encrypt(address + u32::try_from(first.len()).unwrap(), second).unwrap();
        prop_assert_eq!(&pieces, &whole);
        cipher.decrypt(address, &mut whole).unwrap();
        prop_assert_eq!(whole, plain);
    }
}

#[test]
fn what_is_not_aligned_or_past_the_end_is_refused() {
    let cipher = FlashCipher::aes_128(&key());
    assert_eq!(cipher.encrypt(8, &mut [0; 16]), Err(FlashEncryptionError::Unaligned { address: 8, octets: 16 }));
    assert_eq!(cipher.encrypt(16, &mut [0; 15]), Err(FlashEncryptionError::Unaligned { address: 16, octets: 15 }));
    assert_eq!(cipher.encrypt(u32::MAX - 15, &mut [0; 16]), Err(FlashEncryptionError::TooLong));
    assert_eq!(cipher.encrypt(0, &mut []), Ok(()));
}
