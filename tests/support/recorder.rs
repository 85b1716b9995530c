//! Visitors of two processes of one app who write down what they were answered, and a judge who reads that afterwards:
//! is anything lost that was acknowledged, done twice, or alive although it was ended?
//!
//! A visitor has one session and asks one thing at a time, now of one process and now of the other; of `take` and
//! `set_if_absent` it asks both at once. An answer that is no success leaves open whether the thing was done: it may show
//! later, and it may not.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bottle_session::{App, Session, SessionPlugin};

use super::serving::{Client, Reply};

/// How many visitors there are, each on a thread of its own.
const VISITORS: usize = 12;

/// After so many steps a visitor's session is ended, and another one begun.
const STEPS: usize = 60;

/// The app that is recorded.
pub fn app(sessions: SessionPlugin) -> App {
    let mut app = App::new();
    app.install(sessions.cookie_lifetime(Duration::from_secs(3600))).unwrap();
    type Answer = bottle_session::Result<String>;
    app.get("/begin/<value:int>", |session: &mut Session, value: i64| {
        session.set("register", value);
        "begun"
    });
    app.get("/write/<value:int>", |session: &mut Session, value: i64| {
        if !session.contains_key("register") {
            return "none";
        }
        session.set("register", value);
        "written"
    });
    app.get("/read", |session: &mut Session| {
        let number = |key| session.parse::<i64>(key).unwrap_or(0);
        match session.get("register") {
            Some(register) => format!("{register} {} {}", number("counter"), number("once")),
            None => "none".to_owned(),
        }
    });
    app.get("/count", |session: &mut Session| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        Ok(session.incr("counter", 1)?.to_string())
    });
    app.get("/put/<value:int>", |session: &mut Session, value: i64| {
        if !session.contains_key("register") {
            return "none";
        }
        session.set("ticket", value);
        // Free for whoever is first.
        session.remove("once");
        "put"
    });
    app.get("/take", |session: &mut Session| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        Ok(session.take("ticket")?.unwrap_or_else(|| "0".to_owned()))
    });
    app.get("/once/<value:int>", |session: &mut Session, value: i64| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        Ok(i64::from(session.set_if_absent("once", value)?).to_string())
    });
    app.get("/renew", |session: &mut Session| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        session.regenerate();
        Ok("renewed".to_owned())
    });
    app.get("/login/<user>", |session: &mut Session, user: &str| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        session.log_in(user)?;
        Ok("in".to_owned())
    });
    app.get("/device/<user>", |session: &mut Session, user: &str| -> Answer {
        session.set("register", 0);
        session.log_in(user)?;
        Ok("in".to_owned())
    });
    app.get("/end_everywhere", |session: &mut Session| -> Answer {
        if session.user_id().is_none() {
            return Ok("none".to_owned());
        }
        session.end_all_devices()?;
        Ok("ended".to_owned())
    });
    app.get("/end", |session: &mut Session| -> Answer {
        if !session.contains_key("register") {
            return Ok("none".to_owned());
        }
        // What destroy does, by the name that most apps call it.
        session.log_out();
        Ok("ended".to_owned())
    });
    app
}

/// What a visitor did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Begin(i64),
    Write(i64),
    Read,
    Count,
    /// This ticket is put down, and what `set_if_absent` has set is removed.
    Put(i64),
    /// Both processes are asked for the ticket.
    Take,
    /// Each of the processes is asked to set its value, if there is none.
    Once(i64, i64),
    Renew,
    LogIn,
    /// The same user logs in on another device.
    OtherDevice,
    End,
    EndEverywhere,
    /// The session that was ended or renewed away so many steps ago is asked for.
    Ask(usize),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// This was answered with success; `none` where there was no session.
    Back(String),
    /// It was refused, or not answered: done or not, nobody knows.
    Open,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub asked: Asked,
    /// One answer, or one from each process.
    pub came: Vec<Came>,
    pub at: Instant,
    pub took: Duration,
}

/// What all visitors did.
#[derive(Default)]
pub struct Record {
    pub histories: Vec<Vec<Step>>,
}

impl Record {
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.histories.iter().flatten()
    }

    /// How many reads were not answered.
    pub fn failed_reads(&self) -> usize {
        let reads = self.steps().filter(|step| step.asked == Asked::Read);
        reads.filter(|step| step.came.contains(&Came::Open)).count()
    }

    /// Fails where more than one read in a thousand was not answered: on a machine without time for its processes one
    /// may reach its deadline.
    pub fn assert_reads_went_on(&self) {
        let reads = self.steps().filter(|step| step.asked == Asked::Read).count();
        assert!(self.failed_reads() * 1000 <= reads, "{} of {reads} reads", self.failed_reads());
    }

    /// The longest time in which no write was acknowledged.
    pub fn longest_pause_of_writes(&self) -> Duration {
        let acknowledged = |step: &&Step| {
            !matches!(step.asked, Asked::Read | Asked::Ask(_)) && !step.came.contains(&Came::Open)
        };
        let mut ends: Vec<_> =
            self.steps().filter(acknowledged).map(|step| step.at + step.took).collect();
        ends.sort();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// What was wrong, in words.
    pub fn faults(&self) -> Vec<String> {
        self.histories.iter().flat_map(|history| judge(history)).collect()
    }

    /// Fails unless there was enough to judge, and nothing wrong.
    pub fn assert_right(&self, what: &str) {
        let (steps, faults) = (self.steps().count(), self.faults());
        let open = self.steps().filter(|step| step.came.contains(&Came::Open)).count();
        println!(
            "{what}: {steps} steps, {open} refused or unanswered, {} of them reads; no write acknowledged for {:?} at \
             the longest; {} faults",
            self.failed_reads(),
            self.longest_pause_of_writes(),
            faults.len()
        );
        let shown: Vec<_> = faults.iter().take(20).collect();
        assert!(faults.is_empty(), "{what}: {} faults, such as {shown:#?}", faults.len());
        assert!(steps > 500, "{what}: {steps} steps are too few to tell");
    }
}

/// Records while `meanwhile` runs. Whatever becomes of the processes, `addresses` says where they are.
pub fn record(addresses: &Mutex<[SocketAddr; 2]>, meanwhile: impl FnOnce()) -> Record {
    let ended = AtomicBool::new(false);
    let histories = std::thread::scope(|scope| {
        let visits = |number| {
            let ended = &ended;
            scope.spawn(move || Visitor::new(number, addresses).visit(ended))
        };
        let visitors: Vec<_> = (0..VISITORS).map(visits).collect();
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let end = End(&ended);
        meanwhile();
        drop(end);
        visitors.into_iter().map(|visitor| visitor.join().expect("no visitor panics")).collect()
    });
    Record { histories }
}

struct Visitor<'a> {
    number: usize,
    addresses: &'a Mutex<[SocketAddr; 2]>,
    connections: [Option<(SocketAddr, Client)>; 2],
    cookie: Option<String>,
    /// Cookies of the same user's other devices.
    devices: Vec<String>,
    /// Cookies of sessions that are over, and the steps that ended them.
    over: Vec<(usize, String)>,
    next: i64,
    random: u64,
    history: Vec<Step>,
}

impl<'a> Visitor<'a> {
    fn new(number: usize, addresses: &'a Mutex<[SocketAddr; 2]>) -> Visitor<'a> {
        Visitor {
            number,
            addresses,
            connections: [None, None],
            cookie: None,
            devices: Vec::new(),
            over: Vec::new(),
            next: 1,
            random: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1),
            history: Vec::new(),
        }
    }

    fn visit(mut self, ended: &AtomicBool) -> Vec<Step> {
        while !ended.load(Ordering::SeqCst) {
            self.live(ended);
        }
        // What was ended stays ended to the end.
        for at in 0..self.over.len() {
            self.ask_over(at);
        }
        self.history
    }

    /// One session, from its beginning to its end.
    fn live(&mut self, ended: &AtomicBool) {
        self.cookie = None;
        let value = self.number();
        if self.one(Asked::Begin(value), &format!("/begin/{value}")) == Came::Open {
            return;
        }
        let before = self.cookie.clone();
        match self.one(Asked::LogIn, &format!("/login/{}", self.number)) {
            Came::Back(text) if text == "in" => self.bury(before),
            Came::Back(_) => {}
            Came::Open => return,
        }
        let own = self.cookie.take();
        if self.one(Asked::OtherDevice, &format!("/device/{}", self.number)) != Came::Open {
            self.devices.extend(self.cookie.take());
        }
        self.cookie = own;
        for _ in 0..STEPS {
            if ended.load(Ordering::SeqCst) {
                break;
            }
            match self.below(10) {
                0 | 1 => {
                    let value = self.number();
                    self.one(Asked::Write(value), &format!("/write/{value}"));
                }
                2 => drop(self.one(Asked::Count, "/count")),
                3 => {
                    let value = self.number();
                    self.one(Asked::Put(value), &format!("/put/{value}"));
                    self.both(Asked::Take, ["/take".to_owned(), "/take".to_owned()]);
                    let values = [self.number(), self.number()];
                    let paths = values.map(|value| format!("/once/{value}"));
                    self.both(Asked::Once(values[0], values[1]), paths);
                }
                4 if self.below(3) == 0 => {
                    let before = self.cookie.clone();
                    match self.one(Asked::Renew, "/renew") {
                        Came::Back(text) if text == "renewed" => self.bury(before),
                        Came::Back(_) => {}
                        // Under which id it is now, nobody knows.
                        Came::Open => return,
                    }
                }
                5 if !self.over.is_empty() => {
                    let at = self.below(self.over.len() as u64) as usize;
                    self.ask_over(at);
                }
                _ => drop(self.one(Asked::Read, "/read")),
            }
        }
        let before = self.cookie.clone();
        let (asked, path) = match self.below(2) {
            0 => (Asked::End, "/end"),
            _ => (Asked::EndEverywhere, "/end_everywhere"),
        };
        if self.one(asked.clone(), path) == Came::Back("ended".to_owned()) {
            self.bury(before);
            if asked == Asked::EndEverywhere {
                for device in std::mem::take(&mut self.devices) {
                    self.bury(Some(device));
                }
            }
        }
    }

    fn bury(&mut self, cookie: Option<String>) {
        let step = self.history.len() - 1;
        self.over.extend(cookie.map(|cookie| (step, cookie)));
    }

    fn ask_over(&mut self, at: usize) {
        let (step, cookie) = self.over[at].clone();
        let own = self.cookie.replace(cookie);
        self.one(Asked::Ask(step), "/read");
        self.cookie = own;
    }

    fn one(&mut self, asked: Asked, path: &str) -> Came {
        let (at, process) = (Instant::now(), self.below(2) as usize);
        let came = match self.send(process, path) {
            true => self.receive(process),
            false => Came::Open,
        };
        self.note(asked, vec![came.clone()], at);
        came
    }

    fn both(&mut self, asked: Asked, paths: [String; 2]) {
        let at = Instant::now();
        let sent = [0, 1].map(|process| self.send(process, &paths[process]));
        let came = [0, 1].map(|process| match sent[process] {
            true => self.receive(process),
            false => Came::Open,
        });
        self.note(asked, came.to_vec(), at);
    }

    fn note(&mut self, asked: Asked, came: Vec<Came>, at: Instant) {
        let is_open = came.contains(&Came::Open);
        self.history.push(Step { asked, came, at, took: at.elapsed() });
        if is_open {
            // Whoever is refused waits a little, and leaves the machine to the others.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn send(&mut self, process: usize, path: &str) -> bool {
        let address = self.addresses.lock().unwrap()[process];
        if self.connections[process].as_ref().is_none_or(|(to, _)| *to != address) {
            let Ok(stream) = TcpStream::connect(address) else { return false };
            stream.set_nodelay(true).unwrap();
            self.connections[process] = Some((address, Client::new(stream)));
        }
        let cookie = self.cookie.as_ref().map(|pair| format!("Cookie: {pair}\r\n"));
        let cookie = cookie.unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n");
        let Some((_, client)) = &mut self.connections[process] else { return false };
        let sent = client.stream.write_all(request.as_bytes()).is_ok();
        if !sent {
            self.connections[process] = None;
        }
        sent
    }

    fn receive(&mut self, process: usize) -> Came {
        let Some((_, client)) = &mut self.connections[process] else { return Came::Open };
        let reply = client.try_reply(false);
        let Some(reply) = reply else {
            self.connections[process] = None;
            return Came::Open;
        };
        if reply.status == 409 {
            // It was there when it was loaded.
            return Came::Back("none".to_owned());
        }
        if reply.status != 200 {
            assert_eq!(reply.status, 503, "{}", reply.text());
            assert!(reply.header("retry-after").is_some(), "a 503 without Retry-After");
            return Came::Open;
        }
        self.keep_cookie(&reply);
        Came::Back(reply.text().to_owned())
    }

    fn keep_cookie(&mut self, reply: &Reply) {
        if let Some(set) = reply.header("set-cookie") {
            let (pair, attributes) = set.split_once(';').expect("attributes");
            self.cookie = (!attributes.contains("Max-Age=0")).then(|| pair.to_owned());
        }
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

/// What a value may be: what was acknowledged or read last, or what was asked for since and never answered.
#[derive(Clone, Default)]
struct Possible {
    known: i64,
    open: Vec<i64>,
}

impl Possible {
    fn asked(&mut self, value: i64, came: &Came) {
        match came {
            Came::Back(_) => self.known = value,
            Came::Open => self.open.push(value),
        }
    }

    /// Whether this may be read. From then on it is so.
    fn read(&mut self, value: i64) -> bool {
        let was_open = self.open.iter().position(|open| *open == value);
        if let Some(at) = was_open {
            self.open.swap_remove(at);
            self.known = value;
        }
        was_open.is_some() || self.known == value
    }
}

/// Everything that is wrong in what one visitor was answered.
pub fn judge(history: &[Step]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut register = Possible::default();
    let mut once = Possible::default();
    // The last sum that was answered, and how many more may have been added.
    let (mut sum, mut added) = (0, 0);
    // Tickets that were acknowledged and not taken; those that may be there; how often each was taken.
    let (mut ticket, mut taken) = (Possible::default(), BTreeMap::<i64, usize>::new());
    let mut is_over = false;
    for (number, step) in history.iter().enumerate() {
        let mut fault = |what: String| {
            faults.push(format!("step {number}, {:?} after {:?}: {what}", step.asked, step.took));
        };
        let answers = || {
            step.came.iter().filter_map(|came| match came {
                Came::Back(text) => Some(text.as_str()),
                Came::Open => None,
            })
        };
        match &step.asked {
            Asked::Ask(ended) => {
                if answers().any(|text| text != "none") {
                    fault(format!("the session that was over at step {ended} is alive"));
                }
                continue;
            }
            Asked::OtherDevice => continue,
            Asked::Begin(_) => {}
            // It may have ended, if nobody was told.
            _ if is_over => continue,
            _ if answers().any(|text| text == "none") => {
                fault("the session is gone".to_owned());
                is_over = true;
                continue;
            }
            _ => {}
        }
        match &step.asked {
            Asked::Begin(value) => {
                (register, once, ticket) = Default::default();
                (sum, added, is_over) = (0, 0, step.came[0] == Came::Open);
                register.known = *value;
            }
            Asked::Write(value) => register.asked(*value, &step.came[0]),
            Asked::Read => {
                let Some(text) = answers().next() else { continue };
                let numbers: Vec<i64> =
                    text.split(' ').map(|number| number.parse().unwrap_or(-1)).collect();
                let [value, counter, first] = numbers[..] else {
                    fault(format!("an odd answer, {text:?}"));
                    continue;
                };
                if !register.read(value) {
                    fault(format!("the register is {value}, not {}", register.known));
                }
                if !(sum..=sum + added).contains(&counter) {
                    fault(format!("the counter is {counter}, not {sum} and at most {added} more"));
                }
                // What came of it nobody was told: that it is as read is known now.
                (added, sum) = (added - (counter - sum).clamp(0, added), counter);
                if !once.read(first) {
                    fault(format!("set_if_absent has left {first}, not {}", once.known));
                }
            }
            Asked::Count => match answers().next().map(|text| text.parse::<i64>().unwrap_or(-1)) {
                Some(now) => {
                    if !(sum + 1..=sum + 1 + added).contains(&now) {
                        fault(format!("the sum is {now}, after {sum} and at most {added} more"));
                    }
                    (added, sum) = (added - (now - sum - 1).clamp(0, added), now);
                }
                None => added += 1,
            },
            Asked::Put(value) => {
                ticket.asked(*value, &step.came[0]);
                once.asked(0, &step.came[0]);
            }
            Asked::Take => {
                let got: Vec<i64> =
                    answers().map(|text| text.parse().unwrap_or(-1)).filter(|n| *n != 0).collect();
                for value in &got {
                    *taken.entry(*value).or_default() += 1;
                    if taken[value] > 1 {
                        fault(format!("ticket {value} was taken twice"));
                    } else if !ticket.read(*value) {
                        fault(format!("ticket {value} was not there to be taken"));
                    }
                }
                let all_answered = !step.came.contains(&Came::Open);
                if all_answered && got.is_empty() && ticket.known != 0 && ticket.open.is_empty() {
                    fault(format!("ticket {} is lost", ticket.known));
                }
                // Whoever got no answer may have it, or not.
                if !all_answered && ticket.known != 0 && !got.contains(&ticket.known) {
                    ticket.open.push(ticket.known);
                }
                ticket.known = 0;
            }
            Asked::Once(one, other) => {
                let values = [*one, *other];
                let winners: Vec<i64> = (step.came.iter().zip(values))
                    .filter(|(came, _)| **came == Came::Back("1".to_owned()))
                    .map(|(_, value)| value)
                    .collect();
                if winners.len() > 1 {
                    fault("both were first".to_owned());
                }
                let was_free = once.known == 0 || once.open.contains(&0);
                let all_answered = !step.came.contains(&Came::Open);
                match winners.first() {
                    Some(_) if !was_free => {
                        fault(format!("it was set although there was {}", once.known));
                    }
                    None if all_answered && once.known == 0 && once.open.is_empty() => {
                        fault("nobody was first".to_owned());
                    }
                    _ => {}
                }
                match winners.first() {
                    Some(winner) => once.known = *winner,
                    None => {
                        let open = step.came.iter().zip(values);
                        let open = open.filter(|(came, _)| **came == Came::Open);
                        once.open.extend(open.map(|(_, value)| value));
                    }
                }
            }
            Asked::Renew | Asked::LogIn | Asked::End | Asked::EndEverywhere => {
                is_over |= step.came[0] == Came::Open
            }
            Asked::OtherDevice | Asked::Ask(_) => {}
        }
    }
    faults
}
