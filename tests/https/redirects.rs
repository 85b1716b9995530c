//! The port of plain HTTP that sends visitors on, and lets certbot show its challenges.

use bottle_session::server::native::Native;

use super::{app, bind};
use crate::support::serving::{Client, Serving};
use crate::support::tls::Folder;

/// A server, and where its listener for redirects is.
fn serve(native: Native) -> (Serving, std::net::SocketAddr) {
    // Port 0 is not told of: a port that is free now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let native = native.redirect_from(&free.to_string()).unwrap();
    (Serving::start(native, app()), free)
}

fn ask(address: std::net::SocketAddr, head: &str) -> crate::support::serving::Reply {
    Client::new(std::net::TcpStream::connect(address).unwrap()).send(head).reply()
}

#[test]
fn requests_are_sent_on_to_the_same_at_https_and_only_to_names_of_the_certificate() {
    let (server, plain) = serve(bind());
    let own = server.address.port();
    let location = |target: &str, host: &str| {
        let reply = ask(plain, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!([308, 400].contains(&reply.status), "{reply:?}");
        assert_eq!(reply.status == 308, reply.header("location").is_some());
        reply.header("location").map(str::to_owned)
    };
    for (target, host, expected) in [
        ("/", "example.org", format!("https://example.org:{own}/")),
        ("/a%20b?c=d&e", "example.org", format!("https://example.org:{own}/a%20b?c=d&e")),
        ("/", "EXAMPLE.org:80", format!("https://EXAMPLE.org:{own}/")),
        ("/", "www.example.net", format!("https://www.example.net:{own}/")),
        ("/", "127.0.0.1:8080", format!("https://127.0.0.1:{own}/")),
        ("/", "[::1]:8080", format!("https://[::1]:{own}/")),
        ("//evil.example/x", "example.org", format!("https://example.org:{own}//evil.example/x")),
        ("http://example.org/x?y", "evil.example", format!("https://example.org:{own}/x?y")),
    ] {
        assert_eq!(location(target, host).as_ref(), Some(&expected), "{target} {host}");
    }
    for (target, host) in [
        ("/", "evil.example"),
        ("/", "example.org.evil.example"),
        ("/", "a.b.example.net"),
        ("/", "example.net"),
        ("/", "127.0.0.2"),
        ("http://evil.example/", "example.org"),
        ("/", ""),
        ("/", "example.org@evil.example"),
    ] {
        assert_eq!(location(target, host), None, "{target} {host:?}");
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.org\r\nHost: example.org\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ] {
        assert_eq!(ask(plain, head).status, 400, "{head:?}");
    }
    // What the app is asked for over TLS is the app's.
    assert_eq!(server.client().get("/").text(), "hello");
}

#[test]
fn every_method_is_sent_on_with_308_and_bodies_are_nobodys() {
    let (_server, plain) = serve(bind().public_port(443).body_buffer(100));
    let mut client = Client::new(std::net::TcpStream::connect(plain).unwrap());
    for length in [0, 3, 100] {
        let head =
            format!("POST /x HTTP/1.1\r\nHost: example.org\r\nContent-Length: {length}\r\n\r\n");
        let reply = client.send(head + &"x".repeat(length)).reply();
        assert_eq!((reply.status, reply.header("location")), (308, Some("https://example.org/x")));
    }
    client.send("HEAD /x HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 308);
    client.send("DELETE /x HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(client.reply().status, 308);
    // A body that is not waited for ends the connection.
    client.send("POST /x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5000\r\n\r\nabc");
    let reply = client.reply();
    assert_eq!((reply.status, reply.header("connection")), (308, Some("close")));
}

#[test]
fn challenges_of_an_acme_client_are_answered_from_its_folder() {
    let folder = Folder::new();
    let challenges = folder.path(".well-known/acme-challenge");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::write(challenges.join("to-ken_1"), "to-ken_1.thumbprint").unwrap();
    std::fs::write(challenges.join("large"), "x".repeat(5000)).unwrap();
    std::fs::create_dir(challenges.join("directory")).unwrap();
    // Nobody writes to it: who opens it as a file waits for good.
    assert!(
        std::process::Command::new("mkfifo")
            .arg(challenges.join("fifo"))
            .status()
            .unwrap()
            .success()
    );
    std::os::unix::fs::symlink("../secret", challenges.join("link")).unwrap();
    std::fs::write(folder.path(".well-known/secret"), "secret").unwrap();
    let (server, plain) = serve(bind().acme_folder(folder.as_ref()));
    // The authority asks for names, whether there is a certificate for them or not.
    let get = |method: &str, target: &str| {
        let mut client = Client::new(std::net::TcpStream::connect(plain).unwrap());
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: new.example\r\n\r\n"));
        if method == "HEAD" { client.reply_to_head() } else { client.reply() }
    };
    let reply = get("GET", "/.well-known/acme-challenge/to-ken_1");
    assert_eq!((reply.status, reply.text()), (200, "to-ken_1.thumbprint"));
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    assert_eq!(get("HEAD", "/.well-known/acme-challenge/to-ken_1").status, 200);
    for target in [
        "",
        "missing",
        "large",
        "directory",
        "fifo",
        "link",
        "../secret",
        "%2e%2e%2fsecret",
        "to-ken_1/",
        "..",
        "a.b",
    ] {
        let reply = get("GET", &format!("/.well-known/acme-challenge/{target}"));
        assert_eq!((reply.status, reply.text()), (404, "404 Not Found\n"), "{target}");
    }
    assert_eq!(get("POST", "/.well-known/acme-challenge/to-ken_1").status, 404);
    assert_eq!(get("GET", "/.well-known/secret").status, 400, "not a name of the certificate");
    // It answers nowhere else, and without the option nothing is answered.
    assert_eq!(server.client().get("/.well-known/acme-challenge/to-ken_1").status, 404);
    let (server, plain) = serve(bind());
    let head = "GET /.well-known/acme-challenge/to-ken_1 HTTP/1.1\r\nHost: example.org\r\n\r\n";
    assert_eq!(ask(plain, head).status, 308);
    drop(server);
}

/// What an authority does, with the parts of certbot that the guide's command uses: its plugin `webroot` puts a challenge into
/// the folder, and it is asked for over plain HTTP.
const CERTBOT: &str = r#"
import argparse, sys
import josepy
from acme import challenges, messages
from certbot import achallenges
from certbot._internal.plugins import webroot
from cryptography.hazmat.primitives.asymmetric import rsa
folder, port = sys.argv[1], int(sys.argv[2])
key = josepy.JWKRSA(key=rsa.generate_private_key(65537, 2048))
challenge = challenges.HTTP01(token=b"0123456789abcdef")
body = messages.ChallengeBody(chall=challenge, uri="http://localhost/", status=messages.STATUS_PENDING)
asked = achallenges.KeyAuthorizationAnnotatedChallenge(challb=body, domain="localhost", account_key=key)
config = argparse.Namespace(webroot_path=[folder], webroot_map={"localhost": folder}, dry_run=False)
plugin = webroot.Authenticator(config, "webroot")
plugin.prepare()
[response] = plugin.perform([asked])
assert response.simple_verify(challenge, "localhost", key.public_key(), port=port)
plugin.cleanup([asked])
assert not response.simple_verify(challenge, "localhost", key.public_key(), port=port)
print("done")
"#;

#[test]
fn certbots_webroot_plugin_is_believed_by_an_authority() {
    let packages = std::env::var_os("BOTTLE_SESSION_CERTBOT").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop/certbot"),
        std::path::PathBuf::from,
    );
    let folder = Folder::new();
    let (_server, plain) = serve(bind().acme_folder(folder.as_ref()));
    let done = std::process::Command::new("python3")
        .env("PYTHONPATH", packages)
        .args(["-c", CERTBOT])
        .arg(folder.as_ref() as &std::path::Path)
        .arg(plain.port().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && done.stdout == b"done\n",
        "tests/run.sh installs certbot: {said}"
    );
}

#[test]
fn a_client_that_speaks_tls_there_or_nothing_is_ended() {
    let (_server, plain) = serve(bind().head_deadline(4 * super::SHORT));
    let answer = super::exchange(plain, &super::client_hello());
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(super::exchange(plain, b""), b"");
}
