//! Everything that can go wrong on the way, once in every command.

use kf_secure_element::layout;
use kf_secure_element::{Counter, Error, Opcode};
use kf_testkit::{Fault, Moment};

use crate::bench::finished;

#[test]
fn what_the_chip_did_not_take_is_sent_again() {
    let (chip, mut element) = finished();
    for fault in
        [Fault::CommandDamaged(1), Fault::CommandDamaged(3), Fault::NotAcknowledged(1), Fault::NotAcknowledged(3)]
    {
        let before = element.count(Counter::One).unwrap();
        chip.fault(fault);
        assert_eq!(element.increment(Counter::One), Ok(before + 1), "{fault:?}");
        assert_eq!(element.count(Counter::One), Ok(before + 1), "counted once");
    }
}

#[test]
fn a_damaged_answer_is_read_again_and_the_command_is_not_repeated() {
    let (chip, mut element) = finished();
    for times in [1, 2] {
        let before = chip.executed_of(0x24);
        chip.fault(Fault::AnswerDamaged(times));
        element.increment(Counter::One).unwrap();
        assert_eq!(chip.executed_of(0x24), before + 1);
    }
    // The wake answer is the first to be read.
    assert_eq!(element.count(Counter::One), Ok(2));
}

#[test]
fn a_bus_that_damages_everything_is_given_up() {
    let (chip, mut element) = finished();
    chip.fault(Fault::CommandDamaged(4));
    assert_eq!(element.increment(Counter::One), Err(Error::Crc(Opcode::Counter)));
    chip.fault(Fault::NotAcknowledged(4));
    assert_eq!(element.increment(Counter::One), Err(Error::Asleep));
    chip.fault(Fault::AnswerDamaged(4));
    assert!(element.increment(Counter::One).is_err());
    assert!(
        element.count(Counter::One).unwrap() <= 1,
        "the one that was not reported may have counted, the others not"
    );
}

#[test]
fn a_command_that_is_never_answered_is_late_and_the_next_one_works() {
    let (chip, mut element) = finished();
    chip.fault(Fault::Late);
    assert_eq!(element.increment(Counter::One), Err(Error::Late(Opcode::Counter)));
    // It was executed: the error says that this is not known, and the counter says what is.
    assert_eq!(element.count(Counter::One), Ok(1));
}

#[test]
fn a_chip_that_vanishes_in_mid_call_is_gone_and_then_asleep() {
    let (chip, mut element) = finished();
    chip.fault(Fault::Vanish);
    assert_eq!(element.sign(layout::IDENTITY, &[1; 32]), Err(Error::Gone(Opcode::Nonce)));
    assert_eq!(element.sign(layout::IDENTITY, &[1; 32]), Err(Error::Asleep));
    chip.set_power(true);
    element.sign(layout::IDENTITY, &[1; 32]).unwrap();
}

#[test]
fn every_status_of_the_chip_has_its_error() {
    let (chip, mut element) = finished();
    let expected = [
        (0x01, Error::Mismatch),
        (0x03, Error::Parse(Opcode::Counter)),
        (0x05, Error::EccFault),
        (0x07, Error::SelfTest(0)),
        (0x08, Error::Health),
        (0x0f, Error::Execution(Opcode::Counter)),
        (0x42, Error::Status(Opcode::Counter, 0x42)),
    ];
    for (status, error) in expected {
        chip.fault(Fault::Status(status));
        assert_eq!(element.increment(Counter::Zero), Err(error));
    }
    chip.fault(Fault::Status(0xee));
    assert_eq!(element.increment(Counter::Zero), Ok(1), "the watchdog left no time: again after a rest");
    chip.fault(Fault::Status(0x00));
    assert_eq!(element.increment(Counter::Zero), Err(Error::Answer(Opcode::Counter)), "no count in the answer");
    chip.fault(Fault::SelfTestReport(0x12));
    assert_eq!(element.self_test(), Err(Error::SelfTest(0x12)));
    chip.fault(Fault::SelfTest);
    assert_eq!(element.count(Counter::Zero), Err(Error::SelfTest(0)), "it wakes in failure mode");
}

#[test]
fn a_chip_that_is_awake_already_is_brought_to_the_beginning() {
    use embedded_hal::i2c::I2c as _;
    let (chip, mut element) = finished();
    // Another host woke it and lost power itself.
    chip.bus().write(0, &[0]).unwrap_err();
    assert!(!chip.is_asleep());
    assert_eq!(element.count(Counter::Zero), Ok(0));
}

#[test]
fn many_slow_commands_in_one_call_outlive_the_watchdog() {
    let (_chip, mut element) = finished();
    // 40 blocks of 18 ms and more each: longer than the 700 ms after which the chip falls asleep by itself.
    element.hmac_by_sha(layout::ROOT, &[7; 64 * 60]).unwrap();
}

#[test]
fn a_power_cut_at_any_command_of_a_signature_leaves_a_working_chip() {
    for moment in [Moment::Before, Moment::After] {
        for command in 0..2 {
            let (chip, mut element) = finished();
            chip.cut_power(command, moment);
            assert!(matches!(element.sign(layout::IDENTITY, &[1; 32]), Err(Error::Gone(_))));
            chip.set_power(true);
            element.sign(layout::IDENTITY, &[1; 32]).unwrap();
        }
    }
}
