//! The access log: a line per request, at target `bottle_session::access`.

use std::net::SocketAddr;
use std::time::Instant;

use http::StatusCode;

use crate::message::request::Request;

const TARGET: &str = "bottle_session::access";

/// What is to be said of a request once it is answered.
pub(super) struct Logged {
    line: String,
    started: Instant,
}

impl Logged {
    pub(super) fn new(request: &Request) -> Logged {
        // All else that could end the quotation or the line, servers refuse.
        let target = request.target().as_str().replace('"', "%22");
        let line = format!("{} \"{} {target}\"", name(request.remote_addr()), request.method());
        Logged { line, started: Instant::now() }
    }

    /// Writes the line: client, request, status, bytes of the body where they are known, time.
    pub(super) fn answered(&self, status: StatusCode, length: Option<u64>) {
        let length = length.map_or("-".to_owned(), |length| length.to_string());
        let took = self.started.elapsed();
        log::info!(target: TARGET, "{} {} {length} {took:?}", self.line, status.as_u16());
    }
}

/// Writes a line for what was no request.
pub(super) fn refused(peer: Option<SocketAddr>, status: StatusCode) {
    log::info!(target: TARGET, "{} \"-\" {} - -", name(peer), status.as_u16());
}

fn name(peer: Option<SocketAddr>) -> String {
    peer.map_or("-".to_owned(), |peer| peer.ip().to_string())
}
