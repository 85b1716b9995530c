//! What a program without a logger says on standard error.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use bottle_session::App;

const SOCKET: &str = "BOTTLE_SESSION_TEST_SOCKET";
const QUIET: &str = "BOTTLE_SESSION_TEST_QUIET";

/// Another program: this one again, which serves until it is killed.
#[test]
fn serves_where_the_other_test_says() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut app = App::new();
    if std::env::var_os(QUIET).is_some() {
        app.log_to_stderr(false);
    }
    app.get("/fails", || "x".parse::<u8>().map(|number| number.to_string()));
    app.run(&format!("unix:{socket}")).unwrap();
}

fn said(socket: &Path, quiet: bool) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "logging::serves_where_the_other_test_says", "--nocapture"]);
    command.env(SOCKET, socket).stdout(Stdio::null()).stderr(Stdio::piped());
    if quiet {
        command.env(QUIET, "1");
    }
    let mut program = command.spawn().unwrap();
    let mut client = loop {
        match UnixStream::connect(socket) {
            Ok(client) => break client,
            Err(_) => assert!(program.try_wait().unwrap().is_none(), "it ended"),
        }
    };
    client.write_all(b"GET /fails HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    program.kill().unwrap();
    let mut said = String::new();
    program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    program.wait().unwrap();
    said
}

#[test]
fn a_program_without_a_logger_is_not_mute_unless_it_wants_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let said_by = |name: &str, quiet| said(&folder.path().join(name), quiet);
    let loud = said_by("loud", false);
    let lines: Vec<_> = loud.lines().collect();
    assert!(
        lines.iter().any(|line| line.starts_with("INFO ") && line.contains("listens on unix:")),
        "{loud}"
    );
    let error = "ERROR GET /fails answers 500: invalid digit found in string (route /fails at tests/logging.rs:";
    assert!(lines.iter().any(|line| line.starts_with(error)), "{loud}");
    assert_eq!(said_by("quiet", true), "");
}
