//! Routes: wildcards, methods, names, filters.

use super::*;

#[test]
fn wildcards_reach_their_arguments() {
    fn by_function(id: u32, name: String) -> String {
        format!("{id} {name}")
    }
    let client = client(|app| {
        app.get("/hello/<n:int>", |n: i64| format!("{}", n + 1));
        app.get("/x/<p:path>", |p: &str| p.to_owned());
        app.get(["/set", "/set/<user_name>"], |name: Option<&str>| format!("{name:?}"));
        app.get("/f/<id>/<name>", by_function);
        app.get("/named/<a>/<b>", named!(|b: &str, a: &str| format!("{a} then {b}")));
        app.get("/listed/<name>/<id>", named!(by_function(id, name)));
        app.get("/any/<x>", |x: f32| x.to_string());
        app.get("/half/<x:float>", |x: f64| (x / 2.0).to_string());
        app.get("/ip/<ip>", |Wildcard(ip): Wildcard<std::net::Ipv4Addr>| {
            ip.octets()[0].to_string()
        });
        app.get("/small/<n>", |n: u8| n.to_string());
        app.get("/small/<n:path>", || "not small");
        app.get(
            "/eight/<a>/<b>/<c>/<d>/<e>/<f>/<g>/<h>",
            |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| {
                (a + b + c + d + e + f + g + h).to_string()
            },
        );
    });
    for (path, status, expected) in [
        ("/any/1e3", 200, "1000"),
        ("/hello/41", 200, "42"),
        ("/x/a/b%20c", 200, "a/b c"),
        ("/set", 200, "None"),
        ("/set/Ada", 200, "Some(\"Ada\")"),
        ("/f/7/Bob", 200, "7 Bob"),
        ("/named/1/2", 200, "1 then 2"),
        ("/listed/Bob/7", 200, "7 Bob"),
        ("/half/-3.0", 200, "-1.5"),
        ("/ip/10.0.0.1", 200, "10"),
        ("/small/255", 200, "255"),
        ("/small/256", 200, "not small"),
        ("/eight/1/2/3/4/5/6/7/8", 200, "36"),
    ] {
        let response = client.get(path).send();
        assert_eq!((response.status(), response.text().as_str()), (status, expected), "{path}");
    }
    // What is no finite number, or too large for one, matches nothing.
    for path in ["/any/NaN", "/any/-inf", &format!("/half/{}.0", "9".repeat(400))] {
        assert_eq!(client.get(path).send().status(), 404, "{path}");
    }
    assert_eq!(client.get("/ip/10.0.0").send().status(), 404);
    assert_eq!(client.get("/f/seven/Bob").send().status(), 404);
    assert_eq!(client.get("/x/%FF").send().status(), 400);
}

#[test]
fn methods_head_options_and_405() {
    let client = client(|app| {
        app.get("/a", || "text");
        app.post("/a", || (201, "made"));
        app.put("/a", || "put");
        app.patch("/a", || "patch");
        app.delete("/a", || StatusCode::NO_CONTENT);
        app.route("ANY", "/any", |method: Method| method.to_string());
        app.route(["get", "POST"], "/two", || "two");
    });
    let send = |method: &str, path: &str| client.request(method.parse().unwrap(), path).send();
    let table = [
        ("GET", "/a", 200, "text"),
        ("POST", "/a", 201, "made"),
        ("PUT", "/a", 200, "put"),
        ("PATCH", "/a", 200, "patch"),
        ("DELETE", "/a", 204, ""),
        ("BREW", "/any", 200, "BREW"),
        ("POST", "/two", 200, "two"),
        ("HEAD", "/a", 200, ""),
        ("OPTIONS", "/two", 204, ""),
    ];
    for (method, path, status, text) in table {
        let response = send(method, path);
        assert_eq!(
            (response.status(), response.text().as_str()),
            (status, text),
            "{method} {path}"
        );
    }
    assert_eq!(send("HEAD", "/a").header("content-length"), Some("4"));
    assert_eq!(send("OPTIONS", "/two").header("allow"), Some("GET, HEAD, OPTIONS, POST"));
    let everything = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
    assert_eq!(send("OPTIONS", "*").header("allow"), Some(everything));
    let refused = send("DELETE", "/two");
    assert_eq!(
        (refused.status(), refused.header("allow")),
        (405, Some("GET, HEAD, OPTIONS, POST"))
    );
}

#[test]
fn addresses_of_named_routes() {
    let mut app = App::new();
    app.get(["/list", "/list/<page:int>"], |urls: &Urls, page: Option<u32>| {
        urls.build("list", &[("page", &(page.unwrap_or(1) + 1).to_string())])
    })
    .name("list");
    assert_eq!(app.url("list", &[]).unwrap(), "/list");
    assert_eq!(app.url("list", &[("page", "2"), ("q", "a b")]).unwrap(), "/list/2?q=a+b");
    let unknown = app.url("lists", &[]).unwrap_err().to_string();
    assert_eq!(unknown, "no route is named \"lists\"; named are: list");
    let client = TestClient::new(app).unwrap();
    assert_eq!(client.get("/list/4").send().text(), "/list/5");
}

#[test]
fn custom_filters() {
    let client = client(|app| {
        app.filter("list", |config| {
            let separator = config.unwrap_or(",").to_owned();
            Ok(Filter::regex("[^/]+")?.parse(move |text| Some(text.replace(&separator, " "))))
        });
        app.get("/a/<x:list>", |x: &str| x.to_owned());
        app.get("/b/<x:list:;>", |x: &str| x.to_owned());
    });
    assert_eq!(client.get("/a/1,2;3").send().text(), "1 2;3");
    assert_eq!(client.get("/b/1,2;3").send().text(), "1,2 3");
}

#[test]
fn no_method_is_not_any_method() {
    let error = build_error(|app| {
        app.route([] as [&str; 0], "/", || "x");
    });
    assert!(error.contains("a route needs a method such as \"GET\", or \"ANY\""), "{error}");
}
