//! A greeter that remembers its visitor.
//!
//! ```text
//! cargo run --example greeter
//! curl -c jar -b jar localhost:8888/
//! curl -c jar -b jar localhost:8888/set/Chris
//! curl -c jar -b jar localhost:8888/
//! ```
//!
//! Over https, with a certificate of its own:
//!
//! ```text
//! cargo run --features https,dev-certificate --example greeter -- --listen https://127.0.0.1:8443
//! curl -k -c jar -b jar https://localhost:8443/
//! ```
//!
//! Sessions live in memory, in Redis where `REDIS_URL` or one of the `--redis-…` options is given, or in a file, where they
//! survive a restart:
//!
//! ```text
//! cargo run --features sqlite --example greeter -- --file sessions.db
//! ```

use std::process::ExitCode;
use std::time::Duration;

use bottle_session::{
    App, Layout, Result, Server, Session, SessionPlugin, ShutdownHandle, named, server,
};

const USAGE: &str = "\
usage: greeter [OPTION]...

  --listen ADDRESS           where to listen (127.0.0.1:8888; port 0 takes a free one);
                             https://ADDRESS serves with TLS (feature https)
  --certificate FILE         the certificate for that, with its chain; without one, and without TLS_CERT and
                             TLS_KEY, one is made (feature dev-certificate)
  --key FILE                 its key
  --redis-host HOST          keep sessions in Redis on this host (localhost)
  --redis-port PORT          its port (6379)
  --redis-db NUMBER          its database (0)
  --redis-password PASSWORD  its password (none)
  --file FILE                keep sessions in this file (feature sqlite)
  --cookie-name NAME         the session cookie (bottle.session)
  --cookie-lifetime SECONDS  its lifetime (600); none: until the browser ends
  --cookie-secure            send the cookie over https only
  --cookie-httponly          hide the cookie from scripts
  --keyword WORD             the plugin's keyword (session)
  --layout LAYOUT            records in Redis: default or bottle-session
  --help                     this text

REDIS_URL (redis://user:password@host:port/db, unix:///path) keeps sessions in that Redis.
Without it, without any --redis option and without --file, sessions live in memory.
";

struct Options {
    listen: String,
    certificate: Option<String>,
    key: Option<String>,
    keyword: String,
    plugin: SessionPlugin,
    place: String,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match options(std::env::args().skip(1), std::env::var("REDIS_URL").ok()) {
        Ok(Some(options)) => match serve(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("greeter: {error:?}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("greeter: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve(options: Options) -> Result<()> {
    let app = app(options.plugin, &options.keyword)?;
    match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let address = options.listen.trim_start_matches("https://");
            serve_on(secured(address, certificate, key)?, app, &options.place)
        }
        // `app.run(&options.listen)` would do, were it not for port 0.
        _ => serve_on(server::bind(&options.listen)?, app, &options.place),
    }
}

fn serve_on(server: impl Server, app: App, place: &str) -> Result<()> {
    println!("Sessions are kept in {place}. Listening on {}", server.address());
    let shutdown = ShutdownHandle::new();
    shutdown.on_signals()?;
    server.serve(app.build()?, &shutdown)
}

#[cfg(all(unix, feature = "https"))]
fn secured(address: &str, certificate: &str, key: &str) -> Result<impl Server + use<>> {
    use bottle_session::server::native::Native;
    use bottle_session::server::tls::Tls;

    Ok(Native::bind(address)?.tls(Tls::files(certificate, key)?))
}

#[cfg(not(all(unix, feature = "https")))]
fn secured(address: &str, _: &str, _: &str) -> Result<impl Server + use<>> {
    // Which says what is missing.
    server::bind(&format!("https://{address}"))
}

fn app(plugin: SessionPlugin, keyword: &str) -> Result<App> {
    let mut app = App::new();
    app.install(plugin)?;
    app.get("/", |session: &mut Session| match session.get("name") {
        Some(name) => format!("Hello, {name}\n"),
        None => "I don't recognize you.\n".to_owned(),
    });
    app.get(["/set", "/set/<user_name>"], |session: &mut Session, user_name: Option<&str>| {
        match user_name {
            Some(name) => {
                session.set("name", name);
                "I recognize you now.\n"
            }
            None => "What was that?\n",
        }
    });
    app.get("/regenerate", |session: &mut Session| {
        session.regenerate();
        "You have a new session id.\n"
    });
    app.get("/forget", |session: &mut Session| {
        session.destroy();
        "I have forgotten you.\n"
    });
    // The keyword form, as in Bottle: the argument's name must be the plugin's keyword.
    if keyword == "session" {
        app.get(
            "/keys",
            named!(|session: &mut Session| {
                session.keys().map(|key| format!("{key}\n")).collect::<String>()
            }),
        );
    }
    Ok(app)
}

/// What the command line says; `None` where it asks for help.
fn options(
    mut arguments: impl Iterator<Item = String>,
    redis_url: Option<String>,
) -> std::result::Result<Option<Options>, String> {
    let mut plugin = SessionPlugin::new().cookie_lifetime(Duration::from_secs(600));
    let mut listen = "127.0.0.1:8888".to_owned();
    let (mut certificate, mut key) = (None, None);
    let mut keyword = "session".to_owned();
    let mut layout = None;
    let mut file = None;
    let mut place = "memory: they end with this process".to_owned();
    if let Some(url) = &redis_url {
        plugin = plugin.url(url);
        place = "Redis (REDIS_URL)".to_owned();
    }
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{option} needs a value"));
        if option.starts_with("--redis") {
            if redis_url.is_some() {
                return Err(format!("{option} and REDIS_URL both say where Redis is; use one"));
            }
            place = "Redis".to_owned();
        }
        match option.as_str() {
            "--help" | "-h" => return Ok(None),
            "--listen" => listen = value()?,
            "--certificate" => certificate = Some(value()?),
            "--key" => key = Some(value()?),
            "--redis-host" => plugin = plugin.host(value()?),
            "--redis-port" => plugin = plugin.port(number(&option, &value()?)?),
            "--redis-db" => plugin = plugin.db(number(&option, &value()?)?),
            "--redis-password" => plugin = plugin.password(value()?),
            "--file" => file = Some(value()?),
            "--cookie-name" => plugin = plugin.cookie_name(value()?),
            "--cookie-lifetime" => {
                let text = value()?;
                let lifetime = match text.as_str() {
                    "none" => None,
                    seconds => Some(Duration::from_secs(number(&option, seconds)?)),
                };
                plugin = plugin.cookie_lifetime(lifetime);
            }
            "--cookie-secure" => plugin = plugin.cookie_secure(true),
            "--cookie-httponly" => plugin = plugin.cookie_httponly(true),
            "--keyword" => {
                keyword = value()?;
                plugin = plugin.keyword(keyword.clone());
            }
            "--layout" => {
                layout = Some(match value()?.as_str() {
                    "default" => Layout::Default,
                    "bottle-session" => Layout::BottleSession,
                    other => {
                        return Err(format!(
                            "no layout is called {other:?}: default, bottle-session"
                        ));
                    }
                });
            }
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    if certificate.is_some() != key.is_some() {
        return Err("--certificate and --key go together".to_owned());
    }
    if certificate.is_some() && !listen.starts_with("https://") {
        return Err(format!("--certificate is for https: --listen https://{listen}"));
    }
    if let Some(file) = file {
        if !place.starts_with("memory") {
            return Err("--file and Redis both say where sessions are kept; use one".to_owned());
        }
        place = format!("the file {file}");
        plugin = plugin.file(file);
    }
    let in_memory = place.starts_with("memory");
    plugin = match layout {
        _ if !place.starts_with("Redis") && layout.is_some() => {
            return Err("--layout is a matter of Redis; say where that is".to_owned());
        }
        Some(layout) => plugin.layout(layout),
        None if in_memory => plugin.in_memory(),
        None => plugin,
    };
    Ok(Some(Options { listen, certificate, key, keyword, plugin, place }))
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|_| format!("{option} needs a number, not {text:?}"))
}

#[test]
fn it_greets_whom_it_knows() {
    use bottle_session::TestClient;

    let client =
        TestClient::new(app(SessionPlugin::new().in_memory(), "session").unwrap()).unwrap();
    let text = |path: &str| client.get(path).send().text();
    assert_eq!(text("/"), "I don't recognize you.\n");
    assert_eq!(text("/set"), "What was that?\n");
    assert_eq!(text("/set/Chris"), "I recognize you now.\n");
    assert_eq!(text("/"), "Hello, Chris\n");
    text("/regenerate");
    assert_eq!(text("/"), "Hello, Chris\n");
    text("/forget");
    assert_eq!(text("/"), "I don't recognize you.\n");
}
