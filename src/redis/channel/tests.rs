use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::in_flight::{BATCH, IN_FLIGHT};
use super::*;
use crate::pipeline::batch::Entry;
use crate::pipeline::operation::{Answer, Operation, Progress, Round};
use crate::redis::breaker::BreakerState;
use crate::redis::config::{Address, RedisConfig};
use crate::redis::connection::Connection;
use crate::redis::failover::Announced;
use crate::redis::pool::RedisPool;
use crate::redis::scripted_server::{Ask, Reaction, answers, serve};

const READY: Ready = Ready { readable: true, writable: true, ended: false };

/// An operation that tells its outcome.
struct Told(Ask, std::sync::mpsc::Sender<std::result::Result<String, Error>>);

impl Operation for Told {
    fn request(&mut self, round: &mut Round<'_>) {
        self.0.request(round);
    }
    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        self.0.answer(answer)
    }
    fn fail(&mut self, error: Error) {
        self.0.fail(error);
    }
}

impl Waiting for Told {
    fn finish(self: Box<Self>, _: &mut Entry<'_>) {}
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.1.send(self.0.reply.take().expect("an outcome"));
    }
}

struct Stage {
    pool: RedisPool,
    channel: RedisChannel,
    done: Done,
}

fn stage(answer: impl Fn(&[String]) -> Reaction + Send + Sync + 'static) -> Stage {
    stage_with(Duration::from_secs(60), answer)
}

fn stage_with(
    operation_timeout: Duration,
    answer: impl Fn(&[String]) -> Reaction + Send + Sync + 'static,
) -> Stage {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, answer);
    at(port, operation_timeout)
}

fn at(port: u16, operation_timeout: Duration) -> Stage {
    let config = RedisConfig::default()
        .host("127.0.0.1")
        .port(port)
        .connect_timeout(Duration::from_secs(60))
        .operation_timeout(operation_timeout);
    let pool = RedisPool::new(config).unwrap();
    let channel = {
        let (upstream, options) = (pool.upstream().clone(), BatchOptions::default());
        RedisChannel::new(upstream, pool.weak(), options, Arc::new(|| ()))
    };
    Stage { pool, channel, done: Vec::new() }
}

impl Stage {
    /// Submits these commands in one turn and advances the channel until all are over.
    fn ask(&mut self, commands: &[(&str, bool)]) -> Vec<std::result::Result<String, String>> {
        let outcomes: Vec<_> = commands
            .iter()
            .enumerate()
            .map(|(ticket, (words, repeatable))| {
                let (tell, told) = std::sync::mpsc::channel();
                let waiting = Box::new(Told(Ask::new(words, *repeatable), tell));
                self.channel.submit(ticket, waiting, Instant::now());
                told
            })
            .collect();
        let mut over = 0;
        while over < commands.len() {
            self.channel.ready(READY);
            self.channel.advance(Instant::now(), &mut self.done);
            over += self.done.len();
            self.done.clear();
            std::thread::sleep(Duration::from_micros(200));
        }
        let outcome = |told: std::sync::mpsc::Receiver<_>| told.recv().unwrap();
        outcomes
            .into_iter()
            .map(|told| outcome(told).map_err(|error: Error| error.to_string()))
            .collect()
    }
}

#[test]
fn what_one_turn_submits_is_answered_in_order() {
    let mut stage = stage(|words| answers(&format!("+{}\r\n", words[1])));
    let commands: Vec<String> = (0..500).map(|number| format!("GET {number}")).collect();
    let commands: Vec<_> = commands.iter().map(|command| (command.as_str(), true)).collect();
    for _ in 0..3 {
        for (number, reply) in stage.ask(&commands).into_iter().enumerate() {
            assert_eq!(reply, Ok(format!("+{number}\r\n")));
        }
    }
    assert_eq!(stage.channel.number, 1, "one connection");
    assert_eq!((stage.channel.operations, stage.channel.bytes), (0, 0));
}

#[test]
fn what_was_in_flight_on_a_connection_that_is_cut_is_sent_once_more_if_it_may_be() {
    let cuts = Arc::new(AtomicUsize::new(0));
    let left = cuts.clone();
    let mut stage = stage(move |words| {
        let cut = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match cut {
            Ok(_) => Reaction::Closes,
            Err(_) => answers(&format!("+{}\r\n", words[1])),
        }
    });
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
    cuts.store(1, Ordering::SeqCst);
    let outcome = stage.ask(&[("GET a", true), ("SET b", false)]);
    assert_eq!(outcome[0], Ok("+a\r\n".to_owned()));
    let error = outcome[1].as_ref().unwrap_err();
    assert!(error.contains("end of file") || error.contains("reset"), "{error}");
    // Twice in a row is once too often for the operation, and no proof that Redis is down.
    cuts.store(2, Ordering::SeqCst);
    assert!(stage.ask(&[("GET a", true)])[0].is_err());
    assert_eq!(stage.pool.breaker(), BreakerState::Closed);
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
}

#[test]
fn what_timed_out_is_not_sent_again_and_opens_the_breaker() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Reaction::Hangs
    });
    let mut stage = at(port, Duration::from_millis(300));
    let error = stage.ask(&[("GET a", true)])[0].clone().unwrap_err();
    assert!(error.contains("no reply within 300ms"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(stage.pool.breaker(), BreakerState::Open);
    // While it is open, others fail at once, and nothing is asked.
    let error = stage.ask(&[("GET a", true)])[0].clone().unwrap_err();
    assert!(error.contains("failing at once"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn replicas_that_do_not_answer_are_no_proof_that_redis_is_down() {
    let mut stage = stage_with(Duration::from_millis(300), |words| match words[0].as_str() {
        "WAIT" => Reaction::Hangs,
        _ => answers("+fine\r\n"),
    });
    stage.channel.options.replicas = 2;
    let error = stage.ask(&[("SET a", false)])[0].clone().unwrap_err();
    assert!(error.contains("replicas had what was written within 300ms"), "{error}");
    assert_eq!(stage.pool.breaker(), BreakerState::Closed);
    // One that does not even answer the write itself is down.
    let mut stage = stage_with(Duration::from_millis(300), |_| Reaction::Hangs);
    stage.channel.options.replicas = 2;
    let error = stage.ask(&[("SET a", false)])[0].clone().unwrap_err();
    assert!(error.contains("no reply within 300ms"), "{error}");
    assert_eq!(stage.pool.breaker(), BreakerState::Open);
}

#[test]
fn replies_that_nobody_asked_for_close_the_connection() {
    let mut stage = stage(|words| match words[0].as_str() {
        "TWICE" => answers("+one\r\n+two\r\n"),
        _ => answers("+fine\r\n"),
    });
    assert!(stage.ask(&[("TWICE", true)])[0].is_err());
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
    assert!(stage.channel.number > 1, "a new connection");
}

#[test]
fn nobody_there_fails_all_that_wait_and_opens_the_breaker() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut stage = at(gone, Duration::from_secs(60));
    for outcome in stage.ask(&[("GET a", true), ("SET b", false)]) {
        assert!(outcome.unwrap_err().contains("refused"));
    }
    assert_eq!(stage.pool.breaker(), BreakerState::Open);
}

#[test]
fn a_server_that_closes_an_idle_connection_fails_nobody() {
    let mut stage = stage(|words| match words[0].as_str() {
        "LAST" => Reaction::Answers(b"+bye\r\n".to_vec()),
        _ => answers("+fine\r\n"),
    });
    assert_eq!(stage.ask(&[("LAST", false)]), [Ok("+bye\r\n".to_owned())]);
    let State::Connected(connected) = &mut stage.channel.state else { panic!("connected") };
    // As if the server had closed it.
    connected.transport.shut_down();
    stage.channel.ready(READY);
    stage.channel.advance(Instant::now(), &mut stage.done);
    assert!(stage.channel.socket().is_none());
    assert_eq!(stage.ask(&[("SET a", false)]), [Ok("+fine\r\n".to_owned())]);
}

#[test]
fn a_connection_that_may_be_dead_or_leads_to_a_replica_is_replaced() {
    let mut stage = stage(|words| match words[0].as_str() {
        "WRITE" => answers("-READONLY You can't write against a read only replica.\r\n"),
        _ => answers("+fine\r\n"),
    });
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
    let State::Connected(connected) = &mut stage.channel.state else { panic!("connected") };
    connected.answered -= CHECK_AFTER_IDLE;
    assert_eq!(stage.ask(&[("SET a", false)]), [Ok("+fine\r\n".to_owned())]);
    assert_eq!(stage.channel.number, 2);
    let outcome = stage.ask(&[("WRITE a", false), ("GET a", true)]);
    assert!(outcome[0].as_ref().unwrap().starts_with("-READONLY"));
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+fine\r\n".to_owned())]);
    assert_eq!(stage.channel.number, 3);
}

#[test]
fn nothing_is_written_to_a_master_that_is_none_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, |_| answers("+fine\r\n"));
    let config = RedisConfig::default().connect_timeout(Duration::from_secs(60));
    let pool = RedisPool::sentinel(["redis://127.0.0.1:1"], "sessions", config).unwrap();
    let (upstream, options) = (pool.upstream().clone(), BatchOptions::default());
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port, tls: false };
    let deadline = Instant::now() + Duration::from_secs(60);
    let made = Connection::connect(&upstream.config, &address, &upstream.trust, 0, deadline);
    let mut channel = RedisChannel::new(upstream.clone(), pool.weak(), options, Arc::new(|| ()));
    channel.state = State::Connected(Box::new(made.unwrap().into_channel().unwrap()));
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = Box::new(Told(Ask::new("SET a", false), tell));
    channel.submit(0, waiting, Instant::now());
    // After the turn began, which looked.
    let node = |port| ("127.0.0.1".to_owned(), port);
    let switched = Announced::Switched(node(port), node(port + 1));
    upstream.monitor.as_ref().unwrap().announced(0, &switched);
    let mut done = Vec::new();
    assert!(!channel.send_next(Instant::now(), &mut done));
    assert!(channel.in_flight.is_empty() && matches!(channel.state, State::Disconnected));
    assert_eq!((channel.queue.len(), done.len()), (1, 0), "it goes to the new master");
    channel.fail_queue(&upstream.held(), &mut done);
    done.clear();
    assert!(told.recv().unwrap().is_err());
}

#[test]
fn who_has_waited_for_a_failover_for_too_long_fails_wherever_it_stands() {
    let mut stage = stage(|_| answers("+fine\r\n"));
    let (tell, told) = std::sync::mpsc::channel();
    let now = Instant::now();
    for (ticket, seconds) in [(0, 9), (1, 1), (2, 5)] {
        let waiting = Box::new(Told(Ask::new("SET a", true), tell.clone()));
        let until = now + Duration::from_secs(seconds);
        stage.channel.held.push_back(Queued { ticket, waiting, until, repeated: false });
    }
    for (seconds, ticket) in [(1, 1), (5, 2), (9, 0)] {
        let at = now + Duration::from_secs(seconds);
        assert_eq!(stage.channel.deadline(), Some(at));
        stage.channel.expire(at, &mut stage.done);
        assert!(stage.done.iter().map(|done| done.0).eq([ticket]));
        stage.done.clear();
        let error = told.recv().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("a failover is under way, nothing was written"), "{error}");
    }
}

#[test]
fn what_is_past_the_room_in_flight_waits_in_order() {
    let (let_go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let mut stage = stage(move |words| {
        if words[0] == "HOLD" {
            gate.lock().unwrap().recv().unwrap();
        }
        answers(&format!("+{}\r\n", words[1]))
    });
    assert_eq!(stage.ask(&[("GET a", true)]), [Ok("+a\r\n".to_owned())]);
    let (tell, told) = std::sync::mpsc::channel();
    for ticket in 0..2 * IN_FLIGHT {
        let words = if ticket == 0 { "HOLD 0".to_owned() } else { format!("GET {ticket}") };
        let waiting = Box::new(Told(Ask::new(&words, true), tell.clone()));
        stage.channel.submit(ticket, waiting, Instant::now());
    }
    stage.channel.advance(Instant::now(), &mut stage.done);
    assert!((IN_FLIGHT..IN_FLIGHT + BATCH).contains(&stage.channel.operations));
    assert!(stage.channel.queue.len() >= IN_FLIGHT - BATCH);
    let_go.send(()).unwrap();
    while stage.done.len() < 2 * IN_FLIGHT {
        stage.channel.ready(READY);
        stage.channel.advance(Instant::now(), &mut stage.done);
        std::thread::yield_now();
    }
    assert!(stage.done.iter().map(|done| done.0).eq(0..2 * IN_FLIGHT));
    stage.done.clear();
    drop(tell);
    assert!(told.iter().enumerate().all(|(n, reply)| reply.unwrap() == format!("+{n}\r\n")));
}
