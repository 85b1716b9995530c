//! Every public item is in a program of the documentation: in an example of its own, or in one of the guide.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::package::read;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What no program names, because nobody writes it: bounds of methods whose arguments are closures or texts, and what only
/// the replies of methods are.
const UNSPOKEN: [&str; 25] = [
    "BreakerObserver",
    "CommandArguments",
    "Condition",
    "DamageObserver",
    "DataOptions",
    "FormData",
    "GroupOutcome",
    "Handler",
    "Hook",
    "HookOutcome",
    "Installation",
    "IntoHttpError",
    "IntoMethods",
    "IntoRules",
    "MountOptions",
    "ProviderFn",
    "ProviderOptions",
    "RedisReply",
    "Remote",
    "Replies",
    "RouteOptions",
    "Signature",
    "UploadReader",
    "RequestIdGuard",
    "ProviderOutcome",
];

/// What the author of a store like [`RedisStore`](bottle_session::RedisStore) meets, which is an example of it.
const OF_STORES: [&str; 4] = ["LogIn", "OldId", "PipelinedStore", "StoreOperation"];

/// What somebody meets first: each has an example on its own page.
const OWN_EXAMPLE: [&str; 24] = [
    "App",
    "Counters",
    "CsrfPlugin",
    "Events",
    "Flash",
    "Form",
    "FormError",
    "Html",
    "HttpError",
    "IntoResponse",
    "Json",
    "MemoryStore",
    "Entry",
    "Provided",
    "Query",
    "RedisPlugin",
    "RedisPool",
    "ResponseHead",
    "Server",
    "Service",
    "Session",
    "SessionPlugin",
    "TestClient",
    "Upload",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// The names that the crate exports at its root.
fn exported() -> BTreeSet<String> {
    let library = read("src/lib.rs");
    // What `named!` and the tests need is not for others.
    let library = library.split("#[doc(hidden)]").next().unwrap();
    let export = Regex::new(r"pub use ([^;]+);").unwrap();
    let mut names = BTreeSet::new();
    for found in export.captures_iter(library) {
        let last = found[1].rsplit_once('{').map_or_else(
            || found[1].rsplit("::").next().unwrap_or_default().to_owned(),
            |(_, list)| list.trim_end_matches('}').to_owned(),
        );
        for name in last.split(',') {
            let name = name.split(" as ").last().unwrap_or_default().trim();
            // Types and functions; modules and other crates are lower case without a call.
            if name.chars().next().is_some_and(char::is_uppercase) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// The programs in a text of Markdown that doc tests compile.
fn programs(markdown: &str) -> String {
    let (mut inside, mut kept, mut programs) = (false, false, String::new());
    for line in markdown.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => {
                (inside, kept) = (true, ["", "rust", "no_run", "rust,no_run"].contains(&language));
            }
            Some(_) => inside = false,
            None if inside && kept => programs.extend([line, "\n"]),
            None => {}
        }
    }
    programs
}

/// The documentation in a source file, as Markdown.
fn documentation(source: &str) -> String {
    let lines = source.lines().filter_map(|line| {
        let line = line.trim_start();
        line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
    });
    lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

#[test]
fn every_public_item_is_in_a_program_of_the_documentation() {
    let mut all = Vec::new();
    files(&Path::new(ROOT).join("src"), &mut all);
    let mut text = programs(&read("README.md"));
    for path in all {
        let source = std::fs::read_to_string(&path).unwrap();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => text += &programs(&source),
            Some("rs") => text += &programs(&documentation(&source)),
            _ => {}
        }
    }
    let words = Regex::new(r"\w+").unwrap();
    let words: BTreeSet<_> = words.find_iter(&text).map(|word| word.as_str()).collect();
    let exported = exported();
    assert!(exported.len() > 100, "{exported:?}");
    let missing: Vec<_> = exported
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .filter(|name| !UNSPOKEN.iter().chain(&OF_STORES).any(|other| other == name))
        .collect();
    assert!(missing.is_empty(), "in no program: {missing:?}");
    let gone: Vec<_> = UNSPOKEN.iter().filter(|name| !exported.contains(**name)).collect();
    assert!(gone.is_empty(), "nobody exports {gone:?}");
}

#[test]
fn what_one_meets_first_has_an_example_of_its_own() {
    let mut all = Vec::new();
    files(&Path::new(ROOT).join("src"), &mut all);
    let mut without: BTreeSet<_> = OWN_EXAMPLE.into();
    let item = Regex::new(r"^pub (?:struct|enum|trait|type) (\w+)").unwrap();
    let method = Regex::new(r"^impl(?:<[^>]*>)? (\w+)").unwrap();
    for path in all.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let source = std::fs::read_to_string(path).unwrap();
        // The documentation in front of an item, or of its methods, and whether it has a program.
        let (mut shown, mut of): (bool, Option<String>) = (false, None);
        for line in source.lines() {
            if line.trim_start().starts_with("///") {
                shown |= line.trim_start() == "/// ```";
                if let (true, Some(name)) = (shown, &of) {
                    without.remove(name.as_str());
                }
                continue;
            }
            let named = item.captures(line).map(|found| found[1].to_owned());
            if let (Some(name), true) = (&named, shown) {
                without.remove(name.as_str());
            }
            if let Some(found) = named.or_else(|| Some(method.captures(line)?[1].to_owned())) {
                (of, shown) = (Some(found), false);
            } else if line.starts_with('}') || line.is_empty() && of.is_none() {
                (of, shown) = (None, false);
            }
        }
    }
    assert!(without.is_empty(), "without an example: {without:?}");
}
