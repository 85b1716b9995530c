//! `compare <server>` serves "hello" on a free port, and prints the port: `/` at once, `/sleep` after a
//! second. `compare idle <port> <connections> <process>` makes connections to a server, asks once over each,
//! and prints how many KiB of memory the server's process has then. `compare sessions <server> <redis>` serves
//! sessions that are kept in that Redis; `compare free-port` prints a port for one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use bottle_session::server::{native::Native, tiny_http::TinyHttp};
use bottle_session::{App, ListenAddress, Server, ShutdownHandle};

mod sessions;

type Failure = Box<dyn std::error::Error>;

const ADDRESS: &str = "127.0.0.1:0";
const SLEEP: Duration = Duration::from_secs(1);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["idle", port, connections, process] => idle(port.parse()?, connections.parse()?, process),
        ["free-port"] => {
            announce(TcpListener::bind(ADDRESS)?.local_addr()?.port());
            Ok(())
        }
        ["sessions", "native", redis] => sessions::ours(redis),
        ["sessions", "axum", redis] => sessions::axum(redis),
        ["sessions", "actix", redis] => sessions::actix(redis),
        ["native"] => ours(Native::bind(ADDRESS)?),
        ["tiny_http"] => ours(TinyHttp::bind(ADDRESS)?),
        ["axum"] => axum(),
        ["actix"] => Ok(actix()?),
        _ => Err("usage: compare [sessions] SERVER …; compare.sh and sessions.sh show how".into()),
    }
}

fn idle(port: u16, connections: usize, process: &str) -> Result<(), Failure> {
    const HELLO: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.write_all(HELLO)?;
        let mut answer = [0; 1024];
        let length = connection.read(&mut answer)?;
        if !answer[..length].starts_with(b"HTTP/1.1 200 ") {
            return Err("the server does not answer".into());
        }
        open.push(connection);
    }
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.split_whitespace().next());
    println!("{}", kib.ok_or("the system does not say how much memory a process has")?);
    drop(open);
    Ok(())
}

fn ours(server: impl Server) -> Result<(), Failure> {
    let mut app = App::new();
    app.get("/", || "hello");
    app.get("/sleep", || {
        std::thread::sleep(SLEEP);
        "slept"
    });
    ours_with(server, app)
}

fn ours_with(server: impl Server, app: App) -> Result<(), Failure> {
    if let ListenAddress::Tcp(address) = server.address() {
        announce(address.port());
    }
    Ok(server.serve(app.build()?, &ShutdownHandle::new())?)
}

fn announce(port: u16) {
    println!("{port}");
}

fn axum() -> Result<(), Failure> {
    use axum::routing::get;
    let sleep = || async {
        tokio::time::sleep(SLEEP).await;
        "slept"
    };
    let app = axum::Router::new().route("/", get(|| async { "hello" })).route("/sleep", get(sleep));
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(ADDRESS).await?;
        announce(listener.local_addr()?.port());
        Ok(axum::serve(listener, app).await?)
    })
}

fn actix() -> std::io::Result<()> {
    use actix_web::{App, HttpServer, web};
    actix_web::rt::System::new().block_on(async {
        let server = HttpServer::new(|| {
            App::new().route("/", web::get().to(|| async { "hello" })).route(
                "/sleep",
                web::get().to(|| async {
                    actix_web::rt::time::sleep(SLEEP).await;
                    "slept"
                }),
            )
        });
        let cores = std::thread::available_parallelism()?.get();
        let server = server.workers(cores).bind(ADDRESS)?;
        announce(server.addrs()[0].port());
        server.run().await
    })
}
