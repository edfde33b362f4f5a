//! What must be refused, each with a status of its own, tried by a C program.

use crate::{c_file, compile};

#[test]
fn null_wrong_lengths_wrong_states_and_bad_hardware_are_told_apart() {
    let scratch = kf_testkit::scratch();
    let program = compile("gcc", "-std=c11", scratch.path(), &[c_file("refusals.c")]);
    let printed = program.run::<&str>(&[]).expect_success().stdout_text();
    assert!(printed.contains("all refused"), "{printed}");
}
