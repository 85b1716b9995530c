//! Where the native server listens, for whom there is room, and what operators see of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use bottle_session::server::native::{Native, ProxyHeaders};
use bottle_session::{App, Request, Response, Server, ShutdownHandle};

use crate::faults::wait_until;
use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::Program;
use crate::support::serving::{Client, Serving};

fn bind() -> Native {
    Native::bind("127.0.0.1:0").unwrap()
}

fn app() -> App {
    let mut app = App::new();
    app.get("/", || "hello");
    app.get("/endless", || Response::stream(std::io::repeat(b'x'), None));
    app
}

#[test]
fn out_of_file_descriptors_accepting_pauses_and_resumes() {
    let (greeter, _log) = Program::greeter_with_few_files(40);
    let connect = || TcpStream::connect(greeter.address).unwrap();
    let mut first = Client::new(connect());
    assert_eq!(first.get("/").status, 200);
    let many: Vec<_> = (0..80).map(|_| connect()).collect();
    assert_eq!(first.get("/").status, 200);
    drop(many);
    assert_eq!(Client::new(connect()).get("/").status, 200);
    assert_eq!(first.get("/").status, 200);
}

#[test]
fn a_connection_past_the_limit_is_told_so() {
    let server = Serving::start(bind().max_connections(2), app());
    let mut kept: Vec<_> = (0..2).map(|_| server.client()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let mut third = server.client();
    assert_eq!(third.reply().status, 503);
    assert!(third.is_closed());
    assert_eq!(kept[0].get("/").text(), "hello");
}

#[test]
fn a_client_past_the_limit_that_goes_on_sending_meets_no_reset() {
    let server = Serving::start(bind().max_connections(4), app());
    let mut kept: Vec<_> = (0..4).map(|_| server.client()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let mut beyond = server.client();
    assert_eq!(beyond.reply().status, 503);
    for _ in 0..10 {
        beyond.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n");
    }
    // Such connections take nobody's room.
    drop(kept.pop());
    let has_room = |client: &mut Client| client.get("/").status == 200;
    wait_until("there is room again", || has_room(&mut server.client()));
    drop(beyond);
}

#[test]
fn only_a_trusted_proxy_says_who_the_client_is_and_only_in_the_headers_that_count() {
    let forwarded = "Forwarded: for=9.9.9.9;proto=https;host=outer";
    let x_forwarded = "X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Host: x-outer";
    let table = [
        (&[][..], ProxyHeaders::XForwarded, "127.0.0.1 Http a"),
        (&["10.0.0.0/8"], ProxyHeaders::Forwarded, "127.0.0.1 Http a"),
        (&["127.0.0.0/8"], ProxyHeaders::XForwarded, "8.8.8.8 Http x-outer"),
        (&["127.0.0.1"], ProxyHeaders::Forwarded, "9.9.9.9 Https outer"),
    ];
    for (trusted, headers, expected) in table {
        let mut app = App::new();
        app.get("/", |request: &Request| {
            let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
            format!("{client} {:?} {}", request.scheme(), request.host().unwrap_or("-"))
        });
        let native = bind().trusted_proxies(trusted.iter().copied()).unwrap();
        let server = Serving::start(native.proxy_headers(headers), app);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{forwarded}\r\n{x_forwarded}\r\n\r\n");
        let mut client = server.client();
        assert_eq!(client.send(request).reply().text(), expected, "{trusted:?} {headers:?}");
    }
}

#[test]
fn a_unix_socket_serves_and_is_cleared_away() {
    let path = std::env::temp_dir().join(format!("bs-native-{}.socket", std::process::id()));
    let address = format!("unix:{}", path.display());
    // Left behind by a process that was killed.
    drop(UnixListener::bind(&path).unwrap());
    let native = Native::bind(&address).unwrap().trusted_proxies(["unix"]).unwrap();
    let mut app = App::new();
    app.get("/", |request: &Request| format!("{:?}", request.remote_addr()));
    let (service, shutdown) = (app.build().unwrap(), ShutdownHandle::new());
    std::thread::scope(|scope| {
        scope.spawn(|| native.serve(service, &shutdown).unwrap());
        let mut stream = UnixStream::connect(&path).unwrap();
        let request = "GET / HTTP/1.0\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        shutdown.shutdown();
        assert!(text.ends_with("Some(9.9.9.9:0)"), "{text}");
    });
    assert!(!path.exists());
}

#[test]
fn a_socket_that_systemd_passes_on_is_served_and_outlives_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Connections made before the program runs are served, too: that is what passing sockets on is for.
    let mut early = Client::new(TcpStream::connect(address).unwrap());
    early.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let first = Program::greeter_handed(listener.try_clone().unwrap());
    assert_eq!(early.reply().status, 200);
    assert!(first.terminate().success());
    for _ in 0..2 {
        let greeter = Program::greeter_handed(listener.try_clone().unwrap());
        assert_eq!(greeter.address, address);
        assert_eq!(Client::new(TcpStream::connect(address).unwrap()).get("/").status, 200);
        assert!(greeter.terminate().success());
    }
}

#[test]
fn a_unix_socket_that_systemd_passes_on_is_served_and_outlives_the_server() {
    let path = std::env::temp_dir().join(format!("bs-passed-{}.socket", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let greeter = Program::greeter_handed(listener);
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(greeter.terminate().success());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_a_passed_socket_the_error_says_what_would_do() {
    // Also the second time: none is in use.
    for _ in 0..2 {
        let error = Native::bind("systemd").unwrap_err().to_string();
        let why = "cannot listen on \"systemd\": systemd passed no socket on";
        assert!(error.contains(why), "{error}");
        assert!(error.contains("systemd-socket-activate"), "{error}");
    }
}

#[test]
fn the_access_log_has_a_line_for_each_request_when_it_is_asked_for() {
    collect_logs();
    let mut app = app();
    app.get("/logged/<what>", |what: &str| format!("{what} is logged"));
    let server = bind().access_log(true).trusted_proxies(["127.0.0.1"]).unwrap().max_target(100);
    let server = Serving::start(server, app);
    let mut client = server.client();
    let fields = "Host: a\r\nX-Forwarded-For: 192.0.2.7\r\n";
    for target in ["/logged/\"tea?hot=yes", "/logged", "/endless"] {
        client.send(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"));
        if target != "/endless" {
            client.reply();
        }
    }
    // Headers of an endless answer are there: its line has been written.
    client.stream.read_exact(&mut [0; 100]).unwrap();
    let refused = server.client().get(&format!("/{}", "x".repeat(100)));
    assert_eq!(refused.status, 414);
    let quiet = Serving::start(bind(), self::app());
    assert_eq!(quiet.client().get("/not-logged").status, 404);

    let took = |line: &String| line.rsplit_once(' ').unwrap().0.to_owned();
    let lines: Vec<_> = logs_of("192.0.2.7").iter().map(took).collect();
    let expected = [
        "INFO 192.0.2.7 \"GET /logged/%22tea?hot=yes\" 200 14",
        "INFO 192.0.2.7 \"GET /logged\" 404 836",
        "INFO 192.0.2.7 \"GET /endless\" 200 -",
    ];
    assert_eq!(lines, expected);
    assert_eq!(logs_of("127.0.0.1 \"-\" 414").len(), 1);
    assert_eq!(logs_of("/not-logged").len(), 0);
}
