//! Plugins that watch: which requests they see arrive and begin, and which answers end.

use std::sync::{Arc, Mutex};

use bottle_session::http::Method;
use bottle_session::{
    App, Cookie, Exchange, Plugin, Redirect, Request, Response, ResponseHead, Route, TestClient,
    abort, redirect,
};

/// Writes down what it sees, under its name.
#[derive(Clone)]
struct Watch {
    name: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(format!("{} {what}", self.name));
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Plugin for Watch {
    fn name(&self) -> &str {
        self.name
    }

    fn watches(&self, route: &Route) -> bool {
        route.is_stand_in() || route.config::<Unwatched>().is_none()
    }

    fn arrive(&self, exchange: &mut Exchange) {
        assert!(exchange.route().is_none());
        self.note(format!("arrive {}", exchange.request().path()));
        if exchange.request().header("x-turn-away") == Some(self.name) {
            exchange.answer(Response::text("turned away"));
        }
    }

    fn begin(&self, exchange: &mut Exchange) {
        self.note(format!("begin {}", exchange.rule().unwrap_or("-")));
        if exchange.request().header("x-answer") == Some(self.name) {
            exchange.answer(Response::text("answered"));
        }
    }

    fn end(&self, exchange: &mut Exchange, answer: &mut Response) {
        let cookies = answer.headers().get_all("set-cookie").iter().count();
        self.note(format!("end {} {cookies}", answer.status().as_u16()));
        answer.headers_mut().append("x-seen", self.name.parse().unwrap());
        if exchange.request().header("x-panic") == Some(self.name) {
            panic!("on purpose");
        }
    }
}

#[derive(Clone)]
struct Unwatched;

fn client() -> (TestClient, Watch) {
    let outer = Watch { name: "outer", seen: Arc::default() };
    let inner = Watch { name: "inner", ..outer.clone() };
    let mut app = App::new();
    app.install(outer.clone()).unwrap();
    app.install(Watch { name: "second", ..outer.clone() }).unwrap();
    app.before_request(|request: &mut Request| match request.path() {
        "/hooked" => Err(abort(418, "No.")),
        _ => Ok(()),
    });
    app.get("/", |head: &mut ResponseHead| -> Result<(), Redirect> {
        head.set_cookie(Cookie::new("a", "b")).unwrap();
        Err(redirect("/elsewhere"))
    });
    app.get("/panics", || -> &'static str { panic!("on purpose") });
    app.get("/unwatched", || "hello").config(Unwatched);
    app.get("/skips", || "hello").skip("outer").skip("second");
    app.group("/group", |group| -> bottle_session::Result<()> {
        group.install(inner)?;
        group.get("/<name>", |name: &str| name.to_owned());
        Ok(())
    });
    (TestClient::new(app).unwrap(), outer)
}

#[test]
fn a_request_is_seen_by_those_who_watch_its_route_from_its_arrival_to_its_answer() {
    let (client, watch) = client();
    let all = ["outer arrive", "second arrive"];
    for (path, status, expected) in [
        ("/", 303, &["outer begin /", "second begin /", "second end 303 1", "outer end 303 1"][..]),
        (
            "/panics",
            500,
            &["outer begin /panics", "second begin /panics", "second end 500 0", "outer end 500 0"],
        ),
        (
            "/nowhere",
            404,
            &["outer begin -", "second begin -", "second end 404 0", "outer end 404 0"],
        ),
        ("/hooked", 418, &["second end 418 0", "outer end 418 0"]),
        ("/unwatched", 200, &[]),
        ("/skips", 200, &[]),
        (
            "/group/x",
            200,
            &[
                "outer begin /group/<name>",
                "second begin /group/<name>",
                "inner begin /group/<name>",
                "inner end 200 0",
                "second end 200 0",
                "outer end 200 0",
            ],
        ),
        (
            "/group/x/y",
            404,
            &[
                "outer begin -",
                "second begin -",
                "inner begin -",
                "inner end 404 0",
                "second end 404 0",
                "outer end 404 0",
            ],
        ),
    ] {
        let answer = client.get(path).send();
        assert_eq!(answer.status(), status, "{path}");
        let arrived = all.map(|who| format!("{who} {path}"));
        let expected = expected.iter().map(|line| (*line).to_owned());
        let expected: Vec<_> = arrived.into_iter().chain(expected).collect();
        assert_eq!(watch.taken(), expected, "{path}");
        client.forget_cookies();
    }
}

#[test]
fn an_answer_of_one_that_watches_keeps_all_else_from_running() {
    let (client, watch) = client();
    let answer = client.get("/panics").header("x-turn-away", "outer").send();
    assert_eq!(answer.text(), "turned away");
    let seen = ["outer arrive /panics", "second end 200 0", "outer end 200 0"];
    assert_eq!(watch.taken(), seen);
    for path in ["/panics", "/nowhere"] {
        let answer = client.get(path).header("x-answer", "outer").send();
        assert_eq!((answer.status(), answer.text()), (200, "answered".to_owned()));
        let seen = watch.taken();
        assert!(!seen.iter().any(|line| line.starts_with("second begin")), "{seen:?}");
        assert_eq!(seen[seen.len() - 2..], ["second end 200 0", "outer end 200 0"]);
    }
}

#[test]
fn one_that_panics_over_an_answer_makes_it_a_500_which_the_others_see() {
    let (client, watch) = client();
    let answer = client.get("/group/x").header("x-panic", "second").send();
    assert_eq!(answer.status(), 500);
    assert_eq!(watch.taken().last().unwrap(), "outer end 500 0");
    assert_eq!(client.get("/group/x").send().status(), 200);
}

#[test]
fn a_preflight_is_seen_by_those_who_watch_the_route_that_it_asks_for() {
    let (client, watch) = client();
    for (path, method, seen) in [
        ("/group/x", "GET", vec!["outer", "second", "inner"]),
        ("/group/x", "DELETE", vec!["outer", "second", "inner"]),
        ("/skips", "GET", vec![]),
        ("/skips", "DELETE", vec!["outer", "second"]),
        ("/unwatched", "GET", vec![]),
    ] {
        let answer = client
            .request(Method::OPTIONS, path)
            .header("origin", "https://a.example")
            .header("access-control-request-method", method)
            .send();
        assert_eq!(answer.status(), 204, "{path}");
        let begun: Vec<_> = watch
            .taken()
            .iter()
            .filter_map(|line| Some(line.split_once(" begin -")?.0.to_owned()))
            .collect();
        assert_eq!(begun, seen, "{path} {method}");
    }
}
