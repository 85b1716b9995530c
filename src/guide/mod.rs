//! How to: one page for each subject, in the order in which one reads them. Programs and settings in them are run as tests.
//!
//! **To begin with**
//!
//! 1. [Tutorial](tutorial): from hello to login in ten steps.
//! 2. [From Bottle](from_bottle): what its words are here, by the example of four programs.
//!    [Differences](differences): all of them, also from Python's bottle-session.
//! 3. [From axum](from_axum): line by line.
//!
//! **The app**
//!
//! 4. [Handlers](handlers): arguments, replies, rules, keywords, errors.
//! 5. [Errors](errors): of one's own types, what visitors see, what the author sees while developing.
//! 6. [Forms](forms): what visitors type in, tick and upload, and showing it again with what is wrong.
//! 7. [Pages](pages): templates, and what all pages know.
//! 8. [Files](files): folders of assets, compressed and cached.
//! 9. [Plugins and providers](providers): values of your own as arguments.
//! 10. [Plugins](plugins): request ids, access log, metrics, security headers, CORS, basic authentication, rate limits, compression.
//! 11. [Parts of an app](apps): groups, mounted apps, guards, hooks, error pages.
//! 12. [Testing](testing): without sockets, without waiting.
//!
//! **Sessions**
//!
//! 13. [Sessions](sessions): methods, options, promises, events.
//! 14. [Logins](logins): the user as an argument, devices and their ends, what OWASP and ASVS ask for.
//! 15. [Stores](stores): where they are kept, and writing a store.
//! 16. [File](mod@file): sessions in one file, its backup, what it survives and what goes wrong.
//! 17. [Redis](redis): its settings, memory, permissions, TLS, Sentinel, Cluster; one pool for everything.
//! 18. [Failures](failures): what visitors see while Redis is down, and what can be lost.
//! 19. [Security](security): what is done, what is one line, what is yours.
//!
//! **In production**
//!
//! 20. [Going live](going_live): two processes behind nginx, containers, what to set, to watch and to keep a copy of.
//! 21. [Running](running): servers, systemd, containers, signals, memory and files.
//! 22. [Proxies](proxies): nginx, HAProxy and Apache in front, uploads, streams, files, time-outs.
//! 23. [HTTPS](https): the server speaks TLS itself; certbot, a service on port 443 without root.
//! 24. [Threads](threads): what holds one, how many there are, and what streams leave to others.
//! 25. [Logs](logs): what each line means, and what to do.
//!
//! **Behind it**
//!
//! 26. [Performance](performance): figures, and why handlers block.
//! 27. [How it works](inside): the flow, the words, the map.

#[doc = include_str!("tutorial.md")]
pub mod tutorial {}

#[doc = include_str!("from_bottle.md")]
pub mod from_bottle {}

#[doc = include_str!("differences.md")]
pub mod differences {}

#[doc = include_str!("from_axum.md")]
pub mod from_axum {}

#[doc = include_str!("handlers.md")]
pub mod handlers {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("forms.md")]
pub mod forms {}

#[doc = include_str!("pages.md")]
pub mod pages {}

#[doc = include_str!("files.md")]
pub mod files {}

#[doc = include_str!("providers.md")]
pub mod providers {}

#[doc = include_str!("plugins.md")]
pub mod plugins {}

#[doc = include_str!("apps.md")]
pub mod apps {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("logins.md")]
pub mod logins {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("file.md")]
pub mod file {}

#[doc = include_str!("redis.md")]
pub mod redis {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("going_live.md")]
pub mod going_live {}

#[doc = include_str!("running.md")]
pub mod running {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("https.md")]
pub mod https {}

#[doc = include_str!("threads.md")]
pub mod threads {}

#[doc = include_str!("logs.md")]
pub mod logs {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("inside.md")]
pub mod inside {}
