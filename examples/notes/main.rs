//! A notebook for several people: all that this crate does, in one program with pages to look at.
//!
//! ```text
//! cargo run --example notes                                   # http://localhost:8888/, all of it in memory
//! cargo run --features sqlite --example notes -- --file notes.db                      # in a file, sessions in another one
//! REDIS_URL=redis://localhost:6379/0 cargo run --example notes -- --file notes.db     # sessions in Redis
//! cargo run --features https,dev-certificate --example notes -- https                 # https://localhost:8443/
//! ```
//!
//! Who signs up first is the administrator. No page needs JavaScript; with it, the number of notes at the top is live.
//!
//! | file | what it shows |
//! |---|---|
//! | `app.rs` | plugins, state, error pages, who may go where |
//! | `account.rs` | sign up, log in and out, a picture that is uploaded |
//! | `devices.rs` | where somebody is logged in; ending one device, or all others |
//! | `notebook.rs` | forms that come back with what is wrong, search, uploads and downloads |
//! | `live.rs` | server-sent events from a blocking handler |
//! | `admin.rs` | an app that is mounted |
//! | `data.rs`, `../bottle_ports/passwords.rs` | SQLite; argon2 |
//! | `view.rs`, `pages/` | templates with the user, flashes and the CSRF token |

mod account;
mod admin;
mod app;
mod data;
mod devices;
mod live;
mod notebook;
#[path = "../bottle_ports/passwords.rs"]
mod passwords;
mod view;

use std::process::ExitCode;
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{App, Result, Server, SessionPlugin, ShutdownHandle};

pub(crate) use app::app;
pub(crate) use data::Data;

const USAGE: &str = "\
usage: notes [https] [OPTION]...

  https              serve https://127.0.0.1:8443 (features https and dev-certificate)
  --listen ADDRESS   where to listen (127.0.0.1:8888)
  --file FILE        keep people and notes in this file, and not in memory; sessions are beside it in FILE.sessions
                     (feature sqlite), or in Redis
  --proxy NETWORK    believe what a proxy at these addresses says of its visitors
  --help             this text

REDIS_URL (redis://user:password@host:port/db) keeps sessions in that Redis.
";

struct Options {
    listen: String,
    file: Option<String>,
    proxy: Option<String>,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let served = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => serve(&options).map_err(|error| format!("{error:?}")),
        Ok(None) => {
            print!("{USAGE}");
            Ok(())
        }
        Err(error) => Err(format!("{error}\n\n{USAGE}")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    let (mut file, mut proxy) = (None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "https" => listen = "https://127.0.0.1:8443".to_owned(),
            "--listen" => listen = value()?,
            "--file" => file = Some(value()?),
            "--proxy" => proxy = Some(value()?),
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    Ok(Some(Options { listen, file, proxy }))
}

fn serve(options: &Options) -> Result<()> {
    let mut server = Native::bind(&options.listen)?;
    if let Some(proxy) = &options.proxy {
        server = server.trusted_proxies([proxy.as_str()])?;
    }
    let sessions = sessions(server.address().is_https());
    let (sessions, place) = match (std::env::var("REDIS_URL"), &options.file) {
        (Ok(url), _) => (sessions.url(&url), "Redis"),
        (Err(_), Some(file)) => (sessions.file(format!("{file}.sessions")), "a file"),
        (Err(_), None) => (sessions.in_memory(), "memory"),
    };
    let app = notes(sessions, options.file.as_deref())?;
    println!("Sessions are kept in {place}. Listening on {}", server.address());
    let shutdown = ShutdownHandle::new();
    shutdown.on_signals()?;
    server.serve(app.build()?, &shutdown)
}

fn notes(sessions: SessionPlugin, file: Option<&str>) -> Result<App> {
    let data = match file {
        Some(file) => Data::open(file)?,
        None => Data::in_memory()?,
    };
    app(sessions, data)
}

/// Over https the strictest cookie there is. Browsers take plain http on this machine for as safe; curl does not. A cookie that
/// somebody has copied is worth something for an hour, also where its owner stays logged in for a month.
pub fn sessions(is_https: bool) -> SessionPlugin {
    let hour = Duration::from_secs(3600);
    let sessions =
        SessionPlugin::new().cookie_name("notes").cookie_lifetime(hour).renew_every(hour);
    if is_https { sessions.hardened() } else { sessions.cookie_httponly(true) }
}
