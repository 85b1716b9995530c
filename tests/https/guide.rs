//! What the guide and the README say of HTTPS, run.

use std::path::Path;
use std::process::{Command, Output};

use crate::faults::wait_until;
use crate::support::process::{Program, example};
use crate::support::proxies::runs_as_root;
use crate::support::tls::{Folder, make_certificate};

const PAGE: &str = include_str!("../../src/guide/https.md");

fn block(language: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect("the guide has it");
    rest.split_once("```").unwrap().0
}

fn shell(script: &str, folder: &Path, variables: &[(&str, &str)]) {
    let done = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn curl(options: &[&str], program: &Program, path: &str) -> Output {
    let url = format!("https://localhost:{}{path}", program.address.port());
    let resolved = format!("localhost:{}:127.0.0.1", program.address.port());
    Command::new("curl")
        .args(["--silent", "--show-error", "--resolve", &resolved])
        .args(options)
        .arg(url)
        .output()
        .expect("curl is installed")
}

fn said(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_of_the_readme_greets_over_https() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains("--example greeter -- --listen https://127.0.0.1:8443\n"));
    assert!(readme.contains("$ curl -k https://localhost:8443/set/Chris\nI recognize you now.\n"));
    let program = Program::greeter_with_variables(&["--listen", "https://127.0.0.1:0"], &[]);
    assert_eq!(said(curl(&["-k"], &program, "/set/Chris")), "I recognize you now.\n");
    let folder = Folder::new();
    let jar = folder.text("jar");
    for (path, expected) in [("/set/Chris", "I recognize you now.\n"), ("/", "Hello, Chris\n")] {
        assert_eq!(said(curl(&["-k", "-c", &jar, "-b", &jar], &program, path)), expected);
    }
    // Nobody vouches for it.
    assert!(!curl(&[], &program, "/").status.success());
}

#[test]
fn systemd_understands_the_unit() {
    let folder = Folder::new();
    let program = example("greeter");
    let start = format!("ExecStart={}", program.display());
    let unit = block("systemd-service").replace("ExecStart=/usr/local/bin/app", &start);
    let path = folder.path("app.service");
    std::fs::write(&path, unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_first_certificate_serves_and_the_hook_brings_each_renewed_one() {
    let folder = Folder::new();
    let group = said(Command::new("id").arg("-gn").output().unwrap());
    let group = group.trim();
    let here = |script: &str| {
        script
            .replace("/etc/app/tls", &folder.text("tls"))
            .replace("/var/lib/acme", &folder.text("acme"))
            .replace("-g app", &format!("-g {group}"))
            .replace("chgrp app", &format!("chgrp {group}"))
    };
    shell(&here(block("sh-first")), folder.as_ref(), &[]);
    let (certificate, key) = (folder.text("tls/fullchain.pem"), folder.text("tls/privkey.pem"));
    let variables = [("TLS_CERT", certificate.clone()), ("TLS_KEY", key)];
    let program = Program::greeter_with_variables(&["--listen", "https://127.0.0.1:0"], &variables);
    let trusted = |file: &str| {
        let resolved = format!("example.org:{}:127.0.0.1", program.address.port());
        let url = format!("https://example.org:{}/", program.address.port());
        let done = Command::new("curl")
            .args(["--silent", "--resolve", &resolved, "--cacert", file, &url])
            .output()
            .unwrap();
        done.status.success()
    };
    let first = folder.text("first.pem");
    std::fs::copy(&certificate, &first).unwrap();
    assert!(trusted(&first));

    // As certbot leaves it.
    let lineage = folder.path("live");
    std::fs::create_dir(&lineage).unwrap();
    make_certificate(&folder, "new", 90);
    std::fs::rename(folder.path("new.pem"), lineage.join("fullchain.pem")).unwrap();
    std::fs::rename(folder.path("new.key"), lineage.join("privkey.pem")).unwrap();
    let reload = format!("kill -HUP {}", program.id());
    let hook = here(block("sh-hook")).replace("systemctl reload app.service", &reload);
    shell(&hook, folder.as_ref(), &[("RENEWED_LINEAGE", lineage.to_str().unwrap())]);
    let new = lineage.join("fullchain.pem").display().to_string();
    wait_until("the renewed one is in use", || trusted(&new));
    assert!(!trusted(&first));
}

#[test]
fn with_one_capability_a_service_without_root_listens_below_1024() {
    if !runs_as_root() {
        // Whoever is not root has no capability to give.
        return;
    }
    assert!(block("systemd-service").contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
    let free = (600..1024).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let address = format!("https://127.0.0.1:{}", free.expect("a free port"));
    // Where everybody may execute it.
    let folder = Folder::new();
    std::fs::copy(example("greeter"), folder.path("greeter")).unwrap();
    let run = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")]);
        command.arg(folder.path("greeter")).args(["--listen", &address]);
        command.env_remove("REDIS_URL").env_remove("TLS_CERT").env_remove("TLS_KEY");
        command
    };
    let refused = run("-all").output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ports below 1024"));
    let program = Program::start_silently(&mut run("+net_bind_service"));
    assert_eq!(said(curl(&["-k"], &program, "/set/Ada")), "I recognize you now.\n");
}

#[test]
fn a_certificate_of_mkcert_is_trusted_where_its_authority_is() {
    let folder = Folder::new();
    // The machine's own stores of trust stay as they are.
    let (home, authority) = (folder.text("home"), folder.text("authority"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&authority).unwrap();
    let variables = [("HOME", &home[..]), ("CAROOT", &authority[..]), ("TRUST_STORES", "none")];
    shell(block("sh-mkcert"), folder.as_ref(), &variables);
    assert!(PAGE.contains("--certificate localhost+2.pem --key localhost+2-key.pem"));
    let program = Program::greeter_with_variables(
        &[
            "--listen",
            "https://127.0.0.1:0",
            "--certificate",
            &folder.text("localhost+2.pem"),
            "--key",
            &folder.text("localhost+2-key.pem"),
        ],
        &[],
    );
    let root = folder.text("authority/rootCA.pem");
    assert_eq!(said(curl(&["--cacert", &root], &program, "/set/Ada")), "I recognize you now.\n");
}
