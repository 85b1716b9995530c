//! Certificates and keys that can be used, those that cannot, and what is said of either.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use bottle_session::rustls::crypto::ring::default_provider;
use bottle_session::rustls::server::{ResolvesServerCertUsingSni, ServerConfig};
use bottle_session::server::native::Native;
use bottle_session::server::tls::Tls;
use bottle_session::{Server, ShutdownHandle};

use super::app;
use crate::support::logs::{collect_logs, logs_of};
use crate::support::process::example;
use crate::support::serving::Serving;
use crate::support::tls::{self, Folder, TlsStream, make_certificate};

/// One certificate, and its key as different programs write it.
fn keys_of(folder: &Folder, kind: &str) -> Vec<String> {
    let new = match kind {
        "ec" => "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pkcs8",
        "p384" => "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pkcs8",
        "rsa" => "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pkcs8",
        _ => "genpkey -algorithm ED25519 -out ed.pkcs8",
    };
    folder.openssl(new);
    folder.openssl(&format!(
        "req -x509 -key {kind}.pkcs8 -out {kind}.pem -days 100 -subj /CN=localhost -addext \
         subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
    let mut keys = vec![format!("{kind}.pkcs8")];
    if kind != "ed" {
        // SEC1 and PKCS1.
        folder.openssl(&format!("pkey -in {kind}.pkcs8 -traditional -out {kind}.traditional"));
        keys.push(format!("{kind}.traditional"));
    }
    if kind == "ec" {
        folder.openssl("ecparam -name prime256v1 -out ec.parameters");
        let text = |name| std::fs::read_to_string(folder.path(name)).unwrap();
        let both = text("ec.parameters") + &text("ec.traditional");
        std::fs::write(folder.path("ec.behind-parameters"), both).unwrap();
        keys.push("ec.behind-parameters".to_owned());
    }
    keys
}

#[test]
fn keys_of_every_kind_and_format_serve() {
    let folder = Folder::new();
    for kind in ["ec", "p384", "rsa", "ed"] {
        let keys = keys_of(&folder, kind);
        let config = Arc::new(tls::trusting(&folder.path(&format!("{kind}.pem"))));
        for key in keys {
            let tls = Tls::files(folder.path(&format!("{kind}.pem")), folder.path(&key)).unwrap();
            let server = Serving::start(Native::bind("127.0.0.1:0").unwrap().tls(tls), app());
            TlsStream::connect(server.address, &config).shake_hands().expect(&key);
        }
    }
}

#[test]
fn what_cannot_be_used_is_an_error_that_names_the_file_and_the_way_out() {
    tls::own();
    let folder = Folder::new();
    make_certificate(&folder, "one", 100);
    make_certificate(&folder, "two", 100);
    folder.openssl("pkey -in one.key -aes256 -passout pass:secret -out encrypted.key");
    folder.openssl("ec -in one.key -aes256 -passout pass:secret -out old-encrypted.key");
    folder.openssl("x509 -in one.pem -outform der -out one.der");
    folder.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp521r1 -out p521.key");
    let write = |name: &str, text: &str| std::fs::write(folder.path(name), text).unwrap();
    write("empty", " \n");
    write("garbage.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
    write("short.pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    write("short.key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let table = [
        (
            "missing.pem",
            "one.key",
            "missing.pem",
            "cannot read FILE: No such file or directory (os error 2); a certificate with its chain and its key are to be there",
        ),
        ("one.pem", "missing.key", "missing.key", "cannot read FILE: No such file"),
        ("empty", "one.key", "empty", "FILE is empty; it should hold a certificate and its chain"),
        ("one.pem", "empty", "empty", "FILE is empty; it should hold the key of the certificate"),
        (
            "one.der",
            "one.key",
            "one.der",
            "FILE holds no certificate (-----BEGIN CERTIFICATE-----); one in DER becomes PEM with openssl x509",
        ),
        ("one.key", "one.key", "one.key", "FILE holds no certificate"),
        (
            "one.pem",
            "one.pem",
            "one.pem",
            "FILE holds no private key; it holds a certificate: are the two swapped?",
        ),
        (
            "one.pem",
            "encrypted.key",
            "encrypted.key",
            "the key in FILE is encrypted, and nobody is there to type its password; openssl pkey -in FILE",
        ),
        ("one.pem", "old-encrypted.key", "old-encrypted.key", "the key in FILE is encrypted"),
        ("one.pem", "two.key", "two.key", "the key in FILE is not that of the certificate in \""),
        ("one.pem", "p521.key", "p521.key", "the key in FILE cannot be used: "),
        ("one.pem", "short.key", "short.key", "the key in FILE cannot be used: "),
        ("garbage.pem", "one.key", "garbage.pem", "FILE is not PEM: "),
        ("short.pem", "one.key", "short.pem", "the certificate in FILE cannot be understood: "),
    ];
    for (certificate, key, file, expected) in table {
        let error = Tls::files(folder.path(certificate), folder.path(key)).unwrap_err().to_string();
        let named = format!("{:?}", folder.path(file));
        let expected = expected.replacen("FILE", &named, 1);
        assert!(error.starts_with(&expected), "{certificate} {key}: {error}\nnot\n{expected}");
    }
    let (one, other) = (folder.path("one.pem"), folder.path("two.key"));
    let read = |path| std::fs::read(path).unwrap();
    let error = Tls::pem(read(&one), read(&other)).unwrap_err().to_string();
    assert!(
        error.starts_with("the key in the given key is not that of the certificate"),
        "{error}"
    );
}

#[test]
fn a_key_that_others_may_read_and_a_certificate_near_its_end_are_warned_of_and_served() {
    collect_logs();
    let folder = Folder::new();
    for (name, days, said) in [
        ("ended", -3, Some("has expired 3 days ago")),
        ("ends-soon", 13, Some("expires in 13 days")),
        ("ends-late", 15, None),
    ] {
        make_certificate(&folder, name, days);
        let (certificate, key) = (format!("{name}.pem"), folder.path(&format!("{name}.key")));
        std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
        Tls::files(folder.path(&certificate), &key).unwrap();
        let warned = logs_of(&folder.text(&certificate));
        assert_eq!(warned.len(), usize::from(said.is_some()), "{warned:?}");
        assert!(
            warned.iter().all(|line| line.ends_with(said.unwrap()) && line.starts_with("WARN "))
        );
        assert_eq!(logs_of(&folder.text(&format!("{name}.key"))), [""; 0]);

        std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        let tls = Tls::files(folder.path(&certificate), &key).unwrap();
        let warned = logs_of(&folder.text(&format!("{name}.key")));
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(warned[0].starts_with("WARN every user of this machine may read the key in "));
        let server = Serving::start(Native::bind("127.0.0.1:0").unwrap().tls(tls), app());
        let shaken = TlsStream::connect(server.address, &tls::config()).shake_hands();
        // It is served; who does not trust it says so.
        assert!(shaken.unwrap_err().to_string().contains("invalid peer certificate"));
    }
}

/// The greeter, which must end at once; what it said.
fn refused(options: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(example("greeter"));
    command.args(options).env_remove("REDIS_URL").env_remove("TLS_CERT").env_remove("TLS_KEY");
    let done = command.envs(variables.iter().copied()).output().unwrap();
    assert!(!done.status.success());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[test]
fn an_https_address_without_a_certificate_says_what_it_needs() {
    let own = tls::own();
    let (certificate, key) = (own.text("own.pem"), own.text("own.key"));
    let public = "https://0.0.0.0:0";
    let needs =
        "needs a certificate; TLS_CERT and TLS_KEY are to name its files, such as certbot's";
    for (options, variables, expected) in [
        (&["--listen", public][..], &[][..], "TLS_CERT is not set: https://0.0.0.0:"),
        (&["--listen", public], &[], needs),
        (
            &["--listen", "https://127.0.0.1:0"],
            &[("TLS_CERT", &certificate[..])],
            "TLS_KEY is not set: ",
        ),
        (&["--listen", "https://127.0.0.1:0"], &[("TLS_KEY", &key[..])], "TLS_CERT is not set: "),
        (
            &["--listen", "https://127.0.0.1:0"],
            &[("TLS_CERT", &key[..]), ("TLS_KEY", &key[..])],
            "holds no certificate",
        ),
        (&["--listen", "https://127.0.0.1"], &[], "cannot listen on \"https://127.0.0.1\": "),
        (&["--listen", "https://unix:/nowhere/at/all"], &[], "cannot listen on \"https://unix:"),
        (
            &["--listen", "https://127.0.0.1:0", "--key", &key],
            &[],
            "--certificate and --key go together",
        ),
        (
            &["--certificate", &certificate, "--key", &key],
            &[],
            "--certificate is for https: --listen https://127",
        ),
    ] {
        let said = refused(options, variables);
        assert!(said.contains(expected), "{options:?} {variables:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn the_environment_names_the_files_of_an_https_address() {
    let own = tls::own();
    let variables = [("TLS_CERT", own.text("own.pem")), ("TLS_KEY", own.text("own.key"))];
    let program = crate::support::process::Program::greeter_with_variables(
        &["--listen", "https://127.0.0.1:0"],
        &variables,
    );
    assert_eq!(super::handshakes::client_of(&program).get("/").status, 200);
}

#[test]
fn what_a_server_cannot_do_with_tls_it_says_when_it_is_to_serve() {
    collect_logs();
    tls::own();
    let serve = |native: Native| {
        let error = native.serve(app().build().unwrap(), &ShutdownHandle::new()).unwrap_err();
        error.to_string()
    };
    let self_signed = Native::bind("0.0.0.0:0").unwrap().tls(Tls::self_signed().unwrap());
    let said = serve(self_signed);
    assert!(
        said.contains("can be reached from elsewhere, and a self-signed certificate is for"),
        "{said}"
    );
    let fingerprints =
        logs_of("made a certificate for localhost, 127.0.0.1, ::1, SHA-256 fingerprint ");
    assert!(!fingerprints.is_empty() && fingerprints[0].len() > 32 * 3);

    let path = std::env::temp_dir().join(format!("bs-https-{}.socket", std::process::id()));
    let unix = tls::inside(Native::bind(&format!("unix:{}", path.display())).unwrap());
    assert!(serve(unix).ends_with(" is a unix socket; TLS is for what is in front of it"));

    let without = Native::bind("127.0.0.1:0").unwrap().redirect_from("127.0.0.1:0").unwrap();
    assert!(serve(without).contains("cannot send on to https, which http://127.0.0.1:"));

    let challenges = tls::inside(Native::bind("127.0.0.1:0").unwrap()).acme_folder("/nowhere");
    assert!(serve(challenges).ends_with("are for requests without TLS; set redirect_from"));

    let config = || {
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))
    };
    let nameless = Native::bind("127.0.0.1:0").unwrap().tls(Tls::config(config()).unwrap());
    assert!(serve(nameless.redirect_from("127.0.0.1:0").unwrap()).ends_with("set Tls::names"));

    let mut h2 = config();
    h2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let said = Tls::config(h2).unwrap_err().to_string();
    assert!(
        said.starts_with("alpn_protocols names \"h2\", which this server does not speak"),
        "{said}"
    );
}
