//! Ours and the crate esp-nvs, which reads and writes NVS on devices.

use proptest::prelude::*;

use super::sample::{Content, Sample, read_all, samples};
use crate::chip_flash::{ChipFlash, key, start};

fn set(nvs: &mut esp_nvs::Nvs<&mut ChipFlash>, namespace: &str, name: &str, content: &Content) -> bool {
    let (namespace, name) = (key(namespace), key(name));
    let result = match content {
        Content::U8(number) => nvs.set(&namespace, &name, *number),
        Content::I8(number) => nvs.set(&namespace, &name, *number),
        Content::U16(number) => nvs.set(&namespace, &name, *number),
        Content::I16(number) => nvs.set(&namespace, &name, *number),
        Content::U32(number) => nvs.set(&namespace, &name, *number),
        Content::I32(number) => nvs.set(&namespace, &name, *number),
        Content::U64(number) => nvs.set(&namespace, &name, *number),
        Content::I64(number) => nvs.set(&namespace, &name, *number),
        Content::Text(text) => nvs.set(&namespace, &name, text.as_str()),
        Content::Blob(blob) => nvs.set(&namespace, &name, blob.as_slice()),
    };
    result.is_ok()
}

fn get(nvs: &mut esp_nvs::Nvs<&mut ChipFlash>, namespace: &str, name: &str, like: &Content) -> Option<Content> {
    let (namespace, name) = (key(namespace), key(name));
    Some(match like {
        Content::U8(_) => Content::U8(nvs.get(&namespace, &name).ok()?),
        Content::I8(_) => Content::I8(nvs.get(&namespace, &name).ok()?),
        Content::U16(_) => Content::U16(nvs.get(&namespace, &name).ok()?),
        Content::I16(_) => Content::I16(nvs.get(&namespace, &name).ok()?),
        Content::U32(_) => Content::U32(nvs.get(&namespace, &name).ok()?),
        Content::I32(_) => Content::I32(nvs.get(&namespace, &name).ok()?),
        Content::U64(_) => Content::U64(nvs.get(&namespace, &name).ok()?),
        Content::I64(_) => Content::I64(nvs.get(&namespace, &name).ok()?),
        Content::Text(_) => Content::Text(nvs.get(&namespace, &name).ok()?),
        Content::Blob(_) => Content::Blob(nvs.get(&namespace, &name).ok()?),
    })
}

/// At least three pages, so that a device can write.
fn writable_samples() -> impl Strategy<Value = Sample> {
    samples().prop_filter("three pages", |sample| sample.pages >= 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ours_is_read_on_a_device(sample in writable_samples()) {
        let Ok(image) = sample.plain_image() else { return Ok(()) };
        let mut flash = ChipFlash::holding(&image);
        let mut nvs = start(&mut flash);
        for ((namespace, name), content) in sample.expected() {
            prop_assert_eq!(get(&mut nvs, &namespace, &name, &content), Some(content), "{}", name);
        }
    }

    #[test]
    fn what_a_device_wrote_and_changed_is_read_by_ours(sample in writable_samples(), changes in 0_u8..3) {
        let mut flash = ChipFlash::blank(sample.pages);
        let mut nvs = start(&mut flash);
        let mut expected = sample.expected();
        let mut fits = true;
        for round in 0..=changes {
            for ((namespace, name), content) in &mut expected {
                // Blobs of another length, and numbers of another value, each round.
                match content {
                    Content::Blob(blob) => blob.push(round),
                    Content::U8(number) => *number = number.wrapping_add(round),
                    _ => {}
                }
                fits = fits && set(&mut nvs, namespace, name, content);
            }
        }
        if fits {
            prop_assert_eq!(read_all(flash.0.raw()), expected);
        }
    }
}
