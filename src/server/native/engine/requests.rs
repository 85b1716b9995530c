//! What workers and threads do with requests: stages, handlers, answers, refusals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(feature = "https")]
use std::time::Instant;

use http::StatusCode;

use super::{Engine, catch_panic};
use crate::logging::request_id;
use crate::message::response::{Body, Response};
use crate::pipeline::exchange::{Exchange, Position};
use crate::pipeline::service::Service;
use crate::server::ShutdownStage;
use crate::server::native::access::Logged;
use crate::server::native::connection::{Connection, Incoming, Next};
use crate::server::native::event_loop::{EventLoop, InFlight, Recipient, Task};
use crate::server::native::outgoing::Outgoing;
use crate::server::native::poller::Returned;
#[cfg(feature = "https")]
use crate::server::native::redirects::{self, Redirected};

impl Engine {
    /// Takes requests through the stage that they are in on a thread that may block; their loop goes on with what
    /// comes of it. Where no thread is free and too many wait for one, those that have only begun are refused.
    pub(crate) fn run_blocking_stages(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        batch: Vec<InFlight>,
    ) {
        let releases = |(exchange, _): &InFlight| {
            matches!(exchange.position(), Position::Releasing(_) | Position::Released)
        };
        let (releasing, acquiring): (Vec<_>, Vec<_>) = batch.into_iter().partition(releases);
        if self.threads.queue_is_full() {
            for in_flight in acquiring {
                self.refuse(event_loop, in_flight, "the queue for a thread is full");
            }
        } else {
            self.offload_stage(event_loop, acquiring, Service::acquire_all);
        }
        self.offload_stage(event_loop, releasing, Service::release_all);
    }

    pub(super) fn offload_stage(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        batch: Vec<InFlight>,
        stage: fn(&Service, &mut [Exchange]),
    ) {
        if batch.is_empty() {
            return;
        }
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        self.threads.run(Box::new(move || {
            let (mut exchanges, recipients): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            engine.run_stage(&mut exchanges, stage);
            event_loop.resume(exchanges.into_iter().zip(recipients));
        }));
    }

    /// Takes a batch through a stage. If that panics, all of the batch fail.
    pub(crate) fn run_stage(&self, batch: &mut [Exchange], stage: fn(&Service, &mut [Exchange])) {
        if catch_panic(|| stage(&self.service, batch)).is_none() {
            // Whose panic that was is not known, nor how far it came.
            batch.iter_mut().for_each(Exchange::fail);
        }
    }

    /// Gives a task a thread of its own.
    pub(crate) fn offload(self: &Arc<Engine>, event_loop: &Arc<EventLoop>, task: Task) {
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        match task {
            Task::Acquire(batch) => self.offload_stage(&event_loop, batch, Service::acquire_all),
            Task::SendBody(connection) => {
                let (slot, waits) = (connection.slot, connection.may_wait());
                let place = (event_loop.number, slot);
                let here = event_loop.clone();
                let send =
                    Box::new(move || event_loop.return_connection(engine.send_body(connection)));
                if !waits {
                    return self.threads.run(send);
                }
                // Its head is sent: there is nothing left to say.
                if let Err(send) = self.threads.run_stream(place, send) {
                    self.note_refusal("too many streams wait for a thread");
                    catch_panic(|| drop(send));
                    here.return_connection(Returned::Closed(slot));
                }
            }
            Task::Run((mut exchange, recipient)) => self.threads.run(Box::new(move || {
                catch_panic(|| engine.service.run(&mut exchange));
                if exchange.holds_anything() {
                    return event_loop.return_ran((exchange, recipient));
                }
                event_loop.return_connection(engine.release_and_answer((exchange, recipient)));
            })),
        }
    }

    /// What is left to do once the handler has run, for threads that may block.
    fn release_and_answer(&self, (mut exchange, recipient): InFlight) -> Returned {
        let one = std::slice::from_mut(&mut exchange);
        let kept = catch_panic(|| self.service.release_all(one)).is_some();
        self.answer(self.complete(exchange, kept), recipient)
    }

    /// Closes those of these connections whose streams wait for a thread: their clients have left. One that has closed
    /// only its side cannot be told from these.
    pub(crate) fn drop_abandoned_streams(&self, event_loop: &EventLoop, ended: Vec<usize>) {
        if ended.is_empty() {
            return;
        }
        for (slot, send) in self.threads.take_back(event_loop.number, ended) {
            catch_panic(|| drop(send));
            event_loop.return_connection(Returned::Closed(slot));
        }
    }

    pub(crate) fn send_body(&self, mut connection: Box<Connection>) -> Returned {
        let slot = connection.slot;
        let sent = catch_panic(|| {
            let next = connection.send_body();
            returned(connection, next)
        });
        sent.unwrap_or(Returned::Closed(slot))
    }

    /// The answer of a request that plugins are done with. `kept` is false after a panic: what was finished then is
    /// unknown, and nothing is to be trusted.
    pub(crate) fn complete(&self, mut exchange: Exchange, kept: bool) -> Response {
        let completed = kept && catch_panic(|| self.service.complete(&mut exchange)).is_some();
        catch_panic(|| exchange.into_response())
            .filter(|_| completed)
            .unwrap_or_else(|| Response::new(StatusCode::INTERNAL_SERVER_ERROR))
    }

    pub(crate) fn answer(&self, response: Response, recipient: Recipient) -> Returned {
        let slot = recipient.connection.slot;
        catch_panic(|| self.send(response, recipient)).unwrap_or(Returned::Closed(slot))
    }

    pub(super) fn send(&self, response: Response, mut recipient: Recipient) -> Returned {
        let _guard = request_id::enter(response.request_id());
        let whole = recipient.connection.reclaim(recipient.stream);
        recipient.audience.keep_alive &= whole && self.stage() == ShutdownStage::Running;
        let mut status = response.status();
        let mut length = match response.body() {
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Stream { length, .. } => *length,
        };
        let mut outgoing = Outgoing::new(response, recipient.audience);
        if outgoing.may_wait() && self.threads.stream_queue_is_full() {
            self.note_refusal("too many streams wait for a thread");
            (status, length) = (StatusCode::SERVICE_UNAVAILABLE, None);
            outgoing = Outgoing::refusal(status, recipient.audience.head, None);
        }
        if let Some(logged) = recipient.logged {
            logged.answered(status, length);
        }
        let next = recipient.connection.answer(outgoing);
        returned(recipient.connection, next)
    }

    /// A request that was read becomes an exchange.
    pub(crate) fn begin(&self, connection: Box<Connection>, incoming: Incoming) -> InFlight {
        let Incoming { exchange, audience, stream } = incoming;
        let logged = self.options.access_log.then(|| Logged::new(exchange.request()));
        (exchange, Recipient { connection, audience, stream, logged })
    }

    /// Handles a request whose body still arrives: whatever reads it waits for the client, and must delay
    /// nobody else. Half of the threads are left for those that need not wait for theirs. A body has a deadline and
    /// a stream has none, so it takes no turn behind streams.
    pub(crate) fn receive(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        connection: Box<Connection>,
        incoming: Incoming,
    ) {
        let most = self.options.max_threads.div_ceil(2);
        if self.receiving.fetch_add(1, Ordering::SeqCst) >= most {
            self.receiving.fetch_sub(1, Ordering::SeqCst);
            let in_flight = self.begin(connection, incoming);
            return self.refuse(event_loop, in_flight, "too many bodies are arriving");
        }
        let (engine, event_loop) = (self.clone(), event_loop.clone());
        self.threads.run(Box::new(move || {
            let (mut exchange, recipient) = engine.begin(connection, incoming);
            let one = std::slice::from_mut(&mut exchange);
            catch_panic(|| engine.service.prepare(one));
            catch_panic(|| engine.service.run(&mut one[0]));
            let returned = engine.release_and_answer((exchange, recipient));
            engine.receiving.fetch_sub(1, Ordering::SeqCst);
            event_loop.return_connection(returned);
        }));
    }

    /// Computes a step of a handshake on one of the threads for these.
    #[cfg(feature = "https")]
    pub(crate) fn compute(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        mut connection: Box<Connection>,
    ) {
        let (engine, event_loop, asked) = (self.clone(), event_loop.clone(), Instant::now());
        self.handshakes.run(Box::new(move || {
            let slot = connection.slot;
            let computed = catch_panic(|| {
                let next =
                    if engine.is_cut_off() { Next::Close } else { connection.compute(asked) };
                returned(connection, next)
            });
            event_loop.return_connection(computed.unwrap_or(Returned::Closed(slot)));
        }));
    }

    /// Answers a request that came to a listener which only redirects.
    #[cfg(feature = "https")]
    pub(crate) fn redirect(
        self: &Arc<Engine>,
        event_loop: &Arc<EventLoop>,
        connection: Box<Connection>,
        incoming: Incoming,
    ) {
        let (exchange, recipient) = self.begin(connection, incoming);
        let redirects = self.options.redirects.as_ref();
        match redirects.map(|redirects| redirects.answer(exchange.request())) {
            None => event_loop.work().returned.push(Returned::Closed(recipient.connection.slot)),
            Some(Redirected::Answer(response)) => {
                let returned = self.answer(response, recipient);
                event_loop.work().returned.push(returned);
            }
            Some(Redirected::File(path)) => {
                let (engine, event_loop) = (self.clone(), event_loop.clone());
                self.threads.run(Box::new(move || {
                    event_loop
                        .return_connection(engine.answer(redirects::challenge(&path), recipient));
                }));
            }
        }
    }

    pub(super) fn note_refusal(&self, why: &str) {
        let line = || format!("refused a request: {why}");
        self.refused.log_throttled(log::Level::Warn, why, line);
    }

    /// Answers a request 503 and closes its connection.
    pub(crate) fn refuse(
        &self,
        event_loop: &EventLoop,
        (exchange, recipient): InFlight,
        why: &str,
    ) {
        let _guard = exchange.enter_request_id();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        self.note_refusal(why);
        catch_panic(|| drop(exchange));
        if let Some(logged) = recipient.logged {
            logged.answered(status, None);
        }
        let mut connection = recipient.connection;
        connection.reclaim(recipient.stream);
        let next = connection.answer(Outgoing::refusal(status, recipient.audience.head, None));
        event_loop.work().returned.push(returned(connection, next));
    }
}

fn returned(connection: Box<Connection>, next: Next) -> Returned {
    match next {
        Next::Close => Returned::Closed(connection.slot),
        _ => Returned::Open(connection),
    }
}
