use super::*;

#[test]
fn programming_only_clears_bits_and_erasing_sets_a_whole_block() {
    let mut flash = NorFlash::new(2, 16, 10);
    flash.program(3, &[0x0f]).unwrap();
    assert_eq!(flash.program(3, &[0xf0]), Err(FlashFault::NotProgrammable { offset: 3 }));
    flash.program(3, &[0]).unwrap();
    assert_eq!(flash.program(31, &[0, 0]), Err(FlashFault::NotProgrammable { offset: 31 }));
    flash.program(16, &[1]).unwrap();
    flash.erase(0).unwrap();
    assert_eq!((flash.raw()[3], flash.raw()[16]), (0xff, 1));
    assert_eq!((flash.wear(0), flash.wear(1)), (1, 0));
}

#[test]
fn an_operation_that_loses_power_is_half_done_and_nothing_works_until_it_is_back() {
    let mut flash = NorFlash::new(1, 16, 10);
    flash.cut_power_after(1);
    flash.program(0, &[0; 8]).unwrap();
    assert_eq!(flash.program(8, &[0; 8]), Err(FlashFault::PowerCut));
    assert_eq!(flash.program(8, &[0]), Err(FlashFault::PowerCut));
    assert_eq!(flash.raw(), [[0; 12].as_slice(), &[0xff; 4]].concat());
    flash.power_on();
    flash.cut_power_after(0);
    assert_eq!(flash.erase(0), Err(FlashFault::PowerCut));
    assert_eq!(flash.raw(), [[0xff; 8].as_slice(), &[0; 4], &[0xff; 4]].concat());
}

#[test]
fn a_block_past_its_endurance_keeps_what_it_holds() {
    let mut flash = NorFlash::new(1, 4, 1);
    flash.erase(0).unwrap();
    flash.program(0, &[7]).unwrap();
    assert_eq!(flash.erase(0), Err(FlashFault::WornOut { block: 0 }));
    assert_eq!(flash.raw()[0], 7);
}
