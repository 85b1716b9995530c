//! How long finding a route takes: among ten and among a thousand, and next to `matchit`.
//!
//! `cargo bench --bench router`. Each figure is the median of many rounds; the contestants of a comparison
//! take turns, so that a busy machine slows them alike.

mod github;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bottle_session::__private::{Filters, Found, Router, Rule};
use bottle_session::http::Method;

const ROUNDS: usize = 501;
/// How long one round should take, at least; short, so that most rounds are over before the scheduler gives
/// the processor to somebody else.
const ROUND: Duration = Duration::from_micros(200);

type Request = (Method, String);

fn main() {
    ten_and_a_thousand();
    next_to_matchit();
}

fn ten_and_a_thousand() {
    println!("time to find one route                        10 routes  1,000 routes  ratio");
    let shapes = [
        ("static               /area#/list", "/area#/list"),
        ("a wildcard           /area#/<id:int>", "/area#/7"),
        ("two wildcards        /area#/<a>/and/<b>", "/area#/one/and/two"),
        ("a wildcard first     /<name>/page#", "/Ada/page#"),
        ("a path               /files#/<path:path>", "/files#/a/b/c.txt"),
        ("a regex              /area#/<word:re:[a-z]+>", "/area#/word"),
        ("two in a segment     /<id:int>-<slug>/page#", "/12-a-title/page#"),
        ("a text before one    /user#-<id:int>", "/user#-7"),
        ("a path first         /<p:path>/page#", "/a/b/c/page#"),
        ("a regex first        /<word:re:[a-z]+>/page#", "/word/page#"),
    ];
    for (label, path) in shapes {
        let rule = label.split_whitespace().last().expect("a rule");
        let rows = [10, 1000].map(|count| {
            let numbered = |text: &str, n: usize| text.replace('#', &n.to_string());
            let rules = (0..count).map(|n| (Method::GET, numbered(rule, n)));
            // Ten requests to each, to routes all over the table.
            let asked = (0..10).map(|n| (Method::GET, numbered(path, n * (count - 1) / 9)));
            (router(rules), asked.collect::<Vec<_>>())
        });
        let [ten, thousand] = times(
            rows.each_ref().map(|(router, requests)| move || find_all(router, requests)),
            rows[0].1.len(),
        );
        println!("{label:<44} {ten:>7.0} ns    {thousand:>7.0} ns  {:>5.2}", thousand / ten);
    }
    let rows = [10, 1000].map(|count| {
        let rules = (0..count).map(|n| (Method::GET, format!("/area{n}/<id:int>")));
        (router(rules), [(Method::GET, "/elsewhere/7".to_owned())])
    });
    let [ten, thousand] =
        times(rows.each_ref().map(|(router, missing)| move || miss(router, &missing[0])), 1);
    println!(
        "{:<44} {ten:>7.0} ns    {thousand:>7.0} ns  {:>5.2}",
        "no route at all",
        thousand / ten
    );
}

fn next_to_matchit() {
    let parsed = |method: &str| Method::from_bytes(method.as_bytes()).expect("a method");
    let routes = || github::ROUTES.iter().map(|(method, rule)| (parsed(method), *rule));
    let requests: Vec<Request> = routes().map(|(method, rule)| (method, filled(rule))).collect();

    let ours = router(routes().map(|(method, rule)| (method, rule.to_owned())));
    let mut theirs: HashMap<Method, matchit::Router<usize>> = HashMap::new();
    for (number, (method, rule)) in routes().enumerate() {
        let rule = rule.replace('<', "{").replace('>', "}");
        theirs.entry(method).or_default().insert(rule, number).expect("no conflict");
    }
    let theirs_all = || {
        for (number, (method, path)) in requests.iter().enumerate() {
            let found = theirs[method].at(black_box(path)).expect("a match");
            assert_eq!(*found.value, number, "{path}");
            black_box(found.params);
        }
    };
    let ours_all = || find_all(&ours, &requests);
    let contestants: [&dyn Fn(); 2] = [&ours_all, &theirs_all];
    let [ours, theirs] = times(contestants, requests.len());
    println!();
    println!("the {} routes of the GitHub API, per request", requests.len());
    println!("bottle-session {ours:>6.0} ns");
    println!("matchit        {theirs:>6.0} ns");
    println!("ratio          {:>6.2}", ours / theirs);
}

/// Routes that lead to their own number.
fn router(rules: impl Iterator<Item = (Method, String)>) -> Router<usize> {
    let (mut router, filters) = (Router::new(), Filters::default());
    for (number, (method, rule)) in rules.enumerate() {
        let rule = Rule::parse(&rule, &filters).expect("a rule");
        router.insert(Some(method), rule, number).expect("no conflict");
    }
    router
}

fn find_all(router: &Router<usize>, requests: &[Request]) {
    for (method, path) in requests {
        let Found::Match { value, captures } = router.find(method, black_box(path), |_, _| true)
        else {
            panic!("no route for {path}");
        };
        black_box((value, captures));
    }
}

fn miss(router: &Router<usize>, (method, path): &Request) {
    let found = router.find(method, black_box(path), |_, _| true);
    assert!(matches!(black_box(found), Found::Nothing));
}

/// The rule with a value for each wildcard.
fn filled(rule: &str) -> String {
    let mut path = String::new();
    for part in rule.split('<') {
        match part.split_once('>') {
            Some((name, rest)) => path.extend(["some-", name, rest]),
            None => path.push_str(part),
        }
    }
    path
}

/// The median time of each contestant for one of `each` requests, in nanoseconds.
fn times<const N: usize>(contestants: [impl Fn(); N], each: usize) -> [f64; N] {
    let repetitions = contestants.each_ref().map(|run| {
        let mut repetitions = 1_u32;
        while timed(run, repetitions) < ROUND {
            repetitions *= 2;
        }
        repetitions
    });
    let mut rounds = [(); N].map(|()| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for (number, run) in contestants.iter().enumerate() {
            let time = timed(run, repetitions[number]).as_nanos() as f64;
            rounds[number].push(time / f64::from(repetitions[number]) / each as f64);
        }
    }
    rounds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn timed(run: &impl Fn(), repetitions: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..repetitions {
        run();
    }
    start.elapsed()
}
