//! The framework, through a client without sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bottle_session::http::{Method, StatusCode};
use bottle_session::{
    App, Batch, Callback, Cookie, Exchange, Filter, Form, Html, HttpError, IntoResponse, Json,
    Plugin, Provided, Provision, Query, Request, Response, ResponseHead, Result, Route, TestClient,
    Urls, Wildcard, abort, named, redirect,
};
use serde::{Deserialize, Serialize};

mod failures;
mod hooks;
mod misuse;
mod mounts;
mod parts;
mod providers;
mod shapes;

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

#[test]
fn wildcards_reach_their_arguments() {
    fn by_function(id: u32, name: String) -> String {
        format!("{id} {name}")
    }
    let client = client(|app| {
        app.get("/hello/<n:int>", |n: i64| format!("{}", n + 1));
        app.get("/x/<p:path>", |p: &str| p.to_owned());
        app.get(["/set", "/set/<user_name>"], |name: Option<&str>| format!("{name:?}"));
        app.get("/f/<id>/<name>", by_function);
        app.get("/named/<a>/<b>", named!(|b: &str, a: &str| format!("{a} then {b}")));
        app.get("/listed/<name>/<id>", named!(by_function(id, name)));
        app.get("/any/<x>", |x: f32| x.to_string());
        app.get("/half/<x:float>", |x: f64| (x / 2.0).to_string());
        app.get("/ip/<ip>", |Wildcard(ip): Wildcard<std::net::Ipv4Addr>| {
            ip.octets()[0].to_string()
        });
        app.get("/small/<n>", |n: u8| n.to_string());
        app.get("/small/<n:path>", || "not small");
        app.get(
            "/eight/<a>/<b>/<c>/<d>/<e>/<f>/<g>/<h>",
            |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| {
                (a + b + c + d + e + f + g + h).to_string()
            },
        );
    });
    for (path, status, expected) in [
        ("/any/1e3", 200, "1000"),
        ("/hello/41", 200, "42"),
        ("/x/a/b%20c", 200, "a/b c"),
        ("/set", 200, "None"),
        ("/set/Ada", 200, "Some(\"Ada\")"),
        ("/f/7/Bob", 200, "7 Bob"),
        ("/named/1/2", 200, "1 then 2"),
        ("/listed/Bob/7", 200, "7 Bob"),
        ("/half/-3.0", 200, "-1.5"),
        ("/ip/10.0.0.1", 200, "10"),
        ("/small/255", 200, "255"),
        ("/small/256", 200, "not small"),
        ("/eight/1/2/3/4/5/6/7/8", 200, "36"),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.text().as_str()), (status, expected), "{path}");
    }
    // What is no finite number, or too large for one, matches nothing.
    for path in ["/any/NaN", "/any/-inf", &format!("/half/{}.0", "9".repeat(400))] {
        assert_eq!(client.get(path).send().status(), 404, "{path}");
    }
    assert_eq!(client.get("/ip/10.0.0").send().status(), 404);
    assert_eq!(client.get("/f/seven/Bob").send().status(), 404);
    assert_eq!(client.get("/x/%FF").send().status(), 400);
}

#[test]
fn methods_head_options_and_405() {
    let client = client(|app| {
        app.get("/a", || "text");
        app.post("/a", || (201, "made"));
        app.put("/a", || "put");
        app.patch("/a", || "patch");
        app.delete("/a", || StatusCode::NO_CONTENT);
        app.route("ANY", "/any", |method: Method| method.to_string());
        app.route(["get", "POST"], "/two", || "two");
    });
    let send = |method: &str, path: &str| client.request(method.parse().unwrap(), path).send();
    let table = [
        ("GET", "/a", 200, "text"),
        ("POST", "/a", 201, "made"),
        ("PUT", "/a", 200, "put"),
        ("PATCH", "/a", 200, "patch"),
        ("DELETE", "/a", 204, ""),
        ("BREW", "/any", 200, "BREW"),
        ("POST", "/two", 200, "two"),
        ("HEAD", "/a", 200, ""),
        ("OPTIONS", "/two", 204, ""),
    ];
    for (method, path, status, text) in table {
        let response = send(method, path);
        assert_eq!(
            (response.status(), response.text().as_str()),
            (status, text),
            "{method} {path}"
        );
    }
    assert_eq!(send("HEAD", "/a").header("content-length"), Some("4"));
    assert_eq!(send("OPTIONS", "/two").header("allow"), Some("GET, HEAD, OPTIONS, POST"));
    let everything = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
    assert_eq!(send("OPTIONS", "*").header("allow"), Some(everything));
    let refused = send("DELETE", "/two");
    assert_eq!(
        (refused.status(), refused.header("allow")),
        (405, Some("GET, HEAD, OPTIONS, POST"))
    );
}

#[derive(Deserialize, Serialize)]
struct Page {
    number: u32,
    size: Option<u32>,
}

#[test]
fn query_form_and_json_are_read_into_types() {
    let client = client(|app| {
        app.get("/q", |Query(page): Query<Page>| format!("{} {:?}", page.number, page.size));
        app.post("/f", |Form(page): Form<Page>| page.number.to_string());
        app.post("/j", |Json(page): Json<Page>| Json(page));
        app.post("/small", |request: &Request| -> Result<String> {
            Ok(String::from_utf8_lossy(request.body()?).into_owned())
        })
        .body_limit(4);
    });
    let page = Page { number: 3, size: None };
    assert_eq!(client.get("/q?number=2&size=5").send().text(), "2 Some(5)");
    assert_eq!(client.get("/q?number=x").send().status(), 400);
    assert_eq!(client.post("/f").form(&page).send().text(), "3");
    assert_eq!(client.post("/f").json(&page).send().status(), 415);
    assert_eq!(client.post("/j").json(&page).send().json::<Page>().unwrap().number, 3);
    assert_eq!(
        client.post("/j").header("content-type", "application/json").body("{").send().status(),
        400
    );
    assert_eq!(client.post("/small").body("1234").send().text(), "1234");
    assert_eq!(client.post("/small").body("12345").send().status(), 413);
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        client
            .post("/f")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(large)
            .send()
            .status(),
        413
    );
}

#[test]
fn errors_have_pages_and_keep_their_status() {
    let client = client(|app| {
        app.get("/abort", || abort(418, "short & <stout>").into_response());
        app.get("/none", || None::<String>);
        app.get("/fail", || "x".parse::<u8>().map(|n| n.to_string()));
        app.get("/panic", || -> String { panic!("secret") });
        app.get("/plain", || abort(410, "plain").into_response());
        app.get("/redirect", || -> Result<String> { Err(redirect("/login").into()) });
        app.get("/early", || -> std::result::Result<String, HttpError> {
            let number: u8 = "300".parse()?;
            Ok(number.to_string())
        });
        app.error(404, |error: &HttpError, request: &Request| {
            format!("{} {}", error.status(), request.path())
        });
        app.error(410, || -> String { panic!("a page that fails") });
        app.error_default(|error: &HttpError| {
            Html(format!("any: {}", bottle_session::escape_html(error.message())))
        });
    });
    for (path, status, text) in [
        ("/abort", 418, "any: short &amp; &lt;stout&gt;"),
        ("/none", 404, "404 Not Found /none"),
        ("/nowhere", 404, "404 Not Found /nowhere"),
        ("/fail", 500, "any: "),
        ("/panic", 500, "any: "),
        ("/early", 500, "any: "),
        ("/redirect", 303, ""),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.text().as_str()), (status, text), "{path}");
    }
    let plain = client.get("/plain").send();
    // The page for the status has failed: the one for all.
    assert_eq!((plain.status(), plain.text().as_str()), (410, "any: plain"));
}

#[test]
fn cookies_and_headers_survive_whatever_the_answer_is() {
    fn mark(head: &mut ResponseHead) -> Result<()> {
        head.set_cookie(Cookie::new("kept", "yes"))?;
        head.set_header("x-kept", "yes")
    }
    let client = client(|app| {
        app.get("/ok", |head: &mut ResponseHead| mark(head).map(|()| "ok"));
        app.get("/abort", |head: &mut ResponseHead| -> Result<()> {
            mark(head)?;
            Err(abort(403, "no").into())
        });
        app.get("/redirect", |head: &mut ResponseHead| -> Result<_> {
            mark(head)?;
            Ok(redirect("/"))
        });
        app.get("/fail", |head: &mut ResponseHead| -> std::result::Result<(), HttpError> {
            mark(head)?;
            "x".parse::<u8>()?;
            Ok(())
        });
        app.get("/own", |head: &mut ResponseHead| -> Result<Response> {
            mark(head)?;
            Ok(Response::text("own").with_cookie(Cookie::new("other", "1")))
        });
    });
    for path in ["/ok", "/abort", "/redirect", "/fail", "/own"] {
        client.forget_cookies();
        let response = client.get(path).send();
        assert_eq!(response.header("x-kept"), Some("yes"), "{path}");
        assert_eq!(client.cookie("kept").as_deref(), Some("yes"), "{path}");
    }
    assert_eq!(client.cookie("other").as_deref(), Some("1"));
}

#[test]
fn nothing_gets_out_of_a_header() {
    let client = client(|app| {
        app.get("/head/<v>", |head: &mut ResponseHead, v: &str| match head.set_header("x-v", v) {
            Ok(()) => "set".to_owned(),
            Err(error) => error.to_string(),
        });
        app.get("/to/<v>", |v: &str| redirect(v));
        app.get("/cookie/<v>", |v: &str| {
            Response::text("x").with_cookie(Cookie::new("c", v.to_owned()))
        });
    });
    for bad in ["a%0D%0Ab:c", "a%0Ab", "a%00b", "a%0Db"] {
        assert!(
            client.get(&format!("/head/{bad}")).send().text().contains("not a header value"),
            "{bad}"
        );
        let redirected = client.get(&format!("/to/{bad}")).send();
        assert_eq!(
            (redirected.status(), redirected.header("location")),
            (303, Some(bad)),
            "encoded anew"
        );
        let cookies = client.get(&format!("/cookie/{bad}")).send();
        assert!(!cookies.set_cookies()[0].contains(['\r', '\n', '\0']), "{bad}");
    }
}

#[test]
fn hooks_run_around_every_request() {
    let client = client(|app| {
        app.before_request(|request: &mut Request| {
            if request.path() == "/old" {
                request.set_target("/new".parse().unwrap());
            }
        });
        app.before_request(|request: &mut Request| match request.path() {
            "/secret" => Err(abort(403, "no")),
            _ => Ok(()),
        });
        app.after_request(|response: &mut Response| {
            response.headers_mut().insert("x-after", "1".parse().unwrap());
        });
        app.get("/new", || "new");
        app.get("/secret", || "secret");
    });
    let moved = client.get("/old").send();
    assert_eq!((moved.text().as_str(), moved.header("x-after")), ("new", Some("1")));
    let refused = client.get("/secret").send();
    assert_eq!((refused.status(), refused.header("x-after")), (403, Some("1")));
    assert_eq!(client.get("/nowhere").send().header("x-after"), Some("1"));
}

#[test]
fn a_mounted_app_keeps_its_plugins_hooks_and_pages() {
    let mut shop = App::new();
    shop.install(Counting::new("counter", 100)).unwrap();
    shop.get("/", || "shop");
    shop.get("/item/<id:int>", |id: u32, n: &mut Number| format!("{id} {}", n.0)).name("item");
    shop.get("/gone", || abort(410, "").into_response());
    shop.error(410, || "sold out");
    shop.before_request(|request: &mut Request| match request.query("stop").unwrap() {
        Some(_) => Err(abort(402, "pay")),
        None => Ok(()),
    });
    let client = client(|app| {
        app.install(Counting::new("counter", 0)).unwrap();
        app.get("/", |n: &mut Number| n.0.to_string());
        app.error(404, || "lost");
        app.mount("/shop", shop);
    });
    assert_eq!(client.get("/").send().text(), "1");
    assert_eq!(client.get("/shop/item/5").send().text(), "5 101");
    assert_eq!(client.get("/shop/").send().text(), "shop");
    assert_eq!(client.get("/shop/gone").send().text(), "sold out");
    assert_eq!(client.get("/shop/nothing").send().text(), "lost");
    assert_eq!(client.get("/shop/?stop=1").send().status(), 402);
    assert_eq!(client.get("/?stop=1").send().status(), 200);
    assert_eq!(client.service().url("item", &[("id", "7")]).unwrap(), "/shop/item/7");
}

#[test]
fn addresses_of_named_routes() {
    let mut app = App::new();
    app.get(["/list", "/list/<page:int>"], |urls: &Urls, page: Option<u32>| {
        urls.build("list", &[("page", &(page.unwrap_or(1) + 1).to_string())])
    })
    .name("list");
    assert_eq!(app.url("list", &[]).unwrap(), "/list");
    assert_eq!(app.url("list", &[("page", "2"), ("q", "a b")]).unwrap(), "/list/2?q=a+b");
    let unknown = app.url("lists", &[]).unwrap_err().to_string();
    assert_eq!(unknown, "no route is named \"lists\"; named are: list");
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/list/4").send().text(), "/list/5");
}

#[test]
fn custom_filters() {
    let client = client(|app| {
        app.filter("list", |config| {
            let separator = config.unwrap_or(",").to_owned();
            Ok(Filter::regex("[^/]+")?.parse(move |text| Some(text.replace(&separator, " "))))
        });
        app.get("/a/<x:list>", |x: &str| x.to_owned());
        app.get("/b/<x:list:;>", |x: &str| x.to_owned());
    });
    assert_eq!(client.get("/a/1,2;3").send().text(), "1 2;3");
    assert_eq!(client.get("/b/1,2;3").send().text(), "1,2 3");
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

#[test]
fn the_first_installed_is_the_outermost() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("a", &log)).unwrap();
    app.install(Counting::logging("b", &log)).unwrap();
    app.get("/", named!(|b: &mut Number, a: &mut Number| format!("{} {}", a.0, b.0)));
    app.get("/only", named!(|b: &mut Number| b.0.to_string())).skip_keyword("a");
    app.get("/plain", || "plain").skip_all();
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/").send().text(), "1 1");
    let expected = ["a acquires", "b acquires", "a wraps", "b wraps", "b releases", "a releases"];
    assert_eq!(*log.lock().unwrap(), expected);
    log.lock().unwrap().clear();
    assert_eq!(client.get("/only").send().text(), "2");
    assert_eq!(*log.lock().unwrap(), ["b acquires", "b wraps", "b releases"]);
    log.lock().unwrap().clear();
    client.get("/plain").send();
    assert!(log.lock().unwrap().is_empty());
    drop(client);
    assert_eq!(*log.lock().unwrap(), ["a closes", "b closes"]);
}

#[test]
fn a_batch_goes_through_each_stage_together() {
    let log = Arc::default();
    let mut app = App::new();
    app.install(Counting::logging("n", &log)).unwrap();
    app.get("/", |n: &mut Number| n.0.to_string());
    app.get("/plain", || "plain");
    let service = app.build().unwrap();
    let request = |target: &str| Request::new(Method::GET, target.parse().unwrap());
    let targets = ["/", "/plain", "/?refuse=1", "/nowhere", "/"];
    let mut batch: Vec<_> = targets.iter().map(|target| Exchange::new(request(target))).collect();
    service.prepare(&mut batch);
    batch.iter_mut().for_each(|exchange| service.run(exchange));
    service.finish(&mut batch);
    let statuses: Vec<_> =
        batch.into_iter().map(|exchange| exchange.into_response().status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 503, 404, 200]);
    let wraps = log.lock().unwrap().iter().filter(|line| line.ends_with("wraps")).count();
    assert_eq!(wraps, 3);
    let stages = |stage| log.lock().unwrap().iter().filter(|l| **l == format!("n {stage}")).count();
    assert_eq!((stages("acquires"), stages("releases")), (1, 1));
}

#[test]
fn who_can_do_without_runs_without() {
    let client = client(|app| {
        app.install(Counting::new("n", 0)).unwrap();
        app.get("/needs", |n: &mut Number| n.0.to_string());
        app.get("/option", |n: Option<&mut Number>| format!("{:?}", n.map(|n| n.0)));
    });
    assert_eq!(client.get("/needs?refuse=1").send().status(), 503);
    assert_eq!(client.get("/option?refuse=1").send().text(), "None");
    assert_eq!(client.get("/option").send().text(), "Some(1)");
}

#[test]
fn a_panic_leaves_nothing_to_release() {
    let log = Arc::default();
    let client = client(|app| {
        app.install(Counting::logging("n", &log)).unwrap();
        app.get("/", |_: &mut Number| -> String { panic!("on purpose") });
        app.get("/fine", |n: &mut Number| n.0.to_string());
    });
    let response = client.get("/").send();
    assert_eq!((response.status(), response.header("x-number")), (500, None));
    assert!(!response.text().contains("on purpose"));
    assert!(!log.lock().unwrap().contains(&"n releases".to_owned()));
    assert_eq!(client.get("/fine").send().text(), "2");
}

#[test]
fn plugins_are_uninstalled_by_name_or_keyword() {
    let log = Arc::default();
    let mut app = App::new();
    for keyword in ["a", "b", "c"] {
        app.install(Counting::logging(keyword, &log)).unwrap();
    }
    assert!(app.uninstall_keyword("b"));
    assert!(!app.uninstall_keyword("b"));
    assert_eq!(app.uninstall("counting"), 2);
    assert_eq!(*log.lock().unwrap(), ["b closes", "a closes", "c closes"]);
    app.get("/", |n: &mut Number| n.0.to_string());
    let error = app.build().unwrap_err().to_string();
    assert!(error.contains("which no installed plugin, provider or state provides"), "{error}");
}

#[test]
fn plugins_for_one_route_and_typed_settings() {
    #[derive(Clone)]
    struct Limit(u32);
    struct Limiting;
    impl Plugin for Limiting {
        fn name(&self) -> &str {
            "limiting"
        }
        fn apply(&self, callback: Callback, route: &Route) -> Callback {
            match route.config::<Limit>() {
                None => callback,
                Some(limit) => {
                    let limit = limit.0.to_string();
                    Callback::new(move |exchange| {
                        callback.call(exchange).with_header("x-limit", limit.as_str())
                    })
                }
            }
        }
    }
    let client = client(|app| {
        app.install(Limiting).unwrap();
        app.get("/limited", || "x").config(Limit(5));
        app.get("/free", || "x");
        app.get("/own", |n: &mut Number| n.0.to_string()).apply(Counting::new("n", 6));
    });
    assert_eq!(client.get("/limited").send().header("x-limit"), Some("5"));
    assert_eq!(client.get("/free").send().header("x-limit"), None);
    assert_eq!(client.get("/own").send().text(), "7");
}

#[test]
fn all_that_cannot_work_is_said_at_once_with_its_place() {
    let error = build_error(|app| {
        app.get("/user/<id:imt>", || "x");
        app.get("/n", |_: &mut Number| "x");
        app.get("/w", |_: &str| "x");
        app.get("/twice/<a>", || "x");
        app.get("/twice/<b>", || "x");
    });
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "4 registrations cannot work");
    for (line, expected) in lines[1..].iter().zip([
        "unknown filter \"imt\" in rule \"/user/<id:imt>\", column 11; known: int, float, path, re (at tests/app.rs:",
        "route /n: argument 1 asks for tests::app::Number, which no installed plugin, provider or state provides",
        "route /w: argument 1 takes wildcard number 1 of the rule, which has 0",
        "GET /twice/<b> is registered already, as /twice/<a> at tests/app.rs:",
    ]) {
        assert!(line.contains(expected), "{line}\nlacks {expected}");
        assert!(line.contains("(at tests/app.rs:"), "{line}");
    }
}

#[test]
fn what_an_argument_cannot_have_is_explained() {
    let two = |app: &mut App| {
        app.install(Counting::new("a", 0)).unwrap();
        app.install(Counting::new("b", 0)).unwrap();
    };
    let table: Vec<(String, &str)> = vec![
        (
            build_error(|app| {
                two(app);
                app.get("/", |_: &mut Number| "x");
            }),
            "argument 1 asks for tests::app::Number, which keywords \"a\" and \"b\" provide (at tests/app.rs:",
        ),
        (
            build_error(|app| {
                two(app);
                app.get("/", named!(|c: &mut Number| c.0.to_string()));
            }),
            "argument \"c\" asks for tests::app::Number, but no installed plugin has keyword \"c\"; known keywords: a, b",
        ),
        (
            build_error(|app| {
                app.install(Counting::new("a", 0)).unwrap();
                app.get("/", |_: &mut Number| "x").skip("counting");
            }),
            "but the route skips plugin \"counting\" (keyword \"a\")",
        ),
        (
            build_error(|app| {
                app.install(Counting::new("a", 0)).unwrap();
                app.get("/", |_: &mut Number, _: &mut Number| "x");
            }),
            "argument 2 asks a second time for keyword \"a\"",
        ),
        (
            build_error(|app| {
                app.get(["/a", "/a/<x>"], |_: &str| "x");
            }),
            "argument 1 takes wildcard <x>, which rule \"/a\" lacks; make it an Option",
        ),
        (
            build_error(|app| {
                app.get("/<x>/<y>", |_: &str| "x");
            }),
            "the handler takes 1 of the rule's 2 wildcards (<x>, <y>)",
        ),
        (
            build_error(|app| {
                app.get(["/a/<x>/<y>", "/b/<y>/<x>"], |_: &str, _: &str| "x");
            }),
            "has its wildcards in another order",
        ),
        (
            build_error(|app| {
                app.get("/<x>", named!(|y: &str| y.to_owned()));
            }),
            "the rule has none named <y>; its wildcards: <x>",
        ),
        (
            build_error(|app| {
                app.route("NOT A METHOD", "/", || "x");
            }),
            "\"NOT A METHOD\" is no HTTP method",
        ),
        (
            build_error(|app| {
                app.get("/a", || "x").name("n");
                app.get("/b", || "x").name("n");
            }),
            "two routes are named \"n\"",
        ),
    ];
    for (error, expected) in table {
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(error.contains("(at tests/app.rs:"), "{error}");
    }
}

#[test]
fn the_same_keyword_twice_is_an_error_at_install() {
    let mut app = App::new();
    app.install(Counting::new("a", 0)).unwrap();
    let error = app.install(Counting::new("a", 0)).unwrap_err().to_string();
    assert!(error.contains("cannot have keyword \"a\", which plugin \"counting\" has"), "{error}");
    assert!(error.contains("(at tests/app.rs:"), "{error}");
}

#[test]
fn a_plugin_that_uses_another_must_find_it() {
    struct Using;
    impl Plugin for Using {
        fn name(&self) -> &str {
            "using"
        }
        fn uses(&self, _: &Route) -> Vec<String> {
            vec!["n".to_owned()]
        }
        fn apply(&self, callback: Callback, _: &Route) -> Callback {
            Callback::new(move |exchange| {
                let number = exchange.provided::<Number>("n").map_or(0, |number| number.0);
                callback.call(exchange).with_header("x-used", number.to_string())
            })
        }
    }
    let error = build_error(|app| {
        app.install(Using).unwrap();
        app.get("/", || "x");
    });
    assert!(error.contains("plugin \"using\" uses keyword \"n\", which no plugin"), "{error}");
    let client = client(|app| {
        app.install(Counting::new("n", 4)).unwrap();
        app.install(Using).unwrap();
        app.get("/", || "x");
    });
    assert_eq!(client.get("/").send().header("x-used"), Some("5"));
}

#[test]
fn the_client_keeps_cookies_and_no_attributes() {
    let client = client(|app| {
        app.get("/set", |head: &mut ResponseHead| {
            let cookie = Cookie::build(("a", "1")).path("/").http_only(true).secure(true);
            head.set_cookie(cookie)
        });
        app.get("/expire", || {
            Response::text("")
                .with_header("set-cookie", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
        });
        app.get("/", |request: &Request| {
            request
                .cookies()
                .iter()
                .map(|(name, value)| format!("{name}={value};"))
                .collect::<String>()
        });
    });
    client.set_cookie("b", "é");
    client.get("/set").send();
    let mut sent: Vec<_> = client.get("/").send().text().split(';').map(str::to_owned).collect();
    sent.sort();
    assert_eq!(sent, ["", "a=1", "b=é"]);
    client.get("/expire").send();
    assert_eq!(client.get("/").send().text(), "b=é;");
}

#[test]
fn the_client_takes_an_answer_as_a_server_sends_it() {
    let client = client(|app| {
        app.get("/204", || (204, "text"));
        app.get("/304", || (304, "text"));
        app.get("/short", || Response::stream(&b"123"[..], Some(4)));
    });
    assert_eq!(client.get("/204").send().text(), "");
    assert_eq!(client.get("/304").send().text(), "");
    let short = std::panic::AssertUnwindSafe(|| client.get("/short").send());
    assert!(std::panic::catch_unwind(short).is_err());
}

#[test]
fn after_request_hooks_run_the_last_one_first() {
    let mut inner = App::new();
    inner.get("/", || "x");
    inner.after_request(|response: &mut Response| note(response, "inner"));
    fn note(response: &mut Response, what: &'static str) {
        response.headers_mut().append("x-order", what.parse().unwrap());
    }
    let client = client(|app| {
        app.after_request(|response: &mut Response| note(response, "first"));
        app.after_request(|response: &mut Response| note(response, "second"));
        app.mount("/in", inner);
    });
    let response = client.get("/in/").send();
    let order: Vec<_> = response.headers().get_all("x-order").iter().collect();
    assert_eq!(order, ["inner", "second", "first"]);
}

#[test]
fn no_method_is_not_any_method() {
    let error = build_error(|app| {
        app.route([] as [&str; 0], "/", || "x");
    });
    assert!(error.contains("a route needs a method such as \"GET\", or \"ANY\""), "{error}");
}

#[test]
fn the_head_is_borrowed_once() {
    let error = build_error(|app| {
        app.get("/", |_: &mut ResponseHead, _: &mut ResponseHead| "x");
    });
    assert!(error.contains("argument 2 asks a second time for &mut ResponseHead"), "{error}");
}
