//! One suite for all servers. It holds what each of them can do; what only the native one can (limits,
//! deadlines, hostile clients: tiny_http has no time-outs, no head limit and reads framing more loosely)
//! is in hostile/.

use std::io::{Read, repeat};
use std::sync::{Arc, Mutex, mpsc};

use bottle_session::{App, HttpError, Request, Response, ResponseHead, Scheme, abort};

use crate::support::serving::Serving;

fn app() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.get("/hello/<name>", |name: &str| format!("hello, {name}"));
    app.post("/echo", |request: &Request| request.body().map(|body| body.to_vec()));
    app.post("/length", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        let length = std::io::copy(&mut reader, &mut std::io::sink())?;
        Ok(length.to_string())
    })
    .body_limit(u64::MAX);
    app.post("/ignore", || "ignored");
    app.get("/stream", || Response::stream(repeat(b'x').take(100_000), None));
    app.get("/known", || Response::stream(repeat(b'y').take(70_000), Some(70_000)));
    app.get("/large", || vec![b'z'; 3_000_000]);
    app.get("/overlong", || Response::stream(&b"abcdefgh"[..], Some(3)));
    app.get("/framed", || {
        let text = Response::text("abc").with_header("content-length", "999");
        text.with_header("transfer-encoding", "chunked, gzip")
    });
    app.get("/unmodified", || (304, "text"));
    app.get("/no-content", || (204, Response::stream(&b"text"[..], None)));
    app.get("/empty", || bottle_session::http::StatusCode::NO_CONTENT);
    app.get("/panic", || -> &'static str { panic!("on purpose") });
    app.get("/cookie", |head: &mut ResponseHead| -> Result<(), HttpError> {
        head.set_cookie(("seen", "yes")).unwrap();
        Err(abort(403, "no"))
    });
    app.get("/about", |request: &Request| {
        let port = request.remote_addr().map(|address| address.ip().to_string());
        let secure = request.scheme() == Scheme::Https;
        format!("{:?} {} {port:?} {secure}", request.version(), request.target())
    });
    app
}

macro_rules! suite {
    ($server:ident, $bind:expr) => {
        mod $server {
            use super::*;

            fn serve(app: App) -> Serving {
                Serving::start($bind("127.0.0.1:0").unwrap(), app)
            }

            #[test]
            fn answers_on_one_connection() {
                let server = serve(app());
                let mut client = server.client();
                for _ in 0..3 {
                    assert_eq!(client.get("/").text(), "hello");
                    assert_eq!(client.get("/hello/Ada%20L").text(), "hello, Ada L");
                    assert_eq!(client.get("/nowhere").status, 404);
                    assert_eq!(client.get("/panic").status, 500);
                    assert_eq!(client.get("/empty").status, 204);
                    let refused = client.get("/cookie");
                    assert_eq!((refused.status, refused.header("set-cookie")), (403, Some("seen=yes")));
                    let date = client.get("/").header("date").map(str::to_owned).unwrap();
                    assert!(date.ends_with(" GMT"), "{date}");
                }
            }

            #[test]
            fn a_request_knows_where_it_comes_from() {
                let server = serve(app());
                let about = server.client().get("/about?a=%20").text().to_owned();
                let secure = server.is_https();
                assert_eq!(about, format!("HTTP/1.1 /about?a=%20 Some(\"127.0.0.1\") {secure}"));
            }

            #[test]
            fn bodies_arrive_by_length_and_in_chunks() {
                let server = serve(app());
                let mut client = server.client();
                let head = "POST /echo HTTP/1.1\r\nHost: a\r\n";
                let sized = format!("{head}Content-Length: 5\r\n\r\nabcde");
                assert_eq!(client.send(sized).reply().text(), "abcde");
                let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
                assert_eq!(client.send(format!("{head}{chunked}")).reply().text(), "abcde");
                let large = vec![b'x'; 5_000_000];
                let head = "POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n";
                assert_eq!(client.send(head).send(large).reply().text(), "5000000");
                assert_eq!(client.get("/").text(), "hello");
            }

            #[test]
            fn a_body_past_the_apps_limit_is_a_413() {
                let server = serve(app());
                let mut client = server.client();
                client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n");
                client.send(vec![b'x'; 1_048_577]);
                assert_eq!(client.reply().status, 413);
                assert_eq!(server.client().get("/").text(), "hello");
            }

            #[test]
            fn an_unread_body_is_no_request() {
                let server = serve(app());
                let mut client = server.client();
                let inner = "GET /hello/mallory HTTP/1.1\r\nHost: a\r\n\r\n";
                let length = inner.len();
                client.send(format!(
                    "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"
                ));
                assert_eq!(client.reply().text(), "ignored");
                assert_eq!(client.get("/").text(), "hello");
            }

            #[test]
            fn streams_are_sent_whole() {
                let server = serve(app());
                let mut client = server.client();
                for _ in 0..2 {
                    let stream = client.get("/stream");
                    assert_eq!(stream.header("transfer-encoding"), Some("chunked"));
                    assert_eq!(stream.body, vec![b'x'; 100_000]);
                    let known = client.get("/known");
                    assert_eq!(known.header("content-length"), Some("70000"));
                    assert_eq!(known.body, vec![b'y'; 70_000]);
                    assert_eq!(client.get("/large").body, vec![b'z'; 3_000_000]);
                }
            }

            #[test]
            fn an_answer_has_the_framing_of_the_server_whatever_its_handler_says() {
                let server = serve(app());
                let mut client = server.client();
                let table = [
                    ("/overlong", 200, "abc"),
                    ("/framed", 200, "abc"),
                    ("/unmodified", 304, ""),
                    ("/no-content", 204, ""),
                ];
                for (path, status, body) in table {
                    let reply = client.get(path);
                    assert_eq!((reply.status, reply.text()), (status, body), "{path}");
                    assert_eq!(reply.header("transfer-encoding"), None, "{path}");
                    let head = format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(client.send(head).reply_to_head().status, status, "{path}");
                    assert_eq!(client.get("/").text(), "hello", "behind {path}");
                }
            }

            #[test]
            fn head_has_the_headers_and_no_body() {
                let server = serve(app());
                let mut client = server.client();
                for (path, length) in [("/", "5"), ("/known", "70000"), ("/large", "3000000")] {
                    let head = client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    let reply = head.reply_to_head();
                    assert_eq!((reply.status, reply.header("content-length")), (200, Some(length)));
                }
                assert_eq!(client.get("/").text(), "hello");
            }

            #[test]
            fn an_http_1_0_client_gets_an_end_it_understands() {
                let server = serve(app());
                let mut client = server.client();
                let reply = client.send("GET /stream HTTP/1.0\r\n\r\n").reply();
                assert_eq!(reply.header("transfer-encoding"), None);
                assert_eq!(reply.body, vec![b'x'; 100_000]);
                assert!(client.is_closed());
                let mut client = server.client();
                let keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
                assert_eq!(client.send(keep).reply().text(), "hello");
                assert_eq!(client.send(keep).reply().text(), "hello");
            }

            #[test]
            fn pipelined_requests_are_answered_in_order() {
                let server = serve(app());
                let mut client = server.client();
                let requests: String = (0..50)
                    .map(|n| format!("GET /hello/{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .collect();
                client.send(requests);
                for n in 0..50 {
                    assert_eq!(client.reply().text(), format!("hello, {n}"));
                }
            }

            #[test]
            fn a_client_that_asks_to_close_is_closed() {
                let server = serve(app());
                let mut client = server.client();
                let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                assert_eq!(client.send(close).reply().text(), "hello");
                assert!(client.is_closed());
            }

            #[test]
            fn expect_100_continue_is_told_to_continue() {
                let server = serve(app());
                let mut client = server.client();
                client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
                assert_eq!(client.reply().status, 100);
                assert_eq!(client.send("abc").reply().text(), "abc");
            }

            #[test]
            fn a_shutdown_finishes_what_runs() {
                let (entered, started) = mpsc::channel();
                let (let_go, gate) = mpsc::channel::<()>();
                let (entered, gate) = (Mutex::new(entered), Arc::new(Mutex::new(gate)));
                let mut app = app();
                app.get("/slow", move || {
                    entered.lock().unwrap().send(()).unwrap();
                    let _ = gate.lock().unwrap().recv();
                    "finished"
                });
                let server = serve(app);
                let mut client = server.client();
                client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
                started.recv().unwrap();
                server.shutdown.shutdown();
                let_go.send(()).unwrap();
                assert_eq!(client.reply().text(), "finished");
                drop(client);
                server.join();
            }
        }
    };
}

suite!(native, bottle_session::server::native::Native::bind);
#[cfg(feature = "https")]
suite!(https, |address| bottle_session::server::native::Native::bind(address)
    .map(crate::support::tls::inside));
#[cfg(feature = "tiny_http")]
suite!(tiny_http, bottle_session::server::tiny_http::TinyHttp::bind);

/// An exception of tiny_http: its accepting thread ends some time after the server, and holds the port
/// until then.
#[test]
fn the_native_servers_port_can_be_used_again_at_once() {
    use bottle_session::server::native::Native;
    let server = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app());
    let address = server.address;
    assert_eq!(server.client().get("/").text(), "hello");
    server.shutdown.shutdown();
    server.join();
    let again = Serving::start(Native::bind(&address.to_string()).unwrap(), app());
    assert_eq!(again.client().get("/").text(), "hello");
}
