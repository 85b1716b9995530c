//! Folders of files at a prefix.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bottle_session::server::native::Native;
use bottle_session::testing::TestRequest;
use bottle_session::{App, Files, TestClient};

use crate::support::serving::{Client, Serving};

/// A folder of this test's own, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let path = std::env::temp_dir().join(format!("bottle-files-{}-{name}", std::process::id()));
        let folder = Folder(path);
        for (name, text) in files {
            let path = folder.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn modify(&self, name: &str, time: SystemTime) {
        let file = File::options().write(true).open(self.0.join(name)).unwrap();
        file.set_modified(time).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn client(prefix: &str, files: impl Into<Files>) -> TestClient {
    let mut app = App::new();
    app.get("/", || "the app's own page");
    app.files(prefix, files);
    TestClient::new(app).unwrap()
}

fn encoded<'a>(request: TestRequest<'a>, accept: &str) -> TestRequest<'a> {
    request.header("accept-encoding", accept)
}

#[test]
fn files_are_served_below_their_prefix_and_pages_of_folders_behind_a_slash() {
    let folder = Folder::new(
        "tree",
        &[
            ("site.css", "body {}"),
            ("index.html", "start"),
            ("docs/index.html", "docs"),
            ("docs/a b.html", "a b"),
            ("empty/x", "x"),
            (".env", "secret"),
            (".git/config", "secret"),
        ],
    );
    let client = client("/assets", &folder.0);
    for (path, status, text) in [
        ("/assets/site.css", 200, "body {}"),
        ("/assets/", 200, "start"),
        ("/assets/index.html", 200, "start"),
        ("/assets/docs/", 200, "docs"),
        ("/assets/docs/a%20b.html", 200, "a b"),
        ("/", 200, "the app's own page"),
    ] {
        let answer = client.get(path).send();
        assert_eq!((answer.status(), &*answer.text()), (status, text), "{path}");
    }
    for path in [
        "/assets/none.css",
        "/assets/empty",
        "/assets/empty/",
        "/assets/site.css/",
        "/assets/.env",
        "/assets/.git",
        "/assets/.git/config",
        "/assets",
    ] {
        assert_eq!(client.get(path).send().status(), 404, "{path}");
    }
    assert_eq!(client.get("/assets/docs/../../x").send().status(), 403);
    assert_eq!(client.get("/assets/docs/%2e%2e/site.css").send().status(), 403);
    let folder_page = client.get("/assets/docs?x=1").send();
    assert_eq!(folder_page.status(), 307);
    assert_eq!(folder_page.header("location"), Some("./docs/?x=1"));
    assert_eq!(client.get("/assets/docs").follow_redirects().send().text(), "docs");
    assert_eq!(client.post("/assets/site.css").send().status(), 405);
}

#[test]
fn no_path_of_a_folder_leads_to_another_host() {
    let folder = Folder::new("hosts", &[("elsewhere.example/index.html", "page")]);
    let mut app = App::new();
    app.files("/", &folder.0);
    let client = TestClient::new(app).unwrap();
    let answer = client.get("//elsewhere.example").send();
    assert_eq!(answer.header("location"), Some("./elsewhere.example/"));
}

#[test]
fn compressed_siblings_go_out_where_they_are_accepted() {
    let folder = Folder::new(
        "compressed",
        &[
            ("app.js", "whole"),
            ("app.js.br", "brotli"),
            ("app.js.gz", "gzip"),
            ("only.css", "whole"),
            ("only.css.gz", "gzip"),
            ("old.css", "whole"),
            ("old.css.br", "of an earlier one"),
            ("plain.txt", "whole"),
        ],
    );
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    folder.modify("old.css.br", long_ago);
    let client = client("/assets", &folder.0);
    let table = [
        ("app.js", "gzip, deflate, br, zstd", "brotli", Some("br")),
        ("app.js", "gzip", "gzip", Some("gzip")),
        ("app.js", "br;q=0.5, gzip;q=0.8", "gzip", Some("gzip")),
        ("app.js", "*", "brotli", Some("br")),
        ("app.js", "br;q=0, *", "gzip", Some("gzip")),
        ("app.js", "zstd", "whole", None),
        ("app.js", "", "whole", None),
        ("only.css", "br", "whole", None),
        ("only.css", "br, gzip", "gzip", Some("gzip")),
    ];
    for (name, accept, text, coding) in table {
        let answer = encoded(client.get(&format!("/assets/{name}")), accept).send();
        assert_eq!(answer.text(), text, "{name} {accept}");
        assert_eq!(answer.header("content-encoding"), coding, "{name} {accept}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{name} {accept}");
        let known = answer.header("etag").unwrap().to_owned();
        assert!(answer.header("content-type").unwrap().starts_with("text/"), "{name} {accept}");
        let again = encoded(client.get(&format!("/assets/{name}")), accept);
        let again = again.header("if-none-match", &known).send();
        assert_eq!((again.status(), again.header("vary")), (304, Some("Accept-Encoding")));
    }
    for name in ["old.css", "plain.txt"] {
        let answer = encoded(client.get(&format!("/assets/{name}")), "br, gzip").send();
        assert_eq!((&*answer.text(), answer.header("vary")), ("whole", None), "{name}");
    }
    // One that may not be read does not hide the file.
    #[cfg(unix)]
    {
        let elsewhere = Folder::new("elsewhere", &[("app.js.br", "of somebody else")]);
        std::fs::remove_file(folder.0.join("app.js.br")).unwrap();
        let link = folder.0.join("app.js.br");
        std::os::unix::fs::symlink(elsewhere.0.join("app.js.br"), link).unwrap();
        let answer = encoded(client.get("/assets/app.js"), "br").send();
        assert_eq!((answer.status(), &*answer.text()), (200, "whole"));
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        std::fs::remove_file(folder.0.join("app.js.br")).unwrap();
        std::fs::write(folder.0.join("app.js.br"), "brotli").unwrap();
    }
    let whole = client.get("/assets/app.js").send();
    let brotli = encoded(client.get("/assets/app.js"), "br").send();
    assert_ne!(
        whole.header("etag"),
        brotli.header("etag"),
        "each form is a representation of its own"
    );
}

#[test]
fn files_whose_names_hold_a_hash_are_kept_and_others_asked_for() {
    let folder = Folder::new(
        "cached",
        &[("app.3f2a9c1b.js", "x"), ("app.js", "x"), ("photo-20261130.jpg", "x")],
    );
    let (immutable, ask) = (Some("max-age=31536000, immutable"), Some("no-cache"));
    let cached = |client: &TestClient, name: &str| {
        let answer = client.get(&format!("/a/{name}")).send();
        answer.header("cache-control").map(str::to_owned)
    };
    let plain = client("/a", &folder.0);
    assert_eq!(cached(&plain, "app.3f2a9c1b.js").as_deref(), immutable);
    assert_eq!(cached(&plain, "app.js").as_deref(), ask);
    assert_eq!(cached(&plain, "photo-20261130.jpg").as_deref(), ask);
    assert_eq!(cached(&plain, "none.3f2a9c1b.js"), None, "no 404 is kept for a year");
    let hour = Duration::from_secs(3600);
    let own = client("/a", Files::of(&folder.0).max_age(hour).immutable(|name| name == "app.js"));
    assert_eq!(cached(&own, "app.js").as_deref(), immutable);
    assert_eq!(cached(&own, "app.3f2a9c1b.js").as_deref(), Some("max-age=3600"));
}

#[test]
fn a_folder_that_is_not_there_is_an_error_when_the_app_is_built() {
    let mut app = App::new();
    app.files("/assets", "/no/such/folder");
    let error = app.build().unwrap_err().to_string();
    assert!(
        error.starts_with("app.files(\"/assets\", …): /no/such/folder is no folder"),
        "{error}"
    );
    assert!(error.contains("(at tests/files.rs:"), "{error}");
}

#[test]
fn large_files_hold_nobody_up() {
    const LENGTH: u64 = 64 << 20;
    let folder = Folder::new("large", &[("small.txt", "small"), ("large.bin", "")]);
    let large = File::options().write(true).open(folder.0.join("large.bin")).unwrap();
    large.set_len(LENGTH).unwrap();
    let mut app = App::new();
    app.files("/", &folder.0);
    // As few threads as there can be.
    let server = Native::bind("127.0.0.1:0").unwrap().active_threads(1).max_threads(1);
    let serving = Serving::start(server, app);
    let mut downloads: Vec<Client> = (0..16).map(|_| serving.client()).collect();
    for download in &mut downloads {
        download.send("GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        // It has begun, and takes no more than this.
        let mut begin = [0; 12];
        download.stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    assert_eq!(serving.client().get("/small.txt").text(), "small");
    // The last one is whole, its head apart.
    let mut last = downloads.pop().unwrap();
    let (mut taken, mut piece) = (0, vec![0; 1 << 20]);
    while taken < LENGTH {
        let read = last.stream.read(&mut piece).unwrap();
        assert!(read > 0, "the file breaks off after {taken} bytes");
        taken += read as u64;
    }
}

#[test]
fn a_page_of_the_apps_own_goes_before_that_of_the_folder() {
    let folder = Folder::new("own", &[("index.html", "the folder's"), ("site.css", "body {}")]);
    let mut app = App::new();
    app.get("/", || "the app's");
    app.files("/", &folder.0);
    let client = TestClient::new(app).unwrap();
    for (path, text) in
        [("/", "the app's"), ("/index.html", "the folder's"), ("/site.css", "body {}")]
    {
        assert_eq!(client.get(path).send().text(), text, "{path}");
    }
}
