//! Sessions as a browser sees them, on the memory store.

mod cookies;
mod failures;
mod ids;
mod lifetimes;
mod logins;
mod rotation;
mod tombstones;
mod values;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bottle_session::http::{self, HeaderMap, Method};
use bottle_session::{
    App, Callback, Cookie, Error, ErrorKind, Event, Exchange, HttpError, IdFormat, Layout,
    ListenAddress, Load, Loaded, MemoryStore, Plugin, RedisPool, Request, ResponseHead, Result,
    Route, SameSite, Save, Saved, Session, SessionId, SessionPlugin, SessionStore, ShutdownHandle,
    TestClient, abort, named, redirect,
};

use crate::support::logs::{collect_logs, logs_of};
use crate::support::redis_server::RedisServer;

/// A clock that a test moves.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    fn store(&self) -> MemoryStore {
        let seconds = self.0.clone();
        let start = SystemTime::now();
        MemoryStore::with_clock(move || start + Duration::from_secs(seconds.load(Ordering::SeqCst)))
    }
}

fn client(plugin: SessionPlugin) -> TestClient {
    // Whatever they do shows no id in any log.
    collect_logs();
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/remove/<key>", |s: &mut Session, key: &str| s.remove(key).unwrap_or_default());
    app.get("/clear", |s: &mut Session| s.clear());
    app.get("/regenerate", |s: &mut Session| s.regenerate());
    app.get("/destroy", |s: &mut Session| s.destroy());
    app.get("/destroy-and-set", |s: &mut Session| {
        s.destroy();
        s.set("fresh", "yes");
    });
    app.get("/forget", |s: &mut Session| s.remember(None));
    app.get("/remember/<days:int>", |s: &mut Session, days: u64| {
        s.set("kept", "yes");
        s.remember(Duration::from_secs(days * 86_400));
    });
    app.get("/untouched", |_: &mut Session| "untouched");
    app.get("/without", || "without");
    app.get("/abort", |s: &mut Session| {
        s.set("before", "abort");
        abort(403, "no")
    });
    app.get("/redirect", |s: &mut Session| {
        s.set("before", "redirect");
        redirect("/")
    });
    app.get("/fail", |s: &mut Session| -> std::result::Result<(), HttpError> {
        s.set("before", "failure");
        "x".parse::<u8>()?;
        Ok(())
    });
    app.get("/panic", |s: &mut Session| -> String {
        s.set("before", "panic");
        panic!("on purpose")
    });
    app.get("/incr", |s: &mut Session| -> Result<String> { Ok(s.incr("n", 1)?.to_string()) });
    app.get("/take/<key>", |s: &mut Session, key: &str| s.take(key).map(|v| format!("{v:?}")));
    app.get("/claim/<value>", |s: &mut Session, value: &str| {
        s.set_if_absent("claim", value).map(|set| set.to_string())
    });
    app.get("/large", |s: &mut Session| {
        s.set("small", "1");
        s.set("large", "x".repeat(70_000));
        "acknowledged"
    });
    app.get("/try-large", |s: &mut Session| match s.try_set("large", "x".repeat(70_000)) {
        Ok(()) => "stored".to_owned(),
        Err(error) => error.to_string(),
    });
    TestClient::new(app).unwrap()
}

fn text(client: &TestClient, path: &str) -> String {
    let response = client.get(path).send();
    assert_eq!(response.status(), 200, "{path}: {}", response.text());
    response.text()
}

const COOKIE: &str = "bottle.session";

/// A memory store that counts what it is asked, and fails when told.
#[derive(Clone, Default)]
struct Counted {
    inner: Arc<MemoryStore>,
    loads: Arc<AtomicU64>,
    saves: Arc<AtomicU64>,
    failing: Arc<Mutex<Option<ErrorKind>>>,
    failing_saves: Arc<Mutex<bool>>,
    failing_load: Arc<Mutex<Option<SessionId>>>,
    /// With this, `increment`, `take` and `set_if_absent` fail, and so do saves.
    failing_with: Arc<Mutex<Option<(ErrorKind, String)>>>,
}

impl Counted {
    fn counts(&self) -> (u64, u64) {
        (self.loads.load(Ordering::SeqCst), self.saves.load(Ordering::SeqCst))
    }

    fn check_writing(&self) -> Result<()> {
        match &*self.failing_with.lock().unwrap() {
            Some((kind, text)) => Err(Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        match *self.failing.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "told to fail")),
            None => Ok(()),
        }
    }
}

impl SessionStore for Counted {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        if self.failing_load.lock().unwrap().as_ref() == Some(load.id) {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.inner.load(load)
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        if *self.failing_saves.lock().unwrap() {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.check_writing()?;
        self.inner.save(save)
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.check_writing()?;
        self.inner.increment(load, key, by)
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.check_writing()?;
        self.inner.take(load, keys)
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.check_writing()?;
        self.inner.set_if_absent(load, key, value)
    }
}

fn login_client(plugin: SessionPlugin) -> TestClient {
    let mut app = App::new();
    app.install(plugin).unwrap();
    app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
    app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
    app.get("/out", |s: &mut Session| s.log_out());
    app.get("/set/<key>/<value>", |s: &mut Session, key: &str, value: &str| s.set(key, value));
    app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
    app.get("/since", |s: &mut Session| format!("{:?}", s.logged_in_at()));
    app.get("/both/<user>", |s: &mut Session, user: &str| -> Result<String> {
        s.set("before", "1");
        s.log_in(user)?;
        s.set("after", "1");
        Ok(s.keys().collect::<Vec<_>>().join(" "))
    });
    app.get("/at-once/<user>", |s: &mut Session, user: &str| -> Result<String> {
        s.log_in(user)?;
        s.commit()?;
        s.set("after", "1");
        Ok(s.user_id().unwrap_or("-").to_owned())
    });
    TestClient::new(app).unwrap()
}
