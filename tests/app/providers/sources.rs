//! What a provider is made of, and by what a handler finds it.

use super::*;

#[test]
fn a_value_is_made_of_others_wherever_these_were_installed() {
    let client = client(|app| {
        // The route, then what it asks for, then what that asks for.
        app.get("/", |user: &mut User, tenant: &Tenant| format!("{} {}", user.name, tenant.0));
        app.provide(|request: &Request, user: &User| {
            Tenant(format!("{}@{}", user.name, request.host().unwrap_or_default()))
        });
        with_users(app);
    });
    assert_eq!(client.get("/").send().header("location"), Some("/login"));
    client.get("/login/ada").send();
    // The route borrows a user of whom the tenant has been made.
    assert_eq!(client.get("/").send().text(), "ada ada@localhost");
}

#[test]
fn a_session_is_found_wherever_it_stands_among_the_arguments() {
    struct Name(String);
    impl Argument for Name {
        type Plan = Asked<Session>;
        type State = Option<std::result::Result<Name, HttpError>>;
        type Item<'a> = Name;

        fn plan(binder: &mut Binder<'_>) -> Option<Asked<Session>> {
            binder.ask()
        }

        fn take(asked: &Asked<Session>, exchange: &mut Exchange) -> Self::State {
            let session = exchange.asked(asked);
            Some(session.map(|session| Name(session.get("name").unwrap_or("-").to_owned())))
        }

        fn refusal(state: &mut Self::State) -> Option<HttpError> {
            match state.take()? {
                Ok(name) => {
                    *state = Some(Ok(name));
                    None
                }
                Err(error) => Some(error),
            }
        }

        fn lend<'a>(_: &'a Asked<Session>, state: &'a mut Self::State, _: &'a Exchange) -> Name {
            state.take().and_then(std::result::Result::ok).unwrap()
        }
    }
    let with_sessions = |app: &mut App| {
        with_users(app);
        app.get("/alone", |name: Name| name.0);
        app.get("/behind", |session: &mut Session, name: Name| {
            format!("{} {}", name.0, session.is_new())
        });
        app.get("/before", |name: Name, _: &mut Session| name.0);
    };
    let client = client(with_sessions);
    client.get("/login/ada").send();
    for (path, expected) in [("/alone", "ada"), ("/behind", "ada false"), ("/before", "ada")] {
        assert_eq!(client.get(path).send().text(), expected, "{path}");
    }
    let error = build_error(|app| {
        app.get("/", |name: Name| name.0);
    });
    assert!(
        error.contains("argument 1 asks for bottle_session::Session, which no installed plugin"),
        "{error}"
    );
}

#[test]
fn an_extractor_asks_for_a_keyword() {
    struct Both(String);
    impl Argument for Both {
        type Plan = (Asked<Number>, Asked<Number>);
        type State = String;
        type Item<'a> = Both;

        fn plan(binder: &mut Binder<'_>) -> Option<Self::Plan> {
            Some((binder.ask_keyword("a")?, binder.ask_keyword("b")?))
        }

        fn take((a, b): &Self::Plan, exchange: &mut Exchange) -> String {
            let a = exchange.asked(a).unwrap().0;
            format!("{a} {}", exchange.asked(b).unwrap().0)
        }

        fn lend<'a>(_: &'a Self::Plan, state: &'a mut String, _: &'a Exchange) -> Both {
            Both(std::mem::take(state))
        }
    }
    let client = client(|app| {
        app.install(Counting::new("a", 1)).unwrap();
        app.install(Counting::new("b", 5)).unwrap();
        app.get("/", |both: Both| both.0);
    });
    assert_eq!(client.get("/").send().text(), "2 6");
    let error = build_error(|app| {
        app.install(Counting::new("a", 1)).unwrap();
        app.get("/", |both: Both| both.0);
    });
    assert!(
        error.contains("but no installed plugin has keyword \"b\"; known keywords: a"),
        "{error}"
    );
}

#[test]
fn names_find_providers_by_their_keywords_and_wildcards() {
    let client = client(|app| {
        app.provide(|| Number(1)).keyword("one");
        app.provide(|| Number(2)).keyword("two");
        app.provide(named!(|id: u32, two: &mut Number| User { name: format!("{id}/{}", two.0) }));
        app.state(Users(&["ada"]));
        app.get(
            "/<kind>/<id>",
            named!(|user: &User, one: &mut Number, kind: &str, list: &Users| {
                format!("{} {} {kind} {}", user.name, one.0, list.0[0])
            }),
        );
    });
    assert_eq!(client.get("/item/7").send().text(), "7/2 1 item ada");
    // A value that the provider cannot read does not match the rule.
    assert_eq!(client.get("/item/x").send().status(), 404);
}

#[test]
fn a_form_is_read_by_a_provider_and_the_handler() {
    let client = client(|app| {
        app.provide(|Form(page): Form<Page>| Number(page.number as usize));
        app.post("/", |number: &Number, Form(page): Form<Page>| {
            format!("{} {}", number.0, page.number)
        });
    });
    let page = Page { number: 3, size: None };
    assert_eq!(client.post("/").form(&page).send().text(), "3 3");
    assert_eq!(client.post("/").form(&[("number", "x")]).send().status(), 400);
    let error = build_error(|app| {
        app.provide(|Form(page): Form<Page>| Number(page.number as usize));
        app.post("/", |_: &Number, _: Json<Page>| "x");
    });
    assert!(
        error.contains("takes the body as JSON, which argument 1 of the provider of"),
        "{error}"
    );
}

#[test]
fn a_plugin_uses_the_value_of_a_provider() {
    struct Using;
    impl Plugin for Using {
        fn name(&self) -> &str {
            "using"
        }
        fn uses(&self, _: &Route) -> Vec<String> {
            vec!["tenant".to_owned()]
        }
        fn apply(&self, callback: Callback, route: &Route) -> Callback {
            assert!(route.asks_for("tenant") && route.asks_for("n"));
            Callback::new(move |exchange| {
                let tenant = exchange.provided::<Tenant>("tenant").unwrap().0.clone();
                callback.call(exchange).with_header("x-tenant", tenant)
            })
        }
    }
    let client = client(|app| {
        app.install(Using).unwrap();
        app.provide(|n: &mut Number| Tenant(n.0.to_string()));
        app.install(Counting::new("n", 4)).unwrap();
        app.get("/", || "x");
    });
    assert_eq!(client.get("/").send().header("x-tenant"), Some("5"));
}
