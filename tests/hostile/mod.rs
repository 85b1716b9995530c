//! Clients that are slow, broken or mean, against the native server: others are served meanwhile. All of it holds over
//! TLS, too: this file is a module of tests.rs twice.

mod bodies;
mod connections;
mod panics;
mod requests;
mod shutdown;
mod streams;
mod threads;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

use bottle_session::http::StatusCode;
use bottle_session::server::native::Native;
use bottle_session::{
    App, Batch, Entry, HttpError, Json, Plugin, Provided, Provision, Request, Response,
};

use crate::support::serving::Serving;

const SHORT: Duration = Duration::from_millis(60);

fn bind() -> Native {
    let native = Native::bind("127.0.0.1:0").unwrap();
    #[cfg(feature = "https")]
    if is_over_tls() {
        return crate::support::tls::inside(native);
    }
    native
}

fn is_over_tls() -> bool {
    module_path!().ends_with("hostile_over_tls")
}

pub fn app() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.post("/ignore", || "ignored");
    app.post("/read", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        match std::io::copy(&mut reader, &mut std::io::sink()) {
            Ok(length) => Ok(length.to_string()),
            Err(error) => Ok(format!("broken: {error}")),
        }
    });
    app.post("/body", |request: &Request| request.body().map(|body| body.len().to_string()));
    app.post("/json", |Json(text): Json<String>| text);
    app.post("/copy", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        Ok(std::io::copy(&mut reader, &mut std::io::sink())?.to_string())
    });
    app.post("/copy-io", |request: &Request| -> Result<String, HttpError> {
        let mut text = String::new();
        request.body_reader()?.read_to_string(&mut text)?;
        Ok(text.len().to_string())
    });
    app.get("/endless", || Response::stream(std::io::repeat(b'x'), None));
    app.get("/truncated", || Response::stream(&b"abc"[..], Some(5)));
    app.get("/early", || StatusCode::CONTINUE);
    app.get("/last", || Response::text("last").with_header("connection", "Close"));
    app
}

/// A gate that handlers wait at.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    pub fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.0 += 1;
        self.0.1.notify_all();
        while !state.1 {
            state = self.0.1.wait(state).unwrap();
        }
    }

    pub fn wait_for(&self, waiting: usize) {
        let mut state = self.0.0.lock().unwrap();
        while state.0 < waiting {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().0
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

fn gated(gate: &Gate) -> App {
    let (mut app, gate) = (app(), gate.clone());
    app.get("/wait", move || {
        gate.pass();
        "passed"
    });
    app
}

pub struct Held;

impl Provided for Held {}

/// A plugin that waits at one gate before it provides, and at another before it takes back.
pub struct Slow(pub Gate, pub Gate);

impl Plugin for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Held>("held"))
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        self.0.pass();
        batch.iter_mut().for_each(|mut entry| entry.put(Held));
    }

    fn release(&self, batch: &mut Batch<'_>) {
        self.1.pass();
        batch.iter_mut().for_each(|mut entry| assert!(entry.take::<Held>().is_some()));
    }
}

/// A body that waits at a gate, and then has a word.
struct Waiting(Gate, bool);

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.1, true) {
            return Ok(0);
        }
        self.0.pass();
        buffer[..4].copy_from_slice(b"word");
        Ok(4)
    }
}
