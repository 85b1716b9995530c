//! Handlers and plugins that block: who gets which thread.

use super::*;

#[test]
fn slow_handlers_delay_nobody_and_each_gets_a_thread() {
    let gate = Gate::default();
    let server = Serving::start(bind(), gated(&gate));
    let mut waiting: Vec<_> = (0..200).map(|_| server.client()).collect();
    for client in &mut waiting {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(200);
    for _ in 0..10 {
        assert_eq!(server.client().get("/").text(), "hello");
    }
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.reply().text(), "passed");
        assert_eq!(client.get("/").text(), "hello");
    }
}

/// By which thread it was acquired, and whether its release may block.
struct AcquiredBy(ThreadId, bool);

impl Provided for AcquiredBy {}

/// A plugin that says on which thread it acquired.
struct SaysWhere {
    may_block: bool,
    rarely: bool,
}

impl Plugin for SaysWhere {
    fn name(&self) -> &str {
        "says where"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<AcquiredBy>("acquired"))
    }

    fn may_block(&self) -> bool {
        self.may_block
    }

    fn acquire_rarely_blocks(&self) -> bool {
        self.rarely
    }

    fn release_may_block(&self, entry: &mut Entry<'_>) -> bool {
        entry.get_mut::<AcquiredBy>().is_some_and(|by| by.1)
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        let thread = std::thread::current().id();
        batch.iter_mut().for_each(|mut entry| {
            let waits = entry.request().path() == "/waits";
            entry.put(AcquiredBy(thread, waits));
        });
    }

    fn release(&self, batch: &mut Batch<'_>) {
        batch.iter_mut().for_each(|mut entry| assert!(entry.take::<AcquiredBy>().is_some()));
    }
}

#[test]
fn only_plugins_that_may_block_run_on_another_thread_than_the_event_loop() {
    for (may_block, rarely) in [(true, false), (true, true), (false, false)] {
        let mut app = app();
        app.install(SaysWhere { may_block, rarely }).unwrap();
        for path in ["/acquired", "/waits"] {
            app.get(path, |by: &mut AcquiredBy| (by.0 == std::thread::current().id()).to_string());
        }
        let server = Serving::start(bind().active_threads(1), app);
        let mut client = server.client();
        for path in ["/acquired", "/waits"] {
            let together = (0..100).filter(|_| client.get(path).text() == "true").count();
            // A busy machine may take the loop from any one of them, and give it to a thread that has just acquired.
            let expected = if may_block && !rarely { together < 50 } else { together > 0 };
            assert!(expected, "{may_block}, {rarely}: {together} of 100 on one thread");
        }
    }
}

/// A plugin that hardly ever blocks, and does.
struct RarelySlow(Gate);

impl Plugin for RarelySlow {
    fn name(&self) -> &str {
        "rarely slow"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Held>("held"))
    }

    fn acquire_rarely_blocks(&self) -> bool {
        true
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        self.0.pass();
        batch.iter_mut().for_each(|mut entry| entry.put(Held));
    }
}

#[test]
fn a_plugin_that_hardly_ever_blocks_delays_nobody_but_who_asks_for_it_when_it_does() {
    let gate = Gate::default();
    let mut app = app();
    app.install(RarelySlow(gate.clone())).unwrap();
    app.get("/held", |_: &mut Held| "held");
    let server = Serving::start(bind().active_threads(1), app);
    let mut held = Vec::new();
    for count in 1..=20 {
        let mut client = server.client();
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        held.push(client);
        gate.wait_for(count);
        assert_eq!(server.client().get("/").text(), "hello");
    }
    gate.open();
    for mut client in held {
        assert_eq!(client.reply().text(), "held");
        assert_eq!(client.get("/held").text(), "held");
    }
}

/// A plugin that panics where it is asked or called in this way.
struct Panics(&'static str);

impl Panics {
    fn at(&self, place: &str) {
        assert!(self.0 != place, "at {place}");
    }
}

impl Plugin for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    fn provides(&self) -> Option<Provision> {
        Some(Provision::of::<Held>("held"))
    }

    fn acquire_rarely_blocks(&self) -> bool {
        self.at("acquire_rarely_blocks");
        true
    }

    fn release_may_block(&self, _: &mut Entry<'_>) -> bool {
        self.at("release_may_block");
        false
    }

    fn acquire(&self, batch: &mut Batch<'_>) {
        self.at("acquire");
        batch.iter_mut().for_each(|mut entry| entry.put(Held));
    }
}

#[test]
fn a_panic_of_a_plugin_that_rarely_blocks_is_the_500_of_that_request_and_the_server_lives() {
    for (place, status) in
        [("acquire_rarely_blocks", 200), ("release_may_block", 500), ("acquire", 500)]
    {
        let mut app = app();
        app.install(Panics(place)).unwrap();
        app.get("/held", |_: &mut Held| "held");
        let server = Serving::start(bind().active_threads(1), app);
        let mut client = server.client();
        for _ in 0..3 {
            assert_eq!(server.client().get("/held").status, status, "{place}");
            assert_eq!(client.get("/").text(), "hello", "{place}");
        }
    }
}

#[test]
fn who_came_while_all_threads_were_blocked_gets_the_first_that_is_free_though_nobody_else_comes() {
    let (acquire, release, handler) = (Gate::default(), Gate::default(), Gate::default());
    release.open();
    handler.open();
    let mut app = gated(&handler);
    app.install(Slow(acquire.clone(), release)).unwrap();
    app.get("/held", |_: &mut Held| "held");
    let server = Serving::start(bind().active_threads(1).max_threads(2), app);
    let ask = |target| {
        let mut client = server.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    let mut held = vec![ask("/held")];
    acquire.wait_for(1);
    held.push(ask("/held"));
    acquire.wait_for(2);
    // There is no other thread, neither for these nor for a handler.
    held.push(ask("/held"));
    let mut last = ask("/wait");
    // Longer than the server looks after requests of which none gets on.
    std::thread::sleep(SHORT);
    acquire.open();
    assert_eq!(last.reply().text(), "passed");
    for mut client in held {
        assert_eq!(client.reply().text(), "held");
    }
}

#[test]
fn while_turns_are_lost_and_connections_move_every_request_gets_its_own_answer() {
    let mut app = app();
    app.get("/for/<micros:int>/<name>", |micros: u64, name: &str| {
        // Some handlers wait, some compute, most do neither.
        if micros.is_multiple_of(2) {
            std::thread::sleep(Duration::from_micros(micros));
        } else {
            let begun = std::time::Instant::now();
            while begun.elapsed() < Duration::from_micros(micros) {}
        }
        name.to_owned()
    });
    let server = Serving::start(bind().active_threads(4), app);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
                for round in 0..60 {
                    for (at, client) in clients.iter_mut().enumerate() {
                        let micros = match (round + at) % 8 {
                            0 => 4_000,
                            1 => 1_501,
                            2 => 600,
                            _ => 0,
                        };
                        let name = format!("{thread}-{at}-{round}");
                        let ask = format!("GET /for/{micros}/{name} HTTP/1.1\r\nHost: a\r\n\r\n");
                        // Every third client asks twice at once.
                        client.send(ask.repeat(1 + usize::from(at % 3 == 0)));
                    }
                    for (at, client) in clients.iter_mut().enumerate() {
                        for _ in 0..1 + usize::from(at % 3 == 0) {
                            assert_eq!(client.reply().text(), format!("{thread}-{at}-{round}"));
                        }
                    }
                }
            });
        }
    });
}

/// Requests of all kinds, some from clients that leave early, with hardly a thread to be had: each answer is the
/// one that was asked for or a 503, and in the end no connection is missing.
#[test]
fn at_every_limit_at_once_answers_are_right_and_nothing_gets_lost() {
    let mut app = app();
    app.get("/for/<micros:int>/<name>", |micros: u64, name: &str| {
        std::thread::sleep(Duration::from_micros(micros));
        name.to_owned()
    });
    app.get("/many/<name>", |name: &str| {
        let text = name.repeat(30_000);
        Response::stream(std::io::Cursor::new(text), None)
    });
    let native = bind().max_threads(3).max_queue(3).max_connections(20).active_threads(2);
    let native = native.body_buffer(1000).drain_deadline(Duration::from_secs(3600));
    let server = Serving::start(native, app);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..24_usize {
            let (server, served) = (&server, &served);
            scope.spawn(move || {
                for round in 0..200_usize {
                    let name = format!("{thread}-{round}");
                    let (request, expected) = match (thread + 7 * round) % 6 {
                        0 => (format!("GET /for/3000/{name} HTTP/1.1\r\n\r\n"), name),
                        1 => (format!("GET /many/{name} HTTP/1.1\r\n\r\n"), name.repeat(30_000)),
                        2 => {
                            let length = 2000 + round;
                            let head =
                                format!("POST /read HTTP/1.1\r\nContent-Length: {length}\r\n");
                            (format!("{head}\r\n{}", "x".repeat(length)), length.to_string())
                        }
                        3 => {
                            let head = "POST /ignore HTTP/1.1\r\nContent-Length: 1500\r\n";
                            (format!("{head}\r\n{}", "x".repeat(1500)), "ignored".to_owned())
                        }
                        _ => (format!("GET /for/0/{name} HTTP/1.1\r\n\r\n"), name),
                    };
                    let request = request.replacen("\r\n", "\r\nHost: a\r\n", 1);
                    let mut client = server.client();
                    for again in [true, false] {
                        let cut =
                            if round % 5 == 0 { round * 7 % request.len() } else { request.len() };
                        // A refusal can come before all is sent.
                        let _ = client.stream.write_all(&request.as_bytes()[..cut]);
                        if cut < request.len() || round % 11 == 0 {
                            break;
                        }
                        let Some(reply) = client.try_reply(false) else { break };
                        if reply.status != 503 {
                            assert_eq!(reply.text(), expected);
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        if !again || reply.header("connection") == Some("close") {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert!(served.load(Ordering::Relaxed) > 100, "{served:?}");
    // A connection that was forgotten would be waited for.
    server.shutdown.shutdown();
    server.join();
}

#[test]
fn past_the_last_thread_requests_wait_and_past_the_queue_they_are_refused() {
    let gate = Gate::default();
    let native = bind().max_threads(2).max_queue(1).active_threads(1);
    let server = Serving::start(native, gated(&gate));
    let mut clients: Vec<_> = (0..2).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gate.wait_for(2);
    // Both threads wait; one of these is queued, and all others are refused.
    let (sender, replies) = mpsc::channel();
    std::thread::scope(|scope| {
        for mut client in (0..6).map(|_| server.client()) {
            let sender = sender.clone();
            scope.spawn(move || sender.send(client.get("/wait")).unwrap());
        }
        for _ in 0..5 {
            let refused = replies.recv().unwrap();
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        }
        assert_eq!(gate.waiting(), 2, "no third thread was made");
        gate.open();
        assert_eq!(replies.recv().unwrap().text(), "passed");
    });
    for client in &mut clients {
        assert_eq!(client.reply().text(), "passed");
    }
    assert_eq!(server.client().get("/").text(), "hello");
}
