//! How to: one page for each subject, with programs and settings that are run as tests.
//!
//! - [From Bottle](from_bottle): what its words are here, by the example of four programs.
//! - [Forms](forms): what visitors type in, tick and upload, and showing it again with what is wrong.
//! - [Proxies](proxies): nginx, HAProxy and Apache in front, uploads, streams, files, time-outs.
//! - [Running](running): systemd, containers, signals, threads and memory, what the log says.

#[doc = include_str!("from_bottle.md")]
pub mod from_bottle {}

#[doc = include_str!("forms.md")]
pub mod forms {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("running.md")]
pub mod running {}
