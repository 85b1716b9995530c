//! The line of each request.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bottle_session::http::uri::PathAndQuery;
use bottle_session::http::{HeaderMap, HeaderValue, Method};
use bottle_session::server::native::Native;
use bottle_session::{
    AccessLogPlugin, App, Request, RequestId, RequestIdPlugin, Response, Service, TestClient, abort,
};
use serde_json::Value;

use crate::faults::wait_until;
use crate::support::serving::Serving;

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn app(plugin: AccessLogPlugin) -> App {
    let mut app = App::new();
    app.install(RequestIdPlugin::new()).unwrap();
    app.install(plugin).unwrap();
    app.get("/user/<id:int>", |id: i64| format!("user {id}"));
    app.get("/refused", || Err::<(), _>(abort(403, "No.")));
    app.get("/stream", || Response::chunks(["one", "two"]));
    app.get("/skips", || "hello").skip("access_log");
    app
}

fn request(
    service: &Service,
    method: Method,
    target: &'static str,
    headers: &[(&'static str, &str)],
) -> Response {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let request = Request::new(method, PathAndQuery::from_static(target))
        .with_headers(map)
        .with_remote_addr("192.0.2.7:5000".parse().unwrap());
    service.handle(request)
}

/// Time, id and seconds as letters, where they are what they should be.
fn shape(line: &str) -> String {
    let (before, rest) = line.split_once('[').unwrap();
    let (time, rest) = rest.split_once(']').unwrap();
    let form: String = time
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '9'
            } else if c.is_ascii_alphabetic() {
                'a'
            } else {
                c
            }
        })
        .collect();
    assert_eq!(form, "99/aaa/9999:99:99:99 +9999");
    let (rest, seconds) = rest.rsplit_once(' ').unwrap();
    assert!(seconds.parse::<f64>().unwrap() < 60.0 && seconds.len() > 7, "{seconds}");
    let (rest, id) = rest.rsplit_once(' ').unwrap();
    assert_eq!(id.len(), 24, "{id}");
    format!("{before}[TIME]{rest} ID SECONDS")
}

#[test]
fn combined_log_format_with_the_rule_the_id_and_the_time_behind_it() {
    let written = Written::default();
    let plugin = AccessLogPlugin::new().to_writer(written.clone());
    let service = app(plugin).build().unwrap();
    let browser = [("user-agent", "a \"b\" \\ é"), ("referer", "https://x.example/?q=1")];
    request(&service, Method::GET, "/user/7?a=b", &browser);
    let ada = [("authorization", "Basic YWRhOmxvdmVsYWNl")];
    request(&service, Method::GET, "/refused", &ada);
    request(&service, Method::HEAD, "/user/7", &[]);
    request(&service, Method::GET, "/nowhere", &[]);
    request(&service, Method::GET, "/skips", &[]);
    let lines: Vec<_> = written.lines().iter().map(|line| shape(line)).collect();
    assert_eq!(
        lines[0],
        r#"192.0.2.7 - - [TIME] "GET /user/7?a=b HTTP/1.1" 200 6 "https://x.example/?q=1" "a \"b\" \\ \xc3\xa9" "/user/<id:int>" ID SECONDS"#
    );
    let refused = r#"192.0.2.7 - ada [TIME] "GET /refused HTTP/1.1" 403 "#;
    assert!(lines[1].starts_with(refused), "{}", lines[1]);
    assert_eq!(
        lines[2],
        r#"192.0.2.7 - - [TIME] "HEAD /user/7 HTTP/1.1" 200 0 "-" "-" "/user/<id:int>" ID SECONDS"#
    );
    assert!(lines[3].contains(r#""GET /nowhere HTTP/1.1" 404 "#), "{}", lines[3]);
    assert!(lines[3].ends_with(r#""-" "-" "-" ID SECONDS"#), "{}", lines[3]);
    assert_eq!(lines.len(), 4);
    // Of nobody, as some say it.
    let nobody = [("authorization", "Basic Ong=")];
    request(&service, Method::GET, "/user/7", &nobody);
    assert!(written.lines()[4].starts_with("192.0.2.7 - - ["), "{:?}", written.lines());
}

#[test]
fn json_has_a_name_for_each_value_and_leaves_out_what_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let service = app(AccessLogPlugin::new().json().to_file(&path)).build().unwrap();
    request(&service, Method::GET, "/user/7", &[("user-agent", "x\"y\n".trim_end())]);
    request(&service, Method::GET, "/nowhere", &[]);
    // Another one appends.
    let service = app(AccessLogPlugin::new().json().to_file(&path)).build().unwrap();
    let answer = request(&service, Method::GET, "/user/8", &[]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (name, value) in [
        ("remote", Value::from("192.0.2.7")),
        ("method", Value::from("GET")),
        ("target", Value::from("/user/7")),
        ("version", Value::from("HTTP/1.1")),
        ("status", Value::from(200)),
        ("bytes", Value::from(6)),
        ("user_agent", Value::from("x\"y")),
        ("route", Value::from("/user/<id:int>")),
    ] {
        assert_eq!(lines[0][name], value, "{name}");
    }
    assert_eq!(lines[0]["time"].as_str().unwrap().len(), "2026-11-30T13:55:36Z".len());
    assert!(lines[0]["seconds"].as_f64().unwrap() < 60.0);
    assert!(lines[1].get("route").is_none() && lines[1].get("referer").is_none());
    // What else ends a line, or begins a command to a terminal.
    let raw = "a\u{85}b\u{9b}31mc\u{2028}d\u{2029}é";
    request(&service, Method::GET, "/user/7", &[("user-agent", raw)]);
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().last().unwrap();
    assert!(line.contains(r#""a\u0085b\u009b31mc\u2028d\u2029é""#), "{line}");
    assert_eq!(serde_json::from_str::<Value>(line).unwrap()["user_agent"], raw);
    assert_eq!(lines[2]["request_id"].as_str(), answer.headers()["x-request-id"].to_str().ok());
}

#[test]
fn a_stream_has_its_line_when_it_has_ended_with_the_bytes_that_were_read() {
    let written = Written::default();
    let server = Native::bind("127.0.0.1:0").unwrap();
    let server = Serving::start(server, app(AccessLogPlugin::new().to_writer(written.clone())));
    assert_eq!(server.client().get("/stream").text(), "onetwo");
    wait_until("the stream's line", || !written.lines().is_empty());
    let lines = written.lines();
    assert!(lines[0].contains(r#""GET /stream HTTP/1.1" 200 6 "#), "{lines:?}");
    // Nobody reads this one.
    let service = app(AccessLogPlugin::new().to_writer(written.clone())).build().unwrap();
    drop(request(&service, Method::GET, "/stream", &[]));
    assert!(written.lines()[1].contains(r#""GET /stream HTTP/1.1" 200 0 "#));
}

#[test]
fn without_a_place_of_their_own_lines_go_to_the_log() {
    crate::support::logs::collect_logs();
    let mut app = app(AccessLogPlugin::new());
    app.get("/says/<what>", |what: &str| log::info!(target: "bottle_session", "said {what}"));
    let client = TestClient::new(app).unwrap();
    client.get("/user/4711047").send();
    let lines = crate::support::logs::logs_of("\"GET /user/4711047 HTTP/1.1\" 200 12 ");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("INFO - - - ["), "{lines:?}");
    // A logger adds the id to what a handler says, and not to a line that has it.
    let id = client.get("/says/4711048").send().header("x-request-id").unwrap().to_owned();
    let ids = crate::support::logs::request_ids_of("4711048");
    assert_eq!(ids.iter().map(RequestId::as_str).collect::<Vec<_>>(), [id]);
}

#[test]
fn a_file_that_cannot_be_opened_is_told_of_when_the_plugin_is_installed() {
    let plugin = AccessLogPlugin::new().to_file("/nonexistent/access.log");
    let error = App::new().install(plugin).map(drop).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/access.log cannot be opened"), "{error}");
}
