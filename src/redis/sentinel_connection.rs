//! The connection to one sentinel: what it is asked, and what it publishes.
//!
//! A sentinel publishes what it does on channels, and answers questions; in RESP2 a connection that has subscribed may
//! ask nothing. So once a second all is one pipeline: `UNSUBSCRIBE`, the questions, `SUBSCRIBE`. A sentinel carries it
//! out without a pause in which it would publish, and should anything be lost all the same, the answers tell.

mod announcements;

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::redis::{ErrorKind as RedisErrorKind, Pipeline, RedisError, RedisResult};

use self::announcements::{ABORTS, PROMOTED, SIGNS, SWITCHED, details, event, text};
use super::connection::Connection;
use super::errors::as_redis_error;
use super::failover::{Announced, Node};
use super::resp::{Replies, Reply, end_of};
use super::sentinel::{MasterMonitor, SentinelNode};
use super::sentinel_listener::{Notice, Notices};
use super::sentinel_poller::{ListenerWaker, SentinelPoller};
use super::transport::Transport;
use crate::logging::ThrottledLog;

/// How often a sentinel is asked, how long it may take to answer, and how long after a failure it is tried again.
pub(super) const QUERY_INTERVAL: Duration = Duration::from_secs(1);
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// No sentinel says as much at once.
const MAX_BUFFER_BYTES: usize = 256 * 1024;

/// One sentinel, as it is reached.
pub(super) struct SentinelConnection {
    pub(super) node: Arc<SentinelNode>,
    /// Who listens, and the sentinel's number there.
    pub(super) monitors: Vec<(Weak<MasterMonitor>, usize)>,
    state: State,
    /// Why it failed last; unset once it has answered since.
    pub(super) failed: Option<RedisError>,
    /// How many attempts have failed, how many questions were asked and answered.
    pub(super) failures: u64,
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Whether it was told that nobody may listen to it.
    is_refused: bool,
    log: ThrottledLog,
}

enum State {
    /// It is tried again then.
    Down(Instant),
    /// A thread connects.
    Connecting(Receiver<RedisResult<Transport>>),
    Live(Box<Live>),
}

struct Live {
    transport: Transport,
    received: Vec<u8>,
    /// What is to come in reply to what was asked.
    expected: VecDeque<Expected>,
    /// Since when something is to come, or nothing.
    since: Instant,
    has_subscribed: bool,
    /// The answer to the first question for a name, until that to the second one is there.
    named: Option<Node>,
}

/// Replies to come.
enum Expected {
    /// One for each channel.
    Unsubscribed(usize),
    Address,
    Details(String),
    Subscribed(usize),
    /// The last reply to a question.
    End,
}

impl SentinelConnection {
    pub(super) fn new(
        node: Arc<SentinelNode>,
        monitor: (Weak<MasterMonitor>, usize),
    ) -> SentinelConnection {
        SentinelConnection {
            node,
            monitors: vec![monitor],
            state: State::Down(Instant::now()),
            failed: None,
            failures: 0,
            asked: 0,
            answered: 0,
            is_refused: false,
            log: ThrottledLog::default(),
        }
    }

    pub(super) fn is_for(&self, monitor: &Arc<MasterMonitor>) -> bool {
        self.monitors.iter().any(|(ours, _)| ours.as_ptr() == Arc::as_ptr(monitor))
    }

    /// Asks now, or tries now to reach it.
    pub(super) fn ask_at_once(&mut self, now: Instant, notices: &mut Notices) {
        match &mut self.state {
            State::Down(again) => *again = now.min(*again),
            State::Connecting(_) => {}
            State::Live(_) => {
                if let Err(error) = self.ask() {
                    self.close(error, notices);
                }
            }
        }
    }

    /// Does what is due, and says when something is next.
    pub(super) fn advance(
        &mut self,
        number: usize,
        now: Instant,
        poller: &mut SentinelPoller,
        waker: &ListenerWaker,
        notices: &mut Notices,
    ) -> Option<Instant> {
        self.read(notices);
        let done = match &mut self.state {
            State::Down(again) if *again <= now => {
                self.connect(waker, now);
                Ok(())
            }
            State::Down(_) => Ok(()),
            State::Connecting(made) => match made.try_recv() {
                Err(TryRecvError::Empty) => Ok(()),
                Err(TryRecvError::Disconnected) => Err(failed("connecting to a sentinel panicked")),
                Ok(made) => made.and_then(|transport| {
                    poller.register(number, &transport)?;
                    self.begin(transport, now)
                }),
            },
            State::Live(live) => {
                let silent = now.duration_since(live.since);
                match live.expected.is_empty() {
                    true if silent >= QUERY_INTERVAL => self.ask(),
                    false if silent >= REPLY_TIMEOUT => Err(failed("a sentinel does not answer")),
                    _ => Ok(()),
                }
            }
        };
        if let Err(error) = done {
            self.close(error, notices);
        }
        match &self.state {
            State::Down(again) => Some(*again),
            State::Connecting(_) => None,
            State::Live(live) if live.expected.is_empty() => Some(live.since + QUERY_INTERVAL),
            State::Live(live) => Some(live.since + REPLY_TIMEOUT),
        }
    }

    fn connect(&mut self, waker: &ListenerWaker, now: Instant) {
        let (give, made) = channel();
        let (node, waker) = (self.node.clone(), waker.clone());
        let connect = move || {
            // Also where it panics.
            let _wakes = WakeOnDrop(waker);
            let deadline = Instant::now() + node.config.connect_timeout;
            let made =
                Connection::connect(&node.config, &node.config.address, &node.trust, 0, deadline);
            // Nobody waits any more where the process ends.
            let _ = give.send(made.and_then(|connection| {
                connection.into_transport().map_err(|error| as_redis_error(error, false))
            }));
        };
        let thread = std::thread::Builder::new().name("redis-connect".to_owned());
        self.state = match thread.spawn(connect) {
            Ok(_) => State::Connecting(made),
            Err(_) => State::Down(now + QUERY_INTERVAL),
        };
    }

    fn begin(&mut self, transport: Transport, now: Instant) -> RedisResult<()> {
        self.state = State::Live(Box::new(Live {
            transport,
            received: Vec::new(),
            expected: VecDeque::new(),
            since: now,
            has_subscribed: false,
            named: None,
        }));
        self.ask()
    }

    fn close(&mut self, error: RedisError, notices: &mut Notices) {
        if self.failed.is_none() {
            let line = format!("the sentinel at {} does not answer: {error}", self.node.config);
            notices.push(Notice::Log(self.log.clone(), log::Level::Warn, line));
        }
        self.failed = Some(error);
        self.failures += 1;
        // What it was asked and has not answered, it will not answer.
        self.asked = self.answered;
        self.state = State::Down(Instant::now() + QUERY_INTERVAL);
        for (monitor, number) in &self.monitors {
            if let Some(monitor) = monitor.upgrade() {
                monitor.lost(*number);
            }
        }
    }

    /// Asks for the masters of all who listen.
    fn ask(&mut self) -> RedisResult<()> {
        let State::Live(live) = &mut self.state else { return Ok(()) };
        let mut names = Vec::new();
        for (monitor, _) in &self.monitors {
            if let Some(monitor) = monitor.upgrade()
                && !names.contains(&monitor.sentinel.master)
            {
                names.push(monitor.sentinel.master.clone());
            }
        }
        let channels: Vec<_> = SIGNS.iter().chain(&ABORTS).chain([&PROMOTED, &SWITCHED]).collect();
        let nothing_expected = live.expected.is_empty();
        let mut question = Pipeline::new();
        if live.has_subscribed {
            question.cmd("UNSUBSCRIBE");
            live.expected.push_back(Expected::Unsubscribed(channels.len()));
        }
        for name in names {
            question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&name);
            question.cmd("SENTINEL").arg("MASTER").arg(&name);
            live.expected.extend([Expected::Address, Expected::Details(name)]);
        }
        question.cmd("SUBSCRIBE").arg(&channels);
        live.expected.extend([Expected::Subscribed(channels.len()), Expected::End]);
        live.has_subscribed = true;
        if nothing_expected {
            live.since = Instant::now();
        }
        self.asked += 1;
        live.transport.write_all(&question.get_packed_pipeline())?;
        Ok(live.transport.flush()?)
    }

    /// Reads what has come, as far as it is whole.
    pub(super) fn read(&mut self, notices: &mut Notices) {
        if let Err(error) = self.try_read(notices) {
            self.close(error, notices);
        }
    }

    fn try_read(&mut self, notices: &mut Notices) -> RedisResult<()> {
        let State::Live(live) = &mut self.state else { return Ok(()) };
        let mut ended = Ok(());
        let mut room = [0; 4096];
        loop {
            match live.transport.read(&mut room) {
                Ok(0) => {
                    ended = Err(RedisError::from(std::io::Error::from(IoErrorKind::UnexpectedEof)));
                    break;
                }
                Ok(count) => live.received.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == IoErrorKind::WouldBlock => break,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => {
                    ended = Err(error.into());
                    break;
                }
            }
            if live.received.len() > MAX_BUFFER_BYTES {
                return Err(garbage());
            }
        }
        let received = std::mem::take(&mut live.received);
        let mut start = 0;
        while let Some(length) = end_of(&received[start..]).map_err(|_| garbage())? {
            let whole = &received[start..start + length];
            start += length;
            let reply = Replies::of(whole, 1).next().ok_or_else(garbage)?;
            self.hear(reply, notices)?;
        }
        if let State::Live(live) = &mut self.state {
            live.received = received[start..].to_vec();
        }
        ended
    }

    fn hear(&mut self, reply: Reply<'_>, notices: &mut Notices) -> RedisResult<()> {
        let State::Live(live) = &mut self.state else { return Ok(()) };
        if let Reply::Array(words) = reply {
            let mut texts = words.map(|word| match word {
                Reply::Bulk(text) => std::str::from_utf8(text).ok(),
                _ => None,
            });
            match (words.len(), texts.next().flatten()) {
                (3, Some("message")) => {
                    let (channel, text) = (texts.next().flatten(), texts.next().flatten());
                    let announced = channel.zip(text).and_then(|(name, text)| event(name, text));
                    if let Some((name, announced)) = announced {
                        self.announce(&name, &announced, notices);
                    }
                    return Ok(());
                }
                (3, Some(kind @ ("subscribe" | "unsubscribe"))) => {
                    let left = match live.expected.front_mut() {
                        Some(Expected::Unsubscribed(left)) if kind == "unsubscribe" => left,
                        Some(Expected::Subscribed(left)) if kind == "subscribe" => left,
                        _ => return Err(garbage()),
                    };
                    *left -= 1;
                    if *left == 0 {
                        live.expected.pop_front();
                        self.end();
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
        match (live.expected.pop_front(), reply) {
            (Some(Expected::Unsubscribed(_) | Expected::Subscribed(_)), Reply::Error(line)) => {
                let line = String::from_utf8_lossy(line).into_owned();
                live.has_subscribed = false;
                let line = format!(
                    "the sentinel at {} lets nobody listen to its channels ({line}), so that a planned failover loses \
                     what is written meanwhile; allow this user SUBSCRIBE and UNSUBSCRIBE on all channels",
                    self.node.config
                );
                if !std::mem::replace(&mut self.is_refused, true) {
                    notices.push(Notice::Log(self.log.clone(), log::Level::Error, line));
                }
                self.end();
                Ok(())
            }
            (Some(Expected::Address), Reply::Array(words)) => {
                let mut words = words.map(|word| word.bulk().and_then(text));
                live.named = match (words.next().flatten(), words.next().flatten()) {
                    (Some(host), Some(port)) => Some((host, port.parse().map_err(|_| garbage())?)),
                    _ => return Err(garbage()),
                };
                Ok(())
            }
            // It does not know the name.
            (Some(Expected::Address), Reply::Nil) => {
                live.named = None;
                Ok(())
            }
            (Some(Expected::Address), Reply::Error(line)) => Err(refused(line)),
            (Some(Expected::Details(name)), reply) => {
                let answered = live.named.take().map(|master| details(master, reply));
                for (monitor, number) in &self.monitors {
                    if let Some(monitor) =
                        monitor.upgrade().filter(|monitor| monitor.sentinel.master == name)
                    {
                        let change = monitor.answered(*number, answered.clone());
                        notices.extend(change.map(|change| Notice::Changed(monitor, change)));
                    }
                }
                Ok(())
            }
            _ => Err(garbage()),
        }
    }

    /// Takes note where a question is answered as a whole.
    fn end(&mut self) {
        if let State::Live(live) = &mut self.state
            && let Some(Expected::End) = live.expected.front()
        {
            live.expected.pop_front();
            live.since = Instant::now();
            self.answered += 1;
            self.failed = None;
        }
    }

    fn announce(&mut self, name: &str, announced: &Announced, notices: &mut Notices) {
        for (monitor, number) in &self.monitors {
            if let Some(monitor) =
                monitor.upgrade().filter(|monitor| monitor.sentinel.master == name)
            {
                let change = monitor.announced(*number, announced);
                notices.extend(change.map(|change| Notice::Changed(monitor, change)));
            }
        }
    }
}

struct WakeOnDrop(ListenerWaker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

fn refused(line: &[u8]) -> RedisError {
    as_redis_error(super::errors::refusal(line), false)
}

fn garbage() -> RedisError {
    RedisError::from((RedisErrorKind::Parse, "a sentinel sent something that is no reply to us"))
}

fn failed(why: &'static str) -> RedisError {
    RedisError::from((RedisErrorKind::Io, why))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::config::RedisConfig;
    use super::super::pool::RedisPool;
    use super::super::scripted_server::{answers, serve};
    use super::*;

    #[test]
    fn a_sentinel_that_refuses_to_answer_is_told_of_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        serve(listener, |_| answers("-NOPERM this user has no permissions\r\n"));
        let config = RedisConfig::default().connect_timeout(Duration::from_secs(60));
        let pool = RedisPool::sentinel([url.as_str()], "sessions", config).unwrap();
        let monitor = pool.upstream().monitor.clone().unwrap();
        let mut link = SentinelConnection::new(
            monitor.sentinel.nodes[0].clone(),
            (Arc::downgrade(&monitor), 0),
        );
        let waker = ListenerWaker::new();
        let (mut poller, mut notices) = (waker.poller(), Vec::new());
        while link.failures < 4 {
            // As if a second had passed.
            link.advance(0, Instant::now() + QUERY_INTERVAL, &mut poller, &waker, &mut notices);
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(link.failed.is_some(), link.failures > 0, "it holds up who connects");
        }
        assert_eq!(notices.len(), 1);
        let Notice::Log(_, level, line) = &notices[0] else { panic!("a line") };
        assert_eq!(*level, log::Level::Warn);
        assert!(line.contains("does not answer") && line.contains("no permissions"), "{line}");
    }
}
