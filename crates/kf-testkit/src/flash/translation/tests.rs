use super::*;

fn contents(number: u8) -> [u8; SECTOR_OCTETS] {
    core::array::from_fn(|at| number.wrapping_add(u8::try_from(at % 7).unwrap()))
}

/// 20 blocks of 8 pages that show 100 sectors, all written.
fn full() -> TranslatedFlash {
    let mut flash = TranslatedFlash::new(20, 8, 100, 1000);
    (0..100).for_each(|sector| flash.write(sector, &contents(u8::try_from(sector).unwrap())).unwrap());
    flash
}

#[test]
fn every_sector_keeps_its_newest_contents_through_collections_and_mounts() {
    let mut flash = full();
    for round in 0..600_usize {
        flash.write(round * 37 % 100, &contents(u8::try_from(round % 251).unwrap())).unwrap();
    }
    let read = |flash: &TranslatedFlash| (0..100).map(|sector| flash.read(sector)).collect::<Vec<_>>();
    let before = read(&flash);
    assert_eq!(read(&flash.mount()), before);
}

#[test]
fn a_power_cut_at_every_operation_leaves_the_old_or_the_new_contents_and_nothing_else_changed() {
    let mut start = full();
    (0..120_usize).for_each(|round| start.write(round % 50, &contents(1)).unwrap());
    let operations = {
        let mut whole = start.clone();
        let before = whole.flash().operations();
        (60..70).for_each(|sector| whole.write(sector, &contents(200)).unwrap());
        whole.flash().operations() - before
    };
    for cut in 0..operations {
        let mut flash = start.clone();
        flash.flash().cut_power_after(cut);
        let done = (60..70).take_while(|sector| flash.write(*sector, &contents(200)).is_ok()).count();
        let mut flash = flash.mount();
        for sector in 0..100 {
            let (old, new) = (start.read(sector), contents(200));
            let found = flash.read(sector);
            let expected = match sector.checked_sub(60) {
                Some(number) if number < done => found == new,
                Some(number) if number == done => found == old || found == new,
                _ => found == old,
            };
            assert!(expected, "sector {sector} after a cut at operation {cut}");
        }
        (0..300_usize).for_each(|round| flash.write(round % 100, &contents(9)).unwrap());
    }
}

#[test]
fn blocks_wear_evenly_and_a_worn_out_one_is_left_with_what_it_holds() {
    let mut flash = TranslatedFlash::new(12, 8, 20, 15);
    let mut written = 0_u32;
    while flash.write(usize::try_from(written % 20).unwrap(), &contents(3)).is_ok() {
        written += 1;
    }
    let wear: Vec<u32> = (0..12).map(|block| flash.flash().wear(block)).collect();
    assert!(!flash.bad_blocks().is_empty());
    assert!(wear.iter().min().unwrap() + 3 >= *wear.iter().max().unwrap(), "{wear:?}");
    let bad = flash.bad_blocks()[0];
    assert!(flash.block(bad).iter().any(|octet| *octet != 0xff));
    assert!(written > 12 * 15 * 4, "{written}");
}

#[test]
fn what_was_trimmed_reads_as_zeroes_and_may_come_back() {
    let mut flash = full();
    flash.trim(5);
    assert_eq!(flash.read(5), [0; SECTOR_OCTETS]);
    assert_eq!(flash.mount().read(5), contents(5));
}

const SHAPE: CardShape = CardShape { blocks: 40, pages_per_block: 8, sectors: 200, endurance: 60, bad_per_mille: 50 };

#[test]
fn a_seed_makes_the_same_card_again_and_another_seed_another_one() {
    let lived = |seed| {
        let mut card = TranslatedFlash::manufactured(SHAPE, seed);
        (0..900_usize).for_each(|round| card.write(round * 7 % 200, &contents(5)).unwrap());
        (card.factory_bad_blocks().to_vec(), card.flash().raw().to_vec())
    };
    assert_eq!(lived(3), lived(3));
    assert_ne!(lived(3), lived(4));
    let bad: usize = (0..50).map(|seed| lived_bad(seed).len()).sum();
    assert!((60..140).contains(&bad), "50 per mille of 2,000 blocks: {bad}");
}

fn lived_bad(seed: u64) -> Vec<usize> {
    TranslatedFlash::manufactured(SHAPE, seed).factory_bad_blocks().to_vec()
}

#[test]
fn a_block_that_is_bad_from_the_factory_is_never_written_also_not_after_a_mount() {
    let seed = (0..).find(|seed| lived_bad(*seed).len() > 2).unwrap();
    let mut card = TranslatedFlash::manufactured(SHAPE, seed);
    for round in 0..2_000_usize {
        card.write(round * 37 % 200, &contents(1)).unwrap();
        if round % 500 == 0 {
            card = card.mount();
        }
    }
    for block in card.factory_bad_blocks().to_vec() {
        assert!(card.block(block).iter().all(|octet| *octet == 0xff), "block {block}");
    }
}

#[test]
fn what_lies_still_is_moved_so_that_its_block_wears_as_the_others_do() {
    let shape = CardShape { endurance: 1_000, bad_per_mille: 0, ..SHAPE };
    let mut card = TranslatedFlash::manufactured(shape, 1);
    (0..200).for_each(|sector| card.write(sector, &contents(2)).unwrap());
    (0..20_000_usize).for_each(|round| card.write(round % 5, &contents(3)).unwrap());
    let wear: Vec<u32> = (0..shape.blocks).map(|block| card.flash().wear(block)).collect();
    let (least, most) = (wear.iter().min().unwrap(), wear.iter().max().unwrap());
    assert!(least + 2 * MAX_WEAR_SPREAD >= *most, "{wear:?}");
    assert!((5..200).all(|sector| card.read(sector) == contents(2)), "and nothing is lost by it");
}
