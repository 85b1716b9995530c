//! The programs of examples/bottle_ports: apps as people write them with Bottle.

// Two of them have the same helpers, each its own, as programs do.
#![allow(clippy::duplicate_mod)]

use std::path::Path;
use std::process::Command;

use bottle_session::http::Method;
use bottle_session::server::native::Native;
use bottle_session::{RedisPool, TestClient};
use serde_json::json;

use crate::support::redis_server::RedisServer;
use crate::support::serving::Serving;

#[path = "../examples/bottle_ports/files.rs"]
#[allow(dead_code)]
mod files;
#[path = "../examples/bottle_ports/packages.rs"]
#[allow(dead_code)]
mod packages;
#[path = "../examples/bottle_ports/timeline.rs"]
#[allow(dead_code)]
mod timeline;
#[path = "../examples/bottle_ports/todo.rs"]
#[allow(dead_code)]
mod todo;

#[test]
fn none_of_them_needs_a_plugin_or_an_extractor_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bottle_ports");
    let mut programs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        programs += usize::from(source.contains("fn main()"));
        for banned in ["impl Plugin", "impl Argument", "unwrap()", "expect(", "Arc::new("] {
            assert!(!source.contains(banned), "{}: {banned}", path.display());
        }
    }
    assert_eq!(programs, 4);
}

#[test]
fn the_list_of_things_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let database = todo::database(&folder.path().join("todo.db")).unwrap();
    let client = TestClient::new(todo::app(database).unwrap()).unwrap();
    for task in ["Read the tutorial", "Write <tests>"] {
        let added = client.post("/new").form(&[("task", task)]).send();
        assert_eq!(
            (added.status(), added.header("location")),
            (303, Some("/")),
            "{}",
            added.text()
        );
    }
    let list = client.get("/").send().text();
    assert!(list.contains("<p>Added item 1.</p><p>Added item 2.</p>"), "{list}");
    assert!(list.contains("<li>Write &lt;tests&gt; <a href=\"/edit/2\">edit</a></li>"), "{list}");
    assert!(!client.get("/").send().text().contains("Added"));
    let item: serde_json::Value = client.get("/item/1").send().json().unwrap();
    assert_eq!(item, json!({"id": 1, "task": "Read the tutorial", "open": true}));
    assert!(client.get("/edit/1").send().text().contains("name=\"open\" checked"));
    // A box that is not ticked is not sent.
    client.post("/edit/1").form(&[("task", "Read it again")]).send();
    assert!(!client.get("/").send().text().contains("Read"));
    assert_eq!(client.post("/new").form(&[("task", " ")]).send().status(), 400);
    assert_eq!(client.post("/edit/2").form(&[("task", "x".repeat(101))]).send().status(), 400);
    let lost = client.get("/edit/9").send();
    assert_eq!(lost.status(), 404);
    assert!(lost.text().contains("<p>There is no item 9.</p><p><a href=\"/\">All items</a></p>"));
}

/// A browser that is on the site.
struct Visitor(TestClient);

impl Visitor {
    fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, String) {
        let sent = self.0.post(path).header("sec-fetch-site", "same-origin").form(&form).send();
        let told = sent.header("location").map_or(sent.text(), str::to_owned);
        (sent.status(), told)
    }

    fn page(&self, path: &str) -> String {
        self.0.get(path).send().text()
    }
}

#[test]
fn the_timeline() {
    let server = RedisServer::start(&[]);
    let app = timeline::app(RedisPool::open(&server.url(0)).unwrap()).unwrap();
    let ada = Visitor(TestClient::new(app).unwrap());
    let bob = Visitor(TestClient::of(ada.0.service().clone()));
    assert_eq!(ada.0.get("/").send().header("location"), Some("/login"));
    let credentials = |name| [("name", name), ("password", "correct horse")];
    assert_eq!(ada.post("/signup", &credentials("ada")), (303, "/".to_owned()));
    assert_eq!(bob.post("/signup", &credentials("ada")).0, 409);
    assert_eq!(bob.post("/signup", &[("name", "b!"), ("password", "correct horse")]).0, 400);
    assert_eq!(bob.post("/signup", &credentials("bob")).0, 303);
    assert_eq!(bob.post("/follow/ada", &[]), (303, "/user/ada".to_owned()));
    assert_eq!(bob.post("/follow/eve", &[]).0, 404);
    assert_eq!(ada.post("/post", &[("text", "Hello <world>")]).0, 303);
    assert_eq!(ada.post("/post", &[("text", "")]).0, 400);
    let told = "<p><a href=\"/user/ada\">ada</a>: Hello &lt;world&gt;</p>";
    for page in [ada.page("/"), bob.page("/"), bob.page("/public"), bob.page("/user/ada")] {
        assert!(page.contains(told), "{page}");
    }
    assert!(bob.page("/user/ada").contains("<p>1 followers</p>"));
    assert!(bob.page("/user/ada").contains("action=\"/unfollow/ada\""));
    assert_eq!(bob.post("/unfollow/ada", &[]).0, 303);
    ada.post("/post", &[("text", "Anybody there?")]);
    assert!(!bob.page("/").contains("Anybody"));
    // Error pages know who asks.
    assert!(bob.page("/user/eve").contains("Sorry, bob. Nobody is called eve."));
    // From elsewhere, nobody posts in their name.
    assert_eq!(ada.0.post("/post").form(&[("text", "forged")]).send().status(), 403);
    assert_eq!(ada.post("/logout", &[]).0, 303);
    assert!(ada.page("/nowhere").contains("Sorry, stranger."));
    assert_eq!(ada.post("/login", &[("name", "ada"), ("password", "wrong horse")]).0, 401);
    assert_eq!(ada.post("/login", &[("name", "eve"), ("password", "wrong horse")]).0, 401);
    assert_eq!(ada.post("/login", &credentials("ada")).0, 303);
    // Of a user who is gone, the session ends, and says so to nobody.
    let _: () = redis::cmd("DEL").arg("user:ada").query(&mut server.connect(0)).unwrap();
    assert_eq!(ada.0.get("/").send().header("location"), Some("/login"));
    assert_eq!(ada.0.cookie("bottle.session"), None);
}

#[test]
fn the_file_manager_and_its_api() {
    let folder = tempfile::tempdir().unwrap();
    let database =
        files::database(&folder.path().join("files.db"), "ada", "correct horse").unwrap();
    let ada = Visitor(TestClient::new(files::app(database.clone()).unwrap()).unwrap());
    let client = &ada.0;
    assert_eq!(client.get("/folder/1").send().header("location"), Some("/login"));
    assert_eq!(ada.post("/folder/1/new", &[("name", "docs")]), (303, "/login".to_owned()));
    assert_eq!(ada.post("/login", &[("name", "ada"), ("password", "wrong")]).0, 401);
    assert_eq!(ada.post("/login", &[("name", "ada"), ("password", "correct horse")]).0, 303);
    assert_eq!(ada.post("/folder/1/new", &[("name", "docs")]), (303, "/folder/2".to_owned()));
    assert_eq!(ada.post("/folder/1/new", &[("name", "docs")]).0, 409);
    assert_eq!(ada.post("/folder/7/new", &[("name", "docs")]).0, 404);
    let body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n";
    let sent = client
        .post("/folder/2/upload")
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body)
        .send();
    assert_eq!(sent.status(), 303, "{}", sent.text());
    assert!(
        ada.page("/folder/2").contains("<a href=\"/file/1\">a.txt</a>"),
        "{}",
        ada.page("/folder/2")
    );
    assert!(ada.page("/folder/1").contains("<a href=\"/folder/2\">docs/</a>"));
    let file = client.get("/file/1").send();
    assert_eq!((file.text().as_str(), file.header("content-type")), ("hello", Some("text/plain")));

    // The API has the same database, and ways of its own: credentials with each request, errors in JSON.
    let api = |method: Method, path: &str| {
        client.request(method, path).basic_auth("ada", "correct horse")
    };
    let refused = client.get("/api/folders/2").send();
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Basic realm=\"Files\", charset=\"UTF-8\"")
    );
    assert_eq!(refused.json::<serde_json::Value>().unwrap()["status"], 401);
    let docs = api(Method::GET, "/api/folders/2").send().json::<serde_json::Value>().unwrap();
    let expected = json!({
        "id": 2, "name": "docs", "parent": 1, "folders": [], "files": [{"id": 1, "name": "a.txt"}],
    });
    assert_eq!(docs, expected);
    let new = json!({"folder": 2, "name": "b.txt", "text": "bye"});
    let made = api(Method::POST, "/api/files").json(&new).send();
    assert_eq!((made.status(), made.text().as_str()), (201, "{\"id\":2}"));
    assert_eq!(api(Method::POST, "/api/files").json(&new).send().status(), 409);
    assert_eq!(api(Method::GET, "/api/files/2").send().text(), "bye");
    assert_eq!(api(Method::DELETE, "/api/files/2").send().status(), 204);
    let gone = api(Method::DELETE, "/api/files/2").send();
    let expected = json!({"status": 404, "error": "There is no such file."});
    assert_eq!(gone.json::<serde_json::Value>().unwrap(), expected);
    assert_eq!(
        api(Method::GET, "/api/nowhere").send().json::<serde_json::Value>().unwrap()["status"],
        404
    );

    // A COMMIT that fails: of the folder there is none, which SQLite looks at in the end. Nothing is kept, and the
    // connection with its transaction does not go back to the pool, for the next visitor to commit.
    let nowhere = json!({"folder": 99, "name": "c.txt", "text": "lost"});
    assert_eq!(api(Method::POST, "/api/files").json(&nowhere).send().status(), 500);
    assert!(database.idle().iter().all(rusqlite::Connection::is_autocommit));
    let made = api(Method::POST, "/api/files").json(&new).send();
    assert_eq!(made.status(), 201);
    let db = database.checkout().unwrap();
    let names: Vec<String> = db
        .prepare("SELECT name FROM file ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(names, ["a.txt", "b.txt"]);
}

/// A wheel, which is a zip file with some metadata, and a file that installs nothing but a module.
const WHEEL: &str = r#"
import base64, hashlib, sys, zipfile
name, version, folder = sys.argv[1:]
module = name.lower().replace("-", "_").replace(".", "_")
info = f"{module}-{version}.dist-info"
files = {
    f"{module}.py": f"VERSION = {version!r}\n",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: A test\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
record = "".join(f"{path},sha256={digest(text)},{len(text)}\n" for path, text in files.items())
files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
with zipfile.ZipFile(f"{folder}/{module}-{version}-py3-none-any.whl", "w") as wheel:
    for path, text in files.items():
        wheel.writestr(path, text)
"#;

fn python(arguments: &[&str]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = std::env::var_os("BOTTLE_SESSION_PYTHON")
        .map_or_else(|| root.join("target/interop/python"), Into::into);
    let mut command = Command::new("python3");
    // What pip is to reach is the index of the test alone.
    command
        .env("PYTHONPATH", packages)
        .env("NO_PROXY", "127.0.0.1")
        .env("PIP_CONFIG_FILE", "/dev/null");
    let done = command.args(arguments).output().expect("python3 runs; tests/run.sh installs it");
    let told = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn pip_and_twine_use_the_package_index() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let uploader = packages::Uploader::new("ada", "correct horse").unwrap();
    let app = packages::app(at("packages"), uploader).unwrap();
    let serving = Serving::start(Native::bind("127.0.0.1:0").unwrap(), app);
    let url = format!("http://{}", serving.address);

    for version in ["1.0", "1.1"] {
        let (made, told) =
            python(&["-c", WHEEL, "Hello.World", version, folder.path().to_str().unwrap()]);
        assert!(made, "{told}");
    }
    let wheel = |version: &str| at(&format!("hello_world-{version}-py3-none-any.whl"));
    let upload = |password: &str, file: &str| {
        let index = format!("{url}/");
        let options = ["-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"];
        let target = ["--repository-url", &index, "-u", "ada", "-p", password, file];
        python(&[&options[..], &target[..]].concat())
    };
    let (done, told) = upload("wrong horse", &wheel("1.0"));
    assert!(!done && told.contains("401"), "{told}");
    for version in ["1.0", "1.1"] {
        let (done, told) = upload("correct horse", &wheel(version));
        assert!(done, "{told}");
    }
    let (done, told) = upload("correct horse", &wheel("1.0"));
    assert!(!done && told.contains("409"), "{told}");

    let install = |name: &str, target: &str| {
        let index = format!("{url}/simple/");
        let options =
            ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"];
        python(&[&options[..], &["--index-url", &index, "--target", target, name]].concat())
    };
    // The name in another spelling: pip finds it all the same, and by its digest that it is the file that was sent.
    let (done, told) = install("hello_world==1.0", &at("old"));
    assert!(done, "{told}");
    let (done, told) = install("HELLO-world", &at("new"));
    assert!(done, "{told}");
    for (target, version) in [("old", "1.0"), ("new", "1.1")] {
        let module =
            std::fs::read_to_string(Path::new(&at(target)).join("hello_world.py")).unwrap();
        assert_eq!(module, format!("VERSION = '{version}'\n"));
    }
    let (done, told) = install("goodbye", &at("none"));
    assert!(!done && told.contains("No matching distribution found for goodbye"), "{told}");

    let client = TestClient::new(
        packages::app(at("packages"), packages::Uploader::new("ada", "x").unwrap()).unwrap(),
    );
    let client = client.unwrap();
    let index = client.get("/simple/").send().text();
    assert!(index.contains("<a href=\"/simple/hello-world/\">hello-world</a>"), "{index}");
    let moved = client.get("/simple/Hello_World/").send();
    assert_eq!((moved.status(), moved.header("location")), (308, Some("/simple/hello-world/")));
    let page = client.get("/simple/hello-world/").send().text();
    assert!(
        page.contains("/packages/hello-world/hello_world-1.1-py3-none-any.whl#sha256="),
        "{page}"
    );
    let lost = client.get("/packages/hello-world/none.whl").send();
    assert_eq!((lost.status(), lost.header("cache-control")), (404, None));
    // Nothing gets out of the folder, and only packages get into it.
    for (name, file, status) in [
        ("hello", "../hello-1.whl", 400),
        ("..", "..-1.whl", 400),
        ("hello", "hello.exe", 400),
        ("other", "hello-1.whl", 400),
    ] {
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields = [(":action", "file_upload"), ("name", name), ("sha256_digest", "0")];
        let fields: String = fields.iter().map(|(name, value)| part(name, value)).collect();
        let body = format!(
            "{fields}--b\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{file}\"\r\n\r\nx\r\n--b--\r\n"
        );
        let sent = client
            .post("/")
            .basic_auth("ada", "x")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(body)
            .send();
        assert_eq!(sent.status(), status, "{name} {file}: {}", sent.text());
    }
    assert_eq!(std::fs::read_dir(at("packages")).unwrap().count(), 1);
}
