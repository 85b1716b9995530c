//! `peers bench [OPTIONS]` measures the servers side by side, as `benches/run.sh` has it do; `peers bench --help`
//! lists the options. `peers tls [OPTIONS]` measures those over TLS, as `benches/run.sh --tls` has it do. `peers serve SERVER ADDRESS REDIS_URL` is one of the servers, and `peers delay LISTEN TARGET
//! MICROSECONDS` the proxy that puts Redis farther away.

#![forbid(unsafe_code)]

use std::time::Duration;

mod bench;
mod delay;
mod servers;
mod tls;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["bench", ref options @ ..] => bench::run(options),
        ["tls", ref options @ ..] => tls::run(options),
        ["shake-hands", port, seconds] => tls::load::shake_hands(port.parse()?, seconds.parse()?),
        ["visit", port, seconds, clients] => {
            tls::load::visit_in_a_storm(port.parse()?, seconds.parse()?, clients.parse()?)
        }
        ["storm", port, clients] => tls::load::storm(port.parse()?, clients.parse()?),
        ["serve-tls", "ours", address, redis, folder] => {
            servers::ours::serve_tls(address, redis, folder)
        }
        ["serve-tls", "axum", address, redis, folder] => {
            servers::axum::serve_tls(address, redis, folder)
        }
        ["serve-tls", "actix", address, redis, folder] => {
            servers::actix::serve_tls(address, redis, folder)
        }
        ["serve", "ours", address, redis] => servers::ours::serve(address, redis),
        ["serve", "file", address, file] => servers::ours::serve_from_file(address, file),
        ["serve", "memory", address, _] => servers::ours::serve_from_memory(address),
        ["serve", "axum", address, redis] => servers::axum::serve(address, redis),
        ["serve", "actix", address, redis] => servers::actix::serve(address, redis),
        ["serve", "tiny_http", address, redis] => servers::tiny_http::serve(address, redis),
        ["delay", listen, target, microseconds] => {
            delay::serve(listen, target, Duration::from_micros(microseconds.parse()?))
        }
        _ => {
            Err("usage: peers bench [OPTIONS] | tls [OPTIONS] | serve SERVER ADDRESS REDIS_URL | \
                  serve-tls SERVER ADDRESS REDIS_URL FOLDER | shake-hands PORT SECONDS | \
                  visit PORT SECONDS CLIENTS | storm PORT CLIENTS | delay LISTEN TARGET MICROSECONDS"
                .into())
        }
    }
}
