//! The router next to a naive model, a list of regexes in order, on random rules and paths; and addresses
//! that are built, on random values.

use regex::Regex;

use super::super::filter::{is_float, is_int};
use super::*;

/// A small generator: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// The path with some of its bytes encoded, some slashes among them.
    fn encode(&mut self, path: &str) -> String {
        let mut encoded = String::from("/");
        for byte in path.bytes().skip(1) {
            if !byte.is_ascii() || self.below(8) == 0 {
                encoded.push_str(&format!("%{byte:02X}"));
            } else {
                encoded.push(char::from(byte));
            }
        }
        encoded
    }

    /// Up to `most` of these, joined.
    fn join(&mut self, from: &[&str], between: &str, most: usize) -> String {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.pick(from)).collect::<Vec<_>>().join(between)
    }
}

/// The rule as Bottle has it: one regex; and the regex of each wildcard, which a value with an encoded slash must
/// match once that is a slash.
struct Model(Regex, HashMap<String, Regex>);

impl Model {
    fn new(text: &str) -> Model {
        let wildcard = Regex::new(r"<(\w+)(?::(\w+)(?::([^>]+))?)?>").unwrap();
        let (mut pattern, mut filters) = (String::new(), HashMap::new());
        let mut end = 0;
        for found in wildcard.captures_iter(text) {
            let whole = found.get(0).unwrap();
            pattern.push_str(&regex::escape(&text[end..whole.start()]));
            end = whole.end();
            let filter = match found.get(2).map_or("", |filter| filter.as_str()) {
                "int" => "-?[0-9]+",
                "float" => "-?[0-9.]+",
                "path" => ".+?",
                "re" => &found[3],
                _ => "[^/]+",
            };
            pattern.push_str(&format!("(?P<{}>{filter})", &found[1]));
            let whole = Regex::new(&format!("^(?:{filter})$")).unwrap();
            filters.insert(found[1].to_owned(), whole);
        }
        pattern.push_str(&regex::escape(&text[end..]));
        Model(Regex::new(&format!("^{pattern}$")).unwrap(), filters)
    }

    /// The values, where each can be converted. Wildcards named i and j are ints, f and g floats.
    fn values<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let found = self.0.captures(path)?;
        let value = |name: &str| {
            let value = found.name(name)?.as_str();
            let converts = match name {
                "i" | "j" => is_int(value),
                "f" | "g" => is_float(value),
                _ if value.contains('\u{FFFF}') => {
                    self.1[name].is_match(&value.replace('\u{FFFF}', "/"))
                }
                _ => true,
            };
            converts.then_some(value)
        };
        self.0.capture_names().flatten().map(value).collect()
    }
}

const SEGMENTS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "<x>",
    "<y>",
    "a<x>",
    "<x>b",
    "a<y>a",
    "<x>.<y>",
    "<y>-<x>.<z>",
    "<x><y>",
    "<i:int>",
    "v<i:int>",
    "<i:int><x>",
    "<i:int><j:int>",
    "<x>-<j:int>",
    "<f:float>",
    "<f:float><g:float>",
    "<f:float>.<x>",
    "<p:path>",
    "<q:path>",
    "a<p:path>",
    "<p:path>b",
    "<p:path>.<z>",
    "<i:int><q:path>a",
    "<r:re:[ab]+>",
    "<r:re:[ab]*>",
    "<r:re:a|ab>",
    "<r:re:a|ab><x>",
    "<s:re:(?:1|é)+>-<y>",
    "<s:re:.+>",
    "<t:re:.*>b",
    "<t:re:a/b|a>",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "aa",
    "ba.b.a",
    "a.b",
    "1",
    "12",
    "-1",
    "1-a",
    "v12",
    "1.5",
    "-1.5.5",
    "é",
    "é-1",
    "1é-1-é.b",
    "x",
    "a-1-2.b",
    "99999999999999999999",
];

fn rules(random: &mut Random, count: usize) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    while rules.len() < count {
        let text = format!("/{}", random.join(SEGMENTS, "/", 3));
        let Ok(parsed) = Rule::parse(&text, &Filters::default()) else { continue };
        if rules.iter().all(|other| rule(other).pattern() != parsed.pattern()) {
            rules.push(text);
        }
    }
    rules
}

/// What a model looks for: each of the request's verbs in turn, static rules first, then the others as they
/// were declared.
fn expected<'a>(
    verbs: &[&str],
    rules: &[(&str, &str)],
    models: &[Model],
    path: &'a str,
) -> Option<(usize, Vec<&'a str>)> {
    let kinds = verbs.iter().flat_map(|verb| [(verb, true), (verb, false)]);
    kinds.into_iter().find_map(|(verb, statics)| {
        let mut all = rules.iter().zip(models).enumerate();
        all.find_map(|(number, ((method, rule), model))| {
            let meant = method == verb && rule.contains('<') != statics;
            meant.then(|| model.values(path)).flatten().map(|values| (number, values))
        })
    })
}

#[test]
fn verbs_and_encoded_paths_are_searched_in_the_order_of_bottle() {
    const VERBS: &[&str] = &["GET", "GET", "HEAD", "POST", "ANY"];
    let mut random = Random(1_181_783_497_276_652_981);
    let (mut matches, mut refused, mut slashes) = (0, 0, 0);
    for _ in 0..60 {
        let texts = rules(&mut random, 10);
        let rules: Vec<_> = texts.iter().map(|text| (random.pick(VERBS), text.as_str())).collect();
        let router = router(&rules);
        let models: Vec<_> = rules.iter().map(|(_, text)| Model::new(text)).collect();
        for _ in 0..200 {
            let plain = format!("/{}", random.join(TEXTS, "/", 4));
            let raw = random.encode(&plain);
            // What a client's slash means is not what an encoded one means: the model has it as a letter.
            let path = percent_encoding::percent_decode_str(&raw.replace("%2F", "%EF%BF%BF"))
                .decode_utf8()
                .unwrap()
                .into_owned();
            let (method, verbs): (_, &[&str]) = match random.below(4) {
                0 => ("HEAD", &["HEAD", "GET", "ANY"]),
                1 => ("POST", &["POST", "ANY"]),
                2 => ("BREW", &["ANY"]),
                _ => ("GET", &["GET", "ANY"]),
            };
            let expected = expected(verbs, &rules, &models, &path);
            match router.find(&method.parse().unwrap(), &raw, |_, _| true) {
                Found::Match { value, captures } => {
                    let values: Vec<_> = (0..).map_while(|index| captures.get(index)).collect();
                    let (number, wanted) = expected.unwrap_or_else(|| panic!("{rules:?} {raw}"));
                    let wanted: Vec<_> =
                        wanted.iter().map(|value| value.replace('\u{FFFF}', "/")).collect();
                    assert_eq!(
                        (*value, values),
                        (number, wanted.iter().map(String::as_str).collect())
                    );
                    matches += 1;
                    slashes += usize::from(path.contains('\u{FFFF}'));
                }
                found => {
                    assert_eq!(expected, None, "{method} {raw} {rules:?}");
                    let matching =
                        rules.iter().zip(&models).filter(|(_, m)| m.values(&path).is_some());
                    let mut wanted: Vec<_> =
                        matching.flat_map(|((verb, _), _)| [*verb, "OPTIONS"]).collect();
                    if wanted.contains(&"GET") {
                        wanted.push("HEAD");
                    }
                    wanted.sort_unstable();
                    wanted.dedup();
                    let allowed = match found {
                        Found::MethodNotAllowed(allowed) => allowed,
                        Found::Nothing => Vec::new(),
                        _ => panic!("{raw}"),
                    };
                    assert_eq!(allowed.iter().map(Method::as_str).collect::<Vec<_>>(), wanted);
                    refused += usize::from(!wanted.is_empty());
                }
            }
        }
    }
    assert!(
        matches > 3000 && refused > 500 && slashes > 200,
        "{matches} matches, {slashes} of them with an encoded slash, {refused} with another method"
    );
}

#[test]
fn the_tree_finds_what_a_list_of_regexes_finds() {
    let mut random = Random(88_172_645_463_325_252);
    let (mut matches, mut spans) = (0, 0);
    for _ in 0..100 {
        let rules = rules(&mut random, 8);
        let with_methods: Vec<_> = rules.iter().map(|text| ("GET", text.as_str())).collect();
        let router = router(&with_methods);
        let models: Vec<_> = rules.iter().map(|text| Model::new(text)).collect();
        for _ in 0..40 {
            let path = format!("/{}", random.join(TEXTS, "/", 4));
            let matching = |statics| {
                let mut all = rules.iter().zip(&models).enumerate();
                all.find_map(|(number, (rule, model))| {
                    let values = model.values(&path)?;
                    (rule.contains('<') != statics).then_some((number, values))
                })
            };
            let expected = matching(true).or_else(|| matching(false));
            let found = match router.find(&Method::GET, &path, |_, _| true) {
                Found::Match { value, captures } => Some((*value, captures)),
                Found::Nothing => None,
                _ => panic!("{rules:?} {path}"),
            };
            let got = found.as_ref().map(|(number, captures)| {
                let values = (0..).map_while(|index| captures.get(index));
                (*number, values.collect::<Vec<_>>())
            });
            assert_eq!(got, expected, "{rules:?} {path}");
            matches += usize::from(got.is_some());
            spans +=
                usize::from(got.is_some_and(|(_, values)| values.iter().any(|v| v.contains('/'))));
        }
    }
    assert!(matches > 1000 && spans > 200, "{matches} matches, {spans} of them over segments");
}

#[test]
fn an_address_that_is_built_leads_back() {
    let mut random = Random(2_463_534_242);
    let alphabet = [
        "a", "b", "/", "%", "%2F", ".", "-", " ", "é", "1", "2", "?", "#", "+", "\\", "<",
        "\u{FFFF}",
    ];
    let mut built = 0;
    let texts: Vec<_> = (0..30).flat_map(|_| rules(&mut random, 10)).collect();
    for text in texts {
        let rule = rule(&text);
        let router = router(&[("GET", &text)]);
        for _ in 0..50 {
            let values: Vec<_> =
                rule.wildcards().map(|name| (name, random.join(&alphabet, "", 4))).collect();
            let arguments: Vec<_> =
                values.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let Ok(path) = rule.build(&arguments) else { continue };
            assert!(!path.starts_with("//") && path.is_ascii(), "{path}");
            assert!(!path.contains(['?', '#', ' ', '\\']), "{path}");
            let Found::Match { captures, .. } = router.find(&Method::GET, &path, |_, _| true)
            else {
                panic!("{text} {values:?} {path}");
            };
            for (index, (_, value)) in values.iter().enumerate() {
                assert_eq!(captures.get(index), Some(value.as_str()), "{text} {path}");
            }
            built += 1;
        }
    }
    assert!(built > 3000, "only {built} could be built");
}
