//! Files as replies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bottle_session::{App, Request, Response, TestClient, static_file};

/// A folder of this test's own, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path =
            std::env::temp_dir().join(format!("bottle-static-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("root/sub")).unwrap();
        let folder = Folder(path);
        for (file, text) in [
            ("root/hello.txt", "0123456789"),
            ("root/sub/page.html", "<p>"),
            ("root/empty", ""),
            ("secret.txt", "secret"),
        ] {
            fs::write(folder.0.join(file), text).unwrap();
        }
        folder
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn client(&self) -> TestClient {
        let mut app = App::new();
        let root = self.root();
        app.get("/s/<name:path>", move |request: &Request, name: &str| {
            static_file(request, name, &root)
        });
        let root = self.root();
        app.get("/d/<name:path>", move |request: &Request, name: &str| {
            static_file(request, name, &root).download()
        });
        let root = self.root();
        app.get("/renamed", move |request: &Request| {
            static_file(request, "hello.txt", &root).download_as("é.txt").content_type("x/y")
        });
        let root = self.root();
        app.post("/s/<name:path>", move |request: &Request, name: &str| {
            static_file(request, name, &root)
        });
        app.get("/no-root", |request: &Request| static_file(request, "x", "/no/such/root"));
        TestClient::new(app).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn files_have_the_types_that_browsers_insist_on() {
    let folder = Folder::new("web");
    let client = folder.client();
    let (script, text) = ("text/javascript; charset=utf-8", "text/plain; charset=utf-8");
    for (name, content_type) in [
        ("a.js", script),
        ("a.mjs", script),
        ("a.cjs", script),
        ("A.CJS", script),
        ("a.js.map", "application/json"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.svg", "image/svg+xml"),
        ("a.avif", "image/avif"),
        ("a.woff2", "font/woff2"),
        ("a.tar.zst", "application/zstd"),
        ("a.ts", text),
        ("a.d.mts", text),
        ("a.cts", text),
        ("a.tsx", text),
        ("ts", "application/octet-stream"),
    ] {
        fs::write(folder.root().join(name), "x").unwrap();
        let response = client.get(&format!("/s/{name}")).send();
        assert_eq!(response.header("content-type"), Some(content_type), "{name}");
    }
}

#[test]
fn a_file_is_sent_with_its_type_and_validators() {
    let folder = Folder::new("types");
    let client = folder.client();
    for (path, content_type, text) in [
        ("/s/hello.txt", "text/plain; charset=utf-8", "0123456789"),
        ("/s/sub/page.html", "text/html; charset=utf-8", "<p>"),
        ("/s/sub//./page.html", "text/html; charset=utf-8", "<p>"),
        ("/s/empty", "application/octet-stream", ""),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.text().as_str()), (200, text), "{path}");
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert!(response.header("etag").is_some() && response.header("last-modified").is_some());
        assert_eq!(response.header("content-disposition"), None);
    }
    let head = client.request("HEAD".parse().unwrap(), "/s/hello.txt").send();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("10")));
    assert_eq!(head.text(), "");
}

#[test]
fn nothing_outside_of_the_root_is_ever_read() {
    let folder = Folder::new("outside");
    let client = folder.client();
    for path in [
        "/s/../secret.txt",
        "/s/%2e%2e/secret.txt",
        "/s/sub/../../secret.txt",
        "/s/..%2Fsecret.txt",
        "/s/sub%2F..%2F..%2Fsecret.txt",
        "/s/sub/../hello.txt",
        "/s/..",
    ] {
        let response = client.get(path).send();
        assert_eq!(response.status(), 403, "{path}");
        assert!(!response.text().contains("secret"), "{path}");
    }
    // An absolute filename counts from the root.
    let absolute = folder.0.join("secret.txt");
    let table = [
        format!("/s/{}", absolute.display()),
        "/s/%2Fetc%2Fpasswd".to_owned(),
        "/s/none.txt".to_owned(),
        "/s/sub".to_owned(),
        "/s/sub/".to_owned(),
        "/s/hello.txt/x".to_owned(),
        "/s/hello.txt%00.html".to_owned(),
        format!("/s/{}", "x".repeat(5000)),
    ];
    for path in table {
        assert_eq!(client.get(&path).send().status(), 404, "{path}");
    }
    assert_eq!(client.get("/no-root").send().status(), 500);
}

#[test]
fn what_a_dot_hides_is_served_where_that_is_said_alone() {
    let folder = Folder::new("dots");
    let root = folder.root();
    fs::create_dir(root.join(".git")).unwrap();
    for file in [".env", ".git/config", "sub/.htpasswd", "sub/..odd"] {
        fs::write(root.join(file), "hidden").unwrap();
    }
    let mut app = App::new();
    app.get("/s/<name:path>", {
        let root = root.clone();
        move |request: &Request, name: &str| static_file(request, name, &root)
    });
    app.get("/all/<name:path>", {
        let root = root.clone();
        move |request: &Request, name: &str| static_file(request, name, &root).dot_files(true)
    });
    app.get("/git/<name>", move |request: &Request, name: &str| {
        static_file(request, name, root.join(".git"))
    });
    let client = TestClient::new(app).unwrap();
    for file in [".env", ".git/config", "sub/.htpasswd", "sub/..odd", "%2eenv", "sub/./.htpasswd"] {
        assert_eq!(client.get(&format!("/s/{file}")).send().status(), 404, "{file}");
        assert_eq!(client.get(&format!("/all/{file}")).send().text(), "hidden", "{file}");
    }
    assert_eq!(client.get("/s/.none").send().status(), 404);
    assert_eq!(client.get("/s/sub/./page.html").send().status(), 200);
    assert_eq!(client.get("/git/config").send().text(), "hidden", "the root is the program's word");
    assert_eq!(client.get("/all/../secret.txt").send().status(), 403);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_inside_of_the_root_alone() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new("links");
    let root = folder.root();
    symlink(root.join("hello.txt"), root.join("inside")).unwrap();
    symlink(folder.0.join("secret.txt"), root.join("outside")).unwrap();
    symlink(&folder.0, root.join("parent")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    // A neighbour whose name starts as the root's does.
    fs::create_dir(folder.0.join("root2")).unwrap();
    fs::write(folder.0.join("root2/file"), "secret").unwrap();
    symlink(folder.0.join("root2"), root.join("neighbour")).unwrap();
    let client = folder.client();
    for (path, status) in [
        ("/s/inside", 200),
        ("/s/outside", 403),
        ("/s/parent/secret.txt", 403),
        ("/s/neighbour/file", 403),
        // Nobody but the owner of the root can have made this.
        ("/s/loop", 500),
    ] {
        assert_eq!(client.get(path).send().status(), status, "{path}");
    }
    // The root itself may be a link.
    let link = folder.0.join("current");
    symlink(&root, &link).unwrap();
    let mut app = App::new();
    app.get("/", move |request: &Request| static_file(request, "hello.txt", &link));
    assert_eq!(TestClient::new(app).unwrap().get("/").send().text(), "0123456789");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = Folder::new("socket");
    let _socket = std::os::unix::net::UnixListener::bind(folder.root().join("socket")).unwrap();
    assert_eq!(folder.client().get("/s/socket").send().status(), 404);
}

#[test]
fn a_client_that_has_the_file_gets_a_304() {
    let folder = Folder::new("conditional");
    let written = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500);
    set_modified(&folder.root().join("hello.txt"), written);
    let client = folder.client();
    let first = client.get("/s/hello.txt").send();
    let etag = first.header("etag").unwrap();
    assert_eq!(first.header("last-modified"), Some("Sun, 09 Sep 2001 01:46:40 GMT"));
    let weak = format!("\"other\", W/{etag}");
    for (name, value, status) in [
        ("if-none-match", etag, 304),
        ("if-none-match", &weak, 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-none-match", etag.trim_matches('"'), 200),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:40 GMT", 304),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:41 GMT", 304),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:39 GMT", 200),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:40 GMT; length=10", 304),
        ("if-modified-since", "Sun, 09 Sep 2001 01:46:39 GMT; length=10", 200),
        ("if-modified-since", "nonsense", 200),
        ("if-match", etag, 200),
        ("if-match", &format!("\"other\", {etag}"), 200),
        ("if-match", "*", 200),
        ("if-unmodified-since", "Sun, 09 Sep 2001 01:46:40 GMT", 200),
        ("if-unmodified-since", "nonsense", 200),
    ] {
        let response = client.get("/s/hello.txt").header(name, value).send();
        assert_eq!(response.status(), status, "{name}: {value}");
        assert_eq!(response.header("etag"), Some(etag));
        assert_eq!(response.header("last-modified"), first.header("last-modified"));
        if status == 304 {
            assert_eq!((response.text().as_str(), response.header("content-type")), ("", None));
        }
    }
    for (name, value) in [
        ("if-match", "\"other\""),
        // Only a strong tag says that it is the same, byte for byte.
        ("if-match", &format!("W/{etag}")),
        ("if-match", ""),
        ("if-unmodified-since", "Sun, 09 Sep 2001 01:46:39 GMT"),
    ] {
        let response = client.get("/s/hello.txt").header(name, value).send();
        assert_eq!((response.status(), response.text().as_str()), (412, ""), "{name}: {value}");
    }
    let lines = client.get("/s/hello.txt").header("if-none-match", "\"other\"");
    assert_eq!(lines.header("if-none-match", etag).send().status(), 304, "in the second line");
    // The tag goes before the date.
    let both = client.get("/s/hello.txt").header("if-none-match", "\"other\"");
    let both = both.header("if-modified-since", "Sun, 09 Sep 2001 01:46:41 GMT").send();
    assert_eq!(both.status(), 200);
    // The same size, a moment later: another state.
    set_modified(&folder.root().join("hello.txt"), written + Duration::from_millis(1));
    let changed = client.get("/s/hello.txt").header("if-none-match", etag).send();
    assert_eq!(changed.status(), 200);
}

#[test]
fn a_file_from_the_future_has_no_date() {
    let folder = Folder::new("future");
    let next_year = SystemTime::now() + Duration::from_secs(365 * 86_400);
    set_modified(&folder.root().join("hello.txt"), next_year);
    let response = folder.client().get("/s/hello.txt").send();
    assert_eq!(response.header("last-modified"), None);
    assert!(response.header("etag").is_some());
}

#[test]
fn a_range_is_sent_alone() {
    let folder = Folder::new("ranges");
    let client = folder.client();
    let etag = client.get("/s/hello.txt").send().header("etag").unwrap().to_owned();
    let date = client.get("/s/hello.txt").send().header("last-modified").unwrap().to_owned();
    for (range, condition, status, text, content_range) in [
        ("bytes=2-4", "", 206, "234", Some("bytes 2-4/10")),
        ("bytes=-2", "", 206, "89", Some("bytes 8-9/10")),
        ("bytes=8-100", "", 206, "89", Some("bytes 8-9/10")),
        ("bytes=10-", "", 416, "", Some("bytes */10")),
        ("bytes=0-1,3-4", "", 200, "0123456789", None),
        ("bytes=4-2", "", 200, "0123456789", None),
        ("bytes=2-4", &etag, 206, "234", Some("bytes 2-4/10")),
        ("bytes=2-4", &date, 206, "234", Some("bytes 2-4/10")),
        ("bytes=2-4", "\"other\"", 200, "0123456789", None),
        ("bytes=2-4", "Sun, 09 Sep 2001 01:46:40 GMT", 200, "0123456789", None),
        ("bytes=2-4", "nonsense", 200, "0123456789", None),
    ] {
        let mut request = client.get("/s/hello.txt").header("range", range);
        if !condition.is_empty() {
            request = request.header("if-range", condition);
        }
        let response = request.send();
        assert_eq!(response.status(), status, "{range} {condition}");
        assert_eq!(response.text(), text, "{range} {condition}");
        assert_eq!(response.header("content-range"), content_range, "{range} {condition}");
    }
    let post = client.post("/s/hello.txt").header("range", "bytes=2-4").send();
    assert_eq!((post.status(), post.text().as_str()), (200, "0123456789"));
    let known = client.get("/s/hello.txt").header("range", "bytes=2-4");
    assert_eq!(known.header("if-none-match", &etag).send().status(), 304);
}

#[test]
fn a_download_says_its_name() {
    let folder = Folder::new("downloads");
    let client = folder.client();
    let response = client.get("/d/sub/page.html").send();
    let expected = "attachment; filename=\"page.html\"";
    assert_eq!(response.header("content-disposition"), Some(expected));
    let response = client.get("/renamed").send();
    let expected = "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt";
    assert_eq!(response.header("content-disposition"), Some(expected));
    assert_eq!(response.header("content-type"), Some("x/y"));
}

#[test]
fn a_file_is_a_reply_like_any_other() {
    use bottle_session::IntoResponse;

    let folder = Folder::new("reply");
    let root = folder.root();
    let mut app = App::new();
    app.get("/", move |request: &Request| -> Response {
        let file = static_file(request, "hello.txt", &root).into_response();
        file.with_header("cache-control", "max-age=3600")
    });
    let response = TestClient::new(app).unwrap().get("/").send();
    assert_eq!(response.header("cache-control"), Some("max-age=3600"));
    assert_eq!(response.text(), "0123456789");
}

#[test]
fn conditions_are_for_get_and_head_alone() {
    let folder = Folder::new("methods");
    let client = folder.client();
    let got = client.get("/s/hello.txt").send();
    for (name, value) in [
        ("if-none-match", got.header("etag").unwrap()),
        ("if-none-match", "*"),
        ("if-modified-since", got.header("last-modified").unwrap()),
    ] {
        let head = client.request("HEAD".parse().unwrap(), "/s/hello.txt");
        assert_eq!(head.header(name, value).send().status(), 304, "{name}");
        // Here a 304 would say that nothing had been done.
        let post = client.post("/s/hello.txt").header(name, value).send();
        assert_eq!((post.status(), post.text().as_str()), (200, "0123456789"), "{name}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_sent_never_gives_more_than_was_promised() {
    use bottle_session::http::Method;
    use bottle_session::{Body, IntoResponse};

    let folder = Folder::new("changes");
    let path = folder.root().join("hello.txt");
    for (content, sent) in [("0123456789 and more", "0123456789"), ("0123", "0123")] {
        fs::write(&path, "0123456789").unwrap();
        let request = Request::new(Method::GET, "/".parse().unwrap());
        let response = static_file(&request, "hello.txt", folder.root()).into_response();
        assert!(matches!(response.body(), Body::Stream { length: Some(10), .. }));
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        fs::write(&path, content).unwrap();
        assert_eq!(response.into_bytes().unwrap(), sent);
    }
}
