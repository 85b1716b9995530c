//! Everything that can go wrong with Redis, under load: nobody sees another's session, nothing acknowledged
//! is lost, and all is well again when the fault is over.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bottle_session::{BreakerState, RedisConfig, RedisPool};

use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::redis_server::RedisServer;
use crate::support::visitors::Site;

const CONNECT: Duration = Duration::from_millis(500);
const OPERATION: Duration = Duration::from_millis(250);
const POOL: u32 = 4;

struct Stage {
    redis: RedisServer,
    proxy: FaultProxy,
    site: Site,
}

fn stage() -> Stage {
    stage_with(&[], POOL)
}

fn stage_with(options: &[&str], pool_size: u32) -> Stage {
    let (redis, port) = RedisServer::start_on_port_with(options);
    let proxy = FaultProxy::start(port);
    let config = RedisConfig::from_url(&proxy.url())
        .unwrap()
        .connect_timeout(CONNECT)
        .operation_timeout(OPERATION)
        .pool_size(pool_size);
    let site = Site::new(RedisPool::new(config).unwrap());
    Stage { redis, proxy, site }
}

impl Stage {
    /// Lets the visitors come, a fault begin, strike until `enough`, and end; then everybody must be served
    /// as before.
    fn play(
        &mut self,
        scenario: &str,
        begin: impl FnOnce(&mut RedisServer, &FaultProxy),
        enough: impl Fn(&Site, &FaultProxy) -> bool,
        end: impl FnOnce(&mut RedisServer, &FaultProxy),
    ) {
        let Stage { redis, proxy, site } = self;
        wait_until("everybody has logged in", || site.everybody_is_served());
        let over = site.under_load(|| {
            begin(redis, proxy);
            wait_until("the fault has struck", || enough(site, proxy));
            end(redis, proxy);
            Instant::now()
        });
        self.recover(scenario, over);
    }

    fn recover(&mut self, scenario: &str, over: Instant) {
        let site = &self.site;
        wait_until("everybody is served again", || site.everybody_is_served());
        let recovery = over.elapsed();
        site.seen.assert_right(scenario);
        assert_eq!(site.pool.breaker(), BreakerState::Closed);
        let (connections, _) = site.pool.connections();
        assert!(connections <= POOL, "{scenario}: {connections} connections");
        report(scenario, site, recovery);
    }
}

/// One row of the table that tests/faults.sh prints.
fn report(scenario: &str, site: &Site, recovery: Duration) {
    let seen = &site.seen;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "| {scenario} | {} | {} | {} | {} | {} | {} ms | {:.1} ms | {} ms |",
        count(&seen.requests),
        count(&seen.wrong),
        count(&seen.lost),
        count(&seen.unavailable),
        count(&seen.failed),
        seen.slowest().as_millis(),
        seen.plain_p99().as_secs_f64() * 1000.0,
        recovery.as_millis(),
    );
}

/// Polls; a condition that never comes true is a failure and not a test that hangs.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("still not true: {what}");
}

fn many_failures(site: &Site, _: &FaultProxy) -> bool {
    site.seen.failures() >= 2_000
}

fn struck(times: u64) -> impl Fn(&Site, &FaultProxy) -> bool {
    move |_, proxy| proxy.affected() >= times
}

fn pass(_: &mut RedisServer, proxy: &FaultProxy) {
    proxy.set(Fault::Pass);
}

/// A fault of the network that is there for a while.
fn network(scenario: &str, fault: Fault, enough: impl Fn(&Site, &FaultProxy) -> bool) {
    stage().play(scenario, |_, proxy| proxy.set(fault), enough, pass);
}

#[test]
fn slow_replies() {
    let slow = Fault::Delay(OPERATION / 10);
    network("replies 25 ms late", slow, struck(100));
}

#[test]
fn stalled_replies_released_late() {
    let mut stage = stage();
    for _ in 0..3 {
        let stall = |_: &mut _, proxy: &FaultProxy| proxy.set(Fault::Stall);
        let seen = |site: &Site| site.seen.failures();
        let before = seen(&stage.site);
        stage.play(
            "replies stalled, released late",
            stall,
            |site, _| seen(site) > before + 500,
            pass,
        );
    }
}

#[test]
fn trickling_replies() {
    let trickle = Fault::Trickle(OPERATION / 3);
    network("replies one byte at a time", trickle, many_failures);
}

#[test]
fn cut_before_the_request() {
    network("cut before the request arrives", Fault::CutBefore, many_failures);
}

#[test]
fn cut_after_the_request() {
    network("cut after the request arrived", Fault::CutAfter, many_failures);
}

#[test]
fn cut_at_random() {
    network("one chunk in 20 cut in the middle", Fault::CutAtRandom(20), struck(200));
}

#[test]
fn garbage() {
    let garbage = Fault::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    network("garbage", garbage, many_failures);
}

#[test]
fn connections_refused() {
    let refuse = |_: &mut RedisServer, proxy: &FaultProxy| {
        proxy.set(Fault::Refuse);
        proxy.cut();
    };
    stage().play("connections closed at once", refuse, many_failures, pass);
}

#[test]
fn connections_accepted_and_never_answered() {
    let mute = |_: &mut RedisServer, proxy: &FaultProxy| {
        proxy.set(Fault::Mute);
        proxy.cut();
    };
    let heal = |_: &mut RedisServer, proxy: &FaultProxy| {
        proxy.set(Fault::Pass);
        // Whoever was accepted by a mute server learns nothing of its recovery.
    };
    stage().play("accepted and never answered", mute, many_failures, heal);
}

#[test]
fn loading() {
    let loading = Fault::Answer("-LOADING Redis is loading the dataset in memory");
    network("LOADING", loading, many_failures);
}
