//! What the parts of one request take: `cargo bench --bench micro`, or `cargo bench --bench micro -- session` for
//! some of them. Finding a route among many has a benchmark of its own, `router`.

use bottle_session::http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use bottle_session::http::uri::PathAndQuery;
use bottle_session::http::{Method, StatusCode, Version};
use bottle_session::{
    App, Cookie, Data, HttpError, Provided, Request, ResponseHead, Service, Session, SessionPlugin,
    abort, redirect,
};
use divan::{Bencher, black_box};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

// The parser needs nothing else of the crate, which does not export it.
#[path = "../src/server/http1/mod.rs"]
#[allow(dead_code, unused_imports)]
mod http1;

fn main() {
    // Many at once, as one takes no longer than a few ticks of the clock.
    divan::Divan::from_args().sample_size(64).main();
}

/// A request as a server makes it.
fn request(path: &'static str, cookie: Option<&HeaderValue>) -> Request {
    let mut headers = HeaderMap::new();
    if let Some(cookie) = cookie {
        headers.insert(COOKIE, cookie.clone());
    }
    Request::new(Method::GET, PathAndQuery::from_static(path)).with_headers(headers)
}

/// From the request to the answer, without a socket.
fn serve(
    bencher: Bencher<'_, '_>,
    service: &Service,
    path: &'static str,
    cookie: Option<&HeaderValue>,
) {
    assert_eq!(service.handle(request(path, cookie)).status(), 200, "{path}");
    bencher
        .with_inputs(|| request(path, cookie))
        .bench_values(|request| service.handle(black_box(request)));
}

mod dispatch {
    use super::*;

    fn service() -> Service {
        let mut app = App::new();
        app.get("/none", || "hello");
        app.get("/two/<name>/<id:int>", |name: &str, id: i64| {
            black_box((name, id));
            "hello"
        });
        app.get(
            "/four/<name>/<id:int>",
            |request: &Request, name: &str, head: &mut ResponseHead, id: i64| {
                black_box((request, name, head, id));
                "hello"
            },
        );
        app.build().expect("an app")
    }

    #[divan::bench]
    fn no_arguments(bencher: Bencher<'_, '_>) {
        serve(bencher, &service(), "/none", None);
    }

    #[divan::bench]
    fn two_arguments(bencher: Bencher<'_, '_>) {
        serve(bencher, &service(), "/two/Ada/7", None);
    }

    #[divan::bench]
    fn four_arguments(bencher: Bencher<'_, '_>) {
        serve(bencher, &service(), "/four/Ada/7", None);
    }
}

mod forms {
    use bottle_session::{Form, Query, RequestBody};

    use super::*;

    #[derive(Deserialize)]
    struct Note {
        title: String,
        pages: Option<u32>,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        public: bool,
    }

    fn service() -> Service {
        let mut app = App::new();
        let taken = |note: Note| {
            black_box((note.title, note.pages, note.tags, note.public));
            "hello"
        };
        app.get("/query", move |Query(note): Query<Note>| taken(note));
        app.post("/form", move |Form(note): Form<Note>| taken(note));
        app.build().expect("an app")
    }

    fn form(bencher: Bencher<'_, '_>, content_type: &'static str, body: String) {
        let service = service();
        let request = || {
            let mut request = Request::new(Method::POST, PathAndQuery::from_static("/form"));
            request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            request.with_body(RequestBody::Bytes(body.clone().into()))
        };
        assert_eq!(service.handle(request()).status(), 200);
        bencher.with_inputs(request).bench_values(|request| service.handle(black_box(request)));
    }

    #[divan::bench]
    fn a_query(bencher: Bencher<'_, '_>) {
        let target = "/query?title=Tea+and+milk&pages=7&tags=home&tags=work&public=on";
        serve(bencher, &service(), target, None);
    }

    #[divan::bench(args = [4, 900])]
    fn urlencoded(bencher: Bencher<'_, '_>, fields: usize) {
        let others: String = (4..fields).map(|n| format!("&other{n}=value+{n}")).collect();
        let body = format!("title=Tea+and+milk&pages=7&tags=home&public=on{others}");
        form(bencher, "application/x-www-form-urlencoded", body);
    }

    #[divan::bench]
    fn multipart(bencher: Bencher<'_, '_>) {
        let part = |(name, value): (&str, &str)| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields =
            [("title", "Tea and milk"), ("pages", "7"), ("tags", "home"), ("public", "on")];
        let body = fields.map(part).concat() + "--b--\r\n";
        form(bencher, "multipart/form-data; boundary=b", body);
    }
}

mod cookies {
    use super::*;

    #[divan::bench]
    fn one_of_five(bencher: Bencher<'_, '_>) {
        let header = HeaderValue::from_static(
            "theme=dark; _ga=GA1.2.1234567890.1234567890; lang=en%2DGB; seen=1; \
             bottle.session=q83vEjRWeJASNFZ4kBI0VniQEjRWeJASNFZ4kBI0VniQ",
        );
        bencher.with_inputs(|| request("/", Some(&header))).bench_refs(|request| {
            request.cookie(black_box("bottle.session")).expect("the cookie").len()
        });
    }

    #[divan::bench]
    fn an_answer_that_sets_one(bencher: Bencher<'_, '_>) {
        let mut app = App::new();
        app.get("/", |head: &mut ResponseHead| {
            let cookie = Cookie::build(("name", "Ada Lovelace")).path("/").http_only(true).build();
            head.set_cookie(cookie).expect("a cookie");
            "hello"
        });
        serve(bencher, &app.build().expect("an app"), "/", None);
    }
}

/// The reply to HGETALL of a session with five values, and the nonce behind it.
mod codec {
    use super::*;
    use bottle_session::__private::count_strings;

    fn replies() -> Vec<u8> {
        let mut bytes = b"*10\r\n".to_vec();
        for word in ["name", "Ada Lovelace", "born", "1815", "cart", "7", "lang", "en", "seen", "1"]
        {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        bytes.extend_from_slice(b"$32\r\n0123456789abcdef0123456789abcdef\r\n");
        bytes
    }

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let bytes = replies();
        assert_eq!(count_strings(&bytes, 2), Some(11));
        bencher.bench(|| count_strings(black_box(&bytes), 2));
    }

    #[divan::bench]
    fn the_redis_crates(bencher: Bencher<'_, '_>) {
        let bytes = replies();
        bencher.bench(|| {
            let (mut input, mut parser) = (black_box(&bytes[..]), redis::Parser::new());
            [(); 2].map(|()| parser.parse_value(&mut input).expect("a reply"))
        });
    }
}

mod ids {
    use super::*;
    use bottle_session::{IdFormat, SessionId};

    const ID: &str = "q83vEjRWeJASNFZ4kBI0VniQEjRWeJASNFZ4kBI0VnQ";

    #[divan::bench]
    fn parse() -> Option<SessionId> {
        SessionId::parse(black_box(ID), IdFormat::Base64Url)
    }

    #[divan::bench]
    fn key_in_the_store(bencher: Bencher<'_, '_>) {
        let id = SessionId::parse(ID, IdFormat::Base64Url).expect("an id");
        bencher.bench(|| black_box(&id).key());
    }
}

/// On the memory store: what is left is the work of plugin and store.
mod session {
    use super::*;

    fn service() -> Service {
        service_of(SessionPlugin::new().in_memory())
    }

    fn service_of(plugin: SessionPlugin) -> Service {
        let mut app = App::new();
        app.install(plugin).expect("a plugin");
        app.get("/ten", |session: &mut Session| {
            (0..10).for_each(|n| session.set(format!("name{n}"), "x".repeat(100)));
        });
        app.get("/nothing", |session: &mut Session| if session.is_new() { "new" } else { "known" });
        app.get("/create", |session: &mut Session| session.set("name", "Ada"));
        app.get("/read", |session: &mut Session| session.get("name").expect("a name").to_owned());
        app.get("/change", |session: &mut Session| {
            let count = session.parse("count").unwrap_or(0u64) + 1;
            session.set("count", count);
        });
        app.provide_data::<Visits>("visits");
        app.get("/data", |visits: &Data<Visits>| {
            black_box(visits.count);
        });
        app.get("/data/change", |visits: &mut Data<Visits>| visits.count += 1);
        app.build().expect("an app")
    }

    #[derive(Default, Deserialize, Serialize)]
    struct Visits {
        count: u64,
        name: String,
    }

    fn logged_in(service: &Service) -> HeaderValue {
        let answer = service.handle(request("/create", None));
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("a cookie");
        HeaderValue::from_str(cookie.split(';').next().expect("a pair")).expect("a header")
    }

    #[divan::bench]
    fn stranger_who_stores_nothing(bencher: Bencher<'_, '_>) {
        serve(bencher, &service(), "/nothing", None);
    }

    #[divan::bench]
    fn load(bencher: Bencher<'_, '_>) {
        let service = service();
        serve(bencher, &service, "/read", Some(&logged_in(&service)));
    }

    #[divan::bench]
    fn load_change_and_save(bencher: Bencher<'_, '_>) {
        let service = service();
        serve(bencher, &service, "/change", Some(&logged_in(&service)));
    }

    #[divan::bench]
    fn load_typed(bencher: Bencher<'_, '_>) {
        let service = service();
        let cookie = logged_in(&service);
        service.handle(request("/data/change", Some(&cookie)));
        serve(bencher, &service, "/data", Some(&cookie));
    }

    #[divan::bench]
    fn load_change_and_save_typed(bencher: Bencher<'_, '_>) {
        let service = service();
        serve(bencher, &service, "/data/change", Some(&logged_in(&service)));
    }

    /// With ten more fields of 100 bytes each.
    #[divan::bench]
    fn load_ten(bencher: Bencher<'_, '_>) {
        let service = service();
        let cookie = logged_in(&service);
        service.handle(request("/ten", Some(&cookie)));
        serve(bencher, &service, "/read", Some(&cookie));
    }

    // The store is bounded, and each sample makes sessions that stay.
    #[divan::bench(sample_count = 50)]
    fn create(bencher: Bencher<'_, '_>) {
        serve(bencher, &service(), "/create", None);
    }

    /// The same where values are sealed: `cargo bench --features sealed --bench micro -- session`.
    #[cfg(feature = "sealed")]
    mod sealed {
        use super::*;

        fn service() -> Service {
            service_of(SessionPlugin::new().in_memory().sealed())
        }

        #[divan::bench]
        fn load(bencher: Bencher<'_, '_>) {
            let service = service();
            serve(bencher, &service, "/read", Some(&logged_in(&service)));
        }

        #[divan::bench]
        fn load_ten(bencher: Bencher<'_, '_>) {
            let service = service();
            let cookie = logged_in(&service);
            service.handle(request("/ten", Some(&cookie)));
            serve(bencher, &service, "/read", Some(&cookie));
        }

        #[divan::bench]
        fn load_change_and_save(bencher: Bencher<'_, '_>) {
            let service = service();
            serve(bencher, &service, "/change", Some(&logged_in(&service)));
        }

        #[divan::bench(sample_count = 50)]
        fn create(bencher: Bencher<'_, '_>) {
            serve(bencher, &service(), "/create", None);
        }
    }
}

/// The user of a session: what a provider costs over the same lines in the handler.
mod providers {
    use super::*;

    struct Users(HashMap<&'static str, u16>);

    struct User {
        born: u16,
    }

    impl Provided for Users {}
    impl Provided for User {}

    fn user(session: &mut Session, users: &Users) -> Result<User, HttpError> {
        match session.get("name").and_then(|name| users.0.get(name)) {
            Some(born) => Ok(User { born: *born }),
            None => Err(redirect("/login").into()),
        }
    }

    fn service() -> Service {
        let mut app = App::new();
        app.install(SessionPlugin::new().in_memory()).expect("a plugin");
        app.state(Users(HashMap::from([("Ada", 1815)])));
        app.provide(user).finish(|user, _| {
            black_box(user.born);
        });
        app.get("/create", |session: &mut Session| session.set("name", "Ada"));
        app.get("/session", |session: &mut Session| {
            black_box(session.get("name"));
        });
        app.get("/handler", |session: &mut Session, users: &Users| -> Result<(), HttpError> {
            black_box(user(session, users)?.born);
            Ok(())
        });
        app.get("/provider", |user: &User| {
            black_box(user.born);
        });
        app.build().expect("an app")
    }

    fn logged_in(bencher: Bencher<'_, '_>, path: &'static str) {
        let service = service();
        let answer = service.handle(request("/create", None));
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("a cookie");
        let cookie = HeaderValue::from_str(cookie.split(';').next().expect("a pair"));
        serve(bencher, &service, path, Some(&cookie.expect("a header")));
    }

    #[divan::bench]
    fn a_session_and_no_user(bencher: Bencher<'_, '_>) {
        logged_in(bencher, "/session");
    }

    #[divan::bench]
    fn the_lines_in_the_handler(bencher: Bencher<'_, '_>) {
        logged_in(bencher, "/handler");
    }

    #[divan::bench]
    fn a_provider(bencher: Bencher<'_, '_>) {
        logged_in(bencher, "/provider");
    }
}

/// Answers that are errors.
mod errors {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct NoSuchItem;

    impl fmt::Display for NoSuchItem {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no such item")
        }
    }

    impl std::error::Error for NoSuchItem {}

    fn answer(bencher: Bencher<'_, '_>, path: &'static str, accept: &'static str) {
        let mut app = App::new();
        app.on_error(|_: &NoSuchItem| abort(404, "There is no such item."));
        app.get("/aborted", || abort(404, "There is no such item."));
        app.get("/converted", || -> Result<&'static str, NoSuchItem> { Err(NoSuchItem) });
        let service = app.build().expect("an app");
        let request = || {
            let mut request = request(path, None);
            request.headers_mut().insert("accept", HeaderValue::from_static(accept));
            request
        };
        assert_eq!(service.handle(request()).status(), 404);
        bencher.with_inputs(request).bench_values(|request| service.handle(black_box(request)));
    }

    #[divan::bench]
    fn a_page(bencher: Bencher<'_, '_>) {
        answer(bencher, "/aborted", "text/html");
    }

    #[divan::bench]
    fn json(bencher: Bencher<'_, '_>) {
        answer(bencher, "/aborted", "application/json");
    }

    #[divan::bench]
    fn of_a_type_of_the_apps_own(bencher: Bencher<'_, '_>) {
        answer(bencher, "/converted", "text/html");
    }
}

/// A small file, as a handler's reply and from a folder, where two names beside it are looked for.
mod files {
    use super::*;
    use bottle_session::static_file;

    fn answer(bencher: Bencher<'_, '_>, path: &'static str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pages/assets");
        let mut app = App::new();
        app.get("/file", move |request: &Request| static_file(request, "site.css", folder));
        app.files("/files", folder);
        serve(bencher, &app.build().expect("an app"), path, None);
    }

    #[divan::bench]
    fn of_a_handler(bencher: Bencher<'_, '_>) {
        answer(bencher, "/file");
    }

    #[divan::bench]
    fn of_a_folder(bencher: Bencher<'_, '_>) {
        answer(bencher, "/files/site.css");
    }
}

mod http {
    use super::*;
    use crate::http1::{Delivery, HeadLimits, Parsed, parse_head, write_head};

    const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, target: 8 * 1024, fields: 100 };
    const SHORT: &[u8] = b"GET /read HTTP/1.1\r\nHost: 127.0.0.1:8888\r\n\
        Cookie: bottle.session=q83vEjRWeJASNFZ4kBI0VniQEjRWeJASNFZ4kBI0VnQ\r\n\r\n";
    const BROWSER: &[u8] = b"GET /item/7?page=3 HTTP/1.1\r\nHost: www.example.org\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
        Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
        Referer: https://www.example.org/list?page=3\r\nConnection: keep-alive\r\n\
        Cookie: theme=dark; bottle.session=q83vEjRWeJASNFZ4kBI0VniQEjRWeJASNFZ4kBI0VnQ\r\n\
        Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\
        Sec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\nPriority: u=0, i\r\n\r\n";

    fn parse(head: &[u8]) -> Box<http1::Head> {
        match parse_head(black_box(head), &LIMITS) {
            Ok(Parsed::Complete(head)) => head,
            _ => panic!("no head"),
        }
    }

    #[divan::bench]
    fn parse_a_short_head() -> Box<http1::Head> {
        parse(SHORT)
    }

    #[divan::bench]
    fn parse_the_head_of_a_browser() -> Box<http1::Head> {
        parse(BROWSER)
    }

    #[divan::bench]
    fn write_a_head(bencher: Bencher<'_, '_>) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert("vary", HeaderValue::from_static("Cookie"));
        let mut out = Vec::with_capacity(1024);
        bencher.bench_local(|| {
            out.clear();
            let delivery = Delivery::Length(5);
            write_head(
                &mut out,
                StatusCode::OK,
                black_box(&headers),
                delivery,
                Version::HTTP_11,
                true,
            );
            out.len()
        });
    }
}
