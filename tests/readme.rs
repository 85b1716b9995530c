//! README and guide name all there is to choose. Their programs are doc tests; see src/lib.rs and src/guide.

use std::collections::BTreeSet;
use std::fs;

fn read(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn assert_named<'a>(page: &str, what: &str, names: impl Iterator<Item = &'a str>) {
    let text = read(page);
    let names: BTreeSet<_> = names.collect();
    assert!(!names.is_empty(), "there are {what}s");
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| {
            !["`", "(", "/", "::<"].iter().any(|end| text.contains(&format!("`{name}{end}")))
                && !text.contains(&format!("/{name}.rs"))
        })
        .collect();
    assert!(missing.is_empty(), "{page} does not name each {what}: {missing:?}");
}

#[test]
fn each_option_of_the_session_plugin_is_in_the_table() {
    let source = read("src/session/options.rs");
    let options = source
        .split("#[must_use]\n")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix("pub fn ")?.split('(').next());
    assert_named("src/guide/sessions.md", "option", options);
}

#[test]
fn each_method_of_the_session_is_named() {
    let sources = ["view", "login", "devices", "atomic", "flash", "forms", "csrf/token"]
        .map(|module| read(&format!("src/session/{module}.rs")))
        .concat();
    let methods = sources
        .split("    pub fn ")
        .skip(1)
        .filter(|rest| {
            rest.split(')')
                .next()
                .is_some_and(|head| head.contains("&self") || head.contains("&mut self"))
        })
        .filter_map(|rest| rest.split(['(', '<']).next());
    assert_named("src/guide/sessions.md", "method", methods);
}

#[test]
fn each_feature_is_named() {
    let manifest = read("Cargo.toml");
    let features = manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next());
    let features = features.unwrap_or_default().lines().filter_map(|line| line.split_once(" = "));
    assert_named(
        "README.md",
        "feature",
        features.map(|line| line.0).filter(|name| *name != "default"),
    );
}

#[test]
fn each_example_is_named() {
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    let names: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    // The greeter is run, and so named, in the README's second section.
    assert!(read("README.md").contains("--example greeter"));
    let others = names.iter().map(String::as_str).filter(|name| *name != "greeter");
    assert_named("README.md", "example", others);
}
