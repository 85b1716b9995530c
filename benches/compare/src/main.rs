//! `compare <server>` serves "hello" on a free port, and prints the port: `/` at once, `/sleep` after a
//! second.

use std::time::Duration;

use bottle_session::server::{native::Native, tiny_http::TinyHttp};
use bottle_session::{App, ListenAddress, Server, ShutdownHandle};

type Failure = Box<dyn std::error::Error>;

const ADDRESS: &str = "127.0.0.1:0";
const SLEEP: Duration = Duration::from_secs(1);

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("native") => ours(Native::bind(ADDRESS)?),
        Some("tiny_http") => ours(TinyHttp::bind(ADDRESS)?),
        Some("axum") => axum(),
        Some("actix") => Ok(actix()?),
        _ => Err("usage: compare native|tiny_http|axum|actix".into()),
    }
}

fn ours(server: impl Server) -> Result<(), Failure> {
    let mut app = App::new();
    app.get("/", || "hello");
    app.get("/sleep", || {
        std::thread::sleep(SLEEP);
        "slept"
    });
    if let ListenAddress::Tcp(address) = server.address() {
        println!("{}", address.port());
    }
    Ok(server.serve(app.build()?, &ShutdownHandle::new())?)
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
        println!("{}", listener.local_addr()?.port());
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
        println!("{}", server.addrs()[0].port());
        server.run().await
    })
}
