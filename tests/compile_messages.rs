//! What the compiler says about common mistakes in handlers, frozen word by word.
//!
//! After a change of the messages, or with a new rustc, `TRYBUILD=overwrite cargo test compile_messages`
//! writes the new ones. Read them before they are committed: each must name the wrong argument or reply.

use std::process::Command;

/// The rustc whose wording is frozen; another words its own part of a message differently.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn mistakes_in_handlers_are_named() {
    let version = Command::new("rustc").arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(RUSTC) {
        println!("skipped: the messages are those of {RUSTC}x, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
