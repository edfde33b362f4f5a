use proptest::prelude::*;

use super::*;
use crate::codec::{decode, encode};

fn naming(first: u64, digits: u8) -> Naming {
    Naming { prefix: "pump-".into(), digits, first }
}

fn fresh(count: u32) -> DeviceList {
    DeviceList::fresh(UnixMillis(1_790_000_000_000), [9; 10], count, naming(1, 6)).unwrap()
}

#[test]
fn a_hundred_thousand_devices_take_a_handful_of_octets() {
    let list = fresh(100_000);
    let octets = encode(|out| list.write(out));
    assert!(octets.len() < 48, "{}", octets.len());
    assert_eq!(decode(&octets, DeviceList::read, DeviceList::write), Ok(list.clone()));
    assert_eq!(list.iter().count(), 100_000);
    let last = list.device(99_999).unwrap();
    assert_eq!((list.position(last), list.name(last)), (Some(99_999), Some("pump-100000".into())));
    assert_eq!(list.device_named("pump-100000"), Some(last));
    assert_eq!(list.device(100_000), None);
}

#[test]
fn a_neighbour_of_the_list_is_not_in_it() {
    let list = fresh(10);
    let run = list.runs()[0];
    assert_eq!(list.position(run.with_counter(10)), None);
    let mut other = *run.first.as_bytes();
    other[7] ^= 1;
    assert_eq!(list.position(DeviceId::from_bytes(other)), None);
    for name in ["pump-000000", "pump-000011", "pump-1", "pump-00001", "pump-0000010", "valve-000001", "pump-00000a"] {
        assert_eq!(list.device_named(name), None, "{name}");
    }
}

#[test]
fn lists_outside_the_limits_are_refused() {
    let first = fresh(1).runs()[0].first;
    let run = |counter: u32, count: u32| Run { first: Run { first, count }.with_counter(counter), count };
    let list = |runs: Vec<Run>| DeviceList::new(runs, naming(0, 6));
    assert!(list(vec![]).is_err(), "none");
    assert!(list(vec![run(0, 0)]).is_err(), "an empty run");
    assert!(list(vec![run(u32::MAX, 2)]).is_err(), "a run that leaves its octets");
    assert!(list(vec![run(0, 5), run(4, 1)]).is_err(), "a device twice");
    assert!(list(vec![run(9, 1), run(0, 1)]).is_err(), "runs that descend");
    assert!(list(vec![run(0, MAX_DEVICES + 1)]).is_err(), "too many");
    assert!(list((0..=4_096).map(|at| run(at * 2, 1)).collect()).is_err(), "too many runs");
    assert!(list(vec![run(0, 5), run(5, 1), run(9, 2)]).is_ok());
}

#[test]
fn names_that_run_out_of_digits_are_refused() {
    for (first, digits, good) in [(1, 6, true), (999_990, 6, true), (999_991, 6, false), (0, 0, false), (0, 13, false)]
    {
        let made = DeviceList::fresh(UnixMillis(1), [1; 10], 10, naming(first, digits));
        assert_eq!(made.is_ok(), good, "{first} {digits}");
    }
    for prefix in ["", "-a", "a b", "ä", &"a".repeat(49)] {
        let naming = Naming { prefix: (*prefix).into(), digits: 3, first: 0 };
        assert!(DeviceList::fresh(UnixMillis(1), [1; 10], 1, naming).is_err(), "{prefix}");
    }
}

proptest! {
    #[test]
    fn position_and_device_are_each_others_inverse(gaps in prop::collection::vec((1u32..50, 1u32..50), 1..20), at in any::<prop::sample::Index>()) {
        let first = fresh(1).runs()[0].first;
        let mut next = 0;
        let runs: Vec<Run> = gaps.iter().map(|(gap, count)| {
            let run = Run { first: Run { first, count: 1 }.with_counter(next + gap), count: *count };
            next += gap + count;
            run
        }).collect();
        let list = DeviceList::new(runs, naming(5, 9)).unwrap();
        let position = u32::try_from(at.index(usize::try_from(list.count()).unwrap())).unwrap();
        let device = list.device(position).unwrap();
        prop_assert_eq!(list.position(device), Some(position));
        prop_assert_eq!(list.device_named(&list.name(device).unwrap()), Some(device));
        prop_assert_eq!(list.iter().nth(usize::try_from(position).unwrap()).unwrap().0, device);
    }
}
