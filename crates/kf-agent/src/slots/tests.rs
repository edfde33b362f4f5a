use std::collections::BTreeMap;

use super::*;

/// What of a file's unsynced content a power cut leaves.
#[derive(Clone, Copy, Debug)]
enum Content {
    Lost,
    Torn,
    Kept,
}

/// A power cut: what becomes of the content, and in which directories unsynced names survive.
#[derive(Clone, Copy, Debug)]
struct Cut {
    content: Content,
    names_kept: [bool; 3],
}

fn cuts() -> Vec<Cut> {
    let mut cuts = Vec::new();
    for content in [Content::Lost, Content::Torn, Content::Kept] {
        for bits in 0..8u8 {
            cuts.push(Cut { content, names_kept: [bits & 1 != 0, bits & 2 != 0, bits & 4 != 0] });
        }
    }
    cuts
}

#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    synced: Vec<u8>,
}

/// A disk whose content and names become durable only when synced, and whose power fails after `left` operations.
#[derive(Clone, Debug, Default)]
struct LossyDisk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    left: Option<usize>,
    is_out: bool,
    operations: usize,
}

fn directory_index(path: &str) -> usize {
    match path.split_once('/') {
        None => 0,
        Some(("a", _)) => 1,
        Some(_) => 2,
    }
}

impl LossyDisk {
    fn spend(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.left {
            Some(0) => {
                self.is_out = true;
                Err(io::Error::other("power is out"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn power_returns(&mut self, cut: Cut) {
        for directory in 0..3 {
            if cut.names_kept[directory] {
                self.durable.retain(|name, _| directory_index(name) != directory);
                let survivors = self.names.iter().filter(|(name, _)| directory_index(name) == directory);
                self.durable.extend(survivors.map(|(name, file)| (name.clone(), *file)));
            }
        }
        for file in &mut self.files {
            match cut.content {
                Content::Lost => {}
                Content::Torn if file.content != file.synced => {
                    file.synced = file.content[..file.content.len() / 2].to_vec();
                }
                Content::Torn => {}
                Content::Kept => file.synced = file.content.clone(),
            }
            file.content = file.synced.clone();
        }
        self.names = self.durable.clone();
        self.left = None;
        self.is_out = false;
    }
}

impl Disk for LossyDisk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        if self.is_out {
            return Err(io::Error::other("power is out"));
        }
        Ok(self.names.get(path).map(|file| self.files[*file].content.clone()))
    }

    fn write(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.spend()?;
        match self.names.get(path) {
            Some(file) => self.files[*file].content = content.to_vec(),
            None => {
                self.files.push(File { content: content.to_vec(), synced: Vec::new() });
                self.names.insert(path.to_owned(), self.files.len() - 1);
            }
        }
        Ok(())
    }

    fn sync(&mut self, path: &str) -> io::Result<()> {
        self.spend()?;
        let file = self.names[path];
        self.files[file].synced = self.files[file].content.clone();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        let file = self.names.remove(from).unwrap();
        self.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.spend()?;
        self.names.remove(path);
        Ok(())
    }

    fn sync_directory(&mut self, directory: &str) -> io::Result<()> {
        self.spend()?;
        let probe = if directory.is_empty() { "x".to_owned() } else { format!("{directory}/x") };
        let index = directory_index(&probe);
        self.durable.retain(|name, _| directory_index(name) != index);
        let names = self.names.iter().filter(|(name, _)| directory_index(name) == index);
        self.durable.extend(names.map(|(name, file)| (name.clone(), *file)));
        Ok(())
    }
}

fn key(generation: u8) -> SecretBytes {
    SecretBytes::from_vec(format!("key {generation}").into_bytes())
}

fn request(generation: u8) -> Vec<u8> {
    format!("request {generation}").into_bytes()
}

fn chain(generation: u8) -> Vec<u8> {
    format!("chain {generation}").into_bytes()
}

/// One replacement of the identity, going on from whatever is there; `generation` is the new one.
fn replace_identity(slots: &mut Slots<LossyDisk>, generation: u8) -> io::Result<()> {
    let contents = slots.recover()?;
    if contents.in_use.is_some_and(|identity| identity.key.equals(key(generation).expose())) {
        return Ok(());
    }
    match contents.spare {
        StoredSpare::Empty => {
            slots.begin(&key(generation), &request(generation))?;
            slots.store_chain(&chain(generation))?;
        }
        StoredSpare::Requested { .. } => slots.store_chain(&chain(generation))?,
        StoredSpare::Issued(_) => {}
    }
    slots.adopt()
}

fn check_whole(identity: &StoredIdentity, generations: &[u8]) -> u8 {
    *generations
        .iter()
        .find(|generation| identity.key.equals(key(**generation).expose()) && identity.chain == chain(**generation))
        .unwrap_or_else(|| panic!("a key and a chain that do not belong together: {identity:?}"))
}

/// A disk after `generations` whole replacements.
fn disk_with(generations: u8) -> LossyDisk {
    let mut slots = Slots::new(LossyDisk::default());
    for generation in 1..=generations {
        replace_identity(&mut slots, generation).unwrap();
    }
    slots.disk
}

#[test]
fn a_power_cut_at_any_step_leaves_the_old_or_the_new_identity_and_the_next_start_finishes() {
    let mut cases = 0;
    for generations in 0..=3 {
        let start = disk_with(generations);
        let mut whole = Slots::new(start.clone());
        let before = whole.disk.operations;
        replace_identity(&mut whole, generations + 1).unwrap();
        let operations = whole.disk.operations - before;
        assert!(operations >= 12, "{operations}");
        for after in 0..=operations {
            for cut in cuts() {
                let mut slots = Slots::new(LossyDisk { left: Some(after), ..start.clone() });
                let finished = replace_identity(&mut slots, generations + 1).is_ok();
                assert_eq!(finished, after == operations);
                slots.disk.power_returns(cut);
                let contents = slots.recover().unwrap();
                match &contents.in_use {
                    Some(identity) => {
                        check_whole(identity, &[generations, generations + 1]);
                    }
                    None => assert_eq!(generations, 0, "the identity is gone: {after} {cut:?}"),
                }
                match &contents.spare {
                    StoredSpare::Empty => {}
                    StoredSpare::Requested { key: stored, request: sent } => {
                        assert!(stored.equals(key(generations + 1).expose()) && *sent == request(generations + 1));
                    }
                    StoredSpare::Issued(identity) => {
                        check_whole(identity, &[generations + 1]);
                    }
                }
                replace_identity(&mut slots, generations + 1).unwrap();
                let contents = slots.read().unwrap();
                assert_eq!(check_whole(&contents.in_use.unwrap(), &[generations + 1]), generations + 1);
                assert!(matches!(contents.spare, StoredSpare::Empty));
                cases += 1;
            }
        }
    }
    assert!(cases > 1_000, "{cases}");
}

#[test]
fn a_second_power_cut_during_recovery_does_no_harm_either() {
    let start = disk_with(2);
    for first in 0..30 {
        for cut in cuts() {
            let mut slots = Slots::new(LossyDisk { left: Some(first), ..start.clone() });
            if replace_identity(&mut slots, 3).is_ok() {
                continue;
            }
            slots.disk.power_returns(cut);
            for second in 0..6 {
                let mut again = Slots::new(LossyDisk { left: Some(second), ..slots.disk.clone() });
                let _interrupted = again.recover();
                again.disk.power_returns(cut);
                check_whole(&again.recover().unwrap().in_use.unwrap(), &[2, 3]);
            }
        }
    }
}

#[test]
fn a_request_once_stored_is_the_one_that_is_sent_again() {
    let mut slots = Slots::new(disk_with(1));
    slots.begin(&key(2), &request(2)).unwrap();
    for cut in cuts() {
        let mut slots = Slots::new(slots.disk.clone());
        slots.disk.power_returns(cut);
        match slots.recover().unwrap().spare {
            StoredSpare::Requested { request: sent, .. } => assert_eq!(sent, request(2)),
            other => panic!("the request is gone: {other:?}"),
        }
    }
}

#[test]
fn a_discarded_request_leaves_no_key_behind() {
    let mut slots = Slots::new(disk_with(1));
    slots.begin(&key(2), &request(2)).unwrap();
    slots.store_chain(&chain(2)).unwrap();
    slots.discard().unwrap();
    let names: Vec<_> = slots.disk.names.keys().cloned().collect();
    assert_eq!(names, ["a/chain", "a/key", "current"]);
}

#[test]
fn a_pointer_to_half_an_identity_counts_as_none() {
    let mut slots = Slots::new(disk_with(1));
    slots.disk.remove("a/chain").unwrap();
    assert!(slots.recover().unwrap().in_use.is_none());
    slots.disk.write("current", b"c").unwrap();
    assert!(slots.recover().unwrap().in_use.is_none());
}
