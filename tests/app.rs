//! The framework, through a client without sockets. Here is what the tests share.

mod build_errors;
mod failures;
mod hooks;
mod misuse;
mod mounts;
mod parts;
mod plugins;
mod providers;
mod replies;
mod routes;
mod shapes;
mod testing;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bottle_session::http::{Method, StatusCode};
use bottle_session::{
    App, Batch, Callback, Cookie, Exchange, Filter, Form, Html, HttpError, IntoResponse, Json,
    Plugin, Provided, Provision, Query, Request, Response, ResponseHead, Result, Route, TestClient,
    Urls, Wildcard, abort, named, redirect,
};
use serde::{Deserialize, Serialize};

fn client(set_up: impl FnOnce(&mut App)) -> TestClient {
    let mut app = App::new();
    set_up(&mut app);
    TestClient::new(app).unwrap_or_else(|error| panic!("{error}"))
}

fn build_error(set_up: impl FnOnce(&mut App)) -> String {
    let mut app = App::new();
    set_up(&mut app);
    app.build().expect_err("an app that cannot be built").to_string()
}

#[derive(Deserialize, Serialize)]
struct Page {
    number: u32,
    size: Option<u32>,
}

/// A number that a plugin hands out.
struct Number(usize);

impl Provided for Number {}

struct Counting {
    keyword: String,
    count: AtomicUsize,
    log: Arc<Mutex<Vec<String>>>,
}

impl Counting {
    fn new(keyword: &str, from: usize) -> Counting {
        Counting { keyword: keyword.to_owned(), count: AtomicUsize::new(from), log: Arc::default() }
    }

    fn logging(keyword: &str, log: &Arc<Mutex<Vec<String>>>) -> Counting {
        Counting { log: log.clone(), ..Counting::new(keyword, 0) }
    }

    fn note(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{} {what}", self.keyword));
    }
}

impl Plugin for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Number>(&self.keyword))
    }

    fn apply(&self, callback: Callback, _: &Route) -> Callback {
        let (keyword, log) = (self.keyword.clone(), self.log.clone());
        Callback::new(move |exchange| {
            log.lock().unwrap().push(format!("{keyword} wraps"));
            callback.call(exchange)
        })
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        self.note("acquires");
        for mut entry in batch.iter_mut() {
            match entry.request().query("refuse").unwrap() {
                Some(_) => entry.refuse(abort(503, "").into_response()),
                None => entry.put(Number(self.count.fetch_add(1, Ordering::SeqCst) + 1)),
            }
        }
    }

    fn release(&self, batch: &mut Batch<'_>) {
        self.note("releases");
        for mut entry in batch.iter_mut() {
            let number = entry.take::<Number>().expect("what was put");
            let value = number.0.to_string();
            entry.head_mut().set_header("x-number", value).unwrap();
        }
    }

    fn close(&self) {
        self.note("closes");
    }
}
