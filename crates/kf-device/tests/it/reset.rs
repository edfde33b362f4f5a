//! A factory reset, with the power cut at every octet that is programmed and every sector that is erased: what the owner brought dies as
//! a whole, and what the maker did stays.

use kf_device::order::{Accepted, OrderError, OrderKey, forget_reset_report, reset_report};
use kf_device::pin::Pin;
use kf_device::protected::StorageKeys;
use kf_device::storage::{Checksum, Erasure, Medium, RecordId, Store};
use kf_exchange::order::{Order, OrderAct, OrderOutcome, OrderRefusal, OrderReport};
use kf_exchange::succession::Succession;
use kf_exchange::{IdentityKey as _, MAX_MESSAGE_OCTETS, P256IdentityKey, PublicKey};
use kf_key::{KeyRole, SecretArray, UnixMillis};

use crate::device::{Chip, Device, Step_, Stopped, chip, format, wrap};
use crate::server::{DEVICE, NOW, Server};

/// The key and certificate of an IDevID that a firmware keeps in the journal.
const IDEVID: [(RecordId, [u8; 60]); 2] = [(RecordId(0x7000), [0x1d; 60]), (RecordId(0x7fff), [0xce; 60])];
const COUNTER: u64 = 7;
/// Of the owner: device key, identity keys and certificates of the slots, storage key, roots, a record of the firmware, data at rest.
const OWNED: [u16; 9] = [0x0010, 0x0021, 0x0022, 0x0023, 0x0024, 0x0030, 0x0040, 0x1000, 0x8000];
const BOOTS: RecordId = RecordId(0x0002);

fn stop(error: impl core::fmt::Debug) -> Stopped {
    Stopped(format!("{error:?}"))
}

fn stored(store: &mut Store<&mut Chip>, id: RecordId) -> Option<Vec<u8>> {
    let mut octets = [0; 2_048];
    store.read(id, &mut octets).unwrap().map(|length| octets[..length].to_vec())
}

/// A device in the middle of its life, and what it holds of its owner.
fn owned(server: &mut Server) -> (Chip, Vec<(RecordId, Vec<u8>)>) {
    let mut chip = chip(1, Medium::Raw);
    format(&mut chip).unwrap();
    let mut device = Device::start(&mut chip, server, 1).unwrap();
    for (id, octets) in IDEVID {
        device.store.put(id, &octets).unwrap();
    }
    device.enrol(server, false).unwrap();
    device.fetch_key(server).unwrap();
    device.seal(b"a payload").unwrap();
    let keys = StorageKeys::open(&mut device.store, &wrap(), DEVICE, &mut device.source).unwrap();
    keys.put(&mut device.store, RecordId(0x8000), b"data of this owner", &mut device.source).unwrap();
    device.store.put(RecordId(0x1000), b"the owner's network and its password").unwrap();
    device.store.put(RecordId(0x0040), &[0xa4; 32]).unwrap();
    let held = OWNED.into_iter().filter_map(|id| Some((RecordId(id), stored(&mut device.store, RecordId(id))?)));
    let held: Vec<_> = held.collect();
    drop(device);
    assert_eq!(held.len(), 7, "one slot of the two is in use");
    (chip, held)
}

/// Pieces of 8 octets of what the owner brought that lie in the cells. What is in front of a wrapped key is no secret, and in every record.
fn remains(chip: &Chip, held: &[(RecordId, Vec<u8>)]) -> usize {
    let cells: std::collections::BTreeSet<&[u8]> = chip.cells().windows(8).collect();
    held.iter().flat_map(|(_, octets)| octets.windows(8)).filter(|piece| cells.contains(piece)).count()
}

fn order_key(octet: u8) -> P256IdentityKey {
    P256IdentityKey::from_secret(&SecretArray::fill(|secret| secret.fill(octet))).unwrap()
}

fn order_of(key: &P256IdentityKey, act: OrderAct, counter: u64) -> Vec<u8> {
    let order = Order { act, device: DEVICE, counter, expires: NOW.plus(UnixMillis::HOUR) };
    order.sign(key).unwrap().as_bytes().to_vec()
}

/// Obeys the order, as firmware does; the report.
fn reset(chip: &mut Chip, server: &Server, order: &[u8]) -> Step_<Vec<u8>> {
    reset_by(chip, &server.order_key(), order)
}

fn reset_by(chip: &mut Chip, key: &OrderKey, order: &[u8]) -> Step_<Vec<u8>> {
    let mut store = Store::open(chip, Checksum).map_err(stop)?;
    let identity = kf_device::identity::InUse::load(&mut store, &wrap(), DEVICE).map_err(stop)?;
    let identity = identity.ok_or_else(|| stop("no identity"))?;
    let Accepted::FactoryReset(order) = key.accept(order, NOW, &mut store).map_err(stop)? else {
        return Err(stop("another order"));
    };
    let (report, erasure) = order.carry_out(NOW, identity.key(), &mut store).map_err(stop)?;
    assert_eq!(erasure, Erasure::Erased { read_back: true });
    Ok(report.as_bytes().to_vec())
}

fn report_in(chip: &mut Chip) -> Option<Vec<u8>> {
    let mut octets = [0; MAX_MESSAGE_OCTETS];
    let mut store = Store::open(chip, Checksum).unwrap();
    reset_report(&mut store, &mut octets).unwrap().map(<[u8]>::to_vec)
}

fn check_reset(chip: &mut Chip, held: &[(RecordId, Vec<u8>)], boots: &[u8], identity: &PublicKey, moment: &str) {
    let report = report_in(chip).unwrap();
    let report = OrderReport::verify(&report, identity).unwrap();
    assert_eq!((report.act, report.counter, report.outcome), (OrderAct::FactoryReset, COUNTER, OrderOutcome::Done));
    let mut store = Store::open(&mut *chip, Checksum).unwrap();
    for (id, _) in held {
        assert_eq!(stored(&mut store, *id), None, "{moment}: {id:?}");
    }
    for (id, octets) in IDEVID {
        assert_eq!(stored(&mut store, id).as_deref(), Some(octets.as_slice()), "{moment}: the maker's stays");
    }
    assert_eq!(stored(&mut store, BOOTS).as_deref(), Some(boots), "{moment}: boots do not go back");
    assert_eq!(remains(chip, held), 0, "{moment}: in the cells");
}

#[test]
fn a_reset_that_is_cut_at_any_octet_has_not_happened_or_leaves_no_fragment_of_the_owner() {
    let mut server = Server::new();
    let (before, held) = owned(&mut server);
    let order = server.order(OrderAct::FactoryReset, COUNTER);
    let all: usize = held.iter().map(|(_, octets)| octets.len() - 7).sum();
    assert_eq!(remains(&before, &held), all, "the search finds what is there");
    let identity = *server_identity(&before);
    let boots = stored(&mut Store::open(&mut before.clone(), Checksum).unwrap(), BOOTS).unwrap();
    let mut whole = before.clone();
    let first = whole.operations();
    reset(&mut whole, &server, &order).unwrap();
    let operations = whole.operations() - first;
    check_reset(&mut whole, &held, &boots, &identity, "without a cut");
    assert!(operations > 300, "{operations}");
    let mut not_begun = 0;
    // What the last program before the cut has done of its octets: nothing, everything, a part.
    let cuts = (0..operations).flat_map(|at| [(at, 0), (at, u32::MAX), (at, at + 1)]);
    for (at, tear) in cuts {
        let mut chip = before.clone();
        chip.cut_after(at, tear);
        let cut = reset(&mut chip, &server, &order);
        assert!(cut.is_err() && !chip.has_power(), "operation {at}: {cut:?}");
        chip.power_on();
        if report_in(&mut chip).is_none() {
            not_begun += 1;
            let mut store = Store::open(&mut chip, Checksum).unwrap();
            for (id, octets) in &held {
                assert_eq!(stored(&mut store, *id).as_ref(), Some(octets), "operation {at}: {id:?} is as it was");
            }
            // The order was not spent.
            reset(&mut chip, &server, &order).unwrap_or_else(|stopped| panic!("operation {at}: {stopped:?}"));
        }
        check_reset(&mut chip, &held, &boots, &identity, &format!("operation {at}"));
    }
    assert!(not_begun > 100 && not_begun < 3 * operations, "{not_begun} of 3 times {operations}");
}

/// The public half of the identity in use.
fn server_identity(chip: &Chip) -> Box<PublicKey> {
    let mut chip = chip.clone();
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let identity = kf_device::identity::InUse::load(&mut store, &wrap(), DEVICE).unwrap().unwrap();
    Box::new(identity.public_key())
}

fn refusal(chip: &mut Chip, key: PublicKey, order: &[u8]) -> Option<OrderRefusal> {
    let mut store = Store::open(chip, Checksum).unwrap();
    match (OrderKey { key, factory: key, device: DEVICE }).accept(order, NOW, &mut store) {
        Err(OrderError::Refused(refusal)) => Some(refusal),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
}

#[test]
fn after_a_reset_the_device_enrols_anew_and_obeys_its_next_owner_and_no_order_of_before() {
    let mut server = Server::new();
    let (mut chip, _) = owned(&mut server);
    let old = *server_identity(&chip);
    let earlier = server.order(OrderAct::Wipe, COUNTER - 1);
    let order = server.order(OrderAct::FactoryReset, COUNTER);
    let report = reset(&mut chip, &server, &order).unwrap();
    server.report(&report);
    assert_eq!(refusal(&mut chip, server.order_pin(), &order), Some(OrderRefusal::Replayed));
    let backwards = OrderRefusal::WentBackwards { last: COUNTER };
    assert_eq!(refusal(&mut chip, server.order_pin(), &earlier), Some(backwards));

    // The next owner has another order key, and begins to count at 1.
    let next = order_key(0x44);
    assert_eq!(refusal(&mut chip, next.public_key(), &order_of(&next, OrderAct::Rotate, 1)), None);
    assert_eq!(
        refusal(&mut chip, next.public_key(), &order_of(&next, OrderAct::Rotate, 1)),
        Some(OrderRefusal::Replayed)
    );

    // The report stands in nobody's way, and is forgotten once.
    let mut device = Device::start(&mut chip, &server, 9).unwrap();
    assert!(
        device.identity().unwrap().is_none() && device.held().unwrap().is_none() && device.wiped().unwrap().is_none()
    );
    device.enrol(&mut server, false).unwrap();
    assert_ne!(device.identity().unwrap().unwrap().public_key(), old);
    server.device_epoch += 1;
    device.fetch_key(&mut server).unwrap();
    let payload = device.seal(b"the next owner's").unwrap();
    assert_eq!(server.open(&payload).unwrap(), b"the next owner's");
    assert!(StorageKeys::open(&mut device.store, &wrap(), DEVICE, &mut device.source).unwrap().version() == 1);
    forget_reset_report(&mut device.store).unwrap();
    let room = device.store.room();
    forget_reset_report(&mut device.store).unwrap();
    assert_eq!(device.store.room(), room, "nothing is written where there is nothing to forget");
    drop(device);
    assert_eq!(report_in(&mut chip), None);
    // An old order of the first owner is as old as ever, although its counter is above the next one's.
    assert_eq!(refusal(&mut chip, server.order_pin(), &order), Some(OrderRefusal::Replayed));
}

/// Takes up the key that this one has signed.
fn take_up(chip: &mut Chip, factory: &P256IdentityKey, next: &P256IdentityKey) -> OrderKey {
    let mut store = Store::open(chip, Checksum).unwrap();
    let mut pin = Pin::load(&mut store, KeyRole::Order, factory.public_key()).unwrap();
    let link = Succession { role: KeyRole::Order, version: 2, key: next.public_key(), made: NOW };
    assert!(pin.take_up(&mut store, link.sign(factory).unwrap().as_bytes()).unwrap());
    OrderKey { key: *pin.key(), factory: *pin.factory(), device: DEVICE }
}

#[test]
fn an_order_of_a_key_that_was_succeeded_is_as_old_after_a_reset_as_before() {
    let mut server = Server::new();
    let (mut chip, _) = owned(&mut server);
    let (first, second) = (order_key(0x51), order_key(0x52));
    let by_first = OrderKey { key: first.public_key(), factory: first.public_key(), device: DEVICE };
    let [obeyed, withheld] = [4, 5].map(|counter| order_of(&first, OrderAct::Rotate, counter));
    let accepts = |chip: &mut Chip, key: &OrderKey, order: &[u8]| {
        key.accept(order, NOW, &mut Store::open(chip, Checksum).unwrap()).map(drop)
    };
    assert_eq!(accepts(&mut chip, &by_first, &obeyed), Ok(()));
    let by_second = take_up(&mut chip, &first, &second);
    let between = order_of(&second, OrderAct::Rotate, 6);
    assert_eq!(accepts(&mut chip, &by_second, &between), Ok(()));
    reset_by(&mut chip, &by_second, &order_of(&second, OrderAct::FactoryReset, COUNTER)).unwrap();

    // The firmware's key is obeyed again, as the reset took the other one along; what it signed before is not.
    let pin = Pin::load(&mut Store::open(&mut chip, Checksum).unwrap(), KeyRole::Order, first.public_key()).unwrap();
    assert_eq!(*pin.key(), first.public_key());
    let backwards = Err(OrderError::Refused(OrderRefusal::WentBackwards { last: COUNTER }));
    assert_eq!([&obeyed, &withheld].map(|order| accepts(&mut chip, &by_first, order)), [backwards; 2]);
    // Nor what any key between the first one and the last one has signed, once it is followed again.
    let third = order_key(0x53);
    let by_third = take_up(&mut chip, &first, &third);
    assert_eq!(accepts(&mut chip, &by_third, &order_of(&third, OrderAct::Wipe, 5)), backwards);
    assert_eq!(accepts(&mut chip, &by_second, &between), backwards);
    assert_eq!(accepts(&mut chip, &by_first, &order_of(&first, OrderAct::Rotate, COUNTER + 1)), Ok(()));
}

#[test]
fn a_reset_that_the_policy_forbids_spends_its_counter_and_changes_nothing() {
    let mut server = Server::new();
    let (mut chip, held) = owned(&mut server);
    let order = server.order(OrderAct::FactoryReset, COUNTER);
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let identity = kf_device::identity::InUse::load(&mut store, &wrap(), DEVICE).unwrap().unwrap();
    let key = server.order_key();
    let Accepted::FactoryReset(accepted) = key.accept(&order, NOW, &mut store).unwrap() else { panic!("not a reset") };
    assert_eq!(accepted.counter(), COUNTER);
    let report = accepted.decline(NOW, identity.key(), &mut store).unwrap();
    let report = OrderReport::verify(report.as_bytes(), &identity.public_key()).unwrap();
    assert_eq!((report.act, report.outcome), (OrderAct::FactoryReset, OrderOutcome::Declined));
    for (id, octets) in &held {
        assert_eq!(stored(&mut store, *id).as_ref(), Some(octets));
    }
    assert_eq!(
        (report_in(&mut chip), refusal(&mut chip, server.order_pin(), &order)),
        (None, Some(OrderRefusal::Replayed))
    );
    // A store without room refuses, and stays as it is.
    let mut store = Store::open(&mut chip, Checksum).unwrap();
    let mut id = 0x7001;
    while store.put(RecordId(id), &[0x55; 200]).is_ok() {
        id += 1;
    }
    let Accepted::FactoryReset(accepted) =
        key.accept(&server.order(OrderAct::FactoryReset, 8), NOW, &mut store).unwrap()
    else {
        panic!("not a reset")
    };
    // What the maker keeps leaves the room of what goes: it does fit.
    assert!(accepted.carry_out(NOW, identity.key(), &mut store).is_ok());
}
