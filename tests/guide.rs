//! The settings in the guide, on the real proxies.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};

use bottle_session::http::StatusCode;
use bottle_session::server::native::Native;
use bottle_session::{
    App, HttpError, ListenAddress, Request, Response, Result, Server, Session, SessionPlugin,
    ShutdownHandle, abort,
};

use crate::faults::wait_until;
use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::example;
use crate::support::proxies::{Proxy, folder, runs_as_root};
use crate::support::serving::Client;

const PAGE: &str = include_str!("../src/guide/proxies.md");

/// The settings of the guide for this proxy.
fn settings(language: &str) -> &'static str {
    block(PAGE, language)
}

fn block(page: &'static str, language: &str) -> &'static str {
    page.split_once(&format!("```{language}\n"))
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap_or_else(|| panic!("the guide has settings for {language}"))
        .0
}

/// Events that the visitor must have before the next one is made.
struct Events(mpsc::Receiver<&'static str>);

impl Read for Events {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Ok(event) = self.0.recv() else { return Ok(0) };
        buffer[..event.len()].copy_from_slice(event.as_bytes());
        Ok(event.len())
    }
}

fn app(events: mpsc::Receiver<&'static str>, protected: &Path) -> App {
    let (events, protected) = (Mutex::new(Some(events)), protected.display().to_string());
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/who", |request: &Request| {
        let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
        let host = request.host().unwrap_or("-");
        format!("{client} {:?} {host} {:?}", request.scheme(), request.prefix())
    });
    app.get("/login", |session: &mut Session| session.set("user", "Ada"));
    app.get(
        "/report/<name>",
        move |session: &mut Session, name: &str| -> Result<Response, HttpError> {
            if session.get("user").is_none() {
                return Err(abort(403, "Log in first."));
            }
            Ok(Response::new(StatusCode::OK)
                .with_header("X-Accel-Redirect", format!("/protected/{name}"))
                .with_header("X-Sendfile", format!("{protected}/{name}")))
        },
    );
    app.post("/upload", |request: &Request| -> Result<String> {
        let mut body = request.body_reader()?;
        Ok(std::io::copy(&mut body, &mut std::io::sink())?.to_string())
    });
    app.get("/events", move || {
        let events = events.lock().unwrap().take().expect("asked for once");
        Response::stream(Events(events), None)
            .with_header("Content-Type", "text/event-stream")
            .with_header("Cache-Control", "no-store")
            .with_header("X-Accel-Buffering", "no")
    });
    app.get("/health", || "ok");
    app
}

/// Who sends a file that the app names.
#[derive(Clone, Copy, PartialEq)]
enum Sends {
    Nginx,
    Apache,
    Nobody,
}

/// Serves the app on a TCP and on a unix socket behind this proxy, and visits it.
fn behind(name: &str, proxy: impl Fn(&str, &Path) -> Proxy, sends: Sends) {
    collect_logs();
    for unix in [false, true] {
        let folder = folder(&format!("guide-{name}-{unix}"));
        std::fs::create_dir(folder.join("protected")).unwrap();
        std::fs::write(folder.join("protected/report.pdf"), "for members").unwrap();
        let group = if runs_as_root() { "?group=www-data" } else { "" };
        let address = match unix {
            true => format!("unix:{}{group}", folder.join("app.socket").display()),
            false => "127.0.0.1:0".to_owned(),
        };
        let trusted = if unix { "unix" } else { "127.0.0.1" };
        let server = Native::bind(&address).unwrap().trusted_proxies([trusted]).unwrap();
        let upstream = match server.address() {
            ListenAddress::Tcp(address) | ListenAddress::Tls(address) => address.to_string(),
            ListenAddress::Unix(path) => path.display().to_string(),
        };
        let (send, events) = mpsc::channel();
        let app = app(events, &folder.join("protected"));
        let (service, shutdown) = (app.build().unwrap(), ShutdownHandle::new());
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve(service, &shutdown).unwrap());
            let _stop = Stop(&shutdown);
            visit(&proxy(&upstream, &folder), send, sends);
        });
    }
}

fn visit(proxy: &Proxy, events: mpsc::Sender<&'static str>, sends: Sends) {
    let mut client = proxy.client();
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                X-Forwarded-Prefix: /evil\r\n";
    let who =
        client.send(format!("GET /who HTTP/1.1\r\nHost: shop.example:81\r\n{lies}\r\n")).reply();
    assert_eq!(who.text(), "127.0.0.1 Http shop.example:81 \"\"", "{}", proxy.log());

    let length = 3_000_000;
    client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.send("x".repeat(length)).reply().text(), length.to_string());

    // Checks that connect and close, ask and close, or break off: no line in the log.
    drop(proxy.client());
    assert_eq!(proxy.client().get("/health").text(), "ok");
    proxy.client().send("GET /hea");

    assert_eq!(client.get("/report/report.pdf").status, 403);
    let cookie = client.get("/login").header("set-cookie").unwrap().to_owned();
    let cookie = cookie.split_once(';').unwrap().0;
    let report = format!("GET /report/report.pdf HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    let report = client.send(report).reply();
    match sends {
        Sends::Nginx | Sends::Apache => {
            assert_eq!(report.text(), "for members", "{}", proxy.log());
            assert_eq!(client.get("/protected/report.pdf").status, 404, "for nobody directly");
        }
        Sends::Nobody => {
            assert_eq!(report.header("x-accel-redirect"), Some("/protected/report.pdf"));
        }
    }

    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut received = Vec::new();
    for event in ["data: one\n\n", "data: two\n\n"] {
        events.send(event).unwrap();
        // It arrives before there is another one.
        while !String::from_utf8_lossy(&received).contains(event) {
            let mut byte = [0];
            client.stream.read_exact(&mut byte).unwrap();
            received.extend(byte);
        }
    }
    // Other tests of the same process log what happens to their connections.
    assert_eq!(logs_of("/health"), [""; 0]);
}

struct Stop<'a>(&'a ShutdownHandle);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.shutdown_now();
    }
}

fn user() -> Option<&'static str> {
    runs_as_root().then_some("www-data")
}

#[test]
fn the_settings_for_nginx_serve_uploads_streams_and_protected_files() {
    let proxy = |upstream: &str, folder: &Path| {
        let upstream = match upstream.starts_with('/') {
            true => format!("unix:{upstream}"),
            false => upstream.to_owned(),
        };
        let lines = settings("nginx")
            .replace("server 127.0.0.1:8888;", &format!("server {upstream};"))
            .replace("listen 443 ssl;", "listen LISTEN;")
            .replace("/srv/app/protected/", folder.join("protected/").to_str().unwrap());
        Proxy::nginx_as(folder.to_owned(), user(), &lines)
    };
    behind("nginx", proxy, Sends::Nginx);
}

#[test]
fn the_settings_for_haproxy_serve_uploads_and_streams() {
    let proxy = |upstream: &str, folder: &Path| {
        let lines = settings("haproxy")
            .replace("server app 127.0.0.1:8888 ", &format!("server app {upstream} "))
            .replace("bind :443 ssl crt /etc/haproxy/site.pem", "bind LISTEN");
        Proxy::haproxy(folder.to_owned(), &lines)
    };
    behind("haproxy", proxy, Sends::Nobody);
}

#[test]
fn the_settings_for_apache_serve_uploads_and_streams() {
    let proxy = |upstream: &str, folder: &Path| {
        let files = settings("apache-files")
            .replace("/srv/app/protected", folder.join("protected").to_str().unwrap());
        let pass = match upstream.starts_with('/') {
            true => format!("ProxyPass / unix:{upstream}|http://app/"),
            false => format!("ProxyPass / http://{upstream}/"),
        };
        let lines = settings("apache")
            .replace("ProxyPass / http://127.0.0.1:8888/", &pass)
            .replace("<VirtualHost *:443>", "<VirtualHost *>")
            .replace("</VirtualHost>", &format!("{files}</VirtualHost>"));
        Proxy::apache(folder.to_owned(), &lines)
    };
    behind("apache", proxy, Sends::Apache);
}

#[test]
fn an_app_below_a_path_of_nginx_has_it_in_its_cookies() {
    // What the guide says in a sentence.
    let location =
        "location /shop/ { proxy_pass http://app/; proxy_set_header X-Forwarded-Prefix /shop; }";
    assert!(PAGE.contains(location));
    let server = Native::bind("127.0.0.1:0").unwrap().trusted_proxies(["127.0.0.1"]).unwrap();
    let server =
        crate::support::serving::Serving::start(server, app(mpsc::channel().1, Path::new("/")));
    let lines = settings("nginx")
        .replace("server 127.0.0.1:8888;", &format!("server {};", server.address))
        .replace("listen 443 ssl;", "listen LISTEN;")
        .replace("    location / {", &format!("    {location}\n    location / {{"));
    let nginx = Proxy::nginx(folder("guide-below"), &lines);
    let cookie = nginx.client().get("/shop/login").header("set-cookie").unwrap().to_owned();
    assert!(cookie.contains("; Path=/shop;") || cookie.ends_with("; Path=/shop"), "{cookie}");
}

#[test]
fn systemd_understands_the_units_and_hands_the_program_its_socket() {
    let page = include_str!("../src/guide/running.md");
    let (socket, service) = (block(page, "systemd-socket"), block(page, "systemd-service"));
    let program = example("own_plugin");
    let folder = folder("units");
    let start = "ExecStart=/usr/local/bin/app";
    let service = service.replace(start, &format!("ExecStart={}", program.display()));
    std::fs::write(folder.join("app.socket"), socket).unwrap();
    std::fs::write(folder.join("app.service"), &service).unwrap();
    let units = [folder.join("app.socket"), folder.join("app.service")];
    let verified = Command::new("systemd-analyze").arg("verify").args(units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    std::fs::remove_dir_all(folder).unwrap();

    let environment = service.lines().find_map(|line| line.strip_prefix("Environment=")).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen={address}"));
    for variable in environment.split(' ') {
        command.arg(format!("--setenv={variable}"));
    }
    let mut systemd = command
        .arg(program)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate; tests/run.sh installs it");
    wait_until("somebody listens", || TcpStream::connect(address).is_ok());
    let status = Client::new(TcpStream::connect(address).unwrap()).get("/plain").status;
    // It has become the program.
    let _ = Command::new("kill").args(["-TERM", &systemd.id().to_string()]).status();
    assert!(systemd.wait().unwrap().success());
    assert_eq!(status, 200);
}
