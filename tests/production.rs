//! What operators see of a server: what it believes, what it logs, and how it ends.

use bottle_session::server::native::Native;
use bottle_session::{
    App, Cookie, Redirect, Request, ResponseHead, Result, Session, SessionPlugin, Urls, redirect,
};

use crate::support::serving::Serving;

#[test]
fn an_app_below_a_path_of_its_proxy_has_that_in_its_addresses_and_cookies() {
    let mut app = App::new();
    app.install(SessionPlugin::new().in_memory()).unwrap();
    app.get("/item/<id:int>", |urls: &Urls, id: i64| {
        urls.build("item", &[("id", &id.to_string())])
    })
    .name("item");
    app.get("/go", |urls: &Urls| -> Result<Redirect> {
        Ok(redirect(urls.build("item", &[("id", "7")])?))
    });
    app.get("/elsewhere", || redirect("/x"));
    app.get("/seen", |request: &Request| format!("{}|{}", request.prefix(), request.path()));
    app.get("/cookies", |session: &mut Session, head: &mut ResponseHead| -> Result<()> {
        session.set("a", "1");
        head.set_cookie(Cookie::build(("mine", "1")).path("/cart"))?;
        head.set_cookie(Cookie::build(("__Host-mine", "1")).path("/").secure(true))
    });
    let native = Native::bind("127.0.0.1:0").unwrap().trusted_proxies(["127.0.0.1"]).unwrap();
    let server = Serving::start(native, app);
    let ask = |path: &str, prefix: &str| {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: {prefix}\r\n\r\n");
        server.client().send(head).reply()
    };
    for (prefix, shown) in [("/shop", "/shop"), ("/shop/", "/shop"), ("//evil", ""), ("http:", "")]
    {
        assert_eq!(ask("/item/7", prefix).text(), format!("{shown}/item/7"));
        assert_eq!(ask("/seen", prefix).text(), format!("{shown}|/seen"));
        let location = |path| ask(path, prefix).header("location").unwrap().to_owned();
        assert_eq!(location("/go"), format!("{shown}/item/7"), "not twice");
        assert_eq!(location("/elsewhere"), "/x", "as it was given");
        let reply = ask("/cookies", prefix);
        let mut paths: Vec<_> = reply
            .headers
            .iter()
            .filter(|(name, _)| name == "set-cookie")
            .map(|(_, value)| {
                let path = value.split("; ").find_map(|part| part.strip_prefix("Path="));
                (value.split_once('=').unwrap().0, path.unwrap().to_owned())
            })
            .collect();
        paths.sort_unstable();
        let session = if shown.is_empty() { "/".to_owned() } else { shown.to_owned() };
        let expected = [
            ("__Host-mine", "/".to_owned()),
            ("bottle.session", session),
            ("mine", format!("{shown}/cart")),
        ];
        assert_eq!(paths, expected, "{prefix}");
    }
}
