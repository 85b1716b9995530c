//! Behind nginx, with the lines that the README gives for it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bottle_session::server::native::Native;
use bottle_session::{
    App, CsrfPlugin, Request, Response, Server, Session, SessionPlugin, ShutdownHandle,
};

use crate::support::serving::Client;

/// An nginx in the foreground of a process of its own, ended when this is dropped.
struct Nginx {
    process: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    /// One that passes everything on to the socket in this folder.
    fn start(folder: PathBuf) -> Nginx {
        let location = include_str!("../README.md")
            .split_once("```nginx\n")
            .and_then(|(_, rest)| rest.split_once("```"))
            .expect("the README has lines for nginx")
            .0;
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let location = location
            .replace("/run/app.socket", folder.join("app.socket").to_str().unwrap())
            .replace("listen 443 ssl;", &format!("listen {free};"));
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{location}\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let process = Command::new("nginx")
            .args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "log"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx; tests/run.sh installs it");
        let mut nginx = Nginx { process, folder, address: free };
        while TcpStream::connect(nginx.address).is_err() {
            if let Some(status) = nginx.process.try_wait().unwrap() {
                let log = std::fs::read_to_string(nginx.folder.join("log")).unwrap_or_default();
                panic!("nginx ended ({status}): {log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        nginx
    }

    fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn app() -> App {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory().hardened()).unwrap();
    app.install(CsrfPlugin::new()).unwrap();
    app.get("/who", |request: &Request| {
        let client = request.remote_addr().map_or("-".to_owned(), |at| at.ip().to_string());
        format!("{client} {:?} {}", request.scheme(), request.host().unwrap_or("-"))
    });
    app.get("/token", |session: &mut Session| session.csrf_token().to_owned());
    app.post("/buy", |session: &mut Session| {
        let bought = session.parse("bought").unwrap_or(0) + 1;
        session.set("bought", bought);
        bought.to_string()
    });
    app.post("/size", |request: &Request| -> bottle_session::Result<String> {
        let mut reader = request.body_reader()?;
        Ok(std::io::copy(&mut reader, &mut std::io::sink())?.to_string())
    })
    .skip("csrf");
    app.get("/many", || {
        Response::stream(std::io::Read::take(std::io::repeat(b'x'), 300_000), None)
    });
    app
}

#[test]
fn behind_nginx_sessions_work_and_only_nginx_is_believed() {
    let folder = std::env::temp_dir().join(format!("bs-nginx-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let address = format!("unix:{}", folder.join("app.socket").display());
    let server = Native::bind(&address).unwrap().trusted_proxies(["unix"]).unwrap();
    let (service, shutdown) = (app().build().unwrap(), ShutdownHandle::new());
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve(service, &shutdown).unwrap());
        let stop = Stop(&shutdown);
        let nginx = Nginx::start(folder);
        let mut client = nginx.client();

        // What a client makes up about itself, nginx replaces.
        let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                    Forwarded: for=6.6.6.6;proto=https;host=evil\r\n";
        client.send(format!("GET /who HTTP/1.1\r\nHost: shop.example:81\r\n{lies}\r\n"));
        assert_eq!(client.reply().text(), "127.0.0.1 Http shop.example:81");

        // A session, and a form that is checked against its token and the site's own address.
        let reply = client.get("/token");
        let cookie = reply.header("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
        let cookie = cookie.split_once(';').unwrap().0;
        let token = reply.text();
        let buy = |origin: &str, token: &str| {
            format!(
                "POST /buy HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nOrigin: {origin}\r\n\
                 X-CSRF-Token: {token}\r\nContent-Length: 0\r\n\r\n"
            )
        };
        for (origin, token, expected) in [
            ("http://a", token, (200, "1")),
            ("http://a", token, (200, "2")),
            ("http://evil", token, (403, "")),
            ("http://a", "made-up", (403, "")),
        ] {
            let reply = client.send(buy(origin, token)).reply();
            assert_eq!(reply.status, expected.0, "{origin} {token}");
            assert!(reply.text().starts_with(expected.1), "{}", reply.text());
        }

        // Bodies of unknown length, both ways.
        let chunk = format!("8000\r\n{}\r\n", "y".repeat(0x8000));
        let head = "POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(head);
        for _ in 0..16 {
            client.stream.write_all(chunk.as_bytes()).unwrap();
        }
        assert_eq!(client.send("0\r\n\r\n").reply().text(), (16 * 0x8000).to_string());
        assert_eq!(client.get("/many").body.len(), 300_000);
        drop(stop);
    });
}

/// Ends the server, also where the test fails.
struct Stop<'a>(&'a ShutdownHandle);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.shutdown_now();
    }
}
