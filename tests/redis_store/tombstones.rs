//! What is left under an id that is a session's no more, as browsers see it, over the native server and a real Redis.

use std::sync::Barrier;

use bottle_session::server::native::Native;
use bottle_session::{App, Counters, Result, Session, SessionPlugin};

use super::*;
use crate::stores::AGE;
use crate::support::http::{Answer, Browser};
use crate::support::serving::Serving;

const COOKIE: &str = "bottle.session";

struct Site {
    serving: Serving,
    counters: Counters,
    redis: Connection,
    /// Where requests that are under way meet the test: when they have their session, and before they answer.
    gate: Arc<Barrier>,
    _server: RedisServer,
}

impl Site {
    fn new(set_up: impl FnOnce(SessionPlugin) -> SessionPlugin) -> Site {
        let server = RedisServer::start(&[]);
        let pool = RedisPool::open(&server.url(0)).unwrap();
        let plugin = set_up(SessionPlugin::new().pool(pool));
        let (counters, gate) = (plugin.counters(), Arc::new(Barrier::new(2)));
        let mut app = App::new();
        app.install(plugin).unwrap();
        app.get("/get/<key>", |s: &mut Session, key: &str| s.get(key).unwrap_or("-").to_owned());
        app.get("/set/<key>", |s: &mut Session, key: &str| s.set(key, "1"));
        app.get("/incr", |s: &mut Session| -> Result<String> { Ok(s.incr("n", 1)?.to_string()) });
        app.get("/in/<user>", |s: &mut Session, user: &str| s.log_in(user));
        app.get("/who", |s: &mut Session| s.user_id().unwrap_or("-").to_owned());
        app.get("/regenerate", |s: &mut Session| s.regenerate());
        app.get("/out", |s: &mut Session| s.log_out());
        let meet = gate.clone();
        app.get("/slow/<key>", move |s: &mut Session, key: &str| {
            meet.wait();
            meet.wait();
            s.set(key, "1");
        });
        let serving = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
        let redis = server.connect(0);
        Site { serving, counters, redis, gate, _server: server }
    }

    fn get(&self, browser: &mut Browser, path: &str) -> Answer {
        let answer = browser.get(self.serving.address, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    }

    fn text(&self, browser: &mut Browser, path: &str) -> String {
        self.get(browser, path).body
    }

    /// A request that has its session while this happens, and saves it afterwards.
    fn beside(&self, mut late: Browser, happens: impl FnOnce()) -> Answer {
        std::thread::scope(|scope| {
            let late = scope.spawn(move || self.get(&mut late, "/slow/late"));
            self.gate.wait();
            happens();
            self.gate.wait();
            late.join().unwrap()
        })
    }

    fn pass(&mut self, seconds: u64) {
        redis::cmd("EVAL").arg(AGE).arg(0).arg(seconds * 1000).exec(&mut self.redis).unwrap();
    }
}

fn id(browser: &Browser) -> String {
    browser.cookies[COOKIE].clone()
}

fn holding(id: &str) -> Browser {
    Browser { cookies: [(COOKIE.to_owned(), id.to_owned())].into() }
}

#[test]
fn a_request_under_way_beside_a_login_or_a_logout_makes_no_session_and_sends_no_cookie() {
    for (before, ends) in [("/set/a", "/in/ada"), ("/in/ada", "/regenerate"), ("/in/ada", "/out")] {
        let mut site = Site::new(|plugin| plugin);
        let mut browser = Browser::default();
        site.get(&mut browser, before);
        let old = id(&browser);
        let late = site.beside(holding(&old), || drop(site.get(&mut browser, ends)));
        assert!(late.set_cookies().is_empty(), "{ends}: {late:?}");
        assert_eq!(site.counters.snapshot().write_lost, 1, "{ends}");
        // One that comes a moment later.
        let created = site.counters.snapshot().created;
        let late = site.get(&mut holding(&old), "/set/later");
        assert!(late.set_cookies().is_empty(), "{ends}: {late:?}");
        assert_eq!(site.counters.snapshot().created, created, "{ends}");
        // After a minute it is an id like any other that is unknown.
        site.pass(61);
        let late = site.get(&mut holding(&old), "/set/later");
        assert_eq!(late.set_cookies().len(), 1, "{ends}: {late:?}");
    }
}

#[test]
fn a_logout_with_the_old_id_ends_the_session_under_its_new_one_and_a_planted_id_does_not() {
    let site = Site::new(|plugin| plugin);
    let mut browser = Browser::default();
    site.get(&mut browser, "/in/ada");
    let old = id(&browser);
    site.get(&mut browser, "/in/ada");
    site.get(&mut browser, "/regenerate");
    assert_eq!(site.text(&mut browser, "/who"), "ada");
    let mut late = holding(&old);
    let answer = site.get(&mut late, "/out");
    assert!(answer.set_cookies()[0].contains("Max-Age=0"), "{answer:?}");
    assert_eq!(site.text(&mut browser, "/who"), "-");
    // Who has planted the id of an anonymous session, or of a login of their own.
    for before in ["/set/a", "/in/mallory"] {
        let mut victim = Browser::default();
        site.get(&mut victim, before);
        let planted = id(&victim);
        site.get(&mut victim, "/in/ada");
        assert!(site.get(&mut holding(&planted), "/out").set_cookies().is_empty(), "{before}");
        assert_eq!(site.text(&mut victim, "/who"), "ada", "{before}");
    }
}

#[test]
fn a_logout_that_is_under_way_beside_a_new_id_ends_the_session() {
    let site = Site::new(|plugin| plugin);
    let mut browser = Browser::default();
    for _ in 0..50 {
        site.get(&mut browser, "/in/ada");
        let mut late = browser.clone();
        let (_, _) =
            together(|| site.get(&mut late, "/out"), || site.get(&mut browser, "/regenerate"));
        assert_eq!(site.text(&mut browser.clone(), "/who"), "-");
        browser.cookies.clear();
    }
}

#[test]
fn requests_with_the_old_id_beside_a_rotation_lose_nothing_and_each_answer_carries_the_new_one() {
    let mut site = Site::new(|plugin| plugin.renew_every(Duration::from_millis(1)));
    let mut browser = Browser::default();
    site.get(&mut browser, "/set/a");
    let old = id(&browser);
    std::thread::sleep(Duration::from_millis(3));
    // One has loaded the session before the others rotate it.
    let ids = Mutex::new(Vec::new());
    let late = site.beside(holding(&old), || {
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (site, ids, mut tab) = (&site, &ids, holding(&old));
                scope.spawn(move || {
                    site.get(&mut tab, &format!("/set/k{number}"));
                    ids.lock().unwrap().push(id(&tab));
                });
            }
        });
    });
    let ids = ids.into_inner().unwrap();
    let new = ids[0].clone();
    assert!(new != old && ids.iter().all(|id| *id == new), "one new id for all of them");
    assert!(late.set_cookies()[0].contains(&new), "{late:?}");
    assert_eq!(site.text(&mut holding(&old), "/incr"), "1");
    // From the first request with the new id on the old one is good for ten seconds.
    let mut browser = holding(&new);
    for key in (0..8).map(|number| format!("k{number}")).chain(["a".into(), "late".into()]) {
        assert_eq!(site.text(&mut browser, &format!("/get/{key}")), "1", "{key}");
    }
    site.pass(8);
    assert_eq!(site.text(&mut holding(&old), "/get/a"), "1");
    site.pass(3);
    assert_eq!(site.counters.snapshot().id_past_grace, 0);
    let answer = site.get(&mut holding(&old), "/set/thief");
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    assert_eq!(site.text(&mut holding(&old), "/get/a"), "-");
    assert_eq!(site.counters.snapshot().id_past_grace, 2);
    assert_eq!(site.counters.snapshot().write_lost, 1, "that of who came too late");
    assert_eq!(site.text(&mut browser, "/get/a"), "1");
}
