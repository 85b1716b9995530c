//! How to: one page for each subject, with programs that are compiled and run as tests.
//!
//! - [Forms](forms): what visitors type in, tick and upload, and showing it again with what is wrong.

#[doc = include_str!("forms.md")]
pub mod forms {}
