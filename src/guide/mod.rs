//! How to: one page for each subject, with programs and settings that are run as tests.
//!
//! - [From Bottle](from_bottle): what its words are here, by the example of four programs.
//! - [Errors](errors): of one's own types, what visitors see, what the author sees while developing.
//! - [File](file): sessions in one file, its backup, what it survives and what goes wrong.
//! - [Files](files): folders of assets, compressed and cached.
//! - [Forms](forms): what visitors type in, tick and upload, and showing it again with what is wrong.
//! - [HTTPS](https): the server speaks TLS itself; certbot, a service on port 443 without root.
//! - [Logs](logs): what each line means, and what to do.
//! - [Pages](pages): templates, and what all pages know.
//! - [Proxies](proxies): nginx, HAProxy and Apache in front, uploads, streams, files, time-outs.
//! - [Redis](redis): its settings, memory, permissions, TLS, Sentinel, Cluster.
//! - [Running](running): systemd, containers, signals, memory and files.
//! - [Testing](testing): a browser without sockets.
//! - [Threads](threads): what holds one, how many there are, and what streams leave to others.

#[doc = include_str!("from_bottle.md")]
pub mod from_bottle {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("file.md")]
pub mod file {}

#[doc = include_str!("files.md")]
pub mod files {}

#[doc = include_str!("forms.md")]
pub mod forms {}

#[doc = include_str!("https.md")]
pub mod https {}

#[doc = include_str!("logs.md")]
pub mod logs {}

#[doc = include_str!("pages.md")]
pub mod pages {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("redis.md")]
pub mod redis {}

#[doc = include_str!("running.md")]
pub mod running {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("threads.md")]
pub mod threads {}
