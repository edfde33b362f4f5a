//! Random content for a partition.

use std::collections::BTreeMap;

use kf_flash::nvs::{Namespace, NvsError, NvsKeys, PAGE_OCTETS, Partition, Stored, Value, Writer};
use kf_key::SecretArray;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

/// A value that owns its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// What goes into one partition, in order.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) pages: usize,
    pub(super) namespaces: Vec<(String, Vec<(String, Content)>)>,
    pub(super) keys: Option<[u8; 64]>,
}

impl Content {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::U8(number) => Value::U8(*number),
            Self::I8(number) => Value::I8(*number),
            Self::U16(number) => Value::U16(*number),
            Self::I16(number) => Value::I16(*number),
            Self::U32(number) => Value::U32(*number),
            Self::I32(number) => Value::I32(*number),
            Self::U64(number) => Value::U64(*number),
            Self::I64(number) => Value::I64(*number),
            Self::Text(text) => Value::Text(text),
            Self::Blob(blob) => Value::Blob(blob),
        }
    }

    pub(super) fn of(stored: &Stored<'_>) -> Self {
        match stored {
            Stored::U8(number) => Self::U8(*number),
            Stored::I8(number) => Self::I8(*number),
            Stored::U16(number) => Self::U16(*number),
            Stored::I16(number) => Self::I16(*number),
            Stored::U32(number) => Self::U32(*number),
            Stored::I32(number) => Self::I32(*number),
            Stored::U64(number) => Self::U64(*number),
            Stored::I64(number) => Self::I64(*number),
            Stored::Text(text) => Self::Text((*text).to_owned()),
            Stored::Blob(blob) => {
                let mut octets = vec![0; blob.len()];
                blob.copy_to(&mut octets).unwrap();
                Self::Blob(octets)
            }
        }
    }

    /// The encoding and the value as the vendor's generator takes them.
    fn for_espressif(&self) -> (&'static str, String) {
        match self {
            Self::U8(number) => ("u8", number.to_string()),
            Self::I8(number) => ("i8", number.to_string()),
            Self::U16(number) => ("u16", number.to_string()),
            Self::I16(number) => ("i16", number.to_string()),
            Self::U32(number) => ("u32", number.to_string()),
            Self::I32(number) => ("i32", number.to_string()),
            Self::U64(number) => ("u64", number.to_string()),
            Self::I64(number) => ("i64", number.to_string()),
            Self::Text(text) => ("string", text.clone()),
            Self::Blob(blob) => ("hex2bin", hex::encode(blob)),
        }
    }
}

impl Sample {
    /// Our image, encrypted when there are keys.
    pub(super) fn image(&self) -> Result<Vec<u8>, NvsError> {
        let mut image = self.plain_image()?;
        if let Some(keys) = &self.keys {
            nvs_keys(keys).cipher().encrypt(&mut image)?;
        }
        Ok(image)
    }

    pub(super) fn plain_image(&self) -> Result<Vec<u8>, NvsError> {
        let mut image = vec![0x5a; self.pages * PAGE_OCTETS];
        let mut writer = if self.pages < 3 { Writer::read_only(&mut image)? } else { Writer::new(&mut image)? };
        for (name, items) in &self.namespaces {
            let namespace: Namespace = writer.namespace(name)?;
            for (key, content) in items {
                writer.write(namespace, key, content.value())?;
            }
        }
        writer.finish();
        Ok(image)
    }

    /// What [`read_all`] must find.
    pub(super) fn expected(&self) -> BTreeMap<(String, String), Content> {
        let items = self.namespaces.iter().flat_map(|(name, items)| {
            items.iter().map(|(key, content)| ((name.clone(), key.clone()), content.clone()))
        });
        items.collect()
    }

    /// The job for `espressif_nvs.py`.
    pub(super) fn job(&self) -> serde_json::Value {
        let namespaces: Vec<_> = self
            .namespaces
            .iter()
            .map(|(name, items)| {
                let items: Vec<_> = items
                    .iter()
                    .map(|(key, content)| {
                        let (encoding, value) = content.for_espressif();
                        json!([key, encoding, value])
                    })
                    .collect();
                json!([name, items])
            })
            .collect();
        json!({"size": self.pages * PAGE_OCTETS, "keys": self.keys.map(hex::encode), "namespaces": namespaces})
    }
}

pub(super) fn nvs_keys(octets: &[u8; 64]) -> NvsKeys {
    NvsKeys::from_secret(SecretArray::fill(|keys| *keys = *octets)).unwrap()
}

/// Every value that a plain partition holds, by namespace and key.
pub(super) fn read_all(image: &[u8]) -> BTreeMap<(String, String), Content> {
    let partition = Partition::new(image).unwrap();
    let mut found = BTreeMap::new();
    for (placed, entry) in partition.items().filter(|(_, entry)| entry.namespace != 0) {
        match partition.read(&placed) {
            Ok(stored) => {
                let name = partition.namespace_name(entry.namespace).expect("a name").to_string();
                found.insert((name, entry.key.to_string()), Content::of(&stored));
            }
            Err(NvsError::NotFound) => {}
            Err(error) => panic!("{entry:?}: {error}"),
        }
    }
    found
}

/// Samples of every type, with text that fills pages and blobs over several of them.
pub(super) fn samples() -> impl Strategy<Value = Sample> {
    let names = proptest::collection::btree_set("[a-z][a-zA-Z0-9_.]{0,14}", 1..4);
    let keys = proptest::option::of(vec(any::<u8>(), 64));
    (1..14_usize, names, vec(items(), 3), keys).prop_map(|(pages, names, items, keys)| Sample {
        pages,
        namespaces: names.into_iter().zip(items).collect(),
        keys: keys.map(|keys| keys.try_into().unwrap()),
    })
}

fn items() -> impl Strategy<Value = Vec<(String, Content)>> {
    proptest::collection::btree_map("k[a-zA-Z0-9_]{0,14}", content(), 0..20).prop_map(|items| {
        let mut items: Vec<_> = items.into_iter().collect();
        // A map gives them sorted; any other order is as good, and finds more.
        items.sort_by_key(|(key, _)| key.bytes().rev().collect::<Vec<_>>());
        items
    })
}

fn content() -> impl Strategy<Value = Content> {
    let number = prop_oneof![
        any::<u8>().prop_map(Content::U8),
        any::<i8>().prop_map(Content::I8),
        any::<u16>().prop_map(Content::U16),
        any::<i16>().prop_map(Content::I16),
        any::<u32>().prop_map(Content::U32),
        any::<i32>().prop_map(Content::I32),
        any::<u64>().prop_map(Content::U64),
        any::<i64>().prop_map(Content::I64),
    ];
    let text = prop_oneof![
        4 => "[ -~äß€]{0,80}".prop_map(Content::Text),
        1 => "[ -~]{900,3900}".prop_map(Content::Text),
    ];
    let blob = prop_oneof![
        4 => vec(any::<u8>(), 0..400).prop_map(Content::Blob),
        2 => vec(any::<u8>(), 3900..4100).prop_map(Content::Blob),
        1 => vec(any::<u8>(), 0..14_000).prop_map(Content::Blob),
        1 => (0..4100_usize).prop_map(|octets| Content::Blob(vec![0xff; octets])),
    ];
    prop_oneof![3 => number, 2 => text, 2 => blob]
}
