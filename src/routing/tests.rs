use super::*;
use crate::Error;

mod index;
mod model;

fn rule(text: &str) -> Rule {
    Rule::parse(text, &Filters::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn router(rules: &[(&str, &str)]) -> Router<usize> {
    let mut router = Router::new();
    for (number, (method, text)) in rules.iter().enumerate() {
        let method = (*method != "ANY").then(|| method.parse().unwrap());
        assert!(router.insert(method, rule(text), number).is_ok(), "{text}");
    }
    router
}

fn values(text: &str, path: &str) -> Option<Vec<String>> {
    let rule = rule(text);
    let captures = rule.captures(&decoded_path(path)?)?;
    Some((0..rule.wildcards().count()).map(|i| captures.get(i).unwrap().to_owned()).collect())
}

#[test]
fn rules_match_as_in_bottle() {
    let table: &[(&str, &str, Option<&[&str]>)] = &[
        ("/", "/", Some(&[])),
        ("/a", "/a/", None),
        ("/wiki/<page>", "/wiki/Rust", Some(&["Rust"])),
        ("/wiki/<page>", "/wiki/", None),
        ("/wiki/<page>", "/wiki/a/b", None),
        ("/<a>/<b>", "/x/y", Some(&["x", "y"])),
        ("/<id:int>", "/42", Some(&["42"])),
        ("/<id:int>", "/-42", Some(&["-42"])),
        ("/<id:int>", "/+42", None),
        ("/<id:int>", "/4x", None),
        ("/<id:int>", "/9223372036854775808", None),
        ("/<x:float>", "/-1.5", Some(&["-1.5"])),
        ("/<x:float>", "/1.2.3", None),
        ("/<x:float>", "/1e5", None),
        ("/x/<p:path>", "/x/a/b/c", Some(&["a/b/c"])),
        ("/x/<p:path>", "/x/", None),
        ("/x/<p:path>", "/x", None),
        ("/<p:path>/edit", "/a/b/edit", Some(&["a/b"])),
        ("/<p:path>/edit/<q:path>", "/a/edit/edit/b", Some(&["a", "edit/b"])),
        ("/<y:re:[0-9]{4}>", "/2024", Some(&["2024"])),
        ("/<y:re:[0-9]{4}>", "/20245", None),
        ("/<t:re:\\d+:\\d+>", "/12:30", Some(&["12:30"])),
        ("/<t:re:a\\>b>", "/a%3Eb", Some(&["a>b"])),
        ("/<p:re:.+>x", "/a/bx", Some(&["a/b"])),
        ("/<:re:[a-z]+>/<b>", "/abc/d", Some(&["d"])),
        ("/<:int>/<b>", "/12/d", Some(&["d"])),
        ("/<name>.<ext>", "/a.tar.gz", Some(&["a.tar", "gz"])),
        ("/v<n:int>.html", "/v12.html", Some(&["12"])),
        ("/<a>-<b>-<c>", "/1-2-3-4", Some(&["1-2", "3", "4"])),
        ("/<a><b>", "/xyz", Some(&["xy", "z"])),
        ("/<a><b>", "/x", None),
        ("/<a>x<b>", "/xxx", Some(&["x", "x"])),
        ("/<n:int><rest>", "/12ab", Some(&["12", "ab"])),
        ("/<n:int><a><b>", "/1éé", Some(&["1", "é", "é"])),
        ("/<n:int><m:int>", "/1234", Some(&["123", "4"])),
        ("/<n:int><m:int>", "/-12-34", Some(&["-12", "-34"])),
        ("/<n:int>-<slug>", "/7-up-to-8", Some(&["7", "up-to-8"])),
        ("/<n:int>-<slug>", "/9223372036854775808-x", None),
        ("/<x:float><y>", "/1.5.", Some(&["1.5", "."])),
        ("/<p:path>/<q:path>", "/a/b/c", Some(&["a", "b/c"])),
        ("/<p:path>.<ext>", "/a.b/c.tar.gz", Some(&["a.b/c", "tar.gz"])),
        ("/<p:path>/x/<n>", "/a/x/b/x/c", Some(&["a/x/b", "c"])),
        ("/<p:path>/x", "//x", None),
        ("/<p:path>/x", "///x", Some(&["/"])),
        ("/<p:re:.*>/x", "//x", Some(&[""])),
        ("/<d:re:[a-z]{3}/[0-9]+>", "/abc/12", Some(&["abc/12"])),
        ("/a/<w:re:^[a-z]+$>/b", "/a/bc/b", Some(&["bc"])),
        ("/<d:re:a(b)?c><e:re:(x|y)+>", "/abcxy", Some(&["abc", "xy"])),
        ("/<t:re:\\\\\\<>", "/%5C<", Some(&["\\<"])),
        ("/<t:re:\\<[0-9]\\>>", "/<5>", Some(&["<5>"])),
        ("/<a:>/<b::[ab]+>/<c:re:>/<:>", "/1/ab/2/3", Some(&["1", "ab", "2"])),
        ("/\\<a\\>\\:b\\\\", "/%3Ca%3E:b%5C", Some(&[])),
        ("/\\:name", "/:name", Some(&[])),
        ("/\\:name", "/x", None),
        ("/a:name/:7/:", "/a:name/:7/:", Some(&[])),
        ("/\\{name}/{/}/{}", "/{name}/{/}/{}", Some(&[])),
        ("/<y:re:[0-9]{4}>/{", "/2024/{", Some(&["2024"])),
        ("/<>", "/x", Some(&[])),
        ("/<>/<b>", "/x/y", Some(&["y"])),
        ("/<>", "/x/y", None),
        ("/\\<its>", "/<its>", Some(&[])),
        ("/\\<its:int>/<x>", "/<its:int>/y", Some(&["y"])),
        ("/\\<a\\<b>>", "/<a<b>>", Some(&[])),
        ("/café/<x>", "/caf%C3%A9/%C3%A9", Some(&["é"])),
        ("/f/<x>", "/f/a%2Fb", None),
        ("/f/<x>", "/f/..%2f..%2Fetc%2Fpasswd", None),
        ("/f/<x>.<y>", "/f/a%2Fb.c", None),
        ("/f/<n:int><x>", "/f/1a%2Fb", None),
        ("/f/<x>/<y>", "/f/a%2Fb", None),
        ("/f/<x:path>", "/f/a%2Fb/c", Some(&["a/b/c"])),
        ("/f/<x:path>.<y>", "/f/a%2Fb.c", Some(&["a/b", "c"])),
        ("/f/<x:re:[^/]+>", "/f/a%2Fb", None),
        ("/f/<x:re:[^0-9]+>", "/f/a%2Fb", Some(&["a/b"])),
        ("/f/<x:re:a.b|[^/]+>", "/f/a%2Fb", Some(&["a/b"])),
        ("/f/<x:re:a.b|[^/]+>", "/f/b%2Fa", None),
        ("/f/<x:re:a.b|[^/]+>-<y>", "/f/a%2Fb-c", Some(&["a/b", "c"])),
        ("/f/<x:re:a.b|[^/]+>-<y>", "/f/b%2Fa-c", None),
        ("/a/b", "/a%2Fb", None),
    ];
    for (rule, path, expected) in table {
        let expected = expected.map(|all| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(values(rule, path), expected, "{rule} {path}");
    }
}

#[test]
fn a_malformed_rule_says_what_and_where() {
    let table = [
        (
            "/user/<id:imt>",
            "unknown filter \"imt\" in rule \"/user/<id:imt>\", column 11; known: int, float, path, re",
        ),
        ("user", "a rule starts with a slash in rule \"user\", column 1"),
        ("/<", "a wildcard without its >; write \\< for the character in rule \"/<\", column 2"),
        (
            "/\\<a>>",
            "a > without its <; write \\> for the character in rule \"/\\\\<a>>\", column 6",
        ),
        (
            "/\\<a\\>>",
            "a > without its <; write \\> for the character in rule \"/\\\\<a\\\\>>\", column 7",
        ),
        (
            "/é/:name",
            "a wildcard is written <name>; write \\: for the character in rule \"/é/:name\", column 4",
        ),
        (
            "/a/{id}",
            "a wildcard is written <id>; write \\{ for the character in rule \"/a/{id}\", column 4",
        ),
        (
            "/{*rest}",
            "a wildcard is written <rest>; write \\{ for the character in rule \"/{*rest}\", column 2",
        ),
        (
            "/v{id:int}.png",
            "a wildcard is written <id>; write \\{ for the character in rule \"/v{id:int}.png\", column 3",
        ),
        ("/a>", "a > without its <; write \\> for the character in rule \"/a>\", column 3"),
        ("/<a>/<a>", "a second wildcard named \"a\" in rule \"/<a>/<a>\", column 7"),
        (
            "/<1a>",
            "\"1a\" is no name for a wildcard, which starts with a letter or _ and goes on with letters, digits and _ in rule \"/<1a>\", column 3",
        ),
        (
            "/é/<b:path:x>",
            "filter \"path\" takes no configuration in rule \"/é/<b:path:x>\", column 12",
        ),
        ("/<a:int:5>", "filter \"int\" takes no configuration in rule \"/<a:int:5>\", column 9"),
    ];
    for (rule, expected) in table {
        let error: Error = Rule::parse(rule, &Filters::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    for (rule, pattern) in
        [("/<a:re:(>", "("), ("/<a:re:a)(b>", "a)(b"), ("/<a:re:(?=b)>", "(?=b)")]
    {
        let error = Rule::parse(rule, &Filters::default()).unwrap_err().to_string();
        let expected = format!("{pattern:?} is no regex");
        assert!(error.starts_with(&expected) && error.ends_with("column 8"), "{error}");
    }
}

#[test]
fn the_first_match_wins_static_before_dynamic_verb_before_any() {
    let rules = &[
        ("ANY", "/any"),
        ("GET", "/<x>"),
        ("GET", "/static"),
        ("GET", "/a/<p:path>"),
        ("HEAD", "/headed"),
        ("GET", "/headed"),
        ("ANY", "/static"),
        ("GET", "/n/<n:int>"),
        ("GET", "/n/<n>"),
        ("POST", "/static"),
        ("ANY", "/z/<x>"),
        ("GET", "/z/<x:path>"),
    ];
    let router = router(rules);
    let table = [
        ("GET", "/static", Some(2)),
        ("PUT", "/static", Some(6)),
        ("POST", "/static", Some(9)),
        // Dynamic GET goes before static ANY.
        ("GET", "/any", Some(1)),
        ("PUT", "/any", Some(0)),
        ("GET", "/a/b", Some(3)),
        ("HEAD", "/headed", Some(4)),
        ("HEAD", "/static", Some(2)),
        ("GET", "/n/5", Some(7)),
        ("GET", "/n/five", Some(8)),
        ("GET", "/n/99999999999999999999", Some(8)),
        ("GET", "/z/x", Some(11)),
        ("PUT", "/z/x", Some(10)),
        ("PUT", "/nowhere", None),
    ];
    for (method, path, expected) in table {
        let found = match router.find(&method.parse().unwrap(), path, |_, _| true) {
            Found::Match { value, .. } => Some(*value),
            _ => None,
        };
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[test]
fn a_path_without_the_method_says_which_it_has() {
    let router =
        router(&[("GET", "/a"), ("POST", "/a"), ("DELETE", "/<x>"), ("PUT", "/a/<n:int>")]);
    let allowed =
        |method: &str, path: &str| match router.find(&method.parse().unwrap(), path, |_, _| true) {
            Found::MethodNotAllowed(methods) => {
                methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
            }
            Found::Nothing => "nothing".to_owned(),
            _ => "match".to_owned(),
        };
    assert_eq!(allowed("PATCH", "/a"), "DELETE, GET, HEAD, OPTIONS, POST");
    assert_eq!(allowed("OPTIONS", "/a/1"), "OPTIONS, PUT");
    assert_eq!(allowed("GET", "/a/x"), "nothing");
    assert_eq!(allowed("HEAD", "/a"), "match");
    assert!(matches!(router.find(&Method::GET, "/%FF", |_, _| true), Found::BadPath));
}

#[test]
fn what_is_refused_does_not_end_the_search() {
    let router = router(&[("GET", "/<small>"), ("GET", "/<big:path>")]);
    let found = router.find(&Method::GET, "/300", |value, captures| {
        *value != 0 || captures.get(0).unwrap().parse::<u8>().is_ok()
    });
    assert!(matches!(found, Found::Match { value: 1, .. }));
}

#[test]
fn the_same_pattern_twice_is_a_conflict() {
    let table = [
        ("/a/<x>", "/a/<y>", true),
        ("/a/<x:int>", "/a/<y:int>", true),
        ("/a/<x:re:[a-z]+>", "/a/<y:re:[a-z]+>", true),
        ("/a/<x:re:[a-z]+>", "/a/<y:re:[0-9]+>", false),
        ("/a/<x>", "/a/<y:int>", false),
        ("/a", "/a/", false),
        ("/a/<x>", "/a/<y:>", true),
        (r"/\\<x:int>", r"/\\\<int\>", false),
        (r"/<x:re:a 0\>b>", r"/<x:re:a>b 0\>", false),
    ];
    for (one, other, conflict) in table {
        let mut router = Router::new();
        assert!(router.insert(Some(Method::GET), rule(one), 0).is_ok());
        assert!(router.insert(Some(Method::POST), rule(other), 1).is_ok());
        assert_eq!(
            router.insert(Some(Method::GET), rule(other), 2).is_err(),
            conflict,
            "{one} {other}"
        );
    }
}

#[test]
fn addresses_are_built_and_lead_back() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<&'a str, &'a str>);
    let table: &[Row<'_>] = &[
        ("/", &[], Ok("/")),
        (
            "/wiki/<page>",
            &[("page", "a b/c?é")],
            Err("which is any text without a slash; a value with a slash needs <page:path>"),
        ),
        ("/wiki/<page>", &[("page", "a b?é")], Ok("/wiki/a%20b%3F%C3%A9")),
        ("/f/<p:path>", &[("p", "a b/c")], Ok("/f/a%20b/c")),
        ("/n/<n:int>", &[("n", "5"), ("page", "2"), ("q", "a&b")], Ok("/n/5?page=2&q=a%26b")),
        ("/n/<n:int>", &[("n", "five")], Err("\"five\" is no value for <n>, which is int")),
        ("/n/<n:int>", &[], Err("no value for <n> was given")),
        ("/n/<:int>", &[], Err("it has a wildcard without a name")),
        ("/<p:path>", &[("p", "/evil.example/x")], Ok("/%2Fevil.example/x")),
        ("/<x>", &[("x", "/evil.example")], Err("a value with a slash needs <x:path>")),
        ("/<d:re:[a-z]{3}/[0-9]+>", &[("d", "abc/12")], Ok("/abc/12")),
        ("/<x:re:[^/]+>", &[("x", "a/b")], Err("a value with a slash needs <x:path>")),
        (
            "/<x:re:[a-z]+>",
            &[("x", "a/b")],
            Err(
                "\"a/b\" is no value for <x>, which is re:[a-z]+; a value with a slash needs <x:path>",
            ),
        ),
        ("/<x:re:[a-z]+>", &[("x", "1")], Err("\"1\" is no value for <x>, which is re:[a-z]+")),
        ("/<n:int>-<slug>", &[("n", "7"), ("slug", "8-9")], Ok("/7-8-9")),
        ("/<x>", &[("x", "\u{FFFF}")], Err("would not lead back")),
        ("/<a>-<b>", &[("a", "x"), ("b", "y-z")], Err("would not lead back")),
        ("/<a>/x", &[("a", "..")], Err("would not lead back")),
        ("/café", &[], Ok("/caf%C3%A9")),
        ("/a\\<b", &[], Ok("/a%3Cb")),
    ];
    for (text, arguments, expected) in table {
        let built = rule(text).build(arguments).map_err(|error| error.to_string());
        match (built, expected) {
            (Ok(path), Ok(expected)) => assert_eq!(path, *expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
            (built, _) => panic!("{text}: {built:?}"),
        }
    }
}

#[test]
fn hostile_paths_match_in_linear_time() {
    // Without a bound on backtracking these would not end.
    let forms = [
        "/<a>-<b>-<c>-<d>-<e>x",
        "/<a:int><b:int><c>-<d:path>-<e:path>x",
        "/<a><b><c><d><e><f>x",
        "/<a:float>-<b>-<c:int>-<d>-<e:float>x",
        "/<a:path>/<b:path>/<c:path>/<d:path>/<e>x",
        "/<a:path>-<b:path>-<c:path>-<d:path>-<e:path>x",
        "/<a:re:(?:-+)+>-<b:re:.*>-<c:re:(?:.*-)*>x",
    ];
    let rules: Vec<_> = forms.iter().map(|text| ("GET", *text)).collect();
    let router = router(&rules);
    for unit in ["-", "/", "-/", "1-", "1.", "é", "%2F"] {
        let path = format!("/{}", unit.repeat(8192 / unit.len()));
        assert!(matches!(router.find(&Method::GET, &path, |_, _| true), Found::Nothing), "{unit}");
        for text in forms {
            assert_eq!(values(text, &path), None, "{text} {unit}");
        }
    }
}

#[test]
fn a_filter_of_the_app_s_own_converts_both_ways() {
    let mut filters = Filters::default();
    filters.add("hex", |config| {
        let digits = config.unwrap_or("1,");
        Ok(Filter::regex(&format!("[0-9a-f]{{{digits}}}"))?
            .parse(|text| u16::from_str_radix(text, 16).ok().map(|number| number.to_string()))
            .format(|value| value.parse::<u16>().ok().map(|number| format!("{number:x}"))))
    });
    filters.add("pair", |_| {
        Ok(Filter::regex("[^/]+/[^/]+")?.parse(|text| Some(text.replace('/', " and "))))
    });
    let rule = |text: &str| Rule::parse(text, &filters).unwrap();
    let table: &[(&str, &str, Option<&[&str]>)] = &[
        ("/c/<c:hex>", "/c/ff", Some(&["255"])),
        ("/c/<c:hex>", "/c/FF", None),
        // Fits the pattern, but the filter refuses it.
        ("/c/<c:hex>", "/c/fffff", None),
        ("/c/<c:hex:4>", "/c/00ff", Some(&["255"])),
        ("/c/<c:hex:4>", "/c/ff", None),
        ("/c-<n:int>-<c:hex>.png", "/c-1-a.png", Some(&["1", "10"])),
        ("/<p:pair>/end", "/a/b/end", Some(&["a and b"])),
        ("/<p:pair>/end", "/a/b%2Fc/end", None),
        ("/<p:pair>/end", "/a/b/c/end", None),
    ];
    for (text, path, expected) in table {
        let captures = rule(text).captures(&decoded_path(path).unwrap());
        let values = captures
            .as_ref()
            .map(|captures| (0..).map_while(|index| captures.get(index)).collect::<Vec<_>>());
        assert_eq!(values.as_deref(), *expected, "{text} {path}");
    }
    assert_eq!(rule("/c/<c:hex>").build(&[("c", "255")]).unwrap(), "/c/ff");
    assert!(rule("/c/<c:hex>").build(&[("c", "65536")]).is_err());
    let error = Rule::parse("/<c:hex:x>", &filters).unwrap_err().to_string();
    assert!(error.ends_with("in rule \"/<c:hex:x>\", column 9"), "{error}");
    let error = Rule::parse("/<c:hax>", &filters).unwrap_err().to_string();
    assert!(error.ends_with("column 5; known: int, float, path, re, hex, pair"), "{error}");
}

#[test]
fn filters_of_two_apps_with_one_name_are_two_filters() {
    let with = |pattern: &'static str| {
        let mut filters = Filters::default();
        filters.add("mine", move |_| Filter::regex(pattern));
        filters
    };
    let (letters, digits) = (with("[a-z]+"), with("[0-9]+"));
    let pattern = |text, filters: &Filters| Rule::parse(text, filters).unwrap().pattern();
    assert_ne!(pattern("/<x:mine>", &letters), pattern("/<x:mine>", &digits));
    assert_eq!(pattern("/<x:mine>", &letters), pattern("/<y:mine>", &letters.clone()));
}
