//! Requests that the native server finds together: all have been sent before it looks, which takes plain HTTP.

use bottle_session::Server;
use bottle_session::server::native::Native;

use crate::hostile::{Gate, Held, Slow, app};
use crate::support::serving::{Client, Serving};

fn bind() -> Native {
    Native::bind("127.0.0.1:0").unwrap()
}

#[test]
fn a_plugin_that_waits_delays_no_request_of_its_batch_that_does_not_use_it() {
    for waits_to_acquire in [true, false] {
        let (acquire, release) = (Gate::default(), Gate::default());
        let (shut, open) =
            if waits_to_acquire { (&acquire, &release) } else { (&release, &acquire) };
        open.open();
        let mut app = app();
        app.install(Slow(acquire.clone(), release.clone())).unwrap();
        app.get("/held", |_: &mut Held| "held");
        let native = bind().active_threads(1);
        let address = native.address();
        // All have asked before the server looks: it finds them together.
        let ask = |target| {
            let mut client = Client::of(&address);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            client
        };
        let mut plain = [ask("/"), ask("/")];
        let mut held = [ask("/held"), ask("/held")];
        let mut behind = [ask("/"), ask("/")];
        let _server = Serving::start(native, app);
        shut.wait_for(1);
        for client in plain.iter_mut().chain(&mut behind) {
            assert_eq!(client.reply().text(), "hello", "{waits_to_acquire}");
            assert_eq!(client.get("/").text(), "hello");
        }
        shut.open();
        for client in &mut held {
            assert_eq!(client.reply().text(), "held");
        }
    }
}

#[test]
fn who_has_run_waits_for_no_plugin_of_others_though_the_handlers_behind_it_wait() {
    let (acquire, release, handler) = (Gate::default(), Gate::default(), Gate::default());
    acquire.open();
    let mut app = app();
    app.install(Slow(acquire, release.clone())).unwrap();
    app.get("/held", |_: &mut Held| "held");
    for rule in ["/held/one", "/held/another"] {
        let handler = handler.clone();
        app.get(rule, move |_: &mut Held| {
            handler.pass();
            "held"
        });
    }
    let native = bind().active_threads(1);
    let address = native.address();
    // All have asked before the server looks: it finds them together.
    let ask = |target| {
        let mut client = Client::of(&address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    let (mut plain, held) = (ask("/"), ["/held", "/held/one", "/held/another"].map(ask));
    let _server = Serving::start(native, app);
    handler.wait_for(2);
    assert_eq!(plain.reply().text(), "hello");
    handler.open();
    release.open();
    for mut client in held {
        assert_eq!(client.reply().text(), "held");
    }
}
