//! Batches of requests of the same sessions that do anything: what holds however they mix, and the same on
//! every store.

use std::collections::{BTreeMap, BTreeSet};

use bottle_session::http::{Method, StatusCode};
use bottle_session::{
    App, Exchange, HttpError, Layout, MemoryStore, RedisPool, Request, Result, Service, Session,
    SessionPlugin, abort, named,
};

use crate::support::redis_server::RedisServer;

const COOKIES: [&str; 2] = ["bottle.session", "admin.session"];
const STEPS: usize = 12;

/// What one request does to one of its two sessions, and how it goes on after an error.
#[derive(Clone, Copy)]
struct Op {
    which: usize,
    what: &'static str,
    key: &'static str,
    gives_up: bool,
}

const WHAT: [&str; 22] = [
    "set",
    "set",
    "set",
    "remove",
    "clear",
    "regenerate",
    "regenerate",
    "destroy",
    "commit",
    "commit",
    "incr",
    "take",
    "claim",
    "flash",
    "flashes",
    "token",
    "remember",
    "refused",
    "get",
    "abort",
    "panic",
    "get",
];
/// What saves at once.
const AT_ONCE: [&str; 5] = ["commit", "incr", "take", "claim", "flashes"];
/// What ends a session where it ends with its last field.
const EMPTY: [&str; 4] = ["clear", "remove", "take", "flashes"];
const KEYS: [&str; 3] = ["a", "b", "n"];

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (who, mark) = (["session", "admin"][self.which], if self.gives_up { "?" } else { "" });
        write!(f, "{who}.{}({}){mark}", self.what, self.key)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn program(&mut self, both: bool) -> Vec<Op> {
        let length = 1 + self.below(5);
        let op = |random: &mut Random| Op {
            which: usize::from(both && random.below(4) == 0),
            what: WHAT[random.below(WHAT.len())],
            key: KEYS[random.below(KEYS.len())],
            gives_up: random.below(2) == 0,
        };
        (0..length).map(|_| op(self)).collect()
    }
}

fn act(op: Op, number: usize, session: &mut Session) -> Result<String> {
    let key = op.key;
    match op.what {
        "set" => session.set(key, number),
        "remove" => return Ok(format!("{:?}", session.remove(key))),
        "clear" => session.clear(),
        "regenerate" => session.regenerate(),
        "destroy" => session.destroy(),
        "commit" => session.commit()?,
        "incr" => return Ok(session.incr(key, 1)?.to_string()),
        "take" => return Ok(format!("{:?}", session.take(key)?)),
        "claim" => return Ok(session.set_if_absent(key, number)?.to_string()),
        "flash" => session.flash("info", number),
        "flashes" => return Ok(format!("{:?}", session.take_flashes()?)),
        "token" => return Ok(session.csrf_token().len().to_string()),
        "remember" => session.remember(std::time::Duration::from_secs(7200)),
        "refused" => session.set(key, "x".repeat(70_000)),
        "get" => return Ok(format!("{:?}", session.get(key))),
        // Without a word of it in the output.
        "panic" => std::panic::resume_unwind(Box::new("on purpose")),
        other => unreachable!("{other}"),
    }
    Ok(String::new())
}

/// One app, the browsers' jars, and what is known of all ids that were ever given out.
struct World {
    name: String,
    service: Service,
    jars: Vec<BTreeMap<&'static str, String>>,
    /// Each id ever seen, in the order of appearance, and whether it is live.
    ids: Vec<(&'static str, String, bool)>,
    programs: std::sync::Arc<std::sync::Mutex<Vec<Vec<Op>>>>,
    keeps_empty: bool,
}

impl World {
    fn new(name: &str, plugin: impl Fn() -> SessionPlugin) -> World {
        let mut app = App::new();
        app.install(plugin()).unwrap();
        let admin = plugin().keyword("admin").cookie_name(COOKIES[1]);
        app.install(admin).unwrap();
        let programs = std::sync::Arc::<std::sync::Mutex<Vec<Vec<Op>>>>::default();
        let to_run = programs.clone();
        app.get(
            "/run/<number:int>/<round:int>",
            named!(move |session: &mut Session,
                         admin: &mut Session,
                         number: usize,
                         round: usize|
                  -> std::result::Result<String, HttpError> {
                let program = to_run.lock().unwrap()[number].clone();
                let mut log = String::new();
                for (at, op) in program.into_iter().enumerate() {
                    if op.what == "abort" {
                        return Err(abort(403, "no"));
                    }
                    let session = if op.which == 0 { &mut *session } else { &mut *admin };
                    match act(op, round * 100 + number * 10 + at, session) {
                        Ok(text) => log += &format!("{text};"),
                        Err(error) if op.gives_up => return Err(error.into()),
                        Err(error) => log += &format!("{:?};", error.kind()),
                    }
                }
                Ok(log)
            }),
        );
        app.get(
            "/dump",
            named!(|session: &mut Session, admin: &mut Session| {
                let texts = [session, admin].map(|session| {
                    let pairs = session.iter().map(|(key, value)| {
                        // What stands behind is made up anew each time.
                        let key = if key.starts_with("_flash.") { "_flash" } else { key };
                        format!("{key}={value} ")
                    });
                    format!("{} {}", session.is_new(), pairs.collect::<String>())
                });
                texts.join("|")
            }),
        );
        let service = app.build().unwrap();
        let keeps_empty = !name.contains("BottleSession");
        let jars = vec![BTreeMap::new(); 2];
        World { name: name.to_owned(), service, jars, ids: Vec::new(), programs, keeps_empty }
    }

    fn request(target: &str, cookies: &BTreeMap<&'static str, String>) -> Exchange {
        let mut request = Request::new(Method::GET, target.parse().unwrap());
        let pairs: Vec<_> = cookies.iter().map(|(name, id)| format!("{name}={id}")).collect();
        if !pairs.is_empty() {
            request.headers_mut().insert("cookie", pairs.join("; ").parse().unwrap());
        }
        Exchange::new(request)
    }

    fn number(&mut self, name: &'static str, id: &str) -> (usize, bool) {
        let known = self.ids.iter().position(|known| known.0 == name && known.1 == id);
        let at = known.unwrap_or_else(|| {
            self.ids.push((name, id.to_owned(), true));
            self.ids.len() - 1
        });
        (at, known.is_none())
    }

    /// What a visitor with this id alone sees: nothing where it is dead.
    fn seen_with(&self, name: &'static str, id: &str) -> Option<String> {
        let jar = BTreeMap::from([(name, id.to_owned())]);
        let mut batch = [World::request("/dump", &jar)];
        self.run(&mut batch);
        let [exchange] = batch;
        let text =
            String::from_utf8(exchange.into_response().into_bytes().unwrap().to_vec()).unwrap();
        let text = text.split('|').nth(usize::from(name == COOKIES[1])).unwrap().to_owned();
        text.strip_prefix("false ").map(str::to_owned)
    }

    fn run(&self, batch: &mut [Exchange]) {
        self.service.prepare(batch);
        batch.iter_mut().for_each(|exchange| self.service.run(exchange));
        self.service.finish(batch);
    }

    /// Runs a batch, checks what must hold, and tells all that could be seen.
    fn play(&mut self, round: usize, owners: &[usize], programs: &[Vec<Op>]) -> String {
        *self.programs.lock().unwrap() = programs.to_vec();
        let mut batch: Vec<_> = owners
            .iter()
            .enumerate()
            .map(|(number, owner)| {
                World::request(&format!("/run/{number}/{round}"), &self.jars[*owner])
            })
            .collect();
        let jars = self.jars.clone();
        let before: Vec<BTreeSet<usize>> = jars
            .iter()
            .map(|jar| jar.iter().map(|(name, id)| self.number(name, id).0).collect())
            .collect();
        let live: BTreeSet<_> = (0..self.ids.len()).filter(|number| self.ids[*number].2).collect();
        self.run(&mut batch);
        let context = format!("{} round {round} {owners:?} {programs:?}", self.name);
        // Which requests of a browser did one of these to its session.
        let did = |owner: usize, name: &'static str, what: &[&str]| {
            let does = |op: &Op| COOKIES[op.which] == name && what.contains(&op.what);
            let all = programs.iter().zip(owners).enumerate();
            let found = all.filter(|(_, (program, of))| **of == owner && program.iter().any(does));
            found.map(|(number, _)| number).collect::<Vec<_>>().into_iter()
        };
        let (mut told, mut given) = (String::new(), Vec::new());
        for (exchange, owner) in batch.into_iter().zip(owners) {
            let response = exchange.into_response();
            told += &format!("{} ", response.status().as_u16());
            let cookies: Vec<_> = response
                .headers()
                .get_all("set-cookie")
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            for cookie in cookies {
                let (name, rest) = cookie.split_once('=').unwrap();
                let name = COOKIES.into_iter().find(|known| *known == name).unwrap();
                let id = rest.split(';').next().unwrap();
                if cookie.contains("Max-Age=0") {
                    told += &format!("{name} removed, ");
                    self.jars[*owner].remove(name);
                } else {
                    let (number, new) = self.number(name, id);
                    told += &format!("{name} {number}, ");
                    if new {
                        given.push((number, *owner));
                    } else {
                        assert!(
                            before[*owner].contains(&number),
                            "a cookie of another browser: {context}"
                        );
                    }
                    self.jars[*owner].insert(name, id.to_owned());
                }
            }
            if response.status() == StatusCode::OK {
                told += &String::from_utf8_lossy(&response.into_bytes().unwrap());
            }
            told += "\n";
        }
        for number in 0..self.ids.len() {
            let (name, id, was_live) = self.ids[number].clone();
            let seen = self.seen_with(name, &id);
            assert!(was_live || seen.is_none(), "{number} came back: {seen:?} {context}");
            // One request can empty, or end by the old id, what another has renewed.
            let dead = given.iter().find(|given| given.0 == number && seen.is_none());
            let ends = |owner| {
                did(owner, name, &["destroy"]).count() > 0
                    || !self.keeps_empty && did(owner, name, &EMPTY).count() > 0
            };
            assert!(
                dead.is_none_or(|given| ends(given.1)),
                "{number} was given out dead: {context}"
            );
            self.ids[number].2 = seen.is_some();
            told += &format!("{number}: {seen:?}\n");
        }
        for (owner, had) in before.iter().enumerate() {
            for number in had.iter().filter(|number| live.contains(number)) {
                let name = self.ids[*number].0;
                let mut may_end = did(owner, name, &["destroy"]).count() > 0;
                if !self.keeps_empty {
                    may_end |= did(owner, name, &EMPTY).count() > 0;
                }
                // The answer of one request that was saved before another renewed the id may come after the
                // other's answer.
                let renewed = did(owner, name, &["regenerate"]).last();
                let overtakes = programs.iter().flatten().any(|op| op.which == 1);
                may_end |= renewed.is_some_and(|at| match self.keeps_empty && !overtakes {
                    true => did(owner, name, &AT_ONCE).any(|other| other != at),
                    // Each answer sends the cookie, or some of them wait for another session first.
                    false => owners.iter().filter(|of| **of == owner).count() > 1,
                });
                let jar = self.jars[owner].get(name).cloned();
                let has = jar.is_some_and(|id| self.seen_with(name, &id).is_some());
                assert!(may_end || has, "{name} of browser {owner} was lost: {context}\n{told}");
            }
        }
        told
    }
}

fn play_on(worlds: &mut [World], seeds: std::ops::Range<u64>, both: bool) {
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for world in worlds.iter_mut() {
            world.jars.iter_mut().for_each(BTreeMap::clear);
            world.ids.clear();
        }
        for step in 0..STEPS {
            let size = 1 + random.below(5);
            let owners: Vec<_> = (0..size).map(|_| usize::from(random.below(4) == 0)).collect();
            let programs: Vec<_> = (0..size).map(|_| random.program(both)).collect();
            let round = seed as usize * STEPS + step;
            let told: Vec<_> =
                worlds.iter_mut().map(|world| world.play(round, &owners, &programs)).collect();
            for (world, other) in worlds.iter().zip(&told).skip(1) {
                let name = &world.name;
                assert_eq!(told[0], *other, "{name}, seed {seed} {owners:?} {programs:?}");
            }
        }
    }
}

/// Each request uses one session: those that wait for Redis with one of two are overtaken by those that do not.
#[test]
fn batches_do_the_same_in_memory_and_in_redis_and_break_no_rule() {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let mut worlds = [
        World::new("memory", || SessionPlugin::new().store(MemoryStore::new())),
        World::new("redis", || SessionPlugin::new().pool(pool.clone())),
    ];
    play_on(&mut worlds, 1..150, false);
}

#[test]
fn batches_of_requests_with_two_sessions_break_no_rule() {
    let server = RedisServer::start(&[]);
    let pool = RedisPool::open(&server.url(0)).unwrap();
    let memory = World::new("memory", || SessionPlugin::new().store(MemoryStore::new()));
    let redis = World::new("redis", || SessionPlugin::new().pool(pool.clone()));
    play_on(&mut [memory], 1..150, true);
    play_on(&mut [redis], 1..150, true);
}

#[test]
fn batches_break_no_rule_in_bottle_sessions_layout() {
    let server = RedisServer::start(&[]);
    let mut databases = 0..;
    let databases = std::cell::RefCell::new(&mut databases);
    let plugin = || {
        // Two plugins of this layout need a database each.
        let database = databases.borrow_mut().next().unwrap();
        let pool = RedisPool::open(&server.url(database)).unwrap();
        SessionPlugin::new().pool(pool).layout(Layout::BottleSession)
    };
    play_on(&mut [World::new("BottleSession", plugin)], 1..150, true);
}
