//! Checks of forms by garde.

use std::borrow::Cow;
use std::fmt::Display;

use bottle_session::{App, Checked, Form, FormError, Query, Request, Result, Secret, TestClient};
use garde::Validate;
use garde::i18n::{I18n, InvalidCreditCard, InvalidEmail, InvalidPhoneNumber, InvalidUrl, IpKind};
use serde::Deserialize;

use super::URLENCODED;

#[derive(Debug, Deserialize, Validate)]
struct Account {
    #[garde(email)]
    email: String,
    #[garde(range(min = 18))]
    age: u8,
    #[garde(length(chars, min = 8))]
    password: Secret,
    #[garde(matches(password))]
    again: Secret,
    #[garde(length(max = 2), inner(length(min = 2)))]
    #[serde(default)]
    tags: Vec<String>,
}

#[test]
fn all_that_is_wrong_is_told_at_its_field_and_the_form_is_kept() {
    let mut app = App::new();
    app.post("/", |form: Result<Checked<Form<Account>>, FormError>| match form {
        Ok(Checked(Form(account))) => account.email,
        Err(error) => serde_json::to_string(&error).unwrap(),
    });
    app.get("/", |Checked(Query(account)): Checked<Query<Account>>| account.email);
    let client = TestClient::new(app).unwrap();
    let bad = "email=ada&age=17&password=secret&again=sacred&tags=a&tags=bc";
    let good = "email=ada@example.com&age=18&password=correct+horse&again=correct+horse";
    let send = |body: &'static str| {
        client.post("/").header("content-type", URLENCODED).body(body).send().text()
    };
    let refused: serde_json::Value = serde_json::from_str(&send(bad)).unwrap();
    assert_eq!(refused["value"], serde_json::json!({ "email": "ada", "age": "17", "tags": "bc" }));
    assert_eq!(
        refused["message"],
        serde_json::json!({
            "email": "not a valid email: value is missing `@`",
            "age": "lower than 18",
            "password": "length is lower than 8",
            "again": "does not match password field",
            "tags": "length is lower than 2",
        })
    );
    assert_eq!(send(good), "ada@example.com");
    assert_eq!(client.get(&format!("/?{good}")).send().text(), "ada@example.com");
    let query = client.get(&format!("/?{bad}")).send();
    assert_eq!(query.status(), 400);
    assert!(query.text().contains("age: lower than 18"), "{}", query.text());
}

#[test]
fn checks_speak_other_languages() {
    struct German;

    macro_rules! german {
        ($($method:ident($($type:ty)?) $text:literal)*) => {
            impl I18n for German {
                $(fn $method(&self $(, _: $type)?) -> Cow<'static, str> { $text.into() })*

                fn length_lower_than(&self, min: usize) -> Cow<'static, str> {
                    format!("mindestens {min} Zeichen").into()
                }
            }
        };
    }
    german! {
        length_greater_than(usize) "zu lang"
        range_lower_than(&dyn Display) "zu klein"
        range_greater_than(&dyn Display) "zu groß"
        credit_card_invalid(InvalidCreditCard) "keine Kreditkarte"
        pattern_no_match(&dyn Display) "falsches Muster"
        contains_missing(&dyn Display) "unvollständig"
        url_invalid(InvalidUrl) "keine Adresse"
        prefix_missing(&dyn Display) "falscher Anfang"
        suffix_missing(&dyn Display) "falsches Ende"
        phone_number_invalid(InvalidPhoneNumber) "keine Telefonnummer"
        ip_invalid(IpKind) "keine IP-Adresse"
        matches_field_mismatch(&dyn Display) "anders"
        email_invalid(InvalidEmail) "keine E-Mail-Adresse"
        ascii_invalid() "nicht ASCII"
        alphanumeric_invalid() "nicht alphanumerisch"
        required_not_set() "fehlt"
    }

    let mut app = App::new();
    app.post("/", |request: &Request, Form(account): Form<Account>| -> Result<String> {
        let form = request.form()?;
        let checked = garde::i18n::with_i18n(German, || form.check(&account, &()));
        Ok(checked.unwrap_err().message("password").unwrap().to_owned())
    });
    let client = TestClient::new(app).unwrap();
    let sent = [("email", "a@b.c"), ("age", "18"), ("password", "secret"), ("again", "secret")];
    assert_eq!(client.post("/").form(&sent).send().text(), "mindestens 8 Zeichen");
}
